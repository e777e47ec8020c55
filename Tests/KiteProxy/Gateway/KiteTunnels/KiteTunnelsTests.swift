import KiteCore
import KiteHTTP
import KiteSockJS
import NIOCore
import Synchronization
import Testing

@testable import KiteGateway

@Suite("Sessions with kites that dial back", .timeLimit(.minutes(1)))
struct KiteTunnelsTests {
    private let good = call("square", "token", "good-math")

    @Test(
        "Every transport reaches the kite, once the visitor has shown its token",
        arguments: [
            SockJSTransport.webSocket, .rawWebSocket, .xhrPolling, .xhrStreaming, .eventSource,
        ])
    func transports(transport: SockJSTransport) async throws {
        try await withGateway(visitors: WordAuthenticator()) { gateway, port in
            let kite = TunnelTestKite()
            let url = try await gateway.registerTunnelled(kite.identity, isPublic: false, caller: kite).url
            #expect(url == "http://127.0.0.1:\(port)/proxy?kiteID=\(kite.identity.id)")
            let visitor = try await visit(url, transport)
            try await visitor.send(call("square", id: 3))
            let refusal = await visitor.next()
            #expect(refusal?.contains(#""method":3"#) == true)
            #expect(refusal?.contains("No authentication information is provided") == true)
            #expect(kite.urls.withLock { $0.isEmpty })
            try await visitor.send(call("square", "token", "old"))
            #expect(await visitor.next()?.contains("token: token is expired") == true)
            try await visitor.send(self.good)
            try await visitor.send("second")
            #expect(await visitor.next() == ">" + self.good)
            #expect(await visitor.next() == ">second")
            let text = String(repeating: "x\"\\ü\n", count: 20_000)
            try await visitor.send(text)
            #expect(await visitor.next() == ">" + text)
            visitor.close(code: 3000, reason: "Go away!")
        }
    }

    @Test(
        "A kite is reached by its id or its name in the path as every other kite, by who may",
        arguments: [
            (SockJSTransport.webSocket, "0E1D7B54-0000-4000-8000-00000000000f"), (.webSocket, "math"),
            (.rawWebSocket, "0e1d7b54-0000-4000-8000-00000000000f"), (.rawWebSocket, "math"),
            (.xhrPolling, "0e1d7b54-0000-4000-8000-00000000000f"), (.xhrPolling, "math"),
            (.xhrStreaming, "math"), (.eventSource, "0e1d7b54-0000-4000-8000-00000000000f"),
        ])
    func paths(transport: SockJSTransport, name: String) async throws {
        try await withGateway(Self.naming, visitors: WordAuthenticator()) { gateway, port in
            let kite = TunnelTestKite()
            _ = try await gateway.registerTunnelled(kite.identity, isPublic: false, caller: kite)
            let url = "http://127.0.0.1:\(port)/proxy/\(name)"
            #expect(try await get("/proxy/\(name)/info", port: port).contains(#""websocket":true"#))
            #expect(try await get("/proxy/\(name)", port: port).contains("Welcome to SockJS!"))
            #expect(try await get("/proxy/\(name)/page.html", port: port).hasPrefix("HTTP/1.1 404"))
            let visitor = try await visit(url, transport)
            try await visitor.send(call("square", id: 3))
            #expect(await visitor.next()?.contains("No authentication information is provided") == true)
            #expect(kite.urls.withLock { $0.isEmpty })
            try await visitor.send(self.good)
            #expect(await visitor.next() == ">" + self.good)
            let other = try await visit(url + "?token=good-math", transport)
            try await other.send("anything")
            #expect(await other.next() == ">anything")
        }
    }

    private static let naming: @Sendable (inout GatewayOptions) -> Void = {
        $0.kontrolUsername = "owner"
        $0.kontrolEnvironment = "dev"
    }

