import Foundation
import NIOCore
import Testing

@testable import KiteHTTP

@Suite("Message writer")
struct MessageWriterTests {
    private func request(_ wire: String) throws -> RequestHead {
        var scanner = RequestScanner()
        var buffer = ByteBuffer(string: wire.replacing("\n", with: "\r\n"))
        return try #require(try scanner.feed(&buffer))
    }

    private func response(_ wire: String, to method: RequestMethod = .get) throws -> ResponseHead {
        var scanner = ResponseScanner()
        var buffer = ByteBuffer(string: wire.replacing("\n", with: "\r\n"))
        return try #require(try scanner.feed(&buffer, requestMethod: method))
    }

    private func origin(_ address: String = "192.0.2.7", trusted: Bool = false, secure: Bool = false) throws
        -> ForwardedOrigin
    {
        ForwardedOrigin(
            peer: ExchangePeer(
                address: try SocketAddress(ipAddress: address, port: 4000), isSecure: secure, isTrustedProxy: trusted),
            gateway: "gw-1")
    }

    private func forward(
        _ wire: String, rewrite: RequestRewrite = RequestRewrite(), origin: ForwardedOrigin? = nil,
        upgrade: Bool = false
    ) throws -> [String] {
        var buffer = ByteBuffer()
        MessageWriter.writeForwardedRequest(
            try request(wire), rewrite: rewrite, origin: try origin ?? self.origin(), isUpgrade: upgrade, into: &buffer)
        let text = String(buffer: buffer)
        #expect(text.hasSuffix("\r\n\r\n"))
        return text.dropLast(2).components(separatedBy: "\r\n")
    }

    private let provenance = [
        "X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: http", "X-Forwarded-Host: a.test", "X-Real-IP: 192.0.2.7",
        "Forwarded: for=192.0.2.7;proto=http;host=\"a.test\"", "Via: 1.1 gw-1",
    ]

