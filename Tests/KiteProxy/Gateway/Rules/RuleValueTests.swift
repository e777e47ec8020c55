/// The values that rules are made of: what is read, and what is refused.
import KiteHTTP
import NIOCore
import Testing

@testable import KiteGateway

@Suite("Values of rules")
struct RuleValueTests {
    @Test("Patterns of hosts")
    func hosts() {
        #expect(HostPattern("*") == .any)
        #expect(HostPattern("Shop.Example.com") == .exact("shop.example.com"))
        #expect(HostPattern("*.Example.com") == .below("example.com"))
        #expect(HostPattern("192.0.2.1") == .exact("192.0.2.1"))
        #expect(HostPattern("[2001:DB8::1]") == .exact("[2001:db8::1]"))
        for text in [
            "", "*.", "a.*.b", "*a.b", "a..b", ".a", "a.", "-a.b", "a b", "a:80", "[::1", "[1.2.3.4]", "a/b",
            "https://a",
            String(repeating: "a", count: 64), "a\r\n", "ä.de",
        ] {
            #expect(HostPattern(text) == nil, "\(text)")
        }
    }

    @Test("Rates")
    func rates() {
        #expect(RateLimit("off") == .unlimited)
        #expect(RateLimit("100/s") == .every(interval: .milliseconds(10), burst: 100))
        #expect(RateLimit("6/m burst 2") == .every(interval: .seconds(10), burst: 2))
        #expect(RateLimit("1/h") == .every(interval: .hours(1), burst: 1))
        for text in [
            "", "0/s", "1", "1/d", "-1/s", "1/s burst", "1/s burst 0", "1/s  2 3", "1/s/s", "+1/s", "99999999/s",
        ] {
            #expect(RateLimit(text) == nil, "\(text)")
        }
    }

