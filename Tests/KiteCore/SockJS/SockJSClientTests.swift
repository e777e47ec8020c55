// The client against the server, over every transport, across event loops.
import KiteDialing
import KiteHTTP
import NIOCore
import Synchronization
import Testing

@testable import KiteSockJS

@Suite(.timeLimit(.minutes(1))) struct SockJSClientTests {
    static let transports: [SockJSTransport] = [.webSocket, .rawWebSocket, .xhrPolling, .xhrStreaming, .eventSource]

    func withServer(
        _ change: (inout SockJSOptions) -> Void = { _ in },
        onSession: @escaping @Sendable (any MessageChannel) -> Void = echo,
        _ body: (TestServer) async throws -> Void
    ) async throws {
        try await SockJSServerTests().withServer(change, onSession: onSession, body)
    }

    func connect(
        _ server: TestServer, _ transport: SockJSTransport, options: SockJSClientOptions = SockJSClientOptions()
    ) async throws -> any MessageChannel {
        try await SockJSClient.connect(
            url: "http://h:1/kite?kiteID=7", transport: transport,
            fields: HeaderBlock(["Authorization": "Bearer x"]), on: server.clientLoop, connector: server,
            options: options)
    }

    @Test(arguments: transports) func echoes(_ transport: SockJSTransport) async throws {
        let peers = Mutex<[MessagePeer]>([])
        try await withServer(onSession: { channel in
            peers.withLock { $0.append(channel.peer) }
            echo(channel)
        }) { (server: TestServer) async throws in
            let channel = try await connect(server, transport)
            let texts = ["hello", "", "\"quoted\" \\ \n", "é€😀\u{2028}", String(repeating: "long ", count: 60_000)]
            for text in texts {
                // An empty raw message is indistinguishable from Go's farewell only with framing; raw carries it.
                try await channel.send(ByteBuffer(string: text))
                let answer = try await channel.receive()
                #expect(answer.map { String(buffer: $0) } == text)
            }
            let peer = try #require(peers.withLock { $0.first })
            #expect(peer.authorization == "Bearer x")
            #expect(peer.origin == "http://h:1")
            #expect(peer.target.hasSuffix("?kiteID=7"))
            #expect(peer.transport == channel.peer.transport)
            channel.close(code: 3000, reason: "done")
            #expect(try await channel.receive() == nil)
            await #expect(throws: TransportError.self) { try await channel.send(ByteBuffer(string: "late")) }
        }
    }

    @Test(arguments: transports) func manyMessagesKeepTheirOrderUnderBackPressure(_ transport: SockJSTransport)
        async throws
    {
        try await withServer({ $0.queuedBytes = 20_000 }) { (server: TestServer) async throws in
            var options = SockJSClientOptions()
            options.queuedBytes = 20_000
            let channel = try await connect(server, transport, options: options)
            let count = 300
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask {
                    for number in 0..<count {
                        try await channel.send(ByteBuffer(string: "\(number) " + String(repeating: "x", count: 1000)))
                    }
                }
                for number in 0..<count {
                    let message = try #require(try await channel.receive())
                    #expect(String(buffer: message).hasPrefix("\(number) "))
                }
                try await group.waitForAll()
            }
            channel.close(code: 1000, reason: "")
        }
    }

    @Test(arguments: transports) func theServerHearsThatTheClientGoes(_ transport: SockJSTransport) async throws {
        let ends = AsyncStream<Void>.makeStream()
        try await withServer(onSession: { channel in
            Task {
                while let message = try? await channel.receive() { try? await channel.send(message) }
                ends.continuation.yield()
            }
        }) { (server: TestServer) async throws in
            let channel = try await connect(server, transport)
            try await channel.send(ByteBuffer(string: "x"))
            _ = try await channel.receive()
            channel.close(code: 1000, reason: "")
            var iterator = ends.stream.makeAsyncIterator()
            await iterator.next()
        }
    }

    @Test(arguments: transports) func theClientHearsThatTheServerCloses(_ transport: SockJSTransport) async throws {
        try await withServer(onSession: { channel in
            Task {
                try await channel.send(ByteBuffer(string: "last"))
                channel.close(code: 3000, reason: "Go away!")
            }
        }) { (server: TestServer) async throws in
            let channel = try await connect(server, transport)
            let last = try await channel.receive()
            #expect(last.map { String(buffer: $0) } == "last")
            #expect(try await channel.receive() == nil)
        }
    }

    @Test(arguments: transports) func theLimitIsThatOfAMessage(_ transport: SockJSTransport) async throws {
        try await withServer({ $0.maxMessageBytes = 100 }) { (server: TestServer) async throws in
            var options = SockJSClientOptions()
            options.maxMessageBytes = 100
            let channel = try await connect(server, transport, options: options)
            // Twice as long where it is escaped, and many at a time.
            let message = String(repeating: "\"", count: 100)
            async let sent: Void = {
                for _ in 0..<200 { try await channel.send(ByteBuffer(string: message)) }
            }()
            for _ in 0..<200 { #expect(try await channel.receive().map { String(buffer: $0) } == message) }
            try await sent
            channel.close(code: 3000, reason: "done")
        }
    }

    @Test(arguments: transports) func longerMessagesAreRefusedByTheServer(_ transport: SockJSTransport) async throws {
        try await withServer({ $0.maxMessageBytes = 100 }) { (server: TestServer) async throws in
            let channel = try await connect(server, transport)
            try await channel.send(ByteBuffer(repeating: 0x61, count: 101))
            // A close code or an error, but no echo.
            let echo = try? await channel.receive()
            #expect(echo == nil)
        }
    }

    @Test(arguments: transports) func longerMessagesAreRefusedByTheClient(_ transport: SockJSTransport) async throws {
        try await withServer(onSession: { channel in
            Task { try await channel.send(ByteBuffer(repeating: 0x61, count: 101)) }
        }) { (server: TestServer) async throws in
            var options = SockJSClientOptions()
            options.maxMessageBytes = 100
            let channel = try await connect(server, transport, options: options)
            await #expect(throws: TransportError.self) { try await channel.receive() }
        }
    }

    @Test(arguments: [SockJSTransport.webSocket, .rawWebSocket, .xhrPolling])
    func aServerThatReadsNothingCannotKeepAClosedChannel(_ transport: SockJSTransport) async throws {
        try await withServer({ $0.queuedBytes = 1 }, onSession: { _ in }) { (server: TestServer) async throws in
            var options = SockJSClientOptions()
            options.closeTimeout = .milliseconds(50)
            options.queuedBytes = 1 << 20
            let channel = try await connect(server, transport, options: options)
            // More than fits between the two.
            for _ in 0..<40 { try await channel.send(ByteBuffer(repeating: 0x61, count: 20_000)) }
            channel.close(code: 3000, reason: "Go away!")
            for await code in server.clientEnds where code != nil { break }
        }
    }

    @Test func autoTakesWhatTheServerServes() async throws {
        try await withServer { (server: TestServer) async throws in
            let channel = try await connect(server, .auto)
            #expect(channel.peer.transport == "websocket")
        }
        try await withServer({ $0.allowsWebSocket = false }) { (server: TestServer) async throws in
            let channel = try await connect(server, .auto)
            #expect(channel.peer.transport == "xhr_streaming")
        }
    }

    @Test(arguments: [SockJSTransport.webSocket, .xhrPolling, .xhrStreaming, .eventSource])
    func aSilentServerIsGivenUp(_ transport: SockJSTransport) async throws {
        try await withServer(onSession: { _ in }) { (server: TestServer) async throws in
            var options = SockJSClientOptions()
            options.heartbeat = .milliseconds(100)
            let channel = try await connect(server, transport, options: options)
            let error = await #expect(throws: TransportError.self) { try await channel.receive() }
            #expect(error?.code == .idleTimeout)
        }
    }

    @Test(arguments: transports) func aCancelledReceiverIsResumed(_ transport: SockJSTransport) async throws {
        try await withServer { (server: TestServer) async throws in
            let channel = try await connect(server, transport)
            let task = Task { try await channel.receive() }
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
            try await channel.send(ByteBuffer(string: "still there"))
            let answer = try await channel.receive()
            #expect(answer.map { String(buffer: $0) } == "still there")
        }
    }

    @Test func messagesThatCannotBeSentAreRefused() async throws {
        try await withServer { (server: TestServer) async throws in
            var options = SockJSClientOptions()
            options.maxMessageBytes = 10
            let channel = try await connect(server, .xhrPolling, options: options)
            await #expect(throws: TransportError.self) { try await channel.send(ByteBuffer(string: "longer than ten")) }
            await #expect(throws: TransportError.self) { try await channel.send(ByteBuffer(bytes: [0xFF])) }
        }
    }

    @Test func wrongPathsFailWithTheStatus() async throws {
        try await withServer { (server: TestServer) async throws in
            for transport in [SockJSTransport.webSocket, .xhrPolling, .auto] {
                let error = await #expect(throws: TransportError.self) {
                    try await SockJSClient.connect(
                        url: "http://h:1/kite/nothing", transport: transport, on: server.clientLoop, connector: server)
                }
                #expect(error?.message.contains("404") == true)
            }
        }
    }

    @Test(
        arguments: [
            ("http://h/kite", "h", 80, false, "/kite", nil),
            ("ws://h:4000/a/b/?x=1&y", "h", 4000, false, "/a/b", "x=1&y"),
            ("WSS://h", "h", 443, true, "", nil),
            ("https://[::1]:8/k#f", "::1", 8, true, "/k", nil),
            ("http://h?q", "h", 80, false, "", "q"),
        ] as [(String, String, Int, Bool, String, String?)])
    func urls(_ text: String, _ host: String, _ port: Int, _ isSecure: Bool, _ path: String, _ query: String?) throws {
        let url = try SockJSURL(text)
        #expect(url.endpoint == .init(.tcp(host: host, port: port), isSecure: isSecure))
        #expect(url.path == path)
        #expect(url.query == query)
    }

    @Test(arguments: [
        "", "h", "/kite", "ftp://h", "http://", "http:///x", "http://h:0", "http://h:x", "http://h:99999",
        "http://u:p@h/",
        "http://::1/", "http://[::1", "http://h/a b", "http://h/\r\nX: y",
    ])
    func urlsThatAreNone(_ text: String) {
        #expect(throws: SockJSURL.Malformed.self) { try SockJSURL(text) }
    }

    @Test func sessionPathsAreThoseOfGo() throws {
        for _ in 0..<100 {
            let path = SockJSURL.sessionPath()
            #expect(path.wholeMatch(of: /\/[0-9]{3}\/[0-9a-f]{20}/) != nil)
        }
        #expect(
            try SockJSURL("http://gw/proxy?kiteID=ID").target("/945/8cf2/websocket")
                == "/proxy/945/8cf2/websocket?kiteID=ID")
    }
}

