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
    private let connections: NIOLoopBoundBox<RequesterConnections?>

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
        guard (head.target.readableBytesView + head.authority.readableBytesView).allSatisfy({ $0 > 0x20 && $0 != 0x7F })
        else {
            throw TransportError(.refused, "the request's target or authority has spaces or control characters")
        }
        let promise = loop.makePromise(of: (head: ResponseHead, body: ByteBuffer).self)
        let call = NIOLoopBoundBox<RequesterCall?>.makeEmptyBox(eventLoop: loop)
        let isCancelled = NIOLoopBoundBox<Bool>.makeBoxSendingValue(false, eventLoop: loop)
        return try await withTaskCancellationHandler {
            loop.execute { [loop, dialer, connections] in
                guard !isCancelled.value else { return promise.fail(CancellationError()) }
                let shared = connections.value ?? RequesterConnections(loop: loop)
                connections.value = shared
                let started = RequesterCall(
                    head, body: body, endpoint: endpoint, limit: maxResponseBytes, dialer: dialer, shared: shared
                ) { promise.completeWith($0) }
                call.value = started
                started.start(timeout: TimeAmount(timeout))
            }
            return try await promise.futureResult.get()
        } onCancel: {
            loop.execute {
                isCancelled.value = true
                call.value?.fail(CancellationError())
            }
        }
    }
}

/// The idle connections by endpoint. Bound to its loop.
private final class RequesterConnections {
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

/// One request. Bound to its loop; completes once.
private final class RequesterCall: HTTPClientHandler {
    private let head: RequestHead
    private let body: ByteBuffer?
    private let endpoint: Endpoint
    private let limit: Int
    private let dialer: Dialer
    private let shared: RequesterConnections
    private let pool: ConnectionPool
    private var completion: ((Result<(head: ResponseHead, body: ByteBuffer), any Error>) -> Void)?
    private var connection: HTTPClientConnection?
    private var deadline: Scheduled<Void>?
    private var response: ResponseHead?
    private var received = ByteBuffer()

    init(
        _ head: RequestHead, body: ByteBuffer?, endpoint: Endpoint, limit: Int, dialer: Dialer,
        shared: RequesterConnections,
        completion: @escaping (Result<(head: ResponseHead, body: ByteBuffer), any Error>) -> Void
    ) {
        var head = head
        head.bodyLength = body.map { .known(Int64($0.readableBytes)) } ?? .none
        self.head = head
        self.body = body
        self.endpoint = endpoint
        self.limit = limit
        self.dialer = dialer
        self.shared = shared
        self.completion = completion
        pool = shared.pool(for: endpoint)
    }

    func start(timeout: TimeAmount) {
        deadline = shared.loop.assumeIsolated().scheduleTask(in: timeout) {
            self.fail(TransportError(.idleTimeout, "\(self.endpoint) did not answer the request in time"))
        }
        if let idle = pool.takeIdle() { send(on: idle) } else { connect() }
    }

    private func connect() {
        guard pool.hasRoom else {
            return fail(TransportError(.limitExceeded, "too many connections to \(endpoint) are open"))
        }
        dialer.dial(endpoint, on: shared.loop) { result in
            switch result {
            case .failure(let error): self.fail(error)
            case .success(let transport):
                guard self.completion != nil else {
                    return transport.abort(TransportError(.cancelled, "the request was given up"))
                }
                self.send(on: self.pool.adopt(transport))
            }
        }
    }

    private func send(on connection: HTTPClientConnection) {
        self.connection = connection
        var bytes = ByteBuffer()
        MessageWriter.writeRequest(head, into: &bytes)
        connection.send(head: bytes, method: head.method, bodyLength: head.bodyLength, handler: self)
        guard let body else { return }
        connection.write(body)
        connection.finish(trailers: nil)
    }

    /// Gives up the request and its connection.
    func fail(_ error: any Error) {
        let connection = connection
        end(.failure(error))
        connection?.abort(TransportError(.cancelled, "the request was given up"))
    }

    private func end(_ result: Result<(head: ResponseHead, body: ByteBuffer), any Error>) {
        guard let completion else { return }
        self.completion = nil
        connection = nil
        deadline?.cancel()
        deadline = nil
        shared.release(pool, of: endpoint)
        completion(result)
    }

    // MARK: The response

    func clientInformational(_ head: ResponseHead) {}

    func clientResponded(_ head: ResponseHead) {
        if case .known(let length) = head.bodyLength, length > limit { return failTooLarge() }
        response = head
    }

    func clientReceived(_ body: ByteBuffer) {
        guard body.readableBytes <= limit - received.readableBytes else { return failTooLarge() }
        received.writeImmutableBuffer(body)
    }

    func clientEnded(trailers: HeaderBlock?) {
        guard let response else {
            return end(.failure(TransportError(.protocolViolation, "\(endpoint) sent no response")))
        }
        end(.success((response, received)))
    }

    func clientUpgraded(_ head: ResponseHead, transport: any ByteTransport) {
        // Never asked for, so never answered with.
        transport.abort(TransportError(.protocolViolation, "an upgrade was not asked for"))
        end(.failure(TransportError(.protocolViolation, "\(endpoint) switched protocols without being asked")))
    }

    func clientFailed(_ failure: HTTPClientFailure) {
        connection = nil
        // A kept connection that turns out closed says nothing about the server, so a new one is tried.
        if completion != nil, failure.isRetryable(method: head.method, bodyConsumed: false) { return connect() }
        end(.failure(failure.cause))
    }

    func clientWritabilityChanged(_ isWritable: Bool) {}

    private func failTooLarge() {
        fail(TransportError(.limitExceeded, "\(endpoint) sent a response of more than \(limit) bytes"))
    }
}
