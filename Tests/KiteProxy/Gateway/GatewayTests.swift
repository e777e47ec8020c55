import KiteCore
import KiteHTTP
import KiteTunnel
import NIOCore
import Synchronization
import Testing

@testable import KiteGateway

@Suite("Gateway", .timeLimit(.minutes(1)))
struct GatewayTests {
    @Test("A request goes through a tunnel and back, with its provenance", arguments: [1, 2])
    func tunnel(threads: Int) async throws {
        let (mirror, target) = try await startMirror()
        try await withGateway({ $0.threads = threads }) { gateway, port async throws in
            let agent = try makeAgent(
                gateway: port, target: target, tunnels: [TunnelRequest(name: "shop", kind: .http)])
            try await withAgent(agent) { grants async throws in
                #expect(grants.first?.url == "http://127.0.0.1:\(port)/proxy/shop/")
                for _ in 0..<20 {
                    let answer = try await get("/proxy/shop/a%2Fb?q=1", port: port)
                    #expect(answer.hasPrefix("HTTP/1.1 200 OK\r\n"))
                    #expect(answer.contains("GET /a%2Fb?q=1 gw.test\n"))
                    #expect(answer.contains("X-Forwarded-For: 127.0.0.1\n"))
                    #expect(answer.contains("X-Mirror: 1\r\n"))
                    #expect(answer.contains("Connection: close\r\n"))
                }
                let metrics = await gateway.metrics()
                #expect(metrics.responses[2] == 20)
                #expect(metrics.servingRoutes == 1)
            }
        }
        await mirror.close()
    }

    @Test("Uploads, pipelined requests and HEAD are answered in order")
    func pipelining() async throws {
        let (mirror, target) = try await startMirror()
        try await withGateway { _, port async throws in
            let agent = try makeAgent(
                gateway: port, target: target, tunnels: [TunnelRequest(name: "shop", kind: .http)])
            try await withAgent(agent) { _ async throws in
                let body = String(repeating: "0123456789abcdef", count: 20_000)
                let wire =
                    "POST /proxy/shop/1 HTTP/1.1\r\nHost: x\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
                    + "HEAD /proxy/shop/2 HTTP/1.1\r\nHost: x\r\n\r\n"
                    + "POST /proxy/shop/3 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
                let answer = try await send(wire, to: port)
                let first = try #require(answer.firstRange(of: "POST /1"))
                let third = try #require(answer.firstRange(of: "POST /3"))
                #expect(first.lowerBound < third.lowerBound)
                #expect(answer.contains(body))
                #expect(answer.hasSuffix("\n\nhello"))
                #expect(!answer.contains("HEAD /2"))
                #expect(answer.ranges(of: "HTTP/1.1 200 OK").count == 3)
            }
        }
        await mirror.close()
    }

    @Test("An upgrade is relayed both ways, early bytes included", arguments: [1, 2])
    func upgrade(threads: Int) async throws {
        let (mirror, target) = try await startMirror()
        try await withGateway({ $0.threads = threads }) { gateway, port async throws in
            let agent = try makeAgent(
                gateway: port, target: target, tunnels: [TunnelRequest(name: "shop", kind: .http)])
            try await withAgent(agent) { _ async throws in
                let answer = try await send(
                    "GET /proxy/shop/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly",
                    to: port, until: "early")
                #expect(answer.hasPrefix("HTTP/1.1 101 Switching Protocols\r\n"))
                #expect(answer.contains("Upgrade: echo\r\n"))
                #expect(answer.hasSuffix("\r\n\r\nearly"))
            }
        }
        await mirror.close()
    }

    @Test("A host route is found whatever its case, and keeps the path")
    func hosts() async throws {
        let (mirror, target) = try await startMirror()
        try await withGateway({ $0.domain = "Gw.Test" }) { _, port async throws in
            let agent = try makeAgent(
                gateway: port, target: target, tunnels: [TunnelRequest(name: "shop", kind: .http)])
            try await withAgent(agent) { grants async throws in
                #expect(grants.first?.url == "http://shop.Gw.Test:\(port)/")
                #expect(try await get("/proxy/x", port: port, host: "SHOP.gw.test:\(port)").contains("GET /proxy/x "))
                #expect(try await get("/", port: port, host: "other.gw.test").hasPrefix("HTTP/1.1 404 "))
                #expect(try await get("/proxy/shop/y", port: port, host: "gw.test").contains("GET /y "))
            }
        }
        await mirror.close()
    }

