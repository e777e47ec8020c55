/// The request scanner: what it reads, what it refuses, and that it does not matter how the bytes arrive.
import NIOCore
import Testing

@testable import KiteHTTP

@Suite struct RequestScannerTests {
    static func scan(_ text: String, limits: HTTPLimits = HTTPLimits()) -> Result<RequestHead?, HTTPError> {
        var scanner = RequestScanner(limits: limits)
        var buffer = ByteBuffer(string: text)
        do { return .success(try scanner.feed(&buffer)) } catch { return .failure(error) }
    }

    @Test func readsABrowsersRequest() throws {
        let text =
            "GET /a/b?c=d HTTP/1.1\r\nHost: example.com:8080\r\nUser-Agent:  x y \t\r\nAccept: */*\r\nX-Empty:\r\n"
            + "connection: keep-alive\r\n\r\nrest"
        var scanner = RequestScanner()
        var buffer = ByteBuffer(string: text)
        let head = try #require(try scanner.feed(&buffer))
        #expect(head.method == .get)
        #expect(String(buffer: head.target) == "/a/b?c=d")
        #expect(head.path == "/a/b")
        #expect(head.query == "c=d")
        #expect(String(buffer: head.authority) == "example.com:8080")
        #expect(head.fields.count == 5)
        #expect(head.fields.text(.userAgent) == "x y")
        #expect(head.fields.text("x-empty") == "")
        #expect(head.fields.text(.cookie) == nil)
        #expect(head.isKeepAlive)
        #expect(head.bodyLength == .none)
        #expect(head.minorVersion == 1)
        #expect(String(buffer: buffer) == "rest")
    }

    @Test func takesAbsoluteTargetsApart() throws {
        let cases = [
            ("GET http://a.example/x?y HTTP/1.1\r\nHost: A.example\r\n\r\n", "/x?y", "a.example"),
            ("GET http://a.example HTTP/1.1\r\nHost: a.example:80\r\n\r\n", "/", "a.example"),
            ("GET https://a.example:443?q HTTP/1.1\r\nHost: a.example\r\n\r\n", "/?q", "a.example:443"),
            ("OPTIONS http://a.example HTTP/1.1\r\nHost: a.example\r\n\r\n", "*", "a.example"),
            ("GET HTTP://[::1]:90/ HTTP/1.0\r\n\r\n", "/", "[::1]:90"),
        ]
        for (text, target, authority) in cases {
            let head = try #require(try Self.scan(text).get())
            #expect(String(buffer: head.target) == target)
            #expect(String(buffer: head.authority) == authority)
        }
    }

    @Test func readsWhatTheFieldsSayAboutTheMessage() throws {
        func head(_ fields: String, version: String = "1.1") throws -> RequestHead {
            try #require(try Self.scan("POST / HTTP/\(version)\r\nHost: a\r\n\(fields)\r\n").get())
        }
        #expect(try head("Content-Length: 9223372036854775807\r\n").bodyLength == .known(.max))
        #expect(try head("Content-Length: 0\r\n").bodyLength == .known(0))
        #expect(try head("Transfer-Encoding: Chunked\r\n").bodyLength == .unknown)
        #expect(try head("", version: "1.0").isKeepAlive == false)
        #expect(try head("Connection: Keep-Alive\r\n", version: "1.0").isKeepAlive)
        #expect(try head("Connection: x, close\r\n").isKeepAlive == false)
        #expect(try head("Connection: x\r\nConnection: ,close ,\r\n").isKeepAlive == false)
        #expect(try head("Connection: Upgrade\r\nUpgrade: websocket\r\n").wantsUpgrade)
        #expect(try head("Upgrade: websocket\r\n").wantsUpgrade == false)
        for value in ["h2c", "H2C", "HTTP/2.0", "", "a b", "h2c, foo", "websocket, a b", "websocket/13, foo", ","] {
            #expect(try head("Connection: Upgrade\r\nUpgrade: \(value)\r\n").wantsUpgrade == false)
        }
        for value in ["foo, websocket", "WebSocket,h2c", ", websocket ,", "h2c,\twebsocket"] {
            #expect(try head("Connection: Upgrade\r\nUpgrade: \(value)\r\n").wantsUpgrade, "\(value)")
        }
        let twice = "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n"
        #expect(try head(twice).wantsUpgrade == false)
        #expect(try head("Connection: Upgrade\r\nUpgrade: kite-tunnel/1\r\n").wantsUpgrade)
        #expect(try head("Connection: Upgrade\r\nUpgrade: x\r\nContent-Length: 1\r\n").wantsUpgrade == false)
        #expect(try head("Connection: Upgrade\r\nUpgrade: websocket\r\n", version: "1.0").wantsUpgrade == false)
        #expect(try head("Expect: 100-Continue\r\nContent-Length: 1\r\n").expectsContinue)
        #expect(try head("Expect: 100-continue\r\n").expectsContinue == false)
        #expect(try head("Expect: 100-continue\r\nContent-Length: 1\r\n", version: "1.0").expectsContinue == false)
    }

