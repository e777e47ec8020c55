// What sockjs-protocol 0.3.3 and its head ask of sessions and of the polling transports. A test is named after the case of that suite
// which it answers (class, then case).
import Foundation
import Testing

@Suite(.timeLimit(.minutes(1))) struct PollingConformanceTests {
    // MARK: SessionURLs

    @Test func sessionURLs_anyValue() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            for session in ["/a/a", "/_/_", "/1/1", "/abcdefgh_i-j%20/abcdefg_i-j%20"] {
                try await server.open("/echo" + session)
            }
        }
    }

    @Test func sessionURLs_invalidPaths() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            for path in ["//", "/a./a", "/a/a.", "/./.", "/", "///"] {
                for method in ["GET", "POST"] {
                    #expect(try await server.ask(method, "/echo\(path)/xhr").status == 404, "\(method) \(path)")
                }
            }
        }
    }

    @Test func sessionURLs_ignoringServerId() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let session = ConformanceServer.session()
            try await server.open(session)
            try await server.send(session, #"["a"]"#)
            let elsewhere = session.replacing("/000/", with: "/999/")
            #expect(try await server.post(elsewhere + "/xhr").body == "a[\"a\"]\n")
        }
    }

    // MARK: Protocol

    @Test func protocol_simpleSession() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let session = ConformanceServer.session()
            try await server.open(session)
            try await server.send(session, #"["a"]"#)
            #expect(try await server.post(session + "/xhr").body == "a[\"a\"]\n")
            #expect(try await server.post("/echo/000/bad_session/xhr_send", #"["a"]"#).status == 404)
            let (answered, waiting) = try await server.twoPolls(session, "POST", "/xhr")
            let head = try await answered.head()
            #expect(head.status == 200)
            #expect(try await answered.body(head) == "c[2010,\"Another connection still open\"]\n")
            // The one that waits still serves the session.
            try await server.send(session, #"["b"]"#)
            #expect(try await waiting.body(try await waiting.head()) == "a[\"b\"]\n")
        }
    }

    @Test func protocol_closeSession() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let session = ConformanceServer.session("/close")
            try await server.open(session)
            for _ in 0..<2 {
                let answer = try await server.post(session + "/xhr")
                #expect(answer.status == 200)
                #expect(answer.body == "c[3000,\"Go away!\"]\n")
            }
        }
    }

    // MARK: XhrPolling (its preflights are with those of /info)

    @Test func xhrPolling_transport() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let session = ConformanceServer.session()
            let open = try await server.post(session + "/xhr", nil, [("Origin", "test")])
            #expect(open.status == 200)
            #expect(open.body == "o\n")
            expectContentType(open.head, scriptType)
            expectCrossOrigin(open.head, "test")
            expectNotCached(open.head)
            let sent = try await server.post(session + "/xhr_send", #"["x"]"#, [("Origin", "test")])
            #expect(sent.status == 204)
            #expect(sent.body.isEmpty)
            expectContentType(sent.head, plainType)
            expectCrossOrigin(sent.head, "test")
            expectNotCached(sent.head)
            let received = try await server.post(session + "/xhr")
            #expect(received.status == 200)
            #expect(received.body == "a[\"x\"]\n")
            expectCrossOrigin(received.head, nil)
        }
    }

    @Test func xhrPolling_invalidSession() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            #expect(try await server.post(ConformanceServer.session() + "/xhr_send", #"["x"]"#).status == 404)
        }
    }

    @Test func xhrPolling_invalidJson() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let session = ConformanceServer.session()
            try await server.open(session)
            for (body, reason) in [(#"["x"#, "Broken JSON encoding."), ("", "Payload expected.")] {
                let answer = try await server.post(session + "/xhr_send", body)
                #expect(answer.status == 500)
                #expect(answer.body.contains(reason))
            }
            try await server.send(session, #"["a"]"#)
            #expect(try await server.post(session + "/xhr").body == "a[\"a\"]\n")
        }
    }

    @Test func xhrPolling_contentTypes() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let session = ConformanceServer.session()
            try await server.open(session)
            let types = [
                "text/plain", "T", "application/json", "application/xml", "", "application/json; charset=utf-8",
                "text/xml; charset=utf-8", "text/xml",
            ]
            for type in types {
                let answer = try await server.post(session + "/xhr_send", #"["a"]"#, [("Content-Type", type)])
                #expect(answer.status == 204)
            }
            // The echoes need not all be there when the first poll comes.
            var received = ""
            while received.filter({ $0 == "a" }).count < types.count {
                received += try await server.post(session + "/xhr").body.dropFirst(2).dropLast(2)
            }
            #expect(received.replacing(",", with: "") == String(repeating: "\"a\"", count: types.count))
        }
    }

    @Test func xhrPolling_requestHeadersCors() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            for (wanted, allowed) in [("a, b, c", "a, b, c"), ("", nil), (nil, nil)] as [(String?, String?)] {
                var fields = [("Origin", "test"), ("Access-Control-Request-Method", "POST")]
                if let wanted { fields.append(("Access-Control-Request-Headers", wanted)) }
                let answer = try await server.ask("OPTIONS", ConformanceServer.session() + "/xhr", fields)
                #expect(answer.status == 204)
                expectCrossOrigin(answer.head, "test")
                #expect(answer["Access-Control-Allow-Headers"] == allowed)
            }
        }
    }

    @Test func xhrPolling_sendingEmptyFrame() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let session = ConformanceServer.session()
            try await server.open(session)
            try await server.send(session, "[]")
            try await server.send(session, #"["a"]"#)
            #expect(try await server.post(session + "/xhr").body == "a[\"a\"]\n")
        }
    }

    // MARK: JsonPolling

    @Test func jsonPolling_transport() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let session = ConformanceServer.session()
            let open = try await server.get(session + "/jsonp?c=%63allback")
            #expect(open.status == 200)
            #expect(open.body == "/**/callback(\"o\");\r\n")
            expectContentType(open.head, scriptType)
            expectNotCached(open.head)
            let sent = try await server.post(session + "/jsonp_send", "d=%5B%22x%22%5D", [formType])
            #expect(sent.status == 200)
            #expect(sent.body == "ok")
            expectContentType(sent.head, plainType)
            expectNotCached(sent.head)
            let received = try await server.get(session + "/jsonp?c=%63allback")
            #expect(received.status == 200)
            #expect(received.body == "/**/callback(\"a[\\\"x\\\"]\");\r\n")
        }
    }

    @Test(arguments: ["jsonp", "htmlfile"])
    func jsonPolling_noCallback_invalidCallback_htmlFile_same(_ transport: String) async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let missing = try await server.get("/echo/a/a/\(transport)")
            #expect(missing.status == 500)
            #expect(missing.body.contains("\"callback\" parameter required"))
            for callback in ["%20", "*", "abc(", "abc%28"] {
                let answer = try await server.get("/echo/a/a/\(transport)?c=\(callback)")
                #expect(answer.status == 500)
                #expect(answer.body.contains("invalid \"callback\" parameter"))
            }
        }
    }

    @Test func jsonPolling_invalidJson() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let session = ConformanceServer.session()
            #expect(try await server.get(session + "/jsonp?c=x").body == "/**/x(\"o\");\r\n")
            for (body, reason) in [
                ("d=%5B%22x", "Broken JSON encoding."), ("", "Payload expected."), ("d=", "Payload expected."),
                ("p=p", "Payload expected."),
            ] {
                let answer = try await server.post(session + "/jsonp_send", body, [formType])
                #expect(answer.status == 500)
                #expect(answer.body.contains(reason))
            }
            #expect(try await server.post(session + "/jsonp_send", "d=%5B%22b%22%5D", [formType]).body == "ok")
            #expect(try await server.get(session + "/jsonp?c=x").body == "/**/x(\"a[\\\"b\\\"]\");\r\n")
        }
    }

    @Test func jsonPolling_contentTypes() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let session = ConformanceServer.session()
            #expect(try await server.get(session + "/jsonp?c=x").body == "/**/x(\"o\");\r\n")
            #expect(try await server.post(session + "/jsonp_send", "d=%5B%22abc%22%5D", [formType]).body == "ok")
            #expect(try await server.get(session + "/jsonp?c=x").body == "/**/x(\"a[\\\"abc\\\"]\");\r\n")
            // A body that is no form is taken as it is.
            let plain = ("Content-Type", "text/plain")
            #expect(try await server.post(session + "/jsonp_send", #"["%61bc"]"#, [plain]).body == "ok")
            #expect(try await server.get(session + "/jsonp?c=x").body == "/**/x(\"a[\\\"%61bc\\\"]\");\r\n")
        }
    }

    @Test func jsonPolling_close() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let session = ConformanceServer.session("/close")
            #expect(try await server.get(session + "/jsonp?c=x").body == "/**/x(\"o\");\r\n")
            for _ in 0..<2 {
                #expect(
                    try await server.get(session + "/jsonp?c=x").body == "/**/x(\"c[3000,\\\"Go away!\\\"]\");\r\n")
            }
        }
    }

    @Test func jsonPolling_sendingEmptyFrame() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let session = ConformanceServer.session()
            #expect(try await server.get(session + "/jsonp?c=x").body == "/**/x(\"o\");\r\n")
            for body in ["d=%5B%5D", "d=%5B%22x%22%5D"] {
                #expect(try await server.post(session + "/jsonp_send", body, [formType]).body == "ok")
            }
            #expect(try await server.get(session + "/jsonp?c=x").body == "/**/x(\"a[\\\"x\\\"]\");\r\n")
        }
    }

    // MARK: JSONEncoding

    /// Characters that browsers mangle go out escaped, with small hexadecimal digits, whatever they came as.
    @Test func jsonEncoding_xhrServerEncodes() async throws {
        let ranges: [ClosedRange<UInt32>] = [0x200C...0x200F, 0x2028...0x202F, 0x2060...0x206F, 0xFFF0...0xFFFF]
        let units = ranges.flatMap { Array($0) }
        let raw = String(String.UnicodeScalarView(units.compactMap { Unicode.Scalar($0) }))
        let escaped = units.map {
            "\\u" + String(repeating: "0", count: 4 - String($0, radix: 16).count) + String($0, radix: 16)
        }
        .joined()
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let session = ConformanceServer.session()
            try await server.open(session)
            try await server.send(session, "[\"\(raw)\"]")
            #expect(try await server.post(session + "/xhr").body == "a[\"\(escaped)\"]\n")
        }
    }

    /// Whatever a browser escapes is understood: here all of the basic plane but the surrogates, and a pair of those.
    @Test func jsonEncoding_xhrServerDecodes() async throws {
        let units = (0...0xFFFF as ClosedRange<UInt32>).filter { !(0xD800...0xDFFF).contains($0) }
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let session = ConformanceServer.session()
            try await server.open(session)
            var body = "[\""
            for unit in units {
                let digits = String(unit, radix: 16)
                body += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            }
            try await server.send(session, body + "\\uD83D\\ude00\"]")
            let received = try await server.post(session + "/xhr").body
            let text = try JSONDecoder().decode([String].self, from: Data(received.dropFirst().utf8))
            let expected = String.UnicodeScalarView(units.compactMap { Unicode.Scalar($0) })
            #expect(text.count == 1)
            #expect(text.first.map { Array($0.unicodeScalars) } == Array(expected) + ["\u{1F600}"])
        }
    }
}
