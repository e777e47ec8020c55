/// A kite that listens, over real sockets.
import KiteCore
import KiteHTTP
import NIOCore
import NIOPosix
import Synchronization
import Testing

@Suite(.timeLimit(.minutes(1))) struct KiteServerTests {
    /// Answers everything with the path.
    final class EchoPath: ExchangeAcceptor, ExchangeHandler {
        func accept(_ exchange: any Exchange) {
            exchange.handler = self
            exchange.respond(ResponseHead(status: 200), body: ByteBuffer(string: "at \(exchange.request.path)"))
        }
        func exchangeReceived(_ exchange: any Exchange, body: ByteBuffer) {}
        func exchangeRequestEnded(_ exchange: any Exchange, trailers: HeaderBlock?) {}
        func exchangeWritabilityChanged(_ exchange: any Exchange, isWritable: Bool) {}
        func exchangeEnded(_ exchange: any Exchange, error: TransportError?) {}
    }

    /// Listens on a free port while `body` runs.
    func serve(
        _ kite: Kite, routes: KiteEndpoint.Routes? = nil, _ body: (KiteServer) async throws -> Void
    ) async throws {
        let server = try await kite.listen(host: "127.0.0.1", port: 0, routes: routes)
        let task = Task { try await server.run() }
        do { try await body(server) } catch {
            task.cancel()
            _ = await task.result
            throw error
        }
        task.cancel()
        try await task.value
    }

    /// Sends one request and reads until the server closes.
    func request(_ server: KiteServer, _ head: String, body: String = "") async throws -> String {
        final class Collector: ChannelInboundHandler {
            typealias InboundIn = ByteBuffer
            let done: EventLoopPromise<String>
            var bytes = ByteBuffer()
            init(_ done: EventLoopPromise<String>) { self.done = done }
            func channelRead(context: ChannelHandlerContext, data: NIOAny) {
                bytes.writeImmutableBuffer(unwrapInboundIn(data))
            }
            func channelInactive(context: ChannelHandlerContext) { done.succeed(String(buffer: bytes)) }
            func errorCaught(context: ChannelHandlerContext, error: any Error) { done.fail(error) }
        }
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let done = loop.makePromise(of: String.self)
        let connected = ClientBootstrap(group: loop)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Collector(done))
                }
            }
            .connect(to: server.address)
        connected.cascadeFailure(to: done)
        let channel = try await connected.get()
        let text =
            "\(head) HTTP/1.1\r\nHost: kite\r\nConnection: close\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
        try await channel.writeAndFlush(ByteBuffer(string: text))
        return try await done.futureResult.get()
    }

    func math() -> Kite {
        let kite = Kite.test(authenticator: .anyone)
        kite.handle("square") { (_, number: Double) in number * number }
        return kite
    }

    @Test func aServedKiteMayTakeShorterMessagesThanItDials() async throws {
        let kite = Kite.test(authenticator: .anyone) { $0.limits.maximumServedMessageSize = 1000 }
        try await serve(kite) { server in
            _ = try await request(server, "POST /kite/000/abc/xhr")
            for (length, status) in [(1000, "204"), (1001, "413")] {
                let body = "[\"" + String(repeating: "x", count: length) + "\"]"
                let answer = try await request(server, "POST /kite/000/abc/xhr_send", body: body)
                #expect(answer.hasPrefix("HTTP/1.1 \(status) "), "\(length)")
            }
        }
    }

    @Test func pollingClientGetsItsSquare() async throws {
        try await serve(math()) { server in
            #expect(try await request(server, "POST /kite/000/abc/xhr").hasSuffix("\r\n\r\no\n"))
            let call =
                #"["{\"method\":\"square\",\"arguments\":[{\"withArgs\":[4],\"responseCallback\":\"[Function]\"}],\"callbacks\":{\"0\":[0,\"responseCallback\"]}}"]"#
            #expect(try await request(server, "POST /kite/000/abc/xhr_send", body: call).hasPrefix("HTTP/1.1 204"))
            let answer = try await request(server, "POST /kite/000/abc/xhr")
            #expect(
                answer.hasSuffix(
                    #"a["{\"method\":0,\"arguments\":[{\"error\":null,\"result\":16}],\"callbacks\":{}}"]"# + "\n"))
        }
    }

    @Test func nonsenseIsAnsweredWithACloseFrame() async throws {
        try await serve(math()) { server in
            #expect(try await request(server, "POST /kite/000/bad/xhr").hasSuffix("\r\n\r\no\n"))
            _ = try await request(server, "POST /kite/000/bad/xhr_send", body: #"["not dnode"]"#)
            #expect(try await request(server, "POST /kite/000/bad/xhr").contains("\r\n\r\nc[1002,"))
        }
    }

    @Test func otherPathsGoToTheirRoutes() async throws {
        try await serve(math(), routes: { _ in EchoPath() }) { server in
            for (target, answer) in [
                ("/kite", "Welcome to SockJS!\n"), ("/register?x=y", "at /register"), ("/kites", "at /kites"),
                ("/", "at /"),
            ] {
                let response = try await request(server, "GET \(target)")
                #expect(response.hasSuffix(answer))
            }
        }
        try await serve(math()) { server in
            let refusal = try await request(server, "GET /register")
            #expect(refusal.hasPrefix("HTTP/1.1 404") && refusal.contains("the kite is at /kite"))
        }
    }

    @Test func shutdownClosesSessionsAndFreesThePort() async throws {
        let kite = math()
        let server = try await kite.listen(host: "127.0.0.1", port: 0)
        let port = try #require(server.address.port)
        let task = Task { try await server.run() }
        var options = KiteClient.Options()
        options.reconnects = false
        try await KiteClient.withConnection(to: server.url, as: .test("exp2"), options: options) { client in
            let events = client.events()
            let pong = try await client.tell("kite.ping")
            #expect(pong == "pong")
            task.cancel()
            var reasons: [String] = []
            for await event in events {
                if case .disconnected(_, let reason) = event { reasons.append(reason) }
            }
            // In order, that is with a close frame.
            #expect(reasons == ["The connection was closed."])
        }
        try await task.value
        #expect(kite.connections.isEmpty)
        let again = try await kite.listen(host: "127.0.0.1", port: port)
        #expect(again.address.port == port)
        let secondTask = Task { try await again.run() }
        #expect(try await request(again, "GET /kite").hasSuffix("Welcome to SockJS!\n"))
        secondTask.cancel()
        try await secondTask.value
    }
}

/// A client and a kite over SockJS.
@Suite(.timeLimit(.minutes(1))) struct KiteOverSockJSTests {
    @Test(arguments: [KiteConfiguration.Transport.webSocket, .xhrPolling, .auto])
    func squareOfFourIsSixteen(_ transport: KiteConfiguration.Transport) async throws {
        let kite = KiteServerTests().math()
        kite.handle("echo") { request in request.arguments.first ?? .null }
        kite.handle("callme") { (request, method: String) in try await request.remote.tell(method, 5) }
        try await KiteServerTests().serve(kite) { server in
            let caller = Kite.test("exp2") { $0.transport = transport }
            caller.handle("triple") { (_, number: Int) in 3 * number }
            try await KiteClient.withConnection(to: server.url, as: caller) { client in
                let square: Double = try await client.tell("square", 4)
                #expect(square == 16)
                let tripled = try await client.tell("callme", "triple")
                #expect(tripled == 15)
                let text = String(repeating: "y", count: 1_000_000)
                let echoed = try await client.tell("echo", text)
                #expect(echoed == .string(text))
            }
        }
    }

    @Test func manyCallsAtATime() async throws {
        try await KiteServerTests().serve(KiteServerTests().math()) { server in
            try await KiteClient.withConnection(to: server.url, as: .test("exp2")) { client in
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for number in 0..<200 {
                        group.addTask {
                            let square: Int = try await client.tell("square", number)
                            #expect(square == number * number)
                        }
                    }
                    try await group.waitForAll()
                }
            }
        }
    }

    @Test func clientComesBackAfterTheServerRestarted() async throws {
        let kite = KiteServerTests().math()
        let first = try await kite.listen(host: "127.0.0.1", port: 0)
        let firstRun = Task { try await first.run() }
        var options = KiteClient.Options()
        options.backoffBase = .milliseconds(5)
        options.backoffLimit = .milliseconds(20)
        try await KiteClient.withConnection(to: first.url, as: .test("exp2"), options: options) { client in
            let square = try await client.tell("square", 2)
            #expect(square == 4)
            let events = client.events()
            firstRun.cancel()
            try await firstRun.value
            for await event in events { if case .failed = event { break } }
            let second = try await kite.listen(host: "127.0.0.1", port: first.address.port)
            let secondRun = Task { try await second.run() }
            let again = try await client.tell("square", 3)
            #expect(again == 9)
            secondRun.cancel()
            try await secondRun.value
        }
    }
}
