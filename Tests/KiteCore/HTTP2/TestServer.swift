/// An HTTP/2 server without TLS on a free port, whose answers depend on the path.
import KiteHTTP
import KiteSupport
import KiteWebSocket
import NIOCore
import NIOPosix
import Synchronization

@testable import KiteHTTP2

final class TestServer: Sendable {
    /// What happened, in words.
    let log = Mutex<[String]>([])
    let faults = Mutex<[HTTP2Fault]>([])
    private let loop = MultiThreadedEventLoopGroup.singleton.next()
    private let listener = Mutex<Listener?>(nil)
    private let connections: NIOLoopBoundBox<[HTTP2ServerConnection]>
    /// Exchanges that wait for a word from the test.
    private let waiting: NIOLoopBoundBox<[WaitingHandler]>

    var port: Int { listener.withLock { $0?.address.port } ?? 0 }

    init(limits: HTTPLimits = HTTPLimits(), http2: HTTP2Limits = HTTP2Limits()) async throws {
        connections = .makeBoxSendingValue([], eventLoop: loop)
        waiting = .makeBoxSendingValue([], eventLoop: loop)
        let bound = try await Listener.bind(to: SocketAddress(ipAddress: "127.0.0.1", port: 0), loops: [loop]) {
            [self] transport in
            let connection = try? HTTP2ServerConnection.install(
                on: transport, acceptor: PathAcceptor(self), limits: limits, http2: http2,
                peer: ExchangePeer(address: transport.remoteAddress, isSecure: true, version: .http2),
                resources: HTTPLoopResources(eventLoop: loop),
                onFault: { fault, _ in self.faults.withLock { $0.append(fault) } },
                onClosed: { connection in
                    self.note("closed")
                    self.connections.value.removeAll { $0 === connection }
                })
            if let connection { connections.value.append(connection) }
        }
        listener.withLock { $0 = bound }
    }

    func note(_ event: String) { log.withLock { $0.append(event) } }

    /// Waits until something was noted.
    func noted(_ event: String) async throws {
        while !log.withLock({ $0.contains(event) }) { try await Task.sleep(for: .milliseconds(5)) }
    }

    /// Returns when what the server's loop is doing now is done.
    func turnEnded() async throws { try await loop.submit {}.get() }

    func drain() async throws {
        try await loop.submit { for connection in self.connections.value { connection.drain() } }.get()
    }

    fileprivate func wait(_ handler: WaitingHandler) { waiting.value.append(handler) }

    /// Does something with the exchanges that wait.
    func withWaiting(_ body: @escaping @Sendable (any Exchange) -> Void) async throws {
        try await loop.submit { for handler in self.waiting.value { body(handler.exchange) } }.get()
    }

    func stop() async { await listener.withLock { $0 }?.close() }
}

private final class PathAcceptor: ExchangeAcceptor {
    private let server: TestServer
    init(_ server: TestServer) { self.server = server }

    func accept(_ exchange: any Exchange) {
        let path = exchange.request.path
        switch path {
        case "/hello": exchange.respond(ResponseHead(status: 200), body: ByteBuffer(string: "hello"))
        case "/fields":
            let fields = exchange.request.fields
            let lines = (0..<fields.count).map {
                String(decoding: fields.name(at: $0), as: UTF8.self) + "="
                    + String(decoding: fields.value(at: $0), as: UTF8.self)
            }
            exchange.respond(ResponseHead(status: 200), body: ByteBuffer(string: lines.joined(separator: "|")))
        case "/early":
            exchange.respond(ResponseHead(status: 401), body: ByteBuffer(string: "no"))
        case "/hints":
            exchange.sendInformational(ResponseHead(status: 103, fields: HeaderBlock(["Link": "</a>"])))
            exchange.respond(ResponseHead(status: 200), body: ByteBuffer(string: "hello"))
        case "/broken":
            exchange.respond(ResponseHead(status: 200, bodyLength: .known(10)))
            exchange.write(ByteBuffer(string: "half"))
            exchange.abort(TransportError(.reset, "The upstream broke."))
        case "/trailers":
            exchange.respond(ResponseHead(status: 200, bodyLength: .unknown))
            exchange.write(ByteBuffer(string: "body"))
            exchange.finish(trailers: HeaderBlock(["X-Sum": "7"]))
        case "/nobody": break
        case "/wait", "/stall":
            let handler = WaitingHandler(exchange, server)
            exchange.handler = handler
            if path == "/stall" { exchange.setReading(false) }
            server.wait(handler)
        case "/ws":
            var head = ResponseHead(
                status: 101, fields: HeaderBlock(["Upgrade": "websocket", "Connection": "Upgrade"]))
            let key = exchange.request.fields.text(.secWebSocketKey) ?? ""
            head.fields.append("Sec-WebSocket-Accept", WebSocketHandshake.acceptValue(for: key.utf8))
            exchange.handler = WaitingHandler(exchange, server)
            if let transport = exchange.upgrade(head) { transport.delegate = EchoTransport(transport, server) }
        case "/ws-wrong":
            exchange.handler = WaitingHandler(exchange, server)
            let fields = HeaderBlock(["Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": "x"])
            if exchange.upgrade(ResponseHead(status: 101, fields: fields)) != nil { server.note("upgraded") }
        default:
            if path.hasPrefix("/size/") {
                exchange.handler = SizeHandler(exchange, Int(path.dropFirst(6)) ?? 0, server)
            } else {
                exchange.handler = EchoHandler()
            }
        }
    }
}

