import KiteHTTP
import NIOCore
import Testing

@testable import KiteGateway

@Suite("Kites with an address of their own", .timeLimit(.minutes(1)))
struct DirectKiteTests {
    private static let id = "0e1d7b54-0000-4000-8000-00000000000f"

    @Test(
        "What a visitor asks for reaches the kite as it is",
        arguments: [
            "/945/8cf273f7/mirror", "/945/8cf273f7/mirror?kite=a%2Fb&x=1%202&y", "/a%2Fb/%2e%2e/mirror", "/a//b/mirror",
            "/mirror", "/a;b=c/@:!$'()*,/mirror?",
        ])
    func targets(rest: String) async throws {
        let (mirror, mirrorPort) = try await startMirror()
        try await withGateway { gateway, port in
            _ = try await gateway.register(
                kiteID: Self.id, url: "http://127.0.0.1:\(mirrorPort)/kite", username: "owner")
            let seen = try await send(
                "GET /proxy/\(Self.id)\(rest) HTTP/1.1\r\nHost: gw.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                    + "Sec-WebSocket-Protocol: dnode\r\nOrigin: ws://gw.test\r\nAuthorization: Bearer secret\r\n"
                    + "Cookie: a=b\r\nX-Custom: 7\r\n\r\n", to: port, until: "X-Custom: 7")
            #expect(seen.contains("GET /kite\(rest) "))
            for field in [
                "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
                "Sec-WebSocket-Protocol: dnode", "Origin: ws://gw.test", "Authorization: Bearer secret", "Cookie: a=b",
                "X-Custom: 7",
            ] {
                #expect(seen.contains("\n" + field + "\n") || seen.hasSuffix("\n" + field), "\(field)")
            }
        }
        await mirror.close()
    }

    @Test("A slash at the end stays one")
    func slashes() async throws {
        let (mirror, mirrorPort) = try await startMirror()
        try await withGateway { gateway, port in
            _ = try await gateway.register(
                kiteID: Self.id, url: "http://127.0.0.1:\(mirrorPort)/kite/", username: "owner")
            for (rest, expected) in [("/", "/kite/"), ("/info/", "/kite/info/"), ("/info", "/kite/info")] {
                let seen = try await get("/proxy/\(Self.id)\(rest)", port: port)
                #expect(seen.contains("GET \(expected) "), "\(rest)")
            }
        }
        await mirror.close()
    }

    @Test("A kite that says https is never spoken to in plain text")
    func secureTargets() async throws {
        let (mirror, mirrorPort) = try await startMirror()
        try await withGateway { gateway, port in
            for scheme in ["https", "wss"] {
                _ = try await gateway.register(
                    kiteID: Self.id, url: "\(scheme)://127.0.0.1:\(mirrorPort)/kite", username: "owner")
                let seen = try await get("/proxy/\(Self.id)/info", port: port)
                #expect(seen.hasPrefix("HTTP/1.1 502"))
                #expect(!seen.contains("X-Mirror"))
            }
        }
        await mirror.close()
    }
}
