/// A transport without a socket: tests put bytes in and read what was written.
import NIOCore
import NIOEmbedded

@testable import KiteHTTP

final class MockTransport: ByteTransport {
    let loop = EmbeddedEventLoop()
    var eventLoop: any EventLoop { loop }
    var delegate: (any ByteTransportDelegate)?
    var isWritable = true
    var remoteAddress: SocketAddress? { nil }
    private(set) var isReading = true
    private(set) var isOutputClosed = false
    private(set) var isClosed = false
    private(set) var aborted: TransportError?
    private var sent = ByteBuffer()

    /// What was written since the last call.
    func take() -> String {
        defer { sent = ByteBuffer() }
        return String(buffer: sent)
    }
    func receive(_ text: String) { delegate?.transportReceived(ByteBuffer(string: text)) }
    func setWritable(_ value: Bool) {
        isWritable = value
        delegate?.transportWritabilityChanged(value)
    }
    func write(_ bytes: ByteBuffer) {
        if !isClosed, !isOutputClosed { sent.writeImmutableBuffer(bytes) }
    }
    func closeOutput() { isOutputClosed = true }
    func close() { end(nil) }
    func abort(_ reason: TransportError) {
        aborted = reason
        end(reason)
    }
    func end(_ error: TransportError?) {
        guard !isClosed else { return }
        isClosed = true
        let last = delegate
        delegate = nil
        last?.transportClosed(error)
    }
    func setReading(_ wanted: Bool) { isReading = wanted }
}

/// Records what its exchange brings.
final class RecordingHandler: ExchangeHandler {
    var body = ""
    var trailers: HeaderBlock?
    var hasEnded = false
    var isOver = false
    var error: TransportError?
    var writability: [Bool] = []
    var inputClosings = 0
    var onEnd: (() -> Void)?

    func exchangeReceived(_ exchange: any Exchange, body: ByteBuffer) { self.body += String(buffer: body) }
    func exchangeRequestEnded(_ exchange: any Exchange, trailers: HeaderBlock?) {
        hasEnded = true
        self.trailers = trailers
        onEnd?()
    }
    func exchangeWritabilityChanged(_ exchange: any Exchange, isWritable: Bool) { writability.append(isWritable) }
    func exchangeInputClosed(_ exchange: any Exchange) { inputClosings += 1 }
    func exchangeEnded(_ exchange: any Exchange, error: TransportError?) {
        isOver = true
        self.error = error
        onEnd = nil
    }
}

/// Keeps every exchange, and calls a closure for each.
final class RecordingAcceptor: ExchangeAcceptor {
    var exchanges: [any Exchange] = []
    var handlers: [RecordingHandler] = []
    var heads: [RequestHead] = []
    var onAccept: ((any Exchange, RecordingHandler) -> Void)?

    func accept(_ exchange: any Exchange) {
        let handler = RecordingHandler()
        exchange.handler = handler
        exchanges.append(exchange)
        handlers.append(handler)
        heads.append(exchange.request)
        onAccept?(exchange, handler)
    }
}
