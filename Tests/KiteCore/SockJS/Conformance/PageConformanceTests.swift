// What sockjs-protocol 0.3.3 and its head ask of everything that needs no session: greeting, iframe page, `/info`, cookies, and the
// HTTP beneath. A test is named after the case of that suite which it answers (class, then case).
import Foundation
import Testing

@Suite(.timeLimit(.minutes(1))) struct PageConformanceTests {
    // MARK: BaseUrlGreeting

    @Test func baseUrlGreeting_greeting() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            for path in ["/echo", "/echo/"] {
                let answer = try await server.get(path)
                #expect(answer.status == 200)
                #expect(answer.body == "Welcome to SockJS!\n")
                expectContentType(answer.head, plainType)
                #expect(!answer.head.has("Set-Cookie"))
            }
        }
    }

    @Test func baseUrlGreeting_notFound() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            for path in ["/a", "/a.html", "//", "///", "/a/a", "/a/a/", "/a/"] {
                #expect(try await server.get("/echo" + path).status == 404, "\(path)")
            }
        }
    }

    // MARK: IframePage

    @Test(arguments: [
        "/iframe.html", "/iframe-a.html", "/iframe-.html", "/iframe-0.1.2.html", "/iframe-0.1.2abc-dirty.2144.html",
        "/iframe-a.html?t=1234", "/iframe-0.1.2.html?t=123414", "/iframe-0.1.2abc-dirty.2144.html?t=qweqweq123",
    ]) func iframePage_simpleUrl_versionedUrl_queriedUrl(_ path: String) async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let answer = try await server.get("/echo" + path)
            #expect(answer.status == 200)
            expectContentType(answer.head, pageType)
            expectCached(answer.head)
            #expect(answer["ETag"]?.isEmpty == false)
            #expect(!answer.head.has("Set-Cookie"))
            // The page in the order of the suite's head: the script first, then the call.
            let lines = answer.body.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }
            #expect(lines.first == "<!DOCTYPE html>")
            #expect(lines.last == "</html>")
            let script = try #require(lines.firstIndex { $0.hasPrefix("<script src=\"") })
            let source = lines[script].dropFirst(13)
            #expect(source.hasPrefix("/") || source.hasPrefix("http"))
            #expect(
                Array(lines[(script + 1)...].prefix(4)) == [
                    "<script>", "document.domain = document.domain;", "SockJS.bootstrap_iframe();", "</script>",
                ])
        }
    }

    @Test func iframePage_invalidUrl() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            for path in [
                "/iframe.htm", "/iframe", "/IFRAME.HTML", "/IFRAME", "/iframe.HTML", "/iframe.xml", "/iframe-/.html",
            ] { #expect(try await server.get("/echo" + path).status == 404, "\(path)") }
        }
    }

    @Test func iframePage_cacheability() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let tag = try #require(try await server.get("/echo/iframe.html")["ETag"])
            #expect(try await server.get("/echo/iframe.html")["ETag"] == tag)
            for value in [tag, "\"other\", \(tag)", "W/\(tag)", "*"] {
                let again = try await server.get("/echo/iframe.html", [("If-None-Match", value)])
                #expect(again.status == 304)
                #expect(!again.head.has("Content-Type"))
                #expect(again["ETag"] == tag)
                #expect(again.body.isEmpty)
            }
            #expect(try await server.get("/echo/iframe.html", [("If-None-Match", "\"other\"")]).status == 200)
        }
    }

    // MARK: InfoTest

    struct Info: Decodable {
        var websocket: Bool
        var cookieNeeded: Bool
        var origins: [String]
        var entropy: UInt32

        enum CodingKeys: String, CodingKey {
            case websocket, origins, entropy
            case cookieNeeded = "cookie_needed"
        }
    }
    static func info(_ answer: RawResponse) throws -> Info {
        #expect(answer.status == 200)
        expectContentType(answer.head, "application/json;charset=UTF-8")
        return try JSONDecoder().decode(Info.self, from: Data(answer.body.utf8))
    }

    @Test func infoTest_basic() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let answer = try await server.get("/echo/info", [("Origin", "test")])
            let info = try Self.info(answer)
            #expect(!answer.head.has("Set-Cookie"))
            expectNotCached(answer.head)
            expectCrossOrigin(answer.head, "test")
            #expect(info.websocket)
            #expect(!info.cookieNeeded)
            #expect(info.origins == ["*:*"])
            expectCrossOrigin(try await server.get("/echo/info").head, nil)
        }
    }

    @Test func infoTest_entropy() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            var drawn: Set<UInt32> = []
            for _ in 0..<4 { drawn.insert(try Self.info(try await server.get("/echo/info")).entropy) }
            // That two of four are the same by chance happens once in 700 million runs.
            #expect(drawn.count == 4)
        }
    }

    @Test(arguments: [
        ("/info", "OPTIONS, GET"), ("/abc/abc/xhr", "OPTIONS, POST"), ("/abc/abc/xhr_send", "OPTIONS, POST"),
        ("/abc/abc/xhr_streaming", "OPTIONS, POST"),
    ]) func infoTest_options_xhrPolling_options_xhrStreaming_options(_ path: String, _ methods: String) async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            for origin in ["test", "null", nil] {
                var fields = [("Access-Control-Request-Method", methods)]
                if let origin { fields.append(("Origin", origin)) }
                let answer = try await server.ask("OPTIONS", "/echo" + path, fields)
                #expect(answer.status == 204)
                expectCached(answer.head)
                #expect(Int(answer["Access-Control-Max-Age"] ?? "") ?? 0 > 1_000_000)
                #expect(answer["Access-Control-Allow-Methods"] == methods)
                #expect(answer.body.isEmpty)
                expectCrossOrigin(answer.head, origin)
            }
        }
    }

    @Test func infoTest_optionsNullOrigin() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let answer = try await server.ask(
                "OPTIONS", "/echo/info", [("Origin", "null"), ("Access-Control-Request-Method", "POST")])
            #expect(answer.status == 204)
            #expect(answer["Access-Control-Allow-Origin"] == "null")
            #expect(answer.body.isEmpty)
        }
    }

    @Test func infoTest_disabledWebsocket() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            #expect(try !Self.info(try await server.get("/disabled_websocket_echo/info")).websocket)
            let refused = try await server.get("/disabled_websocket_echo/0/0/websocket", RawConnection.upgrade)
            #expect(refused.status == 404)
        }
    }

    // MARK: JsessionidCookie

    @Test func jsessionidCookie_basic() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let answer = try await server.get("/cookie_needed_echo/info")
            #expect(try Self.info(answer).cookieNeeded)
            #expect(!answer.head.has("Set-Cookie"))
        }
    }

    @Test func jsessionidCookie_xhr() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let fresh = try await server.post(ConformanceServer.session("/cookie_needed_echo") + "/xhr")
            #expect(fresh.body == "o\n")
            #expect(fresh["Set-Cookie"] == "JSESSIONID=dummy; path=/")
            let known = try await server.post(
                ConformanceServer.session("/cookie_needed_echo") + "/xhr", nil, [("Cookie", "JSESSIONID=abcdef")])
            #expect(known.body == "o\n")
            #expect(known["Set-Cookie"] == "JSESSIONID=abcdef; path=/")
        }
    }

    @Test func jsessionidCookie_xhrStreaming_eventsource_htmlfile() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            for (method, path) in [
                ("POST", "/xhr_streaming"), ("GET", "/eventsource"), ("GET", "/htmlfile?c=%63allback"),
            ] {
                let (connection, head) = try await server.stream(
                    method, ConformanceServer.session("/cookie_needed_echo") + path)
                #expect(head.status == 200)
                #expect(head["Set-Cookie"] == "JSESSIONID=dummy; path=/")
                try await connection.close()
            }
        }
    }

    @Test func jsessionidCookie_jsonp() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let session = ConformanceServer.session("/cookie_needed_echo")
            let open = try await server.get(session + "/jsonp?c=%63allback")
            #expect(open.body == "/**/callback(\"o\");\r\n")
            #expect(open["Set-Cookie"] == "JSESSIONID=dummy; path=/")
            let sent = try await server.post(session + "/jsonp_send", "d=%5B%22x%22%5D", [formType])
            #expect(sent.body == "ok")
            #expect(sent["Set-Cookie"] == "JSESSIONID=dummy; path=/")
        }
    }

    // MARK: Http10, Http11

    @Test(arguments: ["1.0", "1.1"]) func http10_http11_synchronous(_ version: String) async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let connection = try await server.connect()
            for _ in 0..<2 {
                let head = try await connection.request(
                    "GET", "/echo", version: version, fields: [("Connection", "Keep-Alive")])
                #expect(head.status == 200)
                #expect(!head.has("Transfer-Encoding"))
                #expect(head["Content-Length"] == "19")
                #expect(try await connection.body(head) == "Welcome to SockJS!\n")
                if version == "1.0" { #expect(head["Connection"]?.lowercased() == "keep-alive") }
            }
            let last = try await connection.request("GET", "/echo", version: version, fields: [("Connection", "close")])
            #expect(try await connection.body(last) == "Welcome to SockJS!\n")
            #expect(try await connection.isClosed())
        }
    }

    @Test func http10_streaming() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let connection = try await server.connect()
            let head = try await connection.request(
                "POST", ConformanceServer.session("/close") + "/xhr_streaming", version: "1.0",
                fields: [("Connection", "Keep-Alive")])
            #expect(head.status == 200)
            #expect(!head.has("Transfer-Encoding"))
            #expect(!head.has("Content-Length"))
            #expect(try await connection.text(2049) == String(repeating: "h", count: 2048) + "\n")
            #expect(try await connection.rest() == "o\nc[3000,\"Go away!\"]\n")
        }
    }

    @Test func http11_streaming() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let (connection, head) = try await server.stream(
                "POST", ConformanceServer.session("/close") + "/xhr_streaming", [("Connection", "Keep-Alive")])
            #expect(head.status == 200)
            #expect(head["Transfer-Encoding"] == "chunked")
            #expect(!head.has("Content-Length"))
            #expect(try await connection.chunk().hasPrefix("h"))
            #expect(try await connection.chunk() == "o\n")
            #expect(try await connection.chunk() == "c[3000,\"Go away!\"]\n")
            #expect(try await connection.chunk() == "")
            // The stream has ended, not the connection.
            #expect(try await connection.request("GET", "/echo").status == 200)
        }
    }

    /// The quirk that the suite keeps apart from its cases: a POST that says nothing of a body has none.
    @Test func http_postWithoutContentLength() async throws {
        try await ConformanceServer.run { (server: ConformanceServer) async throws in
            let connection = try await server.connect()
            try await connection.send("POST \(ConformanceServer.session())/xhr HTTP/1.1\r\nHost: h\r\n\r\n")
            let head = try await connection.head()
            #expect(head.status == 200)
            #expect(try await connection.body(head) == "o\n")
        }
    }
}
