import NIOCore
import Testing

@testable import KiteGateway

@Suite("A visitor's target")
struct KiteSessionTargetTests {
    private static let id = "75d65cb3-be6b-4325-90c1-8b69ae0cc7b7"

    @Test(arguments: [
        ("/proxy?kiteID=ID", ""), ("/proxy/?kiteID=ID", "/"), ("/proxy/info?kiteID=ID&t=1795475140212", "/info"),
        ("/proxy/info?t=1&kiteID=ID", "/info"), ("/proxy/websocket?kiteID=ID", "/websocket"),
        ("/proxy/iframe-1.2.html?kiteID=ID", "/iframe-1.2.html"),
        ("/proxy/945/8cf273f7ed8a20e914ba/websocket?kiteID=ID", "/945/8cf273f7ed8a20e914ba/websocket"),
        ("/proxy/000/abc/xhr_send?kiteID=ID&token=x", "/000/abc/xhr_send"),
        // What Go's XHR client makes of the URL.
        ("/proxy?kiteID=ID/250/f8ac8a5a8df3cd9eed14/xhr", "/250/f8ac8a5a8df3cd9eed14/xhr"),
        ("/proxy/?kiteID=ID/250/abc/xhr&x=1", "/250/abc/xhr"), ("/proxy?kiteID=UPPER", ""),
    ])
    func isForAKite(target: String, path: String) throws {
        let text = target.replacing("ID=ID", with: "ID=" + Self.id).replacing("UPPER", with: Self.id.uppercased())
        let found = try #require(KiteSessionTarget(ByteBuffer(string: text)))
        #expect(found.kite == RouteKey(Self.id))
        #expect(found.path == path)
    }

    @Test(arguments: [
        "/proxy", "/proxy/", "/proxy/name/rest", "/proxy?kiteID=", "/proxy?kiteID=abc", "/proxy?kiteid=ID",
        "/proxy?x=kiteID=ID",
        "/proxy?kiteID=IDx", "/proxyx?kiteID=ID", "/proxies?kiteID=ID", "/kite?kiteID=ID", "/", "", "*", "/proxy?",
        "/proxy?&&",
        // Routes with a query of their own.
        "/proxy/shop/cart?kiteID=ID", "/proxy/shop/a/websocket?kiteID=ID", "/proxy/shop?kiteID=ID",
        "/proxy/945/abc?kiteID=ID", "/proxy/1/2/3/4?kiteID=ID", "/proxy/945/abc/xhr?kiteID=ID/1/2/xhr",
    ])
    func isForSomethingElse(target: String) {
        #expect(KiteSessionTarget(ByteBuffer(string: target.replacing("ID=ID", with: "ID=" + Self.id))) == nil)
    }

    @Test(
        arguments: [
            ("/x?token=abc", "abc"), ("/x?a=b&token=a.b-c_d", "a.b-c_d"), ("/x?token=a=b", "a=b"), ("/x?token=", nil),
            ("/x?tokens=a", nil), ("/x", nil), ("/token=a", nil), ("/x?token", nil),
        ] as [(String, String?)])
    func parameters(target: String, token: String?) {
        #expect(KiteSessionTarget.parameter("token", in: target) == token)
    }

    @Test(arguments: [
        ("/proxy/ID", "ID", ""), ("/proxy/ID/", "ID", "/"), ("/proxy/math/info?t=1", "math", "/info"),
        ("/proxy/Math/1/abc/xhr?token=x", "Math", "/1/abc/xhr"), ("/proxy/1/abc/xhr?kiteID=ID", "ID", "/1/abc/xhr"),
    ])
    func opensASession(target: String, kite: String, path: String) throws {
        func filled(_ text: String) -> String {
            text.replacing("ID=ID", with: "ID=" + Self.id).replacing("/ID", with: "/" + Self.id)
        }
        let found = try #require(KiteSessionTarget(opening: filled(target)))
        #expect(found.kite.description == (kite == "ID" ? Self.id : kite))
        #expect(found.path == path)
    }

    @Test(arguments: ["/proxy", "/proxy/", "/kite/1/abc/xhr", "", "/tunnel/1/2/websocket"])
    func opensNone(target: String) { #expect(KiteSessionTarget(opening: target) == nil) }
}
