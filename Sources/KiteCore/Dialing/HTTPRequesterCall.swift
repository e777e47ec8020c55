/// One request of an ``HTTPRequester`` on its way: finds or opens a connection, sends, reports what comes back.
import KiteHTTP
import NIOCore

/// Bound to its loop. Its last event is `.end` or `.failed`, and there is one.
final class HTTPRequesterCall: HTTPClientHandler {
    /// What comes back.
    enum Event {
        case head(ResponseHead)
        case body(ByteBuffer)
        case end
        case failed(any Error)

        /// Whether none follows.
        var isLast: Bool {
            switch self {
            case .head, .body: false
            case .end, .failed: true
            }
        }
    }

    private let head: RequestHead
    private let body: ByteBuffer?
    private let endpoint: Endpoint
    private let limit: Int?
    private let dialer: Dialer
    private let shared: HTTPRequesterConnections
    private let pool: ConnectionPool
    private var receive: ((Event) -> Void)?
    private var connection: HTTPClientConnection?
    private var deadline: Scheduled<Void>?
    private var isTimeoutForAll = true
    private var receivedBytes = 0

    /// - Parameter limit: of the response's body, in bytes; nil: none, for whoever takes it piece by piece.
    init(
        _ head: RequestHead, body: ByteBuffer?, endpoint: Endpoint, limit: Int?, dialer: Dialer,
        shared: HTTPRequesterConnections
    ) {
        var head = head
        head.bodyLength = body.map { .known(Int64($0.readableBytes)) } ?? .none
        self.head = head
        self.body = body
        self.endpoint = endpoint
        self.limit = limit
        self.dialer = dialer
        self.shared = shared
        pool = shared.pool(for: endpoint)
    }

    /// - Parameter isTimeoutForAll: whether `timeout` is for the whole response; otherwise for its head.
    func start(timeout: TimeAmount, isTimeoutForAll: Bool, receive: @escaping (Event) -> Void) {
        self.receive = receive
        self.isTimeoutForAll = isTimeoutForAll
        deadline = shared.loop.assumeIsolated().scheduleTask(in: timeout) {
            self.fail(TransportError(.idleTimeout, "\(self.endpoint) did not answer the request in time"))
        }
        if let idle = pool.takeIdle() { send(on: idle) } else { connect() }
    }

    /// Back pressure on the response's body.
    func setReading(_ wanted: Bool) { connection?.setReading(wanted) }

    /// Gives up the request and its connection.
    func fail(_ error: any Error) {
        let connection = connection
        end(.failed(error))
        connection?.abort(TransportError(.cancelled, "the request was given up"))
    }

    private func connect() {
        guard pool.hasRoom else {
            return fail(TransportError(.limitExceeded, "too many connections to \(endpoint) are open"))
        }
        dialer.dial(endpoint, on: shared.loop) { result in
            switch result {
            case .failure(let error): self.fail(error)
            case .success(let transport):
                guard self.receive != nil else {
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

    private func end(_ event: Event) {
        guard let receive else { return }
        self.receive = nil
        connection = nil
        deadline?.cancel()
        deadline = nil
        shared.release(pool, of: endpoint)
        receive(event)
    }

    // MARK: The response

    func clientInformational(_ head: ResponseHead) {}

    func clientResponded(_ head: ResponseHead) {
        if let limit, case .known(let length) = head.bodyLength, length > limit { return failTooLarge(limit) }
        if !isTimeoutForAll {
            deadline?.cancel()
            deadline = nil
        }
        receive?(.head(head))
    }

    func clientReceived(_ body: ByteBuffer) {
        if let limit {
            guard body.readableBytes <= limit - receivedBytes else { return failTooLarge(limit) }
            receivedBytes += body.readableBytes
        }
        receive?(.body(body))
    }

    func clientEnded(trailers: HeaderBlock?) { end(.end) }

    func clientUpgraded(_ head: ResponseHead, transport: any ByteTransport) {
        // Never asked for, so never answered with.
        transport.abort(TransportError(.protocolViolation, "an upgrade was not asked for"))
        end(.failed(TransportError(.protocolViolation, "\(endpoint) switched protocols without being asked")))
    }

    func clientFailed(_ failure: HTTPClientFailure) {
        connection = nil
        // A kept connection that turns out closed says nothing about the server, so a new one is tried.
        if receive != nil, failure.isRetryable(method: head.method, bodyConsumed: false) { return connect() }
        end(.failed(failure.cause))
    }

    func clientWritabilityChanged(_ isWritable: Bool) {}

    private func failTooLarge(_ limit: Int) {
        fail(TransportError(.limitExceeded, "\(endpoint) sent a response of more than \(limit) bytes"))
    }
}