    @Test("A forwarded request keeps end-to-end fields in order and loses hop-by-hop ones")
    func hopByHop() throws {
        let lines = try forward(
            """
            GET /x?y=%2F HTTP/1.1
            Host: a.test
            A: 1
            Connection: keep-alive, X-Private, TE
            B:  2\u{20}
            X-Private: secret
            Keep-Alive: timeout=5
            Proxy-Connection: keep-alive
            TE: trailers, gzip
            Upgrade: h2c
            C: 3


            """)
        #expect(
            lines == ["GET /x?y=%2F HTTP/1.1", "Host: a.test", "A: 1", "B:  2", "C: 3"] + provenance + [
                "Connection: TE", "TE: trailers",
            ])
    }

    @Test("Connection cannot take away what the upstream relies on")
    func protected() throws {
        let lines = try forward(
            "GET / HTTP/1.1\nHost: a.test\nAuthorization: t\nCookie: c\nConnection: Host, Authorization, Cookie, X-Forwarded-For\n\n"
        )
        #expect(lines == ["GET / HTTP/1.1", "Host: a.test", "Authorization: t", "Cookie: c"] + provenance)
    }

    @Test("A stranger's provenance is replaced, a trusted proxy's extended")
    func provenanceFields() throws {
        let wire =
            "GET / HTTP/1.1\nHost: a.test\nX-Forwarded-For: 1.1.1.1\nX-Forwarded-For: 2.2.2.2\nX-Forwarded-Proto: https\nX-Forwarded-Host: b.test\nForwarded: for=1.1.1.1\nX-Real-IP: 1.1.1.1\nVia: 1.0 other\n\n"
        #expect(try forward(wire) == ["GET / HTTP/1.1", "Host: a.test", "Via: 1.0 other"] + provenance)
        #expect(
            try forward(wire, origin: origin(trusted: true)) == [
                "GET / HTTP/1.1", "Host: a.test", "Via: 1.0 other", "X-Forwarded-For: 1.1.1.1, 2.2.2.2, 192.0.2.7",
                "X-Forwarded-Proto: https", "X-Forwarded-Host: b.test", "X-Real-IP: 2.2.2.2",
                "Forwarded: for=1.1.1.1, for=192.0.2.7;proto=http;host=\"a.test\"", "Via: 1.1 gw-1",
            ])
    }

    @Test("X-Real-IP names the visitor where he is known")
    func realAddress() throws {
        let wire = "GET / HTTP/1.1\nHost: a.test\nX-Forwarded-For: 1.1.1.1, 2.2.2.2\nX-Forwarded-For: 3.3.3.3 , \n\n"
        #expect(try forward(wire).contains("X-Real-IP: 192.0.2.7"))
        #expect(try forward(wire, origin: origin(trusted: true)).contains("X-Real-IP: 3.3.3.3"))
        let plain = "GET / HTTP/1.1\nHost: a.test\n\n"
        #expect(try forward(plain, origin: origin(trusted: true)).contains("X-Real-IP: 192.0.2.7"))
        let local = ForwardedOrigin(peer: ExchangePeer(), gateway: "gw-1")
        #expect(try !forward(plain, origin: local).contains { $0.hasPrefix("X-Real-IP") })
    }

    @Test(
        "Max-Forwards is counted down for the methods that have it",
        arguments: [
            ("OPTIONS", "5", .remaining(5), "4"), ("TRACE", "1", .remaining(1), "0"),
            ("OPTIONS", "007", .remaining(7), "6"), ("OPTIONS", "0", .exhausted, nil),
            ("TRACE", "000", .exhausted, nil),
            ("OPTIONS", "99999999999999999999", .remaining(.max), "4294967294"),
            ("OPTIONS", "4294967295", .remaining(.max), "4294967294"), ("TRACE", "-1", .malformed, nil),
            ("TRACE", "1, 2", .malformed, nil), ("TRACE", "", .malformed, nil), ("TRACE", "x", .malformed, nil),
            ("GET", "5", .unlimited, "5"), ("GET", "0", .unlimited, "0"),
        ] as [(String, String, MaxForwards, String?)])
    func maxForwards(method: String, value: String, expected: MaxForwards, written: String?) throws {
        let wire = "\(method) / HTTP/1.1\nHost: a.test\nMax-Forwards: \(value)\nConnection: Max-Forwards\n\n"
        #expect(try MaxForwards(request(wire)) == expected)
        guard let written else { return }
        #expect(try forward(wire).filter { $0.hasPrefix("Max-Forwards") } == ["Max-Forwards: \(written)"])
    }

    @Test("Max-Forwards said twice is malformed, and not said is no limit")
    func repeatedMaxForwards() throws {
        let twice = "OPTIONS / HTTP/1.1\nHost: a\nMax-Forwards: 1\nMax-Forwards: 1\n\n"
        #expect(try MaxForwards(request(twice)) == .malformed)
        #expect(try MaxForwards(request("OPTIONS / HTTP/1.1\nHost: a\n\n")) == .unlimited)
    }

    @Test("IPv6 addresses are quoted in Forwarded")
    func ipv6() throws {
        let lines = try forward("GET / HTTP/1.1\nHost: a.test\n\n", origin: origin("2001:db8::1", secure: true))
        #expect(lines.contains("X-Forwarded-For: 2001:db8::1"))
        #expect(lines.contains("Forwarded: for=\"[2001:db8::1]\";proto=https;host=\"a.test\""))
    }

    @Test("A request that has been here before is a loop")
    func loop() throws {
        #expect(try origin().isLoop(request("GET / HTTP/1.1\nHost: a\nVia: 1.0 x, 1.1 GW-1 (c)\n\n")))
        #expect(try !origin().isLoop(request("GET / HTTP/1.1\nHost: a\nVia: 1.0 x, 1.1 gw-10\n\n")))
        #expect(try !origin().isLoop(request("GET / HTTP/1.1\nHost: a\n\n")))
    }

    @Test(
        "Target and Host are rewritten, the query untouched",
        arguments: [
            ("/proxy/id/a%2Fb/?q=/x", 9, "/kite", "/kite/a%2Fb/?q=/x"), ("/proxy/id", 9, "/kite", "/kite"),
            ("/proxy/id?a=1", 9, nil, "/?a=1"), ("/proxy/id/", 9, nil, "/"),
        ] as [(String, Int, String?, String)])
    func rewrite(target: String, dropped: Int, prefix: String?, expected: String) throws {
        let rewrite = RequestRewrite(
            host: ByteBuffer(string: "b.test:1"), droppedPathBytes: dropped,
            pathPrefix: prefix.map { ByteBuffer(string: $0) })
        let lines = try forward("GET \(target) HTTP/1.1\nHost: a.test\n\n", rewrite: rewrite)
        #expect(lines.prefix(2) == ["GET \(expected) HTTP/1.1", "Host: b.test:1"])
    }

    @Test("The framing of a request is said anew")
    func requestFraming() throws {
        #expect(try forward("POST / HTTP/1.1\nHost: a.test\nContent-Length: 007\n\n").contains("Content-Length: 7"))
        #expect(try forward("POST / HTTP/1.1\nHost: a.test\n\n").contains("Content-Length: 0"))
        let chunked = try forward("POST / HTTP/1.1\nHost: a.test\nTransfer-Encoding: Chunked\nExpect: 100-continue\n\n")
        #expect(chunked.last == "Transfer-Encoding: chunked")
        #expect(!chunked.contains { $0.hasPrefix("Expect") })
    }

    @Test("An upgrade is passed on only where it is wanted")
    func upgrade() throws {
        let wire =
            "GET / HTTP/1.1\nHost: a.test\nConnection: keep-alive, Upgrade\nUpgrade: websocket\nSec-WebSocket-Key: k\n\n"
        #expect(try forward(wire, upgrade: true).suffix(2) == ["Connection: Upgrade", "Upgrade: websocket"])
        #expect(try !forward(wire).contains { $0.hasPrefix("Upgrade") })
        // Of several protocols only the one that passes.
        let several = "GET / HTTP/1.1\nHost: a.test\nConnection: Upgrade\nUpgrade: h2c, WebSocket\n\n"
        #expect(try forward(several, upgrade: true).suffix(2) == ["Connection: Upgrade", "Upgrade: websocket"])
    }

    private func write(
        _ head: ResponseHead, method: RequestMethod = .get, chunked: Bool = false,
        connection: MessageWriter.ConnectionOption = .persist, date: String = "Date: D\r\n"
    ) -> [String] {
        var buffer = ByteBuffer()
        MessageWriter.writeResponse(
            head, method: method, isChunked: chunked, connection: connection, date: ByteBuffer(string: date),
            into: &buffer)
        return String(buffer: buffer).dropLast(2).components(separatedBy: "\r\n")
    }

    @Test("A response says its framing once and keeps what describes a body that is not sent")
    func responseFraming() throws {
        #expect(
            write(ResponseHead(status: 200, bodyLength: .known(5))) == [
                "HTTP/1.1 200 OK", "Date: D", "Content-Length: 5",
            ])
        #expect(write(ResponseHead(status: 404)) == ["HTTP/1.1 404 Not Found", "Date: D", "Content-Length: 0"])
        #expect(write(ResponseHead(status: 204)) == ["HTTP/1.1 204 No Content", "Date: D"])
        #expect(
            write(try response("HTTP/1.1 200 Fine\nContent-Length: 7\nDate: Q\n\n", to: .head), method: .head)
                == ["HTTP/1.1 200 Fine", "Content-Length: 7", "Date: Q"])
        #expect(
            write(try response("HTTP/1.1 304 Not Modified\nContent-Length: 7\n\n"))
                == ["HTTP/1.1 304 Not Modified", "Content-Length: 7", "Date: D"])
        #expect(
            write(
                try response(
                    "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nConnection: close, X-Hop\nX-Hop: 1\nETag: e\n\n"),
                chunked: true, connection: .close)
                == ["HTTP/1.1 200 OK", "ETag: e", "Date: D", "Transfer-Encoding: chunked", "Connection: close"])
        #expect(
            write(
                try response("HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nConnection: Upgrade\nX: 1\n\n"),
                connection: .upgrade)
                == ["HTTP/1.1 101 Switching Protocols", "X: 1", "Connection: Upgrade", "Upgrade: websocket"])
    }

    @Test("A removed field does not come back with its neighbours")
    func removed() {
        var fields = HeaderBlock(["A": "1", "Server": "s", "B": "2"])
        fields.remove(.server)
        #expect(
            write(ResponseHead(status: 200, fields: fields)) == [
                "HTTP/1.1 200 OK", "A: 1", "B: 2", "Date: D", "Content-Length: 0",
            ])
    }

    @Test(
        "A refusal is a line of text, or JSON where that is accepted",
        arguments: [
            (nil, false), ("*/*", false), ("application/json", true), ("text/html, application/json", false),
            ("application/json;q=0", false), ("text/plain, application/json;q=0.5", true),
        ] as [(String?, Bool)])
    func refusal(accept: String?, isJSON: Bool) throws {
        let head = try request("GET / HTTP/1.1\nHost: a\n" + (accept.map { "Accept: \($0)\n" } ?? "") + "\n")
        let (answer, body) = Refusal(503, "Say \"please\".\u{1}", retryAfter: 3).response(to: head)
        #expect(answer.fields.text("retry-after") == "3")
        #expect(
            String(buffer: body)
                == (isJSON ? "{\"error\":\"Say \\\"please\\\".\\u0001\",\"status\":503}\n" : "Say \"please\".\u{1}\n"))
    }

    @Test(
        "Dates are in the fixed format",
        arguments: [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"), (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"), (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (1_798_761_599, "Thu, 31 Dec 2026 23:59:59 GMT"),
        ])
    func dates(seconds: Int, text: String) {
        #expect(DateField.text(seconds) == text)
    }
}