    @Test("A browser is sent to the directory of a service, and the service is told what was cut off")
    func prefix() async throws {
        let (mirror, target) = try await startMirror()
        try await withGateway({ $0.domain = "gw.test" }) { gateway, port async throws in
            let agent = try makeAgent(
                gateway: port, target: target,
                tunnels: [
                    TunnelRequest(name: "shop", kind: .http),
                    TunnelRequest(name: "math", kind: .kite, path: "/kite"),
                ])
            try await withAgent(agent) { _ async throws in
                for (path, location) in [
                    ("/proxy/shop", "/proxy/shop/"), ("/proxy/SHOP?q=/a&b", "/proxy/SHOP/?q=/a&b"),
                ] {
                    let answer = try await get(path, port: port)
                    #expect(answer.hasPrefix("HTTP/1.1 308 "))
                    #expect(answer.contains("\r\nLocation: \(location)\r\n"))
                }
                let head = try await send(
                    "HEAD /proxy/shop HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", to: port)
                #expect(head.hasPrefix("HTTP/1.1 308 "))
                #expect(await gateway.metrics().responses[3] == 3)

                // Neither what changes something, nor a WebSocket, nor a kite.
                let post = try await send(
                    "POST /proxy/shop HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\n1", to: port)
                #expect(post.contains("POST / x\n"))
                let upgraded = try await send(
                    "GET /proxy/shop HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly",
                    to: port, until: "early")
                #expect(upgraded.hasPrefix("HTTP/1.1 101 "))
                #expect(try await get("/proxy/math?t=1", port: port).contains("GET /kite?t=1 "))

                for path in ["/proxy/shop/", "/proxy/shop/a/b?c"] {
                    let seen = try await get(path, port: port, fields: "X-Forwarded-Prefix: /evil\r\n")
                    #expect(seen.contains("\nX-Forwarded-Prefix: /proxy/shop\n"))
                    #expect(!seen.contains("evil"))
                }
                let byHost = try await get(
                    "/", port: port, fields: "X-Forwarded-Prefix: /evil\r\n", host: "shop.gw.test")
                #expect(byHost.contains("GET / shop.gw.test\n"))
                #expect(!byHost.contains("X-Forwarded-Prefix"))
            }
        }
        await mirror.close()
    }