@Suite struct SockJSFrameScannerTests {
    func texts(_ format: SockJSFrameScanner.Format, _ text: String, cut: Int) throws -> [String] {
        var scanner = SockJSFrameScanner(format, maxBytes: 3000)
        var result: [String] = []
        let bytes = Array(text.utf8)
        for part in [bytes[..<cut], bytes[cut...]] {
            scanner.append(ByteBuffer(bytes: part))
            while let text = try scanner.next() { result.append(String(buffer: text)) }
        }
        return result
    }

    @Test func linesAtEveryCut() throws {
        let text = String(repeating: "h", count: 2048) + "\no\n\na[\"x\"]\r\nh\nunfinished"
        // All h are alike: the cuts that matter are at the ends of the prelude and behind it.
        let cuts = [0, 1, 2, 1000] + Array(2046...text.utf8.count)
        for cut in cuts { #expect(try texts(.lines, text, cut: cut) == ["h", "o", "a[\"x\"]", "h"]) }
    }

    @Test func eventsAtEveryCut() throws {
        let text = "\r\ndata: o\r\n\r\n: comment\r\nevent: x\r\ndata:a[\"x\"]\r\n\r\nid: 1\ndata: h\n\ndata: c"
        for cut in 0...text.utf8.count { #expect(try texts(.events, text, cut: cut) == ["o", "a[\"x\"]", "h"]) }
    }

    @Test func longFramesAreRefused() {
        #expect(throws: SockJSFormatError.self) { try texts(.lines, String(repeating: "x", count: 3001), cut: 5) }
        #expect(throws: SockJSFormatError.self) {
            try texts(.lines, String(repeating: "x", count: 3001) + "\n", cut: 0)
        }
    }
}
