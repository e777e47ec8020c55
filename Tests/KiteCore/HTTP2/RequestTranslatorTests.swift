/// What becomes of the fields of a request, and which are refused.
import KiteHTTP
import NIOCore
import NIOHPACK
import Testing

@testable import KiteHTTP2

private let plain: [(String, String)] = [
    (":method", "GET"), (":scheme", "https"), (":authority", "kite.test"), (":path", "/a?b=c"),
]

private func request(
    _ fields: [(String, String)], isEnded: Bool = true, limits: HTTPLimits = HTTPLimits()
) throws(RequestFault) -> RequestTranslator.Request {
    try RequestTranslator(limits: limits).translate(HPACKHeaders(fields), isEnded: isEnded, isSecure: true)
}

/// The fault's kind: `malformed`, a status, or `none`.
private func fault(_ fields: [(String, String)], isEnded: Bool = true, limits: HTTPLimits = HTTPLimits()) -> String {
    do {
        _ = try request(fields, isEnded: isEnded, limits: limits)
        return "none"
    } catch {
        switch error {
        case .malformed: return "malformed"
        case .refused(let error): return "\(error.status)"
        }
    }
}

/// The plain request with one field replaced, or left out.
private func replacing(_ name: String, _ value: String?) -> [(String, String)] {
    plain.compactMap { $0.0 == name ? value.map { (name, $0) } : $0 }
}

extension RequestHead {
    fileprivate var lines: [String] {
        (0..<fields.count).map {
            String(decoding: fields.name(at: $0), as: UTF8.self) + ": "
                + String(decoding: fields.value(at: $0), as: UTF8.self)
        }
    }
}

@Suite struct RequestTranslatorTests {
    @Test func aPlainRequest() throws {
        let head = try request(plain + [("accept", "*/*"), ("x-empty", "")]).head
        #expect(head.method == .get)
        #expect(String(buffer: head.target) == "/a?b=c")
        #expect(String(buffer: head.authority) == "kite.test")
        #expect(head.bodyLength == .none)
        #expect(head.lines == ["host: kite.test", "accept: */*", "x-empty: "])
        #expect(!head.wantsUpgrade)
    }

    @Test func bodies() throws {
        let post = replacing(":method", "POST")
        #expect(try request(post, isEnded: false).head.bodyLength == .unknown)
        #expect(try request(post + [("content-length", "5")], isEnded: false).head.bodyLength == .known(5))
        #expect(try request(post + [("content-length", "0")], isEnded: true).head.bodyLength == .known(0))
        #expect(fault(post + [("content-length", "5")], isEnded: true) == "malformed")
        #expect(fault(post + [("content-length", "5"), ("content-length", "5")], isEnded: false) == "malformed")
        for length in ["-1", "+1", "1,1", "0x1", "9223372036854775808", "", "1 1", "1_0"] {
            #expect(fault(post + [("content-length", length)], isEnded: false) == "400", "\(length)")
        }
    }

    @Test func cookiesAreJoined() throws {
        let head = try request(plain + [("cookie", "a=1"), ("accept", "*/*"), ("cookie", "b=2"), ("cookie", "c=3")])
            .head
        #expect(head.lines == ["host: kite.test", "accept: */*", "cookie: a=1; b=2; c=3"])
    }

