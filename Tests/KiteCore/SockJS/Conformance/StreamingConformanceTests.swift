// What sockjs-protocol 0.3.3 and its head ask of the streaming transports, and of sessions that are closed or broken. A test is named
// after the case of that suite which it answers (class, then case).
import Testing

@Suite(.timeLimit(.minutes(1))) struct StreamingConformanceTests {
    static let htmlFileHead = """
        <!doctype html>
        <html><head>
          <meta http-equiv="X-UA-Compatible" content="IE=edge" />
          <meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />
        </head><body><h2>Don't panic!</h2>
          <script>
            document.domain = document.domain;
            var c = parent.callback;
            c.start();
            function p(d) {c.message(d);};
            window.onload = function() {c.stop();};
          </script>
        """

    /// How each transport begins and how it wraps a frame.
    struct Transport: CustomTestStringConvertible, Sendable {
        var name: String
        var method: String
        var contentType: String
        /// Whether the origin is echoed.
        var isCrossOrigin: Bool
        var isPrelude: @Sendable (String) -> Bool
        var wrap: @Sendable (String) -> String
        var testDescription: String { name }

        static let all = [
            Transport(
                name: "xhr_streaming", method: "POST", contentType: scriptType, isCrossOrigin: true,
                isPrelude: { $0 == String(repeating: "h", count: 2048) + "\n" }, wrap: { $0 + "\n" }),
            Transport(
                name: "eventsource", method: "GET", contentType: "text/event-stream", isCrossOrigin: true,
                isPrelude: { $0 == "\r\n" }, wrap: { "data: \($0)\r\n\r\n" }),
            Transport(
                name: "htmlfile?c=%63allback", method: "GET", contentType: pageType, isCrossOrigin: false,
                isPrelude: { prelude in
                    prelude.utf8.count > 1024
                        && prelude.hasPrefix(StreamingConformanceTests.htmlFileHead)
                        && prelude.dropFirst(StreamingConformanceTests.htmlFileHead.count).allSatisfy(\.isWhitespace)
                },
                wrap: {
                    "<script>\np(\"\($0.replacing("\\", with: "\\\\").replacing("\"", with: "\\\""))\");\n</script>\r\n"
                }),
        ]
    }

    // MARK: XhrStreaming, EventSource, HtmlFile (preflights are with those of /info, callbacks with those of jsonp)

    @Test(arguments: Transport.all) func transport(_ transport: Transport) async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let session = ConformanceServer.session()
            let (stream, head) = try await server.stream(
                transport.method, session + "/" + transport.name, [("Origin", "test")])
            #expect(head.status == 200)
            expectContentType(head, transport.contentType)
            expectNotCached(head)
            if transport.isCrossOrigin { expectCrossOrigin(head, "test") }
            #expect(transport.isPrelude(try await stream.chunk()))
            #expect(try await stream.chunk() == transport.wrap("o"))
            try await server.send(session, #"["x"]"#)
            #expect(try await stream.chunk() == transport.wrap(#"a["x"]"#))
            // What would end a line stays escaped.
            try await server.send(session, #"["  \u0000\n\r "]"#)
            #expect(try await stream.chunk() == transport.wrap(#"a["  \u0000\n\r "]"#))
            try await stream.close()
        }
    }

    @Test(arguments: Transport.all) func responseLimit(_ transport: Transport) async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let session = ConformanceServer.session()
            let (stream, head) = try await server.stream(transport.method, session + "/" + transport.name)
            #expect(head.status == 200)
            #expect(transport.isPrelude(try await stream.chunk()))
            #expect(try await stream.chunk() == transport.wrap("o"))
            // The prelude doesn't count, all else does.
            var sent = transport.wrap("o").utf8.count
            let message = String(repeating: "x", count: 128)
            while sent < 4096 {
                try await server.send(session, "[\"\(message)\"]")
                let chunk = try await stream.chunk()
                #expect(chunk == transport.wrap("a[\"\(message)\"]"))
                sent += chunk.utf8.count
            }
            #expect(try await stream.chunk() == "")
            // The session goes on with the next stream.
            let (next, _) = try await server.stream(transport.method, session + "/" + transport.name)
            #expect(transport.isPrelude(try await next.chunk()))
            // One message over the limit arrives whole.
            let long = String(repeating: "y", count: 4096)
            try await server.send(session, "[\"\(long)\"]")
            #expect(try await next.chunk() == transport.wrap("a[\"\(long)\"]"))
            #expect(try await next.chunk() == "")
        }
    }

    // MARK: HandlingClose

    @Test func handlingClose_closeFrame() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let session = ConformanceServer.session("/close")
            let (first, _) = try await server.stream("POST", session + "/xhr_streaming")
            _ = try await first.chunk()
            #expect(try await first.chunk() == "o\n")
            #expect(try await first.chunk() == "c[3000,\"Go away!\"]\n")
            let (second, _) = try await server.stream("POST", session + "/xhr_streaming")
            _ = try await second.chunk()
            #expect(try await second.chunk() == "c[3000,\"Go away!\"]\n")
            #expect(try await first.chunk() == "")
            #expect(try await second.chunk() == "")
        }
    }

    @Test func handlingClose_closeRequest() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let session = ConformanceServer.session()
            let (first, _) = try await server.stream("POST", session + "/xhr_streaming")
            _ = try await first.chunk()
            #expect(try await first.chunk() == "o\n")
            let (second, _) = try await server.stream("POST", session + "/xhr_streaming")
            _ = try await second.chunk()
            #expect(try await second.chunk() == "c[2010,\"Another connection still open\"]\n")
            #expect(try await second.chunk() == "")
        }
    }

    @Test(arguments: Transport.all) func handlingClose_abortXhrStreaming(_ transport: Transport) async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let session = ConformanceServer.session()
            let (first, _) = try await server.stream(transport.method, session + "/" + transport.name)
            _ = try await first.chunk()
            #expect(try await first.chunk() == transport.wrap("o"))
            try await first.close()
            // The server hears of it on another loop than ours: until then the session is still in use.
            while true {
                let (next, _) = try await server.stream("POST", session + "/xhr_streaming")
                _ = try await next.chunk()
                let frame = try await next.chunk()
                #expect(try await next.chunk() == "")
                if frame != "c[2010,\"Another connection still open\"]\n" {
                    #expect(frame == "c[1002,\"Connection interrupted\"]\n")
                    break
                }
            }
        }
    }

    @Test(arguments: [("POST", "/xhr"), ("GET", "/jsonp?c=x")])
    func handlingClose_abortXhrPolling(_ method: String, _ path: String) async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let session = ConformanceServer.session()
            try await server.open(session)
            let (answered, waiting) = try await server.twoPolls(session, method, path)
            #expect(try await answered.body(try await answered.head()).contains("Another connection still open"))
            try await waiting.close()
            while true {
                let answer = try await server.post(session + "/xhr").body
                if answer != "c[2010,\"Another connection still open\"]\n" {
                    #expect(answer == "c[1002,\"Connection interrupted\"]\n")
                    break
                }
            }
        }
    }
}
