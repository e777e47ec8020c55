/// One HTTP request of a SockJS client, on a connection that is there or on a new one.
import KiteHTTP
import NIOCore

/// Event-loop bound.
final class SockJSRequest: HTTPClientHandler {
    /// Parts of the body of a 200 response.
    var onBody: ((ByteBuffer) -> Void)?
    /// Called once: the status, and the connection where it can be used again.
    var onEnd: ((Result<(status: UInt16, connection: HTTPClientConnection?), TransportError>) -> Void)?

    private let context: SockJSClientContext
    private let head: RequestHead
    private let body: ByteBuffer?
    private var connection: HTTPClientConnection?
    private var status: UInt16 = 0
    private var isReading = true
    private var isOver = false

    init(
        _ context: SockJSClientContext, method: RequestMethod, target: String, contentType: String?, body: ByteBuffer?
    ) {
        self.context = context
        self.body = body
        head = RequestHead(
            method: method, target: target, authority: context.url.authority,
            fields: context.requestFields(contentType: contentType),
            bodyLength: body.map { .known(Int64($0.readableBytes)) } ?? .none)
    }

    func start(on connection: HTTPClientConnection?) {
        if let connection { return send(on: connection) }
        let own = LoopReference(self, on: context.eventLoop)
        context.connector.connect(to: context.url.endpoint, on: context.eventLoop) { result in
            own.run { $0.connected(result) }
        }
    }

    /// Breaks the request off; nothing is called any more.
    func cancel() {
        isOver = true
        onBody = nil
        onEnd = nil
        connection?.abort(TransportError(.cancelled, "The session is over."))
        connection = nil
    }

    func setReading(_ wanted: Bool) {
        isReading = wanted
        connection?.setReading(wanted)
    }

    private func connected(_ result: Result<NIOLoopBound<any ByteTransport>, TransportError>) {
        switch result {
        case .failure(let error): end(.failure(error))
        case .success(let bound):
            let transport = bound.value
            guard !isOver else { return transport.close() }
            send(on: HTTPClientConnection(transport: transport, wheel: context.wheel))
        }
    }

    private func send(on connection: HTTPClientConnection) {
        self.connection = connection
        var bytes = ByteBuffer()
        MessageWriter.writeRequest(head, into: &bytes)
        connection.send(head: bytes, method: head.method, bodyLength: head.bodyLength, handler: self)
        if !isReading { connection.setReading(false) }
        if let body {
            connection.write(body)
            connection.finish(trailers: nil)
        }
    }

    private func end(_ result: Result<(status: UInt16, connection: HTTPClientConnection?), TransportError>) {
        guard !isOver else { return }
        isOver = true
        connection = nil
        let onEnd = onEnd
        self.onEnd = nil
        onBody = nil
        onEnd?(result)
    }

    func clientInformational(_ head: ResponseHead) {}
    func clientResponded(_ head: ResponseHead) { status = head.status }
    func clientReceived(_ body: ByteBuffer) { if status == 200 { onBody?(body) } }
    func clientEnded(trailers: HeaderBlock?) { end(.success((status, connection))) }
    func clientUpgraded(_ head: ResponseHead, transport: any ByteTransport) {
        transport.close()
        end(.failure(TransportError(.protocolViolation, "The server switched protocols unasked.")))
    }
    func clientFailed(_ failure: HTTPClientFailure) { end(.failure(failure.cause)) }
    func clientWritabilityChanged(_ isWritable: Bool) {}
}
