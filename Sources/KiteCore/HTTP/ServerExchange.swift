/// The exchange of an HTTP/1.1 connection.
import NIOCore

/// One request on a ``HTTPServerConnection``. Once it has ended it does nothing any more, so that whoever still holds it cannot
/// disturb the next request.
final class ServerExchange: Exchange {
    let eventLoop: any EventLoop
    let peer: ExchangePeer
    private(set) var request: RequestHead
    var handler: (any ExchangeHandler)?
    /// Nil once the exchange has ended.
    private var connection: HTTPServerConnection?

    init(_ request: RequestHead, _ peer: ExchangePeer, _ connection: HTTPServerConnection) {
        eventLoop = connection.transport.eventLoop
        self.peer = peer
        self.request = request
        self.connection = connection
    }

    // MARK: For the connection

    /// Starts a new life; only when nobody else holds the object.
    func begin(_ request: consuming RequestHead, _ connection: HTTPServerConnection) {
        self.request = request
        self.connection = connection
    }

    /// Tells the handler.
    func end(_ error: TransportError?) {
        connection = nil
        let last = handler
        handler = nil
        last?.exchangeEnded(self, error: error)
        handler = nil
    }

    /// Ends without telling the handler, after an upgrade.
    func leave() {
        connection = nil
        handler = nil
    }

    /// Lets go of the head, and with it of the receive buffer it lies in.
    func forget() { request = .empty }

    // MARK: Exchange

    // Asked often, and a head takes long to copy.
    var hasRequestBody: Bool { request.bodyLength != .none }
    var isWritable: Bool { connection?.transport.isWritable ?? false }
    var isEnded: Bool { connection == nil }
    func sendInformational(_ head: ResponseHead) { connection?.sendInformational(head) }
    func respond(_ head: ResponseHead) {
        connection?.respond(head, method: request.method, minorVersion: request.minorVersion)
    }
    func write(_ bytes: ByteBuffer) { connection?.write(bytes) }
    func finish(trailers: HeaderBlock?) { connection?.finish(trailers: trailers) }
    func upgrade(_ head: ResponseHead) -> (any ByteTransport)? { connection?.upgrade(head) }
    func abort(_ reason: TransportError) { connection?.abortExchange(reason) }
    func setReading(_ wanted: Bool) { connection?.setReading(wanted) }
}
