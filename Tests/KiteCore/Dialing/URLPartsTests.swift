import KiteDialing
import Testing

@Suite("URL parts")
struct URLPartsTests {
    @Test(
        "URLs are taken apart",
        arguments: [
            ("http://a.test", "a.test", 80, "/", nil),
            ("HTTPS://A.test:8443/x/y?z=%2F", "a.test", 8443, "/x/y", "z=%2F"),
            ("ws://127.0.0.1:3999/kite", "127.0.0.1", 3999, "/kite", nil),
            ("wss://[2001:db8::1]/?q", "2001:db8::1", 443, "/", "q"),
            ("http://a?b", "a", 80, "/", "b"),
        ] as [(String, String, Int, String, String?)])
    func parts(text: String, host: String, port: Int, path: String, query: String?) throws {
        let url = try #require(URLParts(text))
        #expect(url.host == host)
        #expect(url.port == port)
        #expect(url.path == path)
        #expect(url.query == query)
    }

    @Test(
        "What is no plain URL is refused",
        arguments: [
            "", "a.test", "ftp://a", "http://", "http:///x", "http://user:secret@a/", "http://a/#f", "http://a:0/",
            "http://a:65536/",
            "http://a:8x/", "http://a:/", "http://[::1", "http://[::1]x/", "http://[a.test]/", "http://a b/",
            "http://a\u{e9}/",
            "http://a\\b/", "http://" + String(repeating: "a", count: 254),
            "http://a/" + String(repeating: "x", count: 2048),
        ])
    func refused(text: String) {
        #expect(URLParts(text) == nil)
    }
}
