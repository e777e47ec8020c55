/// The HTTP client of the control plane: a few small requests to Kontrol and the like, with async/await.
public import KiteHTTP
import KiteSupport
public import NIOCore
import NIOPosix

/// Sends requests one by one and keeps connections for the next ones. Can be shared.
public final class HTTPRequester: Sendable {
    private let dialer: Dialer
    private let loop: any EventLoop
    /// Made by the first request. Only touched on the loop.
    private let connections: NIOLoopBoundBox<HTTPRequesterConnections?>

    /// - Parameters:
    ///   - dialer: opens the connections.
    ///   - eventLoop: where they live; it must outlast the requester. Nil: one of the process's shared group.
    public init(dialer: Dialer, eventLoop: (any EventLoop)? = nil) {
        self.dialer = dialer
        loop = eventLoop ?? MultiThreadedEventLoopGroup.singleton.next()
        connections = .makeEmptyBox(eventLoop: loop)
    }

    deinit { close() }

    /// Closes the connections that wait for a request now and the others when they are done. Requests may follow; they open new ones.
    public func close() {
        loop.execute { [connections] in
            connections.value?.close()
            connections.value = nil
        }
    }

    /// Sends a request and waits for the whole response.
    /// - Parameters:
    ///   - head: its `bodyLength` is set from `body`.
    ///   - timeout: for everything: connection, request and response.
    ///   - maxResponseBytes: of the response's body; one that is longer is an error.
    /// - Throws: ``TransportError`` (`.idleTimeout` after `timeout`, `.limitExceeded` for a response that is too long);
    ///   `CancellationError`. The request's connection is closed then.
    public func send(
        _ head: RequestHead, body: ByteBuffer? = nil, to endpoint: Endpoint, timeout: Duration = .seconds(30),
        maxResponseBytes: Int = 1 << 20
    ) async throws -> (head: ResponseHead, body: ByteBuffer) {
        try await begin(head, body, endpoint, timeout, isTimeoutForAll: true, limit: maxResponseBytes) { promise, _ in
            var response: ResponseHead?
            var received = ByteBuffer()
            return { event in
                switch event {
                case .head(let head): response = head
                case .body(let bytes): received.writeImmutableBuffer(bytes)
                case .end:
                    guard let response else {
                        return promise.fail(TransportError(.protocolViolation, "\(endpoint) sent no response"))
                    }
                    promise.succeed((response, received))
                case .failed(let error): promise.fail(error)
                }
            }
        }
    }

    /// Sends a request and waits for the head of the response only; its body, of any length, is taken from the stream that is returned.
    /// - Parameters:
    ///   - head: its `bodyLength` is set from `body`.
    ///   - timeout: until the response's head is there. The body may take as long as it likes.
    /// - Throws: ``TransportError`` (`.idleTimeout` after `timeout`); `CancellationError`. The request's connection is closed then.
    public func open(
        _ head: RequestHead, body: ByteBuffer? = nil, to endpoint: Endpoint, timeout: Duration = .seconds(30)
    ) async throws -> HTTPResponseStream {
        // The stream is made here, for the call keeps its promise, and with it what it was kept with: it must not keep the stream
        // whose letting go ends the call.
        let (responseHead, responseBody) = try await begin(
            head, body, endpoint, timeout, isTimeoutForAll: false, limit: nil
        ) { [loop] (promise: EventLoopPromise<(ResponseHead, NIOLoopBound<HTTPResponseBody>)>, call) in
            let stream = HTTPResponseBody(call)
            var hasResponded = false
            return { event in
                switch event {
                case .head(let head):
                    hasResponded = true
                    promise.succeed((head, NIOLoopBound(stream, eventLoop: loop)))
                case .body(let bytes): stream.received(bytes)
                case .end: stream.ended(nil)
                case .failed(let error):
                    stream.ended(error)
                    if !hasResponded { promise.fail(error) }
                }
            }
        }
        return HTTPResponseStream(head: responseHead, body: responseBody, loop)
    }

    /// Begins a request and waits until its promise is kept.
    /// - Parameter makeReceiver: called on the loop; what it returns completes the promise, at the last event at the latest.
    private func begin<Answer: Sendable>(
        _ head: RequestHead, _ body: ByteBuffer?, _ endpoint: Endpoint, _ timeout: Duration, isTimeoutForAll: Bool,
        limit: Int?,
        makeReceiver:
            @escaping @Sendable (EventLoopPromise<Answer>, HTTPRequesterCall) -> (HTTPRequesterCall.Event) -> Void
    ) async throws -> Answer {
        guard
            (head.target.readableBytesView + head.authority.readableBytesView).allSatisfy({ $0 > 0x20 && $0 != 0x7F }),
            head.method.name.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }), !head.method.name.isEmpty
        else {
            throw TransportError(
                .refused, "the request's method, target or authority has spaces or control characters")
        }
        let promise = loop.makePromise(of: Answer.self)
        let current = NIOLoopBoundBox<HTTPRequesterCall?>.makeEmptyBox(eventLoop: loop)
        let isCancelled = NIOLoopBoundBox<Bool>.makeBoxSendingValue(false, eventLoop: loop)
        return try await withTaskCancellationHandler {
            loop.execute { [loop, dialer, connections] in
                guard !isCancelled.value else { return promise.fail(CancellationError()) }
                let shared = connections.value ?? HTTPRequesterConnections(loop: loop)
                connections.value = shared
                let call = HTTPRequesterCall(
                    head, body: body, endpoint: endpoint, limit: limit, dialer: dialer, shared: shared)
                current.value = call
                let receive = makeReceiver(promise, call)
                call.start(timeout: TimeAmount(timeout), isTimeoutForAll: isTimeoutForAll) { event in
                    // Lets go of the call here, on the loop, and not where the waiting task happens to run.
                    if event.isLast { current.value = nil }
                    receive(event)
                }
            }
            return try await promise.futureResult.get()
        } onCancel: {
            loop.execute {
                isCancelled.value = true
                current.value?.fail(CancellationError())
            }
        }
    }
}

/// The idle connections by endpoint. Bound to its loop.
final class HTTPRequesterConnections {
    /// Endpoints remembered before those without a connection are forgotten.
    static let maximumEndpoints = 64

    let loop: any EventLoop
    private let wheel: TimerWheel
    private var pools: [Endpoint: ConnectionPool] = [:]

    init(loop: any EventLoop) {
        self.loop = loop
        wheel = TimerWheel(eventLoop: loop)
    }

    func pool(for endpoint: Endpoint) -> ConnectionPool {
        if let pool = pools[endpoint] { return pool }
        if pools.count >= Self.maximumEndpoints { pools = pools.filter { $0.value.count > 0 } }
        var limits = ConnectionPool.Limits()
        limits.idle = 4
        limits.idleTimeout = .seconds(30)
        limits.connections = 256
        let pool = ConnectionPool(wheel: wheel, limits: limits)
        pools[endpoint] = pool
        return pool
    }

    /// A request is over. A pool that was forgotten or closed meanwhile must not keep its connection.
    func release(_ pool: ConnectionPool, of endpoint: Endpoint) {
        if pools[endpoint] !== pool { pool.close() }
    }

    func close() {
        for pool in pools.values { pool.close() }
        pools = [:]
    }
}