    @Test("What a trusted proxy has cut off comes before what is cut off here")
    func trustedPrefix() async throws {
        let (mirror, target) = try await startMirror()
        try await withGateway({
            $0.domain = "gw.test"
            $0.trustedProxies = [AddressRange("127.0.0.0/8")].compactMap { $0 }
        }) { _, port async throws in
            let agent = try makeAgent(
                gateway: port, target: target, tunnels: [TunnelRequest(name: "shop", kind: .http)])
            try await withAgent(agent) { _ async throws in
                let fields = "X-Forwarded-Prefix: /outer/\r\n"
                #expect(
                    try await get("/proxy/shop/a", port: port, fields: fields)
                        .contains("\nX-Forwarded-Prefix: /outer/proxy/shop\n"))
                #expect(
                    try await get("/proxy/shop", port: port, fields: fields)
                        .contains("\r\nLocation: /outer/proxy/shop/\r\n"))
                #expect(
                    try await get("/a", port: port, fields: fields, host: "shop.gw.test")
                        .contains("\nX-Forwarded-Prefix: /outer\n"))
                #expect(
                    try await !get("/a", port: port, fields: "X-Forwarded-Prefix: /\r\n", host: "shop.gw.test")
                        .contains("X-Forwarded-Prefix"))
            }
        }
        await mirror.close()
    }

    @Test("Services are told of the visitor behind all trusted proxies, not of what he says himself")
    func visitorBehindProxies() async throws {
        let (mirror, target) = try await startMirror()
        for (trusted, expected) in [("127.0.0.0/8", "1.1.1.1"), ("127.0.0.1", "127.0.0.9"), ("10.0.0.1", "127.0.0.1")] {
            try await withGateway({
                $0.domain = "gw.test"
                $0.trustedProxies = [AddressRange(trusted)].compactMap { $0 }
            }) { _, port async throws in
                let agent = try makeAgent(
                    gateway: port, target: target, tunnels: [TunnelRequest(name: "shop", kind: .http)])
                try await withAgent(agent) { _ async throws in
                    let fields = "X-Real-IP: 9.9.9.9\r\nX-Forwarded-For: 8.8.8.8, [::ffff:1.1.1.1]:443, 127.0.0.9\r\n"
                    let seen = try await get("/", port: port, fields: fields, host: "shop.gw.test")
                    let told = seen.split(separator: "\n").filter { $0.hasPrefix("X-Real-IP: ") }
                    #expect(told.count == 1)
                    let address = told.first.flatMap { AddressBytes(String($0.dropFirst(11))) }
                    #expect(address == AddressBytes(expected), "\(trusted)")
                }
            }
        }
        await mirror.close()
    }

    @Test("Every refusal has its status")
    func refusals() async throws {
        let (mirror, target) = try await startMirror()
        try await withGateway({
            $0.timeouts.response = .milliseconds(300)
            $0.parking.time = .milliseconds(300)
            $0.limits.bodyBytes = 100
        }) { gateway, port async throws in
            @Sendable func status(_ wire: String) async throws -> String {
                String(try await send(wire, to: port).prefix(12).suffix(3))
            }
            #expect(try await status("GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") == "404")
            #expect(try await status("GET /proxy/none/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") == "404")
            #expect(try await status("GET /-/tunnel HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") == "401")
            #expect(
                try await status(
                    "GET /-/tunnel HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer bad\r\nConnection: close\r\n\r\n")
                    == "401")
            #expect(
                try await status(
                    "GET /-/tunnel HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer user-a\r\nConnection: close\r\n\r\n")
                    == "426")
            let door = "Host: x\r\nConnection: close\r\n"
            let post = try await send("POST /-/tunnel HTTP/1.1\r\n\(door)\r\n", to: port)
            #expect(post.hasPrefix("HTTP/1.1 405 "))
            #expect(post.contains("\r\nAllow: GET\r\n"))
            let anonymous = try await send("GET /-/tunnel HTTP/1.1\r\n\(door)\r\n", to: port)
            #expect(anonymous.contains("\r\nWWW-Authenticate: Bearer\r\n"))
            let plain = try await send(
                "GET /-/tunnel HTTP/1.1\r\n\(door)Authorization: Bearer user-a\r\n\r\n", to: port)
            #expect(plain.contains("\r\nUpgrade: \(TunnelWire.upgradeToken), websocket\r\n"))
            #expect(try await status("nonsense\r\n\r\n") == "400")

            let dead = try makeAgent(gateway: port, target: 1, tunnels: [TunnelRequest(name: "dead", kind: .http)])
            try await withAgent(dead) { _ async throws in
                #expect(try await get("/proxy/dead/", port: port).hasPrefix("HTTP/1.1 502 "))
            }
            let away = try await get("/proxy/dead/", port: port)
            #expect(away.hasPrefix("HTTP/1.1 503 "))
            #expect(away.contains("Retry-After: "))

            let agent = try makeAgent(
                gateway: port, target: target, tunnels: [TunnelRequest(name: "shop", kind: .http)])
            try await withAgent(agent) { _ async throws in
                #expect(try await get("/proxy/shop/silent", port: port).hasPrefix("HTTP/1.1 504 "))
                #expect(try await get("/proxy/shop/break", port: port).hasPrefix("HTTP/1.1 502 "))
                #expect(
                    try await status(
                        "POST /proxy/shop/ HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\nConnection: close\r\n\r\n")
                        == "413")
                let loop = "Via: 1.1 "
                let echoed = try await get("/proxy/shop/", port: port)
                let via = try #require(echoed.split(separator: "\n").first { $0.hasPrefix(loop) })
                #expect(try await get("/proxy/shop/", port: port, fields: "\(via)\r\n").hasPrefix("HTTP/1.1 508 "))
            }
            let causes = await gateway.metrics().refusals
            for cause in [
                RefusalCause.unknownPath, .unknownKite, .unauthenticated, .connectFailed, .noLane, .upstreamSilent,
                .loop, .malformed, .bodyTooLarge, .methodNotAllowed,
            ] {
                #expect(causes[cause, default: 0] > 0, "\(cause)")
            }
        }
        await mirror.close()
    }

    @Test("A request that waits for its agent goes on when the agent comes")
    func parking() async throws {
        let (mirror, target) = try await startMirror()
        try await withGateway { gateway, port async throws in
            let tunnels = [TunnelRequest(name: "shop", kind: .http)]
            try await withAgent(try makeAgent(gateway: port, target: target, tunnels: tunnels)) { _ async throws in
                #expect(try await get("/proxy/shop/first", port: port).contains("GET /first "))
            }
            async let answer = get("/proxy/shop/late", port: port)
            while await gateway.metrics().parkedRequests == 0 { await Task.yield() }
            try await withAgent(try makeAgent(gateway: port, target: target, tunnels: tunnels)) { _ async throws in
                #expect(try await get("/proxy/shop/now", port: port).contains("GET /now "))
            }
            let late = try await answer
            #expect(late.contains("GET /late "))
        }
        await mirror.close()
    }

    @Test("Nobody waits for a kite that is gone for good, nor for a name whose agent has been away for long")
    func goneForGood() async throws {
        let (mirror, target) = try await startMirror()
        let id = "0e1d7b54-0000-4000-8000-0000000000aa"
        for (request, path, grace) in [
            (TunnelRequest(kind: .kite, kiteID: id, path: "/kite"), id, TimeAmount.seconds(30)),
            (TunnelRequest(name: "shop", kind: .http), "shop", .zero),
        ] {
            try await withGateway({
                $0.parking.grace = grace
                $0.parking.time = .seconds(40)
                $0.threads = 2
            }) { gateway, port async throws in
                let agent = try makeAgent(gateway: port, target: target, tunnels: [request])
                try await withAgent(agent) { _ async throws in
                    #expect(try await get("/proxy/\(path)/x", port: port).hasPrefix("HTTP/1.1 200 "))
                }
                while await gateway.metrics().sessions > 0 { await Task.yield() }
                let began = NIODeadline.now()
                for _ in 0..<4 {
                    let answer = try await get("/proxy/\(path)/x", port: port)
                    #expect(answer.hasPrefix("HTTP/1.1 503 "))
                    #expect(answer.contains("\r\nRetry-After: "))
                }
                #expect(NIODeadline.now() - began < .seconds(20))
                // The same kite comes back after all.
                try await withAgent(try makeAgent(gateway: port, target: target, tunnels: [request])) {
                    _ async throws in
                    #expect(try await get("/proxy/\(path)/x", port: port).hasPrefix("HTTP/1.1 200 "))
                }
            }
        }
        await mirror.close()
    }

    @Test("An agent that stops as soon as it is connected leaves no lane behind")
    func shortLived() async throws {
        let (mirror, target) = try await startMirror()
        try await withGateway { gateway, port async throws in
            for _ in 0..<10 {
                let agent = try makeAgent(
                    gateway: port, target: target, tunnels: [TunnelRequest(name: "shop", kind: .http)])
                try await withAgent(agent) { _ in }
            }
            while await gateway.metrics().lanes > 0 { await Task.yield() }
        }
        await mirror.close()
    }

    @Test("A name stays with the user who claimed it first")
    func claims() async throws {
        try await withGateway { gateway, port async throws in
            let tunnels = [TunnelRequest(name: "mine", kind: .http)]
            try await withAgent(try makeAgent(gateway: port, target: 1, tunnels: tunnels)) { grants in
                #expect(grants.first?.refusal == nil)
            }
            let other = try makeAgent(gateway: port, target: 1, tunnels: tunnels, user: "user-b")
            let refused = Mutex<TunnelRefusal?>(nil)
            do {
                try await withAgent(other) { grants in refused.withLock { $0 = grants.first?.refusal } }
            } catch let refusal as TunnelRefusal {
                refused.withLock { $0 = refusal }
            }
            #expect(refused.withLock { $0?.status } == 409)
            #expect(await gateway.metrics().refusals[.nameTaken] == 1)
        }
    }

    @Test("Kites are found through Kontrol, the answers kept, and unknown ones not asked for again at once")
    func kontrol() async throws {
        let (mirror, target) = try await startMirror()
        let resolver = ScriptedResolver()
        let id = "0e1d7b54-0000-4000-8000-000000000000"
        resolver.urls.withLock { $0[id] = "http://127.0.0.1:\(target)/kite" }
        try await withGateway(resolver: resolver) { _, port async throws in
            for _ in 0..<3 {
                #expect(try await get("/proxy/\(id)/info?t=1", port: port).contains("GET /kite/info?t=1 "))
            }
            #expect(resolver.questions.load(ordering: .relaxed) == 1)
            for _ in 0..<3 { #expect(try await get("/proxy/nobody/", port: port).hasPrefix("HTTP/1.1 404 ")) }
            #expect(resolver.questions.load(ordering: .relaxed) == 2)
            resolver.isDown.store(true, ordering: .relaxed)
            #expect(try await get("/proxy/somebody/", port: port).hasPrefix("HTTP/1.1 503 "))
        }
        await mirror.close()
    }

    @Test("Kontrol's names have capitals, and each of several kites of a name has its own path")
    func kontrolNames() async throws {
        let (mirror, target) = try await startMirror()
        let resolver = ScriptedResolver()
        resolver.urls.withLock { $0["Math"] = "http://127.0.0.1:1/one" }
        resolver.others.withLock { $0["Math"] = ["http://127.0.0.1:\(target)/two/", "http://127.0.0.1:1/three"] }
        try await withGateway(resolver: resolver) { _, port async throws in
            #expect(try await get("/proxy/Math/x", port: port).contains("GET /two/x "))
            #expect(try await get("/proxy/math/x", port: port).hasPrefix("HTTP/1.1 404 "))
        }
        await mirror.close()
    }

    @Test("Of several kites of a name one serves all of a session, and an open WebSocket counts as work")
    func severalKites() async throws {
        let (mirror, target) = try await startMirror()
        let resolver = ScriptedResolver()
        resolver.urls.withLock { $0["Math"] = "http://127.0.0.1:\(target)/one" }
        resolver.others.withLock { $0["Math"] = ["http://127.0.0.1:\(target)/two"] }
        try await withGateway({ $0.threads = 2 }, resolver: resolver) { _, port async throws in
            var used: Set<String> = []
            for session in 0..<20 {
                var kites: Set<String> = []
                for path in ["xhr", "xhr_send", "xhr", "xhr_streaming?t=1"] {
                    let answer = try await get("/proxy/Math/00\(session)/s\(session)/\(path)", port: port)
                    kites.insert(answer.contains("GET /one/") ? "one" : answer.contains("GET /two/") ? "two" : answer)
                }
                #expect(kites.count == 1)
                used.formUnion(kites)
            }
            #expect(used == ["one", "two"])
        }
        // On one event loop, so that all see the same.
        try await withGateway(resolver: resolver) { gateway, port async throws in
            let held = try await PausedVisitor.connect(to: port)
            held.write("GET /proxy/Math/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
            while await gateway.metrics().openUpgrades == 0 { await Task.yield() }
            var kites: Set<String> = []
            for _ in 0..<6 {
                let answer = try await get("/proxy/Math/x", port: port)
                kites.insert(answer.contains("GET /one/") ? "one" : answer.contains("GET /two/") ? "two" : answer)
            }
            #expect(kites == ["one"] || kites == ["two"])
        }
        await mirror.close()
    }

    @Test("When there are many kites that Kontrol knows, the one used longest ago is forgotten")
    func resolvedRoutesAreFull() async throws {
        let (mirror, target) = try await startMirror()
        let resolver = ScriptedResolver()
        resolver.urls.withLock { urls in
            for name in ["one", "two", "three"] { urls[name] = "http://127.0.0.1:\(target)/kite" }
        }
        try await withGateway({ $0.limits.resolvedRoutes = 2 }, resolver: resolver) { gateway, port async throws in
            for (name, questions) in [
                ("one", 1), ("two", 2), ("one", 2), ("three", 3), ("one", 3), ("three", 3), ("two", 4), ("three", 4),
                ("one", 5),
            ] {
                #expect(try await get("/proxy/\(name)/x", port: port).contains("GET /kite/x "))
                #expect(resolver.questions.load(ordering: .relaxed) == questions, "\(name)")
            }
            #expect(await gateway.metrics().routes == 2)
            #expect(await gateway.metrics().refusals[.routesFull] == nil)
        }
        await mirror.close()
    }

    @Test("Direct registrations belong to their user, and a newer one of the same user wins")
    func direct() async throws {
        let (mirror, target) = try await startMirror()
        let id = "0e1d7b54-0000-4000-8000-000000000001"
        try await withGateway { gateway, port async throws in
            let first = try await gateway.register(kiteID: id, url: "http://127.0.0.1:1/kite", username: "user-a")
            let second = try await gateway.register(
                kiteID: id, url: "http://127.0.0.1:\(target)/kite", username: "user-a")
            #expect(second.url == "http://127.0.0.1:\(port)/proxy/\(id)")
            await #expect(throws: (any Error).self) {
                _ = try await gateway.register(kiteID: id, url: "http://127.0.0.1:\(target)/", username: "user-b")
            }
            await gateway.unregister(kiteID: id, registration: first.registration)
            #expect(try await get("/proxy/\(id)/x", port: port).contains("GET /kite/x "))
            await gateway.unregister(kiteID: id, registration: second.registration)
            #expect(try await get("/proxy/\(id)/x", port: port).hasPrefix("HTTP/1.1 404 "))
        }
        await mirror.close()
    }

    @Test("Addresses that the policy forbids are not connected to")
    func policy() async throws {
        let (mirror, target) = try await startMirror()
        let id = "0e1d7b54-0000-4000-8000-000000000002"
        try await withGateway({ $0.directTargets = .refusingLoopback }) { gateway, port async throws in
            _ = try await gateway.register(kiteID: id, url: "http://localhost:\(target)/kite", username: "user-a")
            let answer = try await get("/proxy/\(id)/x", port: port)
            #expect(answer.hasPrefix("HTTP/1.1 502 "))
            #expect(await gateway.metrics().refusals[.targetForbidden] == 1)
        }
        await mirror.close()
    }

    @Test("An agent that wants to know hears of WebSockets and of refused requests, too")
    func notes() async throws {
        let (mirror, target) = try await startMirror()
        try await withGateway { gateway, port async throws in
            let agent = try makeAgent(
                gateway: port, target: target, tunnels: [TunnelRequest(name: "shop", kind: .http)], wantsNotes: true)
            try await withAgent(agent) { _ async throws in
                _ = try await send(
                    "GET /proxy/shop/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly",
                    to: port, until: "early")
                #expect(try await get("/proxy/shop/break", port: port).hasPrefix("HTTP/1.1 502 "))
                #expect(try await get("/proxy/shop/x", port: port).hasPrefix("HTTP/1.1 200 "))
                var statuses: [UInt16] = []
                for await case .note(let note) in agent.events {
                    statuses.append(note.status)
                    if statuses.count == 3 { break }
                }
                #expect(statuses == [101, 502, 200])
            }
        }
        await mirror.close()
    }

    @Test("A tcp tunnel has a port of its own", arguments: [1, 2])
    func tcp(threads: Int) async throws {
        let (mirror, target) = try await startMirror()
        try await withGateway({
            $0.tunnels.tcpPorts = 0...0
            $0.threads = threads
        }) { _, port async throws in
            let agent = try makeAgent(gateway: port, target: target, tunnels: [TunnelRequest(name: "db", kind: .tcp)])
            try await withAgent(agent) { grants async throws in
                let tcp = try #require(grants.first?.port)
                #expect(try await get("/raw", port: tcp, host: "h").contains("GET /raw h\n"))
            }
        }
        await mirror.close()
    }
}
