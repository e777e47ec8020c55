import Foundation
import KiteCore
import KiteHTTP
import KiteSupport
import NIOCore
import NIOPosix
import Testing

@testable import EmbeddedKontrol

@Suite(.timeLimit(.minutes(1)))
struct KontrolExchangeTests {
    /// Answers what Kontrol does not.
    final class Elsewhere: ExchangeAcceptor {
        func accept(_ exchange: any Exchange) {
            exchange.respond(ResponseHead(status: 404), body: ByteBuffer(string: "elsewhere\n"))
        }
    }

    /// A Kontrol behind a real socket.
    func withListener(_ body: (KontrolService, TestClock, Int) async throws -> Void) async throws {
        try await withService { service, clock, _ in
            let tasks = TaskPool()
            let loop = MultiThreadedEventLoopGroup.singleton.any()
            let listener = try await Listener.bind(to: SocketAddress(ipAddress: "127.0.0.1", port: 0), loops: [loop]) {
                transport in
                let acceptor = KontrolExchangeAcceptor(service: service, tasks: tasks, next: Elsewhere())
                HTTPServerConnection(
                    transport: transport, acceptor: acceptor, peer: ExchangePeer(),
                    resources: HTTPLoopResources(eventLoop: transport.eventLoop))
            }
            let running = Task { try await tasks.run() }
            do {
                try await body(service, clock, listener.address.port ?? 0)
            } catch {
                running.cancel()
                await listener.close()
                throw error
            }
            running.cancel()
            try await running.value
            await listener.close()
        }
    }

    /// Collects what a server sends until it closes.
    final class Collector: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private var bytes = ByteBuffer()
        private let done: EventLoopPromise<String>
        init(_ done: EventLoopPromise<String>) { self.done = done }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            var part = unwrapInboundIn(data)
            bytes.writeBuffer(&part)
        }
        func channelInactive(context: ChannelHandlerContext) { done.succeed(String(buffer: bytes)) }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }

    func send(_ request: String, to port: Int) async throws -> (status: Int, body: String) {
        let loop = MultiThreadedEventLoopGroup.singleton.any()
        let done = loop.makePromise(of: String.self)
        let channel = try await ClientBootstrap(group: loop).channelInitializer { channel in
            channel.eventLoop.makeCompletedFuture {
                try channel.pipeline.syncOperations.addHandler(Collector(done))
            }
        }.connect(host: "127.0.0.1", port: port).get()
        try await channel.writeAndFlush(ByteBuffer(string: request))
        let response = try await done.futureResult.get()
        let status = Int(response.dropFirst(9).prefix(3)) ?? 0
        let body = response.range(of: "\r\n\r\n").map { String(response[$0.upperBound...]) } ?? ""
        return (status, body)
    }

    func post(_ body: String, to port: Int) async throws -> (status: Int, body: String) {
        try await send(
            "POST /register HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)",
            to: port)
    }

    func get(_ target: String, from port: Int) async throws -> (status: Int, body: String) {
        try await send("GET \(target) HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", to: port)
    }

    @Test func answersAsGoDoes() async throws {
        try await withListener { service, _, port in
            let key = try await TokenIssuer(issuer: "kontrol", keyPair: Keys.first)
                .kiteKey(for: "kontrol", kontrolURL: "", now: 0)
            for line in try fixture("http.tsv") {
                let body = line[0].replacingOccurrences(of: "KEY", with: key.text)
                let (status, answer) = try await post(body, to: port)
                #expect("\(status)" == line[1], "\(line[0])")
                func object(_ text: String) throws -> NSDictionary? {
                    try JSONSerialization.jsonObject(with: Data(text.utf8)) as? NSDictionary
                }
                #expect(try object(answer) == object(line[2]), "\(line[0])")
            }
            let id = "e734ce2c-b0dd-4122-9665-c3b3dfbde836"
            #expect(try await service.kite(id: id)?.url == "http://127.0.0.1:7002/kite")
            #expect(try await get("/heartbeat?id=\(id)", from: port) == (200, "pong"))
            #expect(
                try await get("/heartbeat?x=1&id=%65734ce2c-b0dd-4122-9665-c3b3dfbde836", from: port) == (200, "pong"))
            #expect(try await get("/heartbeat?id=nonexistent", from: port) == (200, "registeragain"))
            #expect(try await get("/heartbeat", from: port) == (400, "query id is empty\n"))
            #expect(try await get("/kite", from: port) == (404, "elsewhere\n"))
            #expect(try await get("/register", from: port).status == 405)
        }
    }

    @Test func refusesWhatIsTooLarge() async throws {
        try await withListener { _, _, port in
            let (status, answer) = try await post(String(repeating: " ", count: 70_000), to: port)
            #expect(status == 413)
            #expect(answer.contains("larger than"))
        }
    }

    @Test func refusesAnothersID() async throws {
        try await withListener { service, _, port in
            try await service.enter(identity("math", user: "ann"), source: .http)
            let key = try await TokenIssuer(issuer: "kontrol", keyPair: Keys.first)
                .kiteKey(for: "eve", kontrolURL: "", now: 0)
            let kite = String(decoding: try JSONEncoder().encode(identity("math", user: "ann")), as: UTF8.self)
            let body = #"{"url":"http://evil/kite","kite":\#(kite),"auth":{"type":"kiteKey","key":"\#(key.text)"}}"#
            #expect(try await post(body, to: port).status == 403)
            #expect(try await service.kite(id: "id-of-math")?.url == "http://127.0.0.1:7000/kite")
        }
    }
}
