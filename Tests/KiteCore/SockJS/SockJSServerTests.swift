// The server's answers on every URL, by the rules of sockjs-protocol.
import KiteHTTP
import KiteWebSocket
import NIOCore
import Synchronization
import Testing

@testable import KiteSockJS

@Suite(.timeLimit(.minutes(1))) struct SockJSServerTests {
    func withServer(
        _ change: (inout SockJSOptions) -> Void = { _ in },
        onSession: @escaping @Sendable (any MessageChannel) -> Void = echo,
        _ body: (TestServer) async throws -> Void
    ) async throws {
        var options = SockJSOptions()
        // Long enough for a machine that does much else between two requests.
        options.disconnectDelay = .minutes(1)
        change(&options)
        let server = TestServer(options: options, onSession: onSession)
        do {
            try await body(server)
        } catch {
            try await server.shutDown()
            throw error
        }
        try await server.shutDown()
    }

    static let noCache = "no-store, no-cache, no-transform, must-revalidate, max-age=0"

    @Test func greetingAndUnknownPaths() async throws {
        try await withServer { (server: TestServer) async throws in
            for path in ["", "/"] {
                let answer = try await server.ask(.get, path)
                #expect(answer.status == 200)
                #expect(answer.body == "Welcome to SockJS!\n")
                #expect(answer.field("Content-Type") == "text/plain; charset=UTF-8")
            }
            for path in [
                "/a", "/a.html", "//", "///", "/a/a", "/a/a/", "/a/", "/a./a/xhr", "/a/a./xhr", "/./././xhr", "/x/y/z",
                "//a/xhr", "/a//xhr", "/iframe.htm", "/iframe", "/IFRAME.HTML", "/iframe.HTML", "/iframe.xml",
                "/iframe-/.html", "/a/b/c/d",
            ] {
                #expect(try await server.ask(.get, path).status == 404, "\(path)")
            }
            #expect(try await server.ask(.post, "/a./a/xhr").status == 404)
        }
    }

    @Test func wrongMethods() async throws {
        try await withServer { (server: TestServer) async throws in
            for (method, path, allowed) in [
                (RequestMethod.post, "/0/0/websocket", "GET"), (.get, "/0/0/xhr", "OPTIONS, POST"),
                (.put, "/info", "OPTIONS, GET, HEAD"), (.get, "/0/0/jsonp_send", "POST"),
                (.post, "/0/0/eventsource", "GET"),
            ] {
                let answer = try await server.ask(method, path)
                #expect(answer.status == 405)
                #expect(answer.field("Allow") == allowed)
                #expect(answer.field("Content-Type") == nil)
                #expect(answer.body.isEmpty)
            }
        }
    }

    @Test func info() async throws {
        try await withServer { (server: TestServer) async throws in
            let answer = try await server.ask(.get, "/info", fields: HeaderBlock(["Origin": "test"]))
            #expect(answer.status == 200)
            #expect(answer.field("Content-Type") == "application/json; charset=UTF-8")
            #expect(answer.field("Cache-Control") == Self.noCache)
            #expect(answer.field("Access-Control-Allow-Origin") == "test")
            #expect(answer.field("Access-Control-Allow-Credentials") == "true")
            #expect(answer.body.hasPrefix(#"{"websocket":true,"cookie_needed":false,"origins":["*:*"],"entropy":"#))
            let plain = try await server.ask(.get, "/info")
            #expect(plain.field("Access-Control-Allow-Origin") == "*")
            #expect(plain.field("Access-Control-Allow-Credentials") == nil)
            #expect(plain.body != answer.body)
        }
    }

    @Test(arguments: ["/info", "/abc/abc/xhr", "/abc/abc/xhr_send", "/abc/abc/xhr_streaming"])
    func preflights(_ path: String) async throws {
        try await withServer { (server: TestServer) async throws in
            for origin in ["test", "null"] {
                let answer = try await server.ask(
                    .options, path, fields: HeaderBlock(["Origin": origin, "Access-Control-Request-Headers": "a, b"]))
                #expect(answer.status == 204)
                #expect(answer.field("Cache-Control") == "public, max-age=31536000")
                #expect(answer.field("Expires") != nil)
                #expect(answer.field("Access-Control-Max-Age") == "31536000")
                #expect(
                    answer.field("Access-Control-Allow-Methods") == (path == "/info" ? "OPTIONS, GET" : "OPTIONS, POST")
                )
                #expect(answer.field("Access-Control-Allow-Origin") == origin)
                #expect(answer.field("Access-Control-Allow-Credentials") == "true")
                #expect(answer.field("Access-Control-Allow-Headers") == "a, b")
                #expect(answer.body.isEmpty)
            }
        }
    }

    @Test func iframe() async throws {
        try await withServer { (server: TestServer) async throws in
            for path in ["/iframe.html", "/iframe-0.1.2abc-dirty.2144.html?t=1"] {
                let answer = try await server.ask(.get, path)
                #expect(answer.status == 200)
                #expect(answer.field("Content-Type") == "text/html; charset=UTF-8")
                #expect(answer.body.contains("SockJS.bootstrap_iframe();"))
                let tag = try #require(answer.field("ETag"))
                let again = try await server.ask(.get, path, fields: HeaderBlock(["If-None-Match": tag]))
                #expect(again.status == 304)
                #expect(again.body.isEmpty)
            }
        }
    }

    @Test func polling() async throws {
        try await withServer { (server: TestServer) async throws in
            let open = try await server.ask(.post, "/000/s1/xhr", fields: HeaderBlock(["Origin": "test"]))
            #expect(open.status == 200)
            #expect(open.body == "o\n")
            #expect(open.field("Content-Type") == "application/javascript; charset=UTF-8")
            #expect(open.field("Cache-Control") == Self.noCache)
            #expect(open.field("Access-Control-Allow-Origin") == "test")
            for type in ["text/plain", "T", "application/json", "application/xml; charset=utf-8"] {
                let sent = try await server.ask(
                    .post, "/000/s1/xhr_send", fields: HeaderBlock(["Content-Type": type]), body: "[]")
                #expect(sent.status == 204)
                #expect(sent.field("Content-Type") == "text/plain; charset=UTF-8")
                #expect(sent.body.isEmpty)
            }
            // The server part of the path means nothing.
            #expect(try await server.ask(.post, "/999/s1/xhr_send", body: #"["x"]"#).status == 204)
            #expect(try await server.ask(.post, "/000/s1/xhr").body == "a[\"x\"]\n")
            #expect(server.service.sessionCount == 1)
        }
    }

    @Test(arguments: [
        ("", 500, "Payload expected."), ("[\"x", 500, "Broken JSON encoding."), ("{}", 500, "Payload expected."),
        ("[1]", 500, "Broken JSON encoding."), ("\"x\"", 500, "Payload expected."),
    ])
    func brokenPayloads(_ body: String, _ status: Int, _ message: String) async throws {
        try await withServer { (server: TestServer) async throws in
            _ = try await server.ask(.post, "/000/s/xhr")
            let answer = try await server.ask(.post, "/000/s/xhr_send", body: body)
            #expect(answer.status == UInt16(status))
            #expect(answer.body == message)
            #expect(try await server.ask(.post, "/000/s/xhr_send", body: "[\"a\"]").status == 204)
        }
    }

    @Test func unknownSessionsAndLongBodies() async throws {
        try await withServer({ $0.maxMessageBytes = 100 }) { (server: TestServer) async throws in
            #expect(try await server.ask(.post, "/000/none/xhr_send", body: "[\"x\"]").status == 404)
            #expect(try await server.ask(.post, "/000/none/jsonp_send", body: "[\"x\"]").status == 404)
            // Told before the body has come, however long it is.
            let unknown = try await server.begin(.post, "/000/none/xhr_send", body: "", missingBytes: 1 << 20)
            #expect(try await unknown.whole().status == 404)
            _ = try await server.ask(.post, "/000/s/xhr")
            func array(_ length: Int, count: Int) -> String {
                let message = "\"" + String(repeating: "x", count: length) + "\""
                return "[" + Array(repeating: message, count: count).joined(separator: ",") + "]"
            }
            for path in ["/000/s/xhr_send", "/000/s/jsonp_send"] {
                #expect(try await server.ask(.post, path, body: array(100, count: 1)).status < 300)
                // It is the messages that are bounded, not what they come in.
                #expect(try await server.ask(.post, path, body: array(90, count: 20)).status < 300)
                #expect(try await server.ask(.post, path, body: array(101, count: 1)).status == 413)
                let body = try await server.begin(.post, path, body: "", missingBytes: 1 << 20)
                #expect(try await body.whole().status == 413)
            }
        }
    }

    @Test func aBodyThatDoesNotComeIsGivenUp() async throws {
        try await withServer({ $0.bodyTimeout = .milliseconds(100) }) { (server: TestServer) async throws in
            _ = try await server.ask(.post, "/000/s/xhr")
            let sender = try await server.begin(.post, "/000/s/xhr_send", body: "[\"", missingBytes: 50_000)
            #expect(try await sender.whole().status == 408)
            #expect(server.service.unfinished.countedBytes == 0)
        }
    }

    @Test func aSecondReceiverIsRefusedAndABrokenOneEndsTheSession() async throws {
        let ends = AsyncStream<Bool>.makeStream()
        try await withServer(onSession: { channel in
            Task {
                do { ends.continuation.yield(try await channel.receive() == nil) } catch {
                    ends.continuation.yield(false)
                }
            }
        }) { (server: TestServer) async throws in
            _ = try await server.ask(.post, "/000/s/xhr")
            let waiting = try await server.begin(.post, "/000/s/xhr")
            // Which of the two comes first is open: one waits, the other is told.
            var refused = ""
            while refused.isEmpty {
                let second = try await server.begin(.post, "/000/s/xhr")
                refused = try await second.until("\n")
            }
            #expect(refused == "c[2010,\"Another connection still open\"]\n")
            try await waiting.abort()
            var iterator = ends.stream.makeAsyncIterator()
            #expect(await iterator.next() == false)
            #expect(try await server.ask(.post, "/000/s/xhr").body == "c[1002,\"Connection interrupted\"]\n")
            #expect(try await server.ask(.post, "/000/s/xhr_send", body: "[\"x\"]").status == 404)
        }
    }

    @Test func closingIsRepeatedUntilTheSessionIsForgotten() async throws {
        try await withServer(onSession: { $0.close(code: 3000, reason: "Go away!") }) {
            (server: TestServer) async throws in
            #expect(try await server.ask(.post, "/000/s/xhr").body == "o\n")
            for _ in 0..<2 {
                #expect(try await server.ask(.post, "/000/s/xhr").body == "c[3000,\"Go away!\"]\n")
            }
        }
    }

    @Test func heartbeatsComeWhileNothingElseDoes() async throws {
        try await withServer({ $0.heartbeat = .milliseconds(100) }) { (server: TestServer) async throws in
            #expect(try await server.ask(.post, "/000/s/xhr").body == "o\n")
            #expect(try await server.ask(.post, "/000/s/xhr").body == "h\n")
            let stream = try await server.begin(.get, "/000/t/eventsource")
            #expect(try await stream.until("data: h\r\n\r\ndata: h\r\n\r\n").contains("data: o\r\n\r\n"))
        }
    }

    @Test func sessionsWithoutAReceiverAreForgotten() async throws {
        let ends = AsyncStream<Void>.makeStream()
        try await withServer(
            { $0.disconnectDelay = .milliseconds(100) },
            onSession: { channel in
                Task {
                    _ = try? await channel.receive()
                    ends.continuation.yield()
                }
            }
        ) { (server: TestServer) async throws in
            #expect(try await server.ask(.post, "/000/s/xhr").body == "o\n")
            var iterator = ends.stream.makeAsyncIterator()
            await iterator.next()
            // The place is given back in the same turn; this asks the loop after it.
            #expect(try await server.ask(.post, "/000/s/xhr_send", body: "[\"x\"]").status == 404)
            #expect(server.service.sessionCount == 0)
        }
    }

    @Test func unfinishedBodiesAreBoundedTogether() async throws {
        try await withServer({ $0.unfinishedBytes = 100_000 }) { (server: TestServer) async throws in
            _ = try await server.ask(.post, "/000/s/xhr")
            let long = "[\"" + String(repeating: "x", count: 200_000) + "\"]"
            let refused = try await server.ask(.post, "/000/s/xhr_send", body: long)
            #expect(refused.status == 503)
            // What was refused is no longer counted.
            #expect(server.service.unfinished.countedBytes == 0)
            let short = "[\"" + String(repeating: "x", count: 90_000) + "\"]"
            #expect(try await server.ask(.post, "/000/s/xhr_send", body: short).status == 204)
            #expect(try await server.ask(.post, "/000/s/xhr").body == "a\(short)\n")
            #expect(server.service.unfinished.countedBytes == 0)
        }
    }

    @Test func tooManySessions() async throws {
        try await withServer({ $0.maxSessions = 1 }) { (server: TestServer) async throws in
            _ = try await server.ask(.post, "/000/s1/xhr")
            let refused = try await server.ask(.post, "/000/s2/xhr")
            #expect(refused.status == 503)
            #expect(refused.field("Retry-After") != nil)
            _ = try await server.ask(.post, "/000/s1/xhr_send", body: "[\"x\"]")
            #expect(try await server.ask(.post, "/000/s1/xhr").body == "a[\"x\"]\n")
        }
    }

    @Test func oneAddressCannotTakeAllSessions() async throws {
        try await withServer({ $0.maxSessionsPerAddress = 2 }) { (server: TestServer) async throws in
            func open(_ id: String, from address: String, for visitor: String? = nil) async throws -> UInt16 {
                let address = try SocketAddress(ipAddress: address, port: 1)
                server.peer.withLock { $0 = ExchangePeer(address: address, isTrustedProxy: visitor != nil) }
                var fields = HeaderBlock()
                if let visitor { fields.append("X-Forwarded-For", visitor) }
                return try await server.ask(.post, "/000/\(id)/xhr", fields: fields).status
            }
            #expect(try await open("a", from: "192.0.2.1") == 200)
            #expect(try await open("b", from: "192.0.2.1") == 200)
            #expect(try await open("c", from: "192.0.2.1") == 503)
            #expect(try await open("d", from: "192.0.2.2") == 200)
            // A proxy that is believed speaks for its visitors.
            #expect(try await open("e", from: "192.0.2.9", for: "192.0.2.1") == 503)
            #expect(try await open("f", from: "192.0.2.9", for: "192.0.2.3") == 200)
            #expect(server.service.sessionCount == 4)
        }
    }

    @Test func placesAreGivenBack() throws {
        let registry = SockJSSessionRegistry(maxSessions: 4, maxSessionsPerAddress: 1)
        let address = AddressKey(try SocketAddress(ipAddress: "192.0.2.1", port: 1))
        for _ in 0..<3 {
            let place = try #require(registry.reserve(for: address))
            #expect(registry.reserve(for: address) == nil)
            #expect(!registry.isNearlyFull)
            let others = (0..<3).map { _ in registry.reserve(for: nil) }
            #expect(registry.isNearlyFull)
            #expect(registry.reserve(for: nil) == nil)
            for other in others { registry.release(try #require(other), id: nil) }
            registry.release(place, id: nil)
            #expect(registry.count == 0)
        }
    }

    @Test func streaming() async throws {
        try await withServer({ $0.responseLimit = 4096 }) { (server: TestServer) async throws in
            let stream = try await server.begin(.post, "/000/s/xhr_streaming")
            #expect(try await stream.until("o\n") == String(repeating: "h", count: 2048) + "\no\n")
            _ = try await server.ask(.post, "/000/s/xhr_send", body: #"["x","y"]"#)
            #expect(try await stream.until("\"]\n").contains("\"x\""))
            let long = "[\"" + String(repeating: "x", count: 4096) + "\"]"
            _ = try await server.ask(.post, "/000/s/xhr_send", body: long)
            #expect(try await stream.whole().body.hasSuffix("a" + long + "\n"))
        }
    }

    @Test func eventSource() async throws {
        try await withServer { (server: TestServer) async throws in
            let stream = try await server.begin(.get, "/000/s/eventsource", fields: HeaderBlock(["Origin": "null"]))
            #expect(try await stream.until("o\r\n\r\n") == "\r\ndata: o\r\n\r\n")
            _ = try await server.ask(.post, "/000/s/xhr_send", body: #"["  \u0000\n\r "]"#)
            #expect(try await stream.until("]\r\n\r\n").hasSuffix("data: a[\"  \\u0000\\n\\r \"]\r\n\r\n"))
        }
    }

    @Test func htmlFile() async throws {
        try await withServer { (server: TestServer) async throws in
            let stream = try await server.begin(.get, "/000/s/htmlfile?c=%63allback")
            let begin = try await stream.until("</script>\r\n")
            #expect(begin.contains("var c = parent.callback;"))
            #expect(begin.utf8.count > 1024)
            #expect(begin.hasSuffix("<script>\np(\"o\");\n</script>\r\n"))
            _ = try await server.ask(.post, "/000/s/xhr_send", body: #"["</script><b>"]"#)
            #expect(
                try await stream.until("b>\\\"]\");").hasSuffix(
                    "<script>\np(\"a[\\\"\\u003c/script>\\u003cb>\\\"]\");\n</script>\r\n"))
        }
    }

    @Test func jsonp() async throws {
        try await withServer { (server: TestServer) async throws in
            let open = try await server.ask(.get, "/000/s/jsonp?c=%63allback")
            #expect(open.body == "/**/callback(\"o\");\r\n")
            #expect(open.field("X-Content-Type-Options") == "nosniff")
            let form = HeaderBlock(["Content-Type": "application/x-www-form-urlencoded"])
            let sent = try await server.ask(.post, "/000/s/jsonp_send", fields: form, body: "d=%5B%22x%22%5D")
            #expect(sent.status == 200)
            #expect(sent.body == "ok")
            #expect(sent.field("Content-Type") == "text/plain; charset=UTF-8")
            #expect(try await server.ask(.get, "/000/s/jsonp?callback=x").body == "/**/x(\"a[\\\"x\\\"]\");\r\n")
            #expect(
                try await server.ask(
                    .post, "/000/s/jsonp_send", fields: HeaderBlock(["Content-Type": "text/plain"]), body: #"["%61bc"]"#
                ).body == "ok")
            for body in ["", "d=", "p=p"] {
                let answer = try await server.ask(.post, "/000/s/jsonp_send", fields: form, body: body)
                #expect(answer.status == 500)
                #expect(answer.body == "Payload expected.")
            }
            for body in ["d=%5B%22x", "d=%5", "d=%5B%22%FF%22%5D"] {
                let answer = try await server.ask(.post, "/000/s/jsonp_send", fields: form, body: body)
                #expect(answer.body == "Broken JSON encoding.")
            }
        }
    }

    @Test(arguments: ["htmlfile", "jsonp"]) func callbacksThatAreNoNames(_ transport: String) async throws {
        try await withServer { (server: TestServer) async throws in
            for query in ["", "?", "?x=y", "?d"] {
                let answer = try await server.ask(.get, "/a/a/\(transport)\(query)")
                #expect(answer.status == 500)
                #expect(answer.body == "\"callback\" parameter required")
            }
            for callback in [
                "%20", "*", "abc(", "abc%28", "%", "%3", "", "a;b", "a+b", String(repeating: "a", count: 65),
            ] {
                let answer = try await server.ask(.get, "/a/a/\(transport)?c=\(callback)")
                #expect(answer.status == 500)
                #expect(answer.body == "invalid \"callback\" parameter")
            }
            #expect(server.service.sessionCount == 0)
        }
    }

    @Test func cookies() async throws {
        try await withServer({ $0.setsCookie = true }) { (server: TestServer) async throws in
            #expect(try await server.ask(.post, "/000/s/xhr").field("Set-Cookie") == "JSESSIONID=dummy; path=/")
            let kept = try await server.ask(
                .post, "/000/s/xhr_send", fields: HeaderBlock(["Cookie": "a=b; JSESSIONID=abcdef"]), body: "[]")
            #expect(kept.field("Set-Cookie") == "JSESSIONID=abcdef; path=/")
            let info = try await server.ask(.get, "/info")
            #expect(info.body.contains("\"cookie_needed\":true"))
        }
    }

    @Test func webSocketsThatAreNone() async throws {
        try await withServer { (server: TestServer) async throws in
            #expect(try await server.ask(.get, "/0/0/websocket").status == 400)
            let old = try await server.ask(
                .get, "/0/0/websocket",
                fields: HeaderBlock(["Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "6"]))
            #expect(old.status == 426)
            #expect(old.field("Sec-WebSocket-Version") == "13")
            #expect(server.service.sessionCount == 0)
        }
        try await withServer({ $0.allowsWebSocket = false }) { (server: TestServer) async throws in
            let page = try await server.ask(.get, "/0/0/websocket")
            #expect(page.status == 404)
            let info = try await server.ask(.get, "/info")
            #expect(info.body.contains("\"websocket\":false"))
        }
    }
}
