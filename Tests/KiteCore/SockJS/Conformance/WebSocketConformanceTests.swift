// What sockjs-protocol 0.3.3 and its head ask of the WebSocket transports. A test is named after the case of that suite which it answers
// (class, then case). One case has no counterpart that passes: the handshake of the draft hixie-76 (`haproxy`).
import Testing

@Suite(.timeLimit(.minutes(1))) struct WebSocketConformanceTests {
    // MARK: WebsocketHttpErrors

    @Test func websocketHttpErrors_httpMethod() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let answer = try await server.get("/echo/0/0/websocket")
            #expect(answer.status == 400)
            #expect(answer.body.contains("Can \"Upgrade\" only to \"WebSocket\"."))
        }
    }

    @Test func websocketHttpErrors_invalidConnectionHeader() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let answer = try await server.get(
                "/echo/0/0/websocket", [("Upgrade", "WebSocket"), ("Connection", "close")])
            #expect(answer.status == 400)
            #expect(answer.body.contains("\"Connection\" must be \"Upgrade\"."))
        }
    }

    @Test func websocketHttpErrors_invalidMethod() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            for fields in [[("Upgrade", "WebSocket"), ("Connection", "Upgrade")], []] {
                let answer = try await server.post("/echo/0/0/websocket", nil, fields)
                #expect(answer.status == 405)
                #expect(!answer.head.has("Content-Type"))
                #expect(answer["Allow"] == "GET")
                #expect(answer.body.isEmpty)
            }
        }
    }

    // MARK: Websocket, WebsocketHybi10

    @Test func websocket_transport() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let socket = try await server.webSocket(ConformanceServer.session() + "/websocket")
            #expect(try await socket.message() == "o")
            try await socket.sendText(#"["a"]"#)
            #expect(try await socket.message() == #"a["a"]"#)
            try await socket.sendFrame([0x03, 0xE8], first: 0x88)
            #expect(try await socket.frame() == RawConnection.Frame(first: 0x88, payload: [0x03, 0xE8]))
            #expect(try await socket.isClosed())
        }
    }

    @Test func websocket_close() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let socket = try await server.webSocket(ConformanceServer.session("/close") + "/websocket")
            #expect(try await socket.message() == "o")
            #expect(try await socket.message() == #"c[3000,"Go away!"]"#)
            let close = try await socket.closing()
            #expect(close.code == 3000)
            #expect(close.reason == "Go away!")
        }
    }

    @Test(arguments: ["7", "8", "13"]) func websocketHybi10_headersSanity(_ version: String) async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let (socket, head) = try await server.stream(
                "GET", ConformanceServer.session() + "/websocket",
                [
                    ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", version),
                    ("Sec-WebSocket-Origin", "http://asd"), ("Sec-WebSocket-Key", "x3JJHMbDL1EzLkh9GBhXDw=="),
                ])
            #expect(head.status == 101)
            #expect(head["Sec-WebSocket-Accept"] == "HSmrc0sMlYUkAGmm5OPpG2HaGWk=")
            #expect(head["Connection"]?.lowercased() == "upgrade")
            #expect(head["Upgrade"]?.lowercased() == "websocket")
            #expect(!head.has("Content-Length"))
            #expect(!head.has("Transfer-Encoding"))
            try await socket.close()
        }
    }

    @Test func websocketHybi10_firefox602ConnectionHeader() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let (socket, head) = try await server.stream(
                "GET", ConformanceServer.session() + "/websocket",
                [
                    ("Upgrade", "websocket"), ("Connection", "keep-alive, Upgrade"), ("Sec-WebSocket-Version", "7"),
                    ("Sec-WebSocket-Origin", "http://asd"), ("Sec-WebSocket-Key", "x3JJHMbDL1EzLkh9GBhXDw=="),
                ])
            #expect(head.status == 101)
            #expect(try await socket.message() == "o")
            try await socket.close()
        }
    }

    @Test func websocket_emptyFrame() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let socket = try await server.webSocket(ConformanceServer.session() + "/websocket")
            #expect(try await socket.message() == "o")
            for text in ["", "[]", #"["a"]"#] { try await socket.sendText(text) }
            #expect(try await socket.message() == #"a["a"]"#)
            try await socket.close()
        }
    }

    /// A WebSocket's session is its own: an id that is used twice means nothing.
    @Test func websocket_reuseSessionId() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let path = ConformanceServer.session() + "/websocket"
            let first = try await server.webSocket(path)
            let second = try await server.webSocket(path)
            for socket in [first, second] { #expect(try await socket.message() == "o") }
            try await first.sendText(#"["a"]"#)
            #expect(try await first.message() == #"a["a"]"#)
            try await second.sendText(#"["b"]"#)
            #expect(try await second.message() == #"a["b"]"#)
            for socket in [first, second] { try await socket.close() }
            let third = try await server.webSocket(path)
            #expect(try await third.message() == "o")
            try await third.sendText(#"["c"]"#)
            #expect(try await third.message() == #"a["c"]"#)
            try await third.close()
        }
    }

    /// The handshake of 2010 is answered with what would be understood. Its eight bytes after the head have no length in HTTP, and it has no
    /// way to close.
    @Test func websocket_haproxy_isRefused() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let answer = try await server.get(
                ConformanceServer.session() + "/websocket",
                [
                    ("Connection", "Upgrade"), ("Upgrade", "WebSocket"), ("Origin", "http://localhost"),
                    ("Sec-WebSocket-Key1", "4 @1  46546xW%0l 1 5"), ("Sec-WebSocket-Key2", "12998 5 Y3 1  .P00"),
                ])
            #expect(answer.status == 426)
            #expect(answer["Sec-WebSocket-Version"] == "13")
        }
    }

    @Test func websocket_brokenJson() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let socket = try await server.webSocket(ConformanceServer.session() + "/websocket")
            #expect(try await socket.message() == "o")
            try await socket.sendText(#"["a"#)
            #expect(try await socket.closing().reason == "Broken framing.")
        }
    }

    // MARK: RawWebsocket

    @Test func rawWebsocket_transport() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let socket = try await server.webSocket("/echo/websocket")
            // No frame says that it is open, and nothing is escaped.
            try await socket.sendText("Hello world!\u{FFFF}")
            #expect(try await socket.message() == "Hello world!\u{FFFF}")
            try await socket.close()
        }
    }

    @Test func rawWebsocket_close() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let close = try await server.webSocket("/close/websocket").closing()
            #expect(close.code == 3000)
            #expect(close.reason == "Go away!")
        }
    }
}