    @Test("Targets of redirects")
    func redirects() {
        #expect(RedirectTarget("none") == .nowhere)
        #expect(
            RedirectTarget("https://A.example/x")
                == .url("https://A.example/x", scheme: "https", authority: "a.example"))
        for text in [
            "", "/x", "//evil", "ftp://a", "https://", "https:///x", "https://a?x", "https://a#x", "https://u@a",
            "https://a\r\nX: y", "https://a b", "javascript:alert(1)", "https://a\\b", "https://:80/",
        ] {
            #expect(RedirectTarget(text) == nil, "\(text)")
        }
    }

    @Test(
        "A rule cannot name what frames a message, belongs to the connection or is the gateway's word",
        arguments: [
            "Content-Length", "content-length", "Transfer-Encoding", "TRANSFER-ENCODING", "Connection", "Keep-Alive",
            "Proxy-Connection", "TE", "Trailer", "Upgrade", "Expect", "HTTP2-Settings", "Max-Forwards", "Via",
            "Sec-WebSocket-Key", "Sec-WebSocket-Accept", "", " X", "X ", "X:", "X\r\nY", "X\u{0}", ":path", "ä", "X(Y)",
        ])
    func forbiddenNames(name: String) {
        #expect(!FieldRuleText.allows(name: name, inRequest: true))
        #expect(!FieldRuleText.allows(name: name, inRequest: false))
    }

    @Test("What the upstream is told of a visitor is not a rule's to say")
    func vouchedFor() {
        for name in [
            "Host", "X-Forwarded-For", "x-real-ip", "Forwarded", "X-Forwarded-Proto", "Client-Cert",
            "X_Client-Cert-Verified",
        ] {
            #expect(!FieldRuleText.allows(name: name, inRequest: true))
        }
        #expect(FieldRuleText.allows(name: "X-Frame-Options", inRequest: false))
        #expect(FieldRuleText.allows(name: "Authorization", inRequest: true))
    }

    @Test(
        "Values of fields", arguments: ["a\r\nb", "a\rb", "a\nb", "a\u{0}", "a\u{7F}", " a", "a ", "\ta", "a\u{1B}b"])
    func forbiddenValues(value: String) {
        #expect(!FieldRuleText.allows(value: value))
    }

    @Test("Origins")
    func origins() {
        for text in ["*", "https://a.example", "http://localhost:3000", "https://A.example"] {
            #expect(OriginText.isOrigin(text), "\(text)")
        }
        for text in ["", "a.example", "https://a.example/", "https://a.example/x", "null", "none", "ftp://a"] {
            #expect(!OriginText.isOrigin(text), "\(text)")
        }
    }

    @Test("Hashes of passwords: what is made is read and matches, and nothing else does")
    func hashes() throws {
        let made = try #require(PasswordHash(hashing: "geheim: ü", logRounds: 4))
        let read = try #require(PasswordHash(made.description))
        #expect(read == made)
        #expect(read.matches("geheim: ü".utf8))
        #expect(!read.matches("geheim".utf8))
        #expect(!read.matches("".utf8))
        #expect(PasswordHash(hashing: "geheim: ü", logRounds: 4) != made, "the salt is another each time")
        let vector = try #require(
            PasswordHash(
                "$scrypt$ln=4,r=8,p=1$TmFDbE5hQ2w"
                    + "$" + String(repeating: "A", count: 43)))
        #expect(!vector.matches("password".utf8))
        for text in [
            "", "geheim", "$2y$10$abc", "$scrypt$ln=15,r=8,p=3$$",
            "$scrypt$ln=15,r=8$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA",
            "$scrypt$ln=25,r=8,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA",
            "$scrypt$ln=20,r=32,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA",
            "$scrypt$ln=1,r=8,p=1,x=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA",
            "$scrypt$ln=-1,r=8,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA",
            "$scrypt$ln=1,r=8,p=1$AAAA$AAAAAAAAAAAAAAAAAAAAAA", "$scrypt$ln=1,r=8,p=1$AAAAAAAAAAA$!!",
        ] {
            #expect(PasswordHash(text) == nil, "\(text)")
        }
    }

    @Test("The scheme, user and password of Authorization")
    func credentials() throws {
        let found = try #require(PasswordList.credentials(Array("bAsIc YWxpY2U6YTpi".utf8)))
        #expect(String(decoding: found.user, as: UTF8.self) == "alice")
        #expect(String(decoding: found.password, as: UTF8.self) == "a:b")
        for text in [
            "", "Basic", "Basic ", "Basic !!!!", "Basic YWxpY2U=", "Bearer YWxpY2U6YQ==", "Basic\tYWxpY2U6YQ==",
        ] {
            #expect(PasswordList.credentials(Array(text.utf8)) == nil, "\(text)")
        }
        #expect(PasswordList.credentials(Array("Basic \(String(repeating: "YTpi", count: 300))".utf8)) == nil)
    }

    @Test("Pages are filled in, and what is filled in is escaped")
    func pages() {
        let page = PageTemplate("<h1>{status}</h1>{x}{reason}{{status}")
        #expect(
            String(buffer: page.filled(status: 503, reason: "<b> & \"c\""))
                == "<h1>503</h1>{x}&lt;b&gt; &amp; &quot;c&quot;{503")
        #expect(String(buffer: PageTemplate("").filled(status: 404, reason: "x")) == "")
        #expect(ErrorPageStatus("404") == .status(404))
        #expect(ErrorPageStatus("5xx") == .hundred(5))
        #expect(ErrorPageStatus("default") == .any)
        for text in ["", "200", "600", "3xx", "4XX", "40", "4044", "-40"] { #expect(ErrorPageStatus(text) == nil) }
        let pages: [ErrorPageStatus: PageTemplate] = [
            .any: PageTemplate("a"), .hundred(5): PageTemplate("5"), .status(502): PageTemplate("2"),
        ]
        #expect(pages.page(for: 502) == PageTemplate("2"))
        #expect(pages.page(for: 503) == PageTemplate("5"))
        #expect(pages.page(for: 404) == PageTemplate("a"))
    }
}