private final class EchoHandler: ExchangeHandler {
    func exchangeReceived(_ exchange: any Exchange, body: ByteBuffer) {
        begin(exchange)
        exchange.write(body)
        if !exchange.isWritable { exchange.setReading(false) }
    }
    func exchangeRequestEnded(_ exchange: any Exchange, trailers: HeaderBlock?) {
        begin(exchange)
        exchange.finish(trailers: trailers)
    }
    private var hasBegun = false
    private func begin(_ exchange: any Exchange) {
        if !hasBegun { exchange.respond(ResponseHead(status: 200, bodyLength: .unknown)) }
        hasBegun = true
    }
    func exchangeWritabilityChanged(_ exchange: any Exchange, isWritable: Bool) { exchange.setReading(isWritable) }
    func exchangeEnded(_ exchange: any Exchange, error: TransportError?) {}
}

/// Writes a body as long as there is room.
private final class SizeHandler: ExchangeHandler {
    private var left: Int
    private var written = 0
    private let server: TestServer
    init(_ exchange: any Exchange, _ size: Int, _ server: TestServer) {
        left = size
        self.server = server
        exchange.respond(ResponseHead(status: 200, bodyLength: .known(Int64(size))))
    }
    func exchangeReceived(_ exchange: any Exchange, body: ByteBuffer) {}
    func exchangeRequestEnded(_ exchange: any Exchange, trailers: HeaderBlock?) { more(exchange) }
    func exchangeWritabilityChanged(_ exchange: any Exchange, isWritable: Bool) { if isWritable { more(exchange) } }
    private func more(_ exchange: any Exchange) {
        while left > 0, exchange.isWritable {
            let count = min(left, 10_000)
            left -= count
            written += count
            exchange.write(ByteBuffer(repeating: UInt8(ascii: "x"), count: count))
        }
        if left == 0 { exchange.finish(trailers: nil) } else { server.note("paused at \(written)") }
    }
    func exchangeEnded(_ exchange: any Exchange, error: TransportError?) {
        server.note(error == nil ? "sent" : "broken")
    }
}

/// Answers nothing by itself.
private final class WaitingHandler: ExchangeHandler {
    let exchange: any Exchange
    private let server: TestServer
    private var count = 0
    init(_ exchange: any Exchange, _ server: TestServer) {
        self.exchange = exchange
        self.server = server
    }
    func exchangeReceived(_ exchange: any Exchange, body: ByteBuffer) {
        count += body.readableBytes
        server.note("received \(count)")
    }
    func exchangeRequestEnded(_ exchange: any Exchange, trailers: HeaderBlock?) { server.note("request ended") }
    func exchangeWritabilityChanged(_ exchange: any Exchange, isWritable: Bool) {}
    func exchangeEnded(_ exchange: any Exchange, error: TransportError?) {
        server.note("ended \(error.map { "\($0.code)" } ?? "well")")
    }
}

private final class EchoTransport: ByteTransportDelegate {
    private let transport: any ByteTransport
    private let server: TestServer
    init(_ transport: any ByteTransport, _ server: TestServer) {
        self.transport = transport
        self.server = server
    }
    func transportReceived(_ bytes: ByteBuffer) {
        if String(buffer: bytes) == "abort" { return transport.abort(TransportError(.reset, "as asked for")) }
        if String(buffer: bytes) == "close" { return transport.close() }
        transport.write(bytes)
        if !transport.isWritable { transport.setReading(false) }
    }
    func transportInputClosed() {
        server.note("input closed")
        transport.closeOutput()
    }
    func transportClosed(_ error: TransportError?) {
        server.note("transport closed \(error.map { "\($0.code)" } ?? "well")")
    }
    func transportWritabilityChanged(_ isWritable: Bool) { transport.setReading(isWritable) }
}