    @Test(
        "A registration with an address comes before a kite that dials back, a kite that dials back before Kontrol's word"
    )
    func precedence() async throws {
        let resolver = ScriptedResolver()
        resolver.urls.withLock { $0["math"] = "http://127.0.0.1:1/kite" }
        try await withGateway(Self.naming, resolver: resolver) { gateway, port in
            let kite = TunnelTestKite()
            let id = kite.identity.id
            // Nobody answers at the address that Kontrol knows.
            #expect(try await get("/proxy/math/info", port: port).hasPrefix("HTTP/1.1 502"))
            let entered = try await gateway.registerTunnelled(kite.identity, isPublic: true, caller: kite)
            #expect(try await get("/proxy/math/info", port: port).contains(#""websocket":true"#))
            let direct = try await gateway.register(kiteID: id, url: "http://127.0.0.1:1/kite", username: "owner")
            #expect(try await get("/proxy/\(id)/info", port: port).hasPrefix("HTTP/1.1 502"))
            await gateway.unregister(kiteID: id, registration: direct.registration)
            #expect(try await get("/proxy/\(id)/info", port: port).contains(#""websocket":true"#))
            gateway.unregisterTunnelled(kiteID: id, registration: entered.registration)
            #expect(try await get("/proxy/math/info", port: port).hasPrefix("HTTP/1.1 502"))
        }
    }

    @Test("Whoever waits for a name gets the kite that comes with it, and counts among its sessions")
    func awaitedNames() async throws {
        try await withGateway({
            Self.naming(&$0)
            $0.kiteTunnels.sessionsPerKite = 1
        }) { gateway, port in
            let kite = TunnelTestKite()
            let first = try await gateway.registerTunnelled(kite.identity, isPublic: true, caller: kite)
            gateway.unregisterTunnelled(kiteID: kite.identity.id, registration: first.registration)
            let visitor = try await visit("http://127.0.0.1:\(port)/proxy/math")
            try await visitor.send("hello")
            // As after its start: under another id.
            let next = TunnelTestKite(id: "0e1d7b54-0000-4000-8000-000000000001")
            let url = try await gateway.registerTunnelled(next.identity, isPublic: true, caller: next).url
            #expect(await visitor.next() == ">hello")
            #expect(await (try visit(url)).next() == nil)
            try await visitor.send("still")
            #expect(await visitor.next() == ">still")
        }
    }

    @Test(
        "What the opening request carries is as good as a call's, and lets the kite speak first",
        arguments: [
            ("?token=good-math", ""), ("", "Bearer good-math"), ("", "bearer key"), ("?token=key", ""),
        ])
    func openingCredentials(query: String, authorization: String) async throws {
        try await withGateway(visitors: WordAuthenticator()) { gateway, _ in
            let kite = TunnelTestKite { channel in
                try await channel.send("welcome")
                try await TunnelTestKite.echo(channel)
            }
            let url = try await gateway.registerTunnelled(kite.identity, isPublic: false, caller: kite).url
            let fields = authorization.isEmpty ? HeaderBlock() : HeaderBlock(["Authorization": authorization])
            let visitor = try await visit(url + query.replacing("?", with: "&"), .xhrPolling, fields: fields)
            #expect(await visitor.next() == "welcome")
            try await visitor.send("anything")
            #expect(await visitor.next() == ">anything")
        }
    }

    @Test("Credentials that are no good end the session", arguments: ["good-other", "nonsense"])
    func badOpeningCredentials(token: String) async throws {
        try await withGateway(visitors: WordAuthenticator()) { gateway, _ in
            let kite = TunnelTestKite()
            let url = try await gateway.registerTunnelled(kite.identity, isPublic: false, caller: kite).url
            let visitor = try await visit(url + "&token=" + token)
            #expect(await visitor.next() == nil)
            #expect(kite.urls.withLock { $0.isEmpty })
        }
    }

