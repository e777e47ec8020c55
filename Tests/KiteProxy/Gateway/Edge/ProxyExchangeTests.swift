import KiteDialing
import KiteHTTP
import NIOCore
import NIOPosix
import Testing

@testable import KiteGateway

/// A visitor's request that brings its body whether it is wanted or not, as one over another protocol than HTTP/1.1 may.
private final class EagerExchange: Exchange {
    let eventLoop: any EventLoop
    let request: RequestHead
    let peer = ExchangePeer()
    var handler: (any ExchangeHandler)?
    let isWritable = true
    private(set) var isEnded = false
    private(set) var status: UInt16 = 0

    init(_ request: RequestHead, on eventLoop: any EventLoop) {
        self.request = request
        self.eventLoop = eventLoop
    }
    func sendInformational(_ head: ResponseHead) {}
    func respond(_ head: ResponseHead) { status = head.status }
    func write(_ bytes: ByteBuffer) {}
    func finish(trailers: HeaderBlock?) { end(nil) }
    func upgrade(_ head: ResponseHead) -> (any ByteTransport)? { nil }
    func abort(_ reason: TransportError) { end(reason) }
    func setReading(_ wanted: Bool) {}
    private func end(_ error: TransportError?) {
        isEnded = true
        handler?.exchangeEnded(self, error: error)
    }
}

/// Receives until it has seen something, and never answers.
private final class Receiver: ByteTransportDelegate {
    private let transport: any ByteTransport
    private let until: String
    private let done: EventLoopPromise<String>
    private var received = ""

    init(_ transport: any ByteTransport, until: String, done: EventLoopPromise<String>) {
        self.transport = transport
        self.until = until
        self.done = done
    }
    func transportReceived(_ bytes: ByteBuffer) {
        received += String(buffer: bytes)
        guard received.contains(until) else { return }
        done.succeed(received)
        transport.close()
    }
    func transportInputClosed() {}
    func transportClosed(_ error: TransportError?) { done.succeed(received) }
    func transportWritabilityChanged(_ isWritable: Bool) {}
}

@Suite("A request on its way", .timeLimit(.minutes(1)))
struct ProxyExchangeTests {
    @Test("Body and trailers that arrive before there is an upstream are kept for it")
    func earlyTrailers() async throws {
        let done = testGroup.next().makePromise(of: String.self)
        let target = try await Listener.bind(
            to: SocketAddress(ipAddress: "127.0.0.1", port: 0), loops: [done.futureResult.eventLoop]
        ) { $0.delegate = Receiver($0, until: "X-Sum: 7\r\n\r\n", done: done) }
        let endpoint = Endpoint(.tcp(host: "127.0.0.1", port: target.address.port ?? 0))
        let options = GatewayOptions()
        let board = RouteBoard(options: options, claims: MemoryClaimStore(), logger: testLogger)
        let worker = try await makeWorker(options: options, board: board)
        worker.run { worker in
            let key = RouteKey("shop")
            worker.install(RouteSpec(key: key, kind: .tunnel, owner: "a", path: ""))
            let exchange = EagerExchange(
                RequestHead(
                    method: .post, target: "/proxy/shop/a", authority: "x",
                    fields: HeaderBlock(["Transfer-Encoding": "chunked"]), bodyLength: .unknown), on: worker.eventLoop)
            worker.takeExchange().begin(
                exchange, origin: ForwardedOrigin(peer: exchange.peer, gateway: "t"), key: key, droppedPathBytes: 11,
                byHost: false)
            exchange.handler?.exchangeReceived(exchange, body: ByteBuffer(string: "hello"))
            exchange.handler?.exchangeRequestEnded(exchange, trailers: HeaderBlock(["X-Sum": "7"]))
            worker.install(
                RouteSpec(key: key, kind: .direct, owner: "a", path: ""),
                target: DirectTarget(endpoint: endpoint, path: ""))
        }
        let received = try await done.futureResult.get()
        #expect(received.hasPrefix("POST /a HTTP/1.1\r\n"))
        #expect(received.hasSuffix("\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n"))
        await target.close()
        // The request ends when the target's connection has; its worker must be there until then.
        try await eventually { await worker.ask { $0.metrics.activeRequests } == 0 }
    }
}
