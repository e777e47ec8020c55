/// Writes the access log's line for what is answered without a `ProxyExchange`: the gateway's kite, kites that dial back, files.
import KiteHTTP
import Logging
import NIOCore

/// An exchange that looks on. Only where the access log is turned on.
final class LoggedExchange: Exchange, ExchangeHandler {
    let base: any Exchange
    private let logger: Logger
    private let began: NIODeadline
    private var status: UInt16 = 0
    private var hasEnded = false
    /// The base may forget it before the end.
    let request: RequestHead
    var handler: (any ExchangeHandler)?

    private init(_ base: any Exchange, logger: Logger) {
        self.base = base
        self.logger = logger
        request = base.request
        began = base.eventLoop.now
    }

    /// Lets an acceptor answer, and writes the line at the end.
    static func accept(_ base: any Exchange, logger: Logger, _ answer: (any Exchange) -> Void) {
        let exchange = LoggedExchange(base, logger: logger)
        base.handler = exchange
        answer(exchange)
        // As without this one in between, nobody answers then.
        if exchange.handler == nil, !base.isEnded { base.handler = nil }
    }

    var eventLoop: any EventLoop { base.eventLoop }
    var peer: ExchangePeer { base.peer }
    var isWritable: Bool { base.isWritable }
    var isEnded: Bool { base.isEnded }
    func sendInformational(_ head: ResponseHead) { base.sendInformational(head) }
    func respond(_ head: ResponseHead) {
        if status == 0 { status = head.status }
        base.respond(head)
    }
    func write(_ bytes: ByteBuffer) { base.write(bytes) }
    func finish(trailers: HeaderBlock?) { base.finish(trailers: trailers) }
    func upgrade(_ head: ResponseHead) -> (any ByteTransport)? {
        guard let transport = base.upgrade(head) else { return nil }
        status = head.status
        handler = nil
        log(nil)
        return transport
    }
    func abort(_ reason: TransportError) { base.abort(reason) }
    func setReading(_ wanted: Bool) { base.setReading(wanted) }

    // MARK: From the exchange underneath

    func exchangeReceived(_ exchange: any Exchange, body: ByteBuffer) { handler?.exchangeReceived(self, body: body) }
    func exchangeRequestEnded(_ exchange: any Exchange, trailers: HeaderBlock?) {
        handler?.exchangeRequestEnded(self, trailers: trailers)
    }
    func exchangeWritabilityChanged(_ exchange: any Exchange, isWritable: Bool) {
        handler?.exchangeWritabilityChanged(self, isWritable: isWritable)
    }
    func exchangeInputClosed(_ exchange: any Exchange) { handler?.exchangeInputClosed(self) }
    func exchangeEnded(_ exchange: any Exchange, error: TransportError?) {
        log(error)
        let last = handler
        handler = nil
        last?.exchangeEnded(self, error: error)
    }

    private func log(_ error: TransportError?) {
        guard !hasEnded else { return }
        hasEnded = true
        AccessLog.write(
            request, peer: peer, status: status, route: nil, duration: eventLoop.now - began, error: error,
            logger: logger)
    }
}