    @Test("Without an authenticator nobody is let in but to public kites")
    func publicKites() async throws {
        try await withGateway({ $0.kiteTunnels.publicKites = [KontrolQuery(username: "open", environment: "dev")] }) {
            gateway, _ in
            let ids = (0..<3).map { "0e1d7b54-0000-4000-8000-00000000000\($0)" }
            let closed = TunnelTestKite(id: ids[0])
            let declared = TunnelTestKite(id: ids[1])
            let configured = TunnelTestKite(id: ids[2], user: "open")
            var urls: [String] = []
            for (kite, isPublic) in [(closed, false), (declared, true), (configured, false)] {
                urls.append(try await gateway.registerTunnelled(kite.identity, isPublic: isPublic, caller: kite).url)
            }
            let refused = try await visit(urls[0])
            try await refused.send(self.good)
            #expect(await refused.next()?.contains("authenticationError") == true)
            for url in urls.dropFirst() {
                let visitor = try await visit(url)
                try await visitor.send("hello")
                #expect(await visitor.next() == ">hello")
            }
        }
    }

    @Test("A tunnel token is good for one connection, and nothing else is good for any")
    func tokens() async throws {
        try await withGateway { gateway, port in
            let kite = TunnelTestKite()
            let url = try await gateway.registerTunnelled(kite.identity, isPublic: true, caller: kite).url
            let visitor = try await visit(url)
            try await visitor.send("hello")
            #expect(await visitor.next() == ">hello")
            let used = try #require(kite.urls.withLock { $0.first })
            #expect(used.hasPrefix("ws://127.0.0.1:\(port)/tunnel/"))
            #expect(used.contains("/websocket?token="))
            await #expect(throws: TransportError.self) { try await dialTunnel(used) }
            // The session that the token was for goes on undisturbed.
            try await visitor.send("still")
            #expect(await visitor.next() == ">still")
            let token = try #require(used.split(separator: "=").last)
            let upgrade =
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            func status(_ path: String) async throws -> String {
                String(
                    try await send(
                        "GET \(path) HTTP/1.1\r\nHost: x\r\n\(upgrade)\r\n", to: port, until: "\r\n\r\n"
                    ).prefix(12))
            }
            #expect(try await status("/tunnel/1/a/websocket?token=\(token)") == "HTTP/1.1 403")
            #expect(try await status("/tunnel/1/a/websocket?token=x\(token)") == "HTTP/1.1 403")
            #expect(try await status("/tunnel/1/a/websocket") == "HTTP/1.1 401")
            // What a kite key looks like.
            #expect(
                try await status("/tunnel/1/a/websocket?token=eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln")
                    == "HTTP/1.1 401")
            #expect(try await status("/tunnel/info?token=\(token)") == "HTTP/1.1 403")
        }
    }

    @Test(
        "A kite that does not dial back is not waited for for ever",
        arguments: [TunnelTestKite.Behaviour.forgets, .isSilent, .refuses])
    func absentees(behaviour: TunnelTestKite.Behaviour) async throws {
        try await withGateway({ $0.kiteTunnels.dialBackTime = .milliseconds(300) }) { gateway, _ in
            let kite = TunnelTestKite(behaviour)
            let url = try await gateway.registerTunnelled(kite.identity, isPublic: true, caller: kite).url
            let visitor = try await visit(url)
            #expect(await visitor.next() == nil)
            try await eventually { gateway.kiteTunnels.sessionCount == 0 }
            #expect(gateway.kiteTunnels.pending.count == 0)
            let late = try #require(kite.urls.withLock { $0.first })
            await #expect(throws: TransportError.self) { try await dialTunnel(late) }
        }
    }

    @Test("A visitor who says nothing holds no session")
    func silentVisitors() async throws {
        try await withGateway({ $0.kiteTunnels.admissionTime = .milliseconds(100) }, visitors: WordAuthenticator()) {
            gateway, _ in
            let kite = TunnelTestKite()
            let url = try await gateway.registerTunnelled(kite.identity, isPublic: false, caller: kite).url
            let silent = try await visit(url)
            #expect(await silent.next() == nil)
            try await eventually { gateway.kiteTunnels.sessionCount == 0 }
            #expect(kite.urls.withLock { $0.isEmpty })
        }
    }

    @Test("A visitor who leaves before the kite has come holds no session")
    func earlyLeavers() async throws {
        try await withGateway(visitors: WordAuthenticator()) { gateway, _ in
            let kite = TunnelTestKite(.isSilent)
            let url = try await gateway.registerTunnelled(kite.identity, isPublic: false, caller: kite).url
            let early = try await visit(url)
            try await early.send(self.good)
            try await eventually { gateway.kiteTunnels.pending.count == 1 }
            early.close(code: 3000, reason: "Go away!")
            try await eventually { gateway.kiteTunnels.pending.count == 0 }
            try await eventually { gateway.kiteTunnels.sessionCount == 0 }
        }
    }

    @Test("Kites of a gateway with TLS are given its public URL, and dial back with TLS")
    func publicURL() async throws {
        try await withGateway({ $0.publicURL = "https://gw.example:8443" }) { gateway, port in
            let kite = TunnelTestKite(.refuses)
            let url = try await gateway.registerTunnelled(kite.identity, isPublic: true, caller: kite).url
            #expect(url == "https://gw.example:8443/proxy?kiteID=\(kite.identity.id)")
            let visitor = try await visit("http://127.0.0.1:\(port)/proxy?kiteID=\(kite.identity.id)")
            #expect(await visitor.next() == nil)
            #expect(kite.urls.withLock { $0.first }?.hasPrefix("wss://gw.example:8443/tunnel/") == true)
        }
    }

    @Test("Unknown kites are answered 404, those that are away for a moment are waited for")
    func presence() async throws {
        try await withGateway { gateway, port in
            let kite = TunnelTestKite()
            let id = kite.identity.id
            for path in ["/proxy?kiteID=\(id)", "/proxy/info?kiteID=\(id)", "/proxy/1/a/xhr?kiteID=\(id)"] {
                #expect(try await get(path, port: port).hasPrefix("HTTP/1.1 404"))
            }
            let first = try await gateway.registerTunnelled(kite.identity, isPublic: true, caller: kite)
            gateway.unregisterTunnelled(kiteID: id, registration: first.registration)
            let visitor = try await visit(first.url)
            try await visitor.send("hello")
            _ = try await gateway.registerTunnelled(kite.identity, isPublic: true, caller: kite)
            #expect(await visitor.next() == ">hello")
        }
    }

    @Test("An id belongs to its user; the end of an older connection changes nothing; another user is refused")
    func ownership() async throws {
        try await withGateway { gateway, port in
            let old = TunnelTestKite()
            let new = TunnelTestKite { channel in try await channel.send("new") }
            let thief = TunnelTestKite(user: "thief")
            let first = try await gateway.registerTunnelled(old.identity, isPublic: true, caller: old)
            let second = try await gateway.registerTunnelled(new.identity, isPublic: true, caller: new)
            await #expect(throws: RegistrationError.self) {
                _ = try await gateway.registerTunnelled(thief.identity, isPublic: true, caller: thief)
            }
            // Nor with an address of its own.
            await #expect(throws: RegistrationError.self) {
                _ = try await gateway.register(
                    kiteID: old.identity.id, url: "http://127.0.0.1:\(port)/kite", username: "thief")
            }
            gateway.unregisterTunnelled(kiteID: old.identity.id, registration: first.registration)
            let visitor = try await visit(second.url)
            #expect(await visitor.next() == "new")
            // While it is away the id stays its user's.
            gateway.unregisterTunnelled(kiteID: old.identity.id, registration: second.registration)
            await #expect(throws: RegistrationError.self) {
                _ = try await gateway.registerTunnelled(thief.identity, isPublic: true, caller: thief)
            }
        }
    }

    @Test("Registering and leaving all at once leaves the last one in place")
    func churn() async throws {
        try await withGateway({ $0.threads = 2 }) { gateway, _ in
            let kites = (0..<8).map { TunnelTestKite(id: "0e1d7b54-0000-4000-8000-00000000000\($0)") }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for round in 0..<200 {
                    group.addTask {
                        let kite = kites[round % kites.count]
                        let entered = try await gateway.registerTunnelled(kite.identity, isPublic: true, caller: kite)
                        await Task.yield()
                        gateway.unregisterTunnelled(kiteID: kite.identity.id, registration: entered.registration)
                        let direct = try await gateway.register(
                            kiteID: kite.identity.id, url: "http://127.0.0.1:9/kite", username: "owner")
                        await gateway.unregister(kiteID: kite.identity.id, registration: direct.registration)
                    }
                }
                try await group.waitForAll()
            }
            #expect(gateway.kiteTunnels.book.kites.isEmpty)
            let last = try await gateway.registerTunnelled(kites[0].identity, isPublic: true, caller: kites[0])
            let visitor = try await visit(last.url)
            try await visitor.send("hello")
            #expect(await visitor.next() == ">hello")
        }
    }

    @Test("A kite has so many sessions and no more, and gets back those that end")
    func limits() async throws {
        try await withGateway({ $0.kiteTunnels.sessionsPerKite = 2 }) { gateway, _ in
            let kite = TunnelTestKite()
            let url = try await gateway.registerTunnelled(kite.identity, isPublic: true, caller: kite).url
            let first = try await visit(url)
            let second = try await visit(url)
            let third = try await visit(url)
            #expect(await third.next() == nil)
            first.close(code: 3000, reason: "Go away!")
            try await eventually { gateway.kiteTunnels.sessionCount == 1 }
            let fourth = try await visit(url)
            for channel in [second, fourth] {
                try await channel.send("hello")
                #expect(await channel.next() == ">hello")
            }
        }
    }

    @Test("Close codes and long messages end both sides")
    func endings() async throws {
        try await withGateway({ $0.kiteTunnels.messageBytes = 1000 }) { gateway, _ in
            let kite = TunnelTestKite()
            let url = try await gateway.registerTunnelled(kite.identity, isPublic: true, caller: kite).url
            let visitor = try await visit(url, .rawWebSocket)
            try await visitor.send(String(repeating: "x", count: 999))
            #expect(await visitor.next()?.utf8.count == 1000)
            // With the mark that the kite puts before it, it is one too long.
            try await visitor.send(String(repeating: "x", count: 1000))
            #expect(await visitor.next() == nil)
            try await eventually { gateway.kiteTunnels.sessionCount == 0 }

            let other = try await visit(url)
            try await other.send("hello")
            #expect(await other.next() == ">hello")
            other.close(code: 4123, reason: "bye")
            let channel = try #require(kite.channels.withLock { $0.last })
            while await channel.next() != nil {}
            try await eventually { gateway.kiteTunnels.sessionCount == 0 }
        }
    }

    @Test("What kills Go's kites is survived: by the gateway for them, and by its own")
    func deadlyMessages() async throws {
        try await withGateway(visitors: WordAuthenticator()) { gateway, _ in
            let kite = TunnelTestKite()
            let url = try await gateway.registerTunnelled(kite.identity, isPublic: false, caller: kite).url
            for deadly in [
                #"{"method":"kite.ping","arguments":[],"callbacks":{}}"#,
                #"{"method":"x","arguments":[],"callbacks":{"0":[5,"responseCallback"]}}"#,
                #"{"method":"x","arguments":[{}],"callbacks":{"0":[0,"withArgs",99]}}"#, "[", "null", "7",
            ] {
                let channel = try await visit(url)
                try await channel.send(deadly)
                _ = await channel.next()
                let next = try await visit(url)
                try await next.send(self.good)
                #expect(await next.next() == ">" + self.good)
            }
            #expect(kite.urls.withLock { $0.count } == 6)
        }
    }
}
