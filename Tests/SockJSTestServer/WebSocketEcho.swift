/// A WebSocket that sends back what it gets, text and binary alike, as WebSocket conformance suites (Autobahn's, for example) want it.
import KiteHTTP
import KiteWebSocket
import NIOCore

/// Sends each message back. Compresses everything where that was agreed upon.
final class WebSocketEcho: WebSocketConnectionDelegate {
    /// Answers an exchange.
    static func serve(_ exchange: any Exchange) {
        exchange.handler = IgnoringHandler()
        let connection = WebSocketHandshake.accept(
            exchange, compression: WebSocketCompression(messageBytes: 1...1 << 20),
            wheel: LoopFlusher.on(exchange.eventLoop).wheel)
        connection?.delegate = WebSocketEcho()
    }

    func webSocket(_ connection: WebSocketConnection, receivedText message: ByteBuffer) {
        connection.sendText(message)
        connection.setReading(connection.isWritable)
    }
    func webSocket(_ connection: WebSocketConnection, receivedBinary message: ByteBuffer) {
        connection.sendBinary(message)
        connection.setReading(connection.isWritable)
    }
    func webSocket(_ connection: WebSocketConnection, writabilityChanged isWritable: Bool) {
        connection.setReading(isWritable)
    }
    func webSocket(_ connection: WebSocketConnection, closed closure: WebSocketClosure) {}
}

/// For exchanges that are answered at once.
final class IgnoringHandler: ExchangeHandler {
    func exchangeReceived(_ exchange: any Exchange, body: ByteBuffer) {}
    func exchangeRequestEnded(_ exchange: any Exchange, trailers: HeaderBlock?) {}
    func exchangeWritabilityChanged(_ exchange: any Exchange, isWritable: Bool) {}
    func exchangeEnded(_ exchange: any Exchange, error: TransportError?) {}
}