    static let refused: [(String, UInt16, HTTPError.Code)] = [
        // Start line
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, .malformedStartLine),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, .malformedStartLine),
        ("\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, .malformedStartLine),
        ("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, .malformedField),
        ("\u{16}\u{03}\u{01}", 400, .malformedStartLine),
        ("GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, .malformedMethod),
        ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, .malformedMethod),
        ("GET\r\n\r\n", 400, .malformedMethod),
        (String(repeating: "M", count: 33) + " / HTTP/1.1\r\nHost: a\r\n\r\n", 400, .malformedMethod),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, .malformedTarget),
        ("GET / \r\nHost: a\r\n\r\n", 400, .malformedVersion),
        ("GET /\r\nHost: a\r\n\r\n", 400, .malformedTarget),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, .malformedVersion),
        ("GET /\u{7f} HTTP/1.1\r\nHost: a\r\n\r\n", 400, .malformedTarget),
        ("GET /\u{0} HTTP/1.1\r\nHost: a\r\n\r\n", 400, .malformedTarget),
        ("GET /é HTTP/1.1\r\nHost: a\r\n\r\n", 400, .malformedTarget),
        ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400, .malformedTarget),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400, .malformedTarget),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400, .malformedTarget),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, .malformedTarget),
        ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400, .malformedTarget),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, .malformedTarget),
        ("GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400, .malformedTarget),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501, .unsupportedMethod),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, .unsupportedVersion),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, .unsupportedVersion),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400, .malformedVersion),
        ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", 400, .malformedVersion),
        ("GET / http/1.1\r\nHost: a\r\n\r\n", 400, .malformedVersion),
        ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400, .malformedVersion),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400, .malformedVersion),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", 400, .malformedField),
        ("GET / HTTP/1.1\rHost: a\r\n\r\n", 400, .malformedField),
        ("GET / HTP\n", 400, .malformedVersion),
        // Fields
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, .malformedField),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400, .malformedField),
        ("GET / HTTP/1.1\r\nHost: a\r\n\tfolded\r\n\r\n", 400, .malformedField),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, .malformedField),
        ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400, .malformedField),
        ("GET / HTTP/1.1\r\nHost: a\r\nNoColon\r\n\r\n", 400, .malformedField),
        ("GET / HTTP/1.1\r\nHost: a\r\nB@d: x\r\n\r\n", 400, .malformedField),
        ("GET / HTTP/1.1\r\nHost: a\r\nÜ: x\r\n\r\n", 400, .malformedField),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\rc\r\n\r\n", 400, .malformedField),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\nC: d\r\n\r\n", 400, .malformedField),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\u{0}c\r\n\r\n", 400, .malformedField),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: 12345678901\u{1}c\r\n\r\n", 400, .malformedField),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\u{7f}c\r\n\r\n", 400, .malformedField),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\n", 400, .malformedField),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\rX\r\n", 400, .malformedField),
        ("GET / HTTP/1.1\r\nHost: a\n\n", 400, .malformedField),
        // Host
        ("GET / HTTP/1.1\r\n\r\n", 400, .missingHost),
        ("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400, .repeatedHost),
        ("GET / HTTP/1.0\r\nHost: a\r\nhost: a\r\n\r\n", 400, .repeatedHost),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, .malformedHost),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, .malformedHost),
        ("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400, .malformedHost),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, .malformedHost),
        ("GET / HTTP/1.1\r\nHost: u@b\r\n\r\n", 400, .malformedHost),
        ("GET / HTTP/1.1\r\nHost: a:\r\n\r\n", 400, .malformedHost),
        ("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400, .malformedHost),
        ("GET / HTTP/1.1\r\nHost: a:8x\r\n\r\n", 400, .malformedHost),
        ("GET / HTTP/1.1\r\nHost: :80\r\n\r\n", 400, .malformedHost),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, .malformedHost),
        ("GET / HTTP/1.1\r\nHost: [::g]\r\n\r\n", 400, .malformedHost),
        ("GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", 400, .malformedHost),
        ("GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 400, .hostMismatch),
        ("GET http://a:443/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, .hostMismatch),
        ("GET http://a/ HTTP/1.1\r\n\r\n", 400, .missingHost),
        // Framing
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400, .malformedContentLength),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400, .malformedContentLength),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 2\r\n\r\n", 400, .malformedContentLength),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", 400, .malformedContentLength),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n", 400, .malformedContentLength),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400, .malformedContentLength),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n", 400, .malformedContentLength
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400,
            .malformedContentLength
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400,
            .repeatedContentLength
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400,
            .conflictingFraming
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400, .unsupportedTransferEncoding),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, x\r\n\r\n", 400, .unsupportedTransferEncoding),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 400, .unsupportedTransferEncoding),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 400, .unsupportedTransferEncoding),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", 400, .unsupportedTransferEncoding),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400,
            .unsupportedTransferEncoding
        ),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400, .unsupportedTransferEncoding),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: magic\r\n\r\n", 417, .unsupportedExpectation),
    ]

    @Test(arguments: refused.indices) func refuses(_ index: Int) {
        let (text, status, code) = Self.refused[index]
        guard case .failure(let error) = Self.scan(text) else {
            Issue.record("accepted: \(text.debugDescription)")
            return
        }
        #expect(error.status == status, "\(text.debugDescription)")
        #expect(error.code == code, "\(text.debugDescription)")
    }

    @Test(arguments: refused.indices) func refusesTheSameByteByByte(_ index: Int) {
        let (text, _, code) = Self.refused[index]
        var scanner = RequestScanner()
        var buffer = ByteBuffer()
        do {
            for byte in text.utf8 {
                buffer.writeInteger(byte)
                if try scanner.feed(&buffer) != nil { break }
            }
            Issue.record("accepted: \(text.debugDescription)")
        } catch {
            #expect(error.code == code, "\(text.debugDescription)")
        }
    }

    @Test func keepsToItsLimits() throws {
        func status(_ text: String, _ limits: HTTPLimits = HTTPLimits()) -> UInt16? {
            if case .failure(let error) = Self.scan(text, limits: limits) { error.status } else { nil }
        }
        func request(target: Int = 1, fields: Int = 0, value: Int = 0) -> String {
            "GET /" + String(repeating: "a", count: target - 1) + " HTTP/1.1\r\nHost: a\r\n"
                + String(repeating: "A: b\r\n", count: fields)
                + (value > 0 ? "B: " + String(repeating: "b", count: value) + "\r\n" : "") + "\r\n"
        }
        #expect(status(request(target: 16384)) == nil)
        #expect(status(request(target: 16385)) == 414)
        #expect(status("GET /" + String(repeating: "a", count: 20000)) == 414)
        #expect(status(request(fields: 255)) == nil)
        #expect(status(request(fields: 256)) == 431)
        let rest = request(value: 1).utf8.count - 1
        #expect(status(request(value: 65536 - rest)) == nil)
        #expect(status(request(value: 65536 - rest + 1)) == 431)
        #expect(status("GET / HTTP/1.1\r\nA: " + String(repeating: "b", count: 65536)) == 431)
        var limits = HTTPLimits()
        limits.bodyBytes = 10
        #expect(status("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n", limits) == nil)
        #expect(status("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n", limits) == 413)
    }

    @Test func doesNotCareWhereBytesAreSplit() throws {
        let text =
            "\r\nPOST /some/where?x HTTP/1.1\r\nHost: example.com\r\nX-Long: \t abcdefgh ijklmnop\tq \r\nA:\r\n"
            + "Content-Length: 3\r\nConnection: close\r\n\r\nabc"
        for split in 0...text.utf8.count {
            var scanner = RequestScanner()
            var buffer = ByteBuffer(bytes: text.utf8.prefix(split))
            var head = try scanner.feed(&buffer)
            buffer.writeBytes(text.utf8.dropFirst(split))
            if head == nil { head = try scanner.feed(&buffer) }
            let found = try #require(head)
            #expect(String(buffer: found.target) == "/some/where?x")
            #expect(found.fields.count == 5)
            #expect(found.fields.text("x-long") == "abcdefgh ijklmnop\tq")
            #expect(found.bodyLength == .known(3))
            #expect(!found.isKeepAlive)
            #expect(String(buffer: buffer) == "abc")
        }
    }

    @Test func keepsAHeadIntactWhenTheNextIsScanned() throws {
        var scanner = RequestScanner()
        var buffer = ByteBuffer(
            string: "GET /1 HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\nGET /2 HTTP/1.1\r\nHost: bb\r\nX: 22\r\nY: z\r\n\r\n")
        let first = try #require(try scanner.feed(&buffer))
        let second = try #require(try scanner.feed(&buffer))
        #expect(first.fields.count == 2)
        #expect(first.fields.text("X") == "1")
        #expect(String(buffer: first.target) == "/1")
        #expect(second.fields.text("Y") == "z")
        #expect(String(buffer: second.authority) == "bb")
        #expect(try scanner.feed(&buffer) == nil)
    }

    @Test func classifiesEveryNameItKnows() {
        for field in KnownField.allCases where field != .other {
            for name in [field.name, field.name.lowercased(), field.name.uppercased()] {
                #expect(KnownField(ByteBuffer(string: name).readableBytesView) == field)
                // Whatever begins like this one is meant.
                let longer: KnownField = field == .clientCertificate ? field : .other
                #expect(KnownField(ByteBuffer(string: name + "x").readableBytesView) == longer)
                #expect(KnownField(ByteBuffer(string: "z" + name.dropFirst()).readableBytesView) != field)
            }
        }
        #expect(KnownField.allCases.count < 64)
    }

    @Test func knowsTokenCharacters() {
        let others = Set("!#$%&'*+-.^_`|~".utf8)
        for byte in UInt8.min...UInt8.max {
            let isLetter = (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
            #expect(byte.isTokenCharacter == (isLetter || (0x30...0x39).contains(byte) || others.contains(byte)))
        }
    }
}