    @Test func authorityAndHost() throws {
        for host in ["kite.test", "KITE.test", "kite.test:443"] {
            let head = try request(plain + [("host", host)]).head
            #expect(head.lines == ["host: kite.test"])
        }
        #expect(
            try String(buffer: request(replacing(":authority", nil) + [("host", "a.test")]).head.authority) == "a.test")
        for host in ["other.test", "kite.test:80", "kite.test.", "", "kite.test, other"] {
            #expect(fault(plain + [("host", host)]) == "malformed", "\(host)")
        }
        #expect(fault(plain + [("host", "kite.test"), ("host", "kite.test")]) == "malformed")
        #expect(fault(replacing(":authority", nil)) == "400")
        #expect(fault(replacing(":authority", "")) == "malformed")
        for authority in ["user@kite.test", "a/b", "kite.test:99999", "a b", "a\r\nx: y", "kité.test", "a,b"] {
            #expect(fault(replacing(":authority", authority)) != "none", "\(authority)")
        }
    }

    @Test func pseudoHeaders() {
        for name in [":method", ":scheme", ":path"] {
            #expect(fault(replacing(name, nil)) == "malformed", "\(name) missing")
            #expect(fault(replacing(name, "")) == "malformed", "\(name) empty")
        }
        for field in plain { #expect(fault(plain + [field]) == "malformed", "\(field.0) twice") }
        #expect(fault([("accept", "*/*")] + plain) == "malformed")
        #expect(fault(Array(plain.prefix(3)) + [("accept", "*/*"), (":path", "/")]) == "malformed")
        for name in [":status", ":foo", ":", ":Method", ": method", "::path"] {
            #expect(fault(plain + [(name, "200")]) == "malformed", "\(name)")
        }
        for path in [
            "a", "http://other.test/", "//", "/a b", "/a\tb", "/a\r\nHost: x", "/\0", "/é", "*", "/a#b", "?x",
            "/a\u{7F}",
        ] {
            let expected = path == "//" ? "none" : path == "/a#b" ? "400" : "malformed"
            #expect(fault(replacing(":path", path)) == expected, "\(path)")
        }
        #expect(fault([(":method", "OPTIONS"), (":scheme", "https"), (":authority", "a"), (":path", "*")]) == "none")
        for method in ["G ET", "GET\r\n", "GET /", "G@T", "GÈT"] {
            #expect(fault(replacing(":method", method)) == "malformed", "\(method)")
        }
        for scheme in ["ftp", "HTTPS", "https ", "https://x"] {
            #expect(fault(replacing(":scheme", scheme)) == "malformed", "\(scheme)")
        }
    }

    @Test func fieldsThatMustNotBe() {
        for (name, value) in [
            ("connection", "close"), ("keep-alive", "timeout=5"), ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"), ("transfer-encoding", "identity"), ("upgrade", "h2c"), ("te", "gzip"),
            ("te", "trailers, deflate"), ("http2-settings", "AAMAAABkAAQCAAAAAAIAAAAA"),
        ] {
            #expect(fault(plain + [(name, value)]) == "malformed", "\(name): \(value)")
        }
        #expect(fault(plain + [("te", "trailers")]) == "none")
        for name in [
            "", "Accept", "a b", "a:", "a\r", "a\n", "a\0", "é", "a(", "transfer-encoding ", "content\u{0B}length",
        ] {
            #expect(fault(plain + [(name, "x")]) == "malformed", "\(name.debugDescription)")
        }
        for byte in UInt8.min...UInt8.max {
            let value = "a" + String(Unicode.Scalar(byte)) + "b"
            let isAllowed = byte == 9 || (byte >= 0x20 && byte != 0x7F)
            #expect(fault(plain + [("x", value)]) == (isAllowed ? "none" : "malformed"), "\(byte)")
        }
        for value in [" a", "a ", "\ta", "a\t", " "] {
            #expect(fault(plain + [("x", value)]) == "malformed", "\(value.debugDescription)")
        }
    }

    @Test func limits() {
        var limits = HTTPLimits()
        limits.headBytes = 1000
        limits.targetBytes = 100
        limits.fieldCount = 10
        limits.bodyBytes = 10
        #expect(fault(replacing(":path", "/" + String(repeating: "a", count: 100)), limits: limits) == "414")
        #expect(fault(plain + [("x", String(repeating: "a", count: 1000))], limits: limits) == "431")
        #expect(fault(plain + (0..<11).map { ("x\($0)", "") }, limits: limits) == "431")
        #expect(fault(plain + [("content-length", "11")], isEnded: false, limits: limits) == "413")
        #expect(fault(plain + [("content-length", "10")], isEnded: false, limits: limits) == "none")
        #expect(fault(replacing(":method", String(repeating: "A", count: 33))) == "400")
        #expect(fault(plain + [("expect", "200-ok")]) == "417")
    }

    @Test func connectIsRefused() {
        #expect(fault([(":method", "CONNECT"), (":authority", "a:1")], isEnded: false) == "501")
        #expect(fault(replacing(":method", "CONNECT"), isEnded: false) == "malformed")
        #expect(fault([(":method", "CONNECT")], isEnded: false) == "malformed")
    }

    @Test func anExtendedConnectBecomesAnUpgrade() throws {
        let fields =
            replacing(":method", "CONNECT") + [
                (":protocol", "websocket"), ("sec-websocket-version", "13"), ("origin", "https://kite.test"),
                ("sec-websocket-key", "of no account"), ("sec-websocket-protocol", "a, b"),
            ]
        let made = try request(fields, isEnded: false)
        let key = try #require(made.webSocketKey)
        #expect(key.utf8.count == 24)
        #expect(made.head.method == .get)
        #expect(made.head.wantsUpgrade)
        #expect(made.head.bodyLength == .none)
        #expect(
            made.head.lines == [
                "host: kite.test", "sec-websocket-version: 13", "origin: https://kite.test",
                "sec-websocket-protocol: a, b", "connection: Upgrade", "upgrade: websocket",
                "sec-websocket-key: \(key)",
            ])
        #expect(try request(fields, isEnded: false).webSocketKey != key)
    }

    @Test func extendedConnectsThatAreNone() {
        let fields = replacing(":method", "CONNECT") + [(":protocol", "websocket")]
        #expect(fault(fields, isEnded: true) == "malformed")
        #expect(fault(plain + [(":protocol", "websocket")], isEnded: false) == "malformed")
        #expect(fault(replacing(":method", "CONNECT") + [(":protocol", "connect-udp")], isEnded: false) == "501")
        #expect(fault(fields + [("content-length", "0")], isEnded: false) == "malformed")
        for name in [":scheme", ":path", ":authority"] {
            #expect(fault(fields.filter { $0.0 != name }, isEnded: false) == "malformed", "\(name)")
        }
    }

    @Test func trailers() throws {
        let translator = RequestTranslator(limits: HTTPLimits())
        let block = try #require(try translator.trailers(["x-sum": "1", "content-length": "5", "host": "a"]))
        #expect(block.count == 1)
        #expect(block.text("x-sum") == "1")
        #expect(try translator.trailers([:]) == nil)
        for bad: HPACKHeaders in [[":path": "/"], ["X": "y"], ["x": "a\r\nb"], ["transfer-encoding": "chunked"]] {
            #expect(throws: RequestFault.self) { try translator.trailers(bad) }
        }
        let long = HPACKHeaders([("x", String(repeating: "a", count: 17_000))])
        #expect(throws: RequestFault.refused(.largeHead)) { try translator.trailers(long) }
        let many = HPACKHeaders((0..<300).map { ("x\($0)", "") })
        #expect(throws: RequestFault.refused(.manyFields)) { try translator.trailers(many) }
    }

    /// Whatever a visitor sends, what comes out has the form of one HTTP/1.1 request.
    @Test func noCombinationOfBytesGetsThrough() {
        var random = SplitMix(seed: 7)
        let pieces = [
            ":", "\r\n", "\n", "\0", " ", "a", "GET", "/", "HTTP/1.1", "host", "content-length", "transfer-encoding",
            "chunked", "5", ",", ";", "\t", "é", "kite.test", "@", "[", "]", "%00", "?", "#", "\r", "\u{7F}", "upgrade",
        ]
        func text() -> String { (0..<random.next(4)).map { _ in pieces[random.next(pieces.count)] }.joined() }
        var passed = 0
        for _ in 0..<20_000 {
            var fields = plain
            let place = random.next(fields.count + 1)
            if place < fields.count { fields[place].1 += text() } else { fields.append((text(), text())) }
            guard let head = try? request(fields, isEnded: random.next(2) == 0).head else { continue }
            passed += 1
            #expect(head.target.readableBytesView.allSatisfy { $0 > 0x20 && $0 < 0x7F })
            #expect(head.authority.readableBytesView.allSatisfy { $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "@") })
            for line in head.lines { #expect(!line.utf8.contains { $0 < 0x20 && $0 != 9 || $0 == 0x7F }, "\(line)") }
        }
        #expect(passed > 1000)
    }
}

/// A small generator with a seed.
struct SplitMix {
    private var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next(_ bound: Int) -> Int {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return Int((z ^ (z >> 31)) % UInt64(bound))
    }
}
