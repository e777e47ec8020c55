import KiteCore
import KiteDialing
import KiteHTTP
import KiteTunnel
import Logging
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import KiteGateway

@Suite("Gateway under odd visitors and odd times", .timeLimit(.minutes(1)))
struct GatewayTrafficTests {
    @Test("What the engine refuses has its status")
    func engineRefusals() async throws {
        try await withGateway({
            $0.limits.headBytes = 2000
            $0.limits.targetBytes = 500
            $0.timeouts.head = .milliseconds(300)
        }) { _, port async throws in
            let long = String(repeating: "x", count: 600)
            for (wire, status) in [
                ("GET /\(long) HTTP/1.1\r\nHost: x\r\n\r\n", "414"),
                ("GET / HTTP/1.1\r\nHost: x\r\nA: \(long)\r\nB: \(long)\r\nC: \(long)\r\nD: \(long)\r\n\r\n", "431"),
                ("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "400"), ("GET / HTTP/1.1\r\n\r\n", "400"),
                ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400"),
                ("GET / HTTP/1.1\r\nHost: x\r\nSlow: ", "408"),
            ] {
                let answer = try await send(wire, to: port)
                #expect(answer.hasPrefix("HTTP/1.1 \(status) "), "\(wire.prefix(40))")
            }
        }
    }

    @Test("Connections are counted over all listeners of the gateway, the ports of tcp tunnels included")
    func connectionLimits() async throws {
        try await withGateway({
            $0.listeners.append(GatewayOptions.Listener(host: "127.0.0.1", port: 0))
            $0.tunnels.tcpPorts = 0...0
            $0.limits.connectionsPerAddress = 3
            $0.threads = 2
        }) { gateway, port async throws in
            let second = try #require(try await gateway.boundAddresses().last?.port)
            let agent = try makeAgent(gateway: port, target: 1, tunnels: [TunnelRequest(name: "db", kind: .tcp)])
            // Where a second lane comes to another loop, it takes the place of a visitor.
            try await withAgent(agent) { grants async throws in
                let tcp = try #require(grants.first?.port)
                var held: [PausedVisitor.Reference] = []
                for _ in 0..<3 { held.append(try await PausedVisitor.connect(to: second)) }
                while await gateway.metrics().refusals[.tooManyConnections, default: 0] == 0 {
                    held.append(try await PausedVisitor.connect(to: tcp))
                }
                #expect(held.count < 16)
                #expect(await gateway.metrics().openConnections <= 3)
            }
        }
    }

    @Test("Connections to a target that are being opened count")
    func dialsUnderWay() async throws {
        // Takes connections and never says anything, so that TLS is never up.
        let mute = try await Listener.bind(
            to: SocketAddress(ipAddress: "127.0.0.1", port: 0), loops: Array(testGroup.makeIterator().prefix(1))
        ) { _ in }
        let id = "0e1d7b54-0000-4000-8000-00000000001a"
        try await withGateway({
            $0.limits.connectionsPerTarget = 1
            $0.timeouts.connect = .milliseconds(700)
        }) { gateway, port async throws in
            _ = try await gateway.register(
                kiteID: id, url: "https://127.0.0.1:\(mute.address.port ?? 0)/kite", username: "user-a")
            for _ in 0..<2 {
                let before = mute.connectionCount
                async let first = get("/proxy/\(id)/x", port: port)
                while mute.connectionCount == before { await Task.yield() }
                #expect(try await get("/proxy/\(id)/x", port: port).hasPrefix("HTTP/1.1 503 "))
                #expect(try await first.hasPrefix("HTTP/1.1 502 "))
            }
            #expect(await gateway.metrics().refusals[.upstreamBusy] == 2)
        }
        await mute.close()
    }

    @Test("A visitor who does not read stalls nobody else", arguments: [1, 2])
    func slowReader(threads: Int) async throws {
        let (mirror, target) = try await startMirror()
        try await withGateway({ $0.threads = threads }) { _, port async throws in
            let agent = try makeAgent(
                gateway: port, target: target, tunnels: [TunnelRequest(name: "shop", kind: .http)])
            try await withAgent(agent) { _ async throws in
                let body = String(repeating: "0123456789abcdef", count: 1 << 19)
                let slow = try await PausedVisitor.connect(to: port)
                slow.write("POST /proxy/shop/big HTTP/1.1\r\nHost: x\r\nContent-Length: \(body.utf8.count)\r\n")
                slow.write("Connection: close\r\n\r\n\(body)")
                for _ in 0..<50 { #expect(try await get("/proxy/shop/", port: port).hasPrefix("HTTP/1.1 200 ")) }
                let answer = try await slow.readAll()
                #expect(answer.hasPrefix("HTTP/1.1 200 "))
                #expect(answer.hasSuffix("\n\n" + body))
            }
        }
        await mirror.close()
    }

    @Test("A kite that Kontrol names at this gateway's own address is waited for, not looped to")
    func ownAddress() async throws {
        let (mirror, target) = try await startMirror()
        let resolver = ScriptedResolver()
        let id = "0e1d7b54-0000-4000-8000-00000000000a"
        try await withGateway({ $0.parking.time = .milliseconds(300) }, resolver: resolver) {
            gateway, port async throws in
            resolver.urls.withLock { $0[id] = "http://127.0.0.1:\(port)/proxy/\(id)" }
            let away = try await get("/proxy/\(id)/x", port: port)
            #expect(away.hasPrefix("HTTP/1.1 503 "))
            #expect(away.contains("Retry-After: "))
            let agent = try makeAgent(
                gateway: port, target: target, tunnels: [TunnelRequest(kind: .kite, kiteID: id, path: "/kite")])
            try await withAgent(agent) { _ async throws in
                #expect(try await get("/proxy/\(id)/x", port: port).contains("GET /kite/x "))
            }
        }
        await mirror.close()
    }

    @Test(
        "A kite is found by its name, though Kontrol knows it at this gateway's address alone",
        arguments: [false, true])
    func ownAddressByName(isByHost: Bool) async throws {
        let (mirror, target) = try await startMirror()
        let resolver = ScriptedResolver()
        let id = "0e1d7b54-0000-4000-8000-00000000000f"
        try await withGateway({ $0.domain = "gw.test" }, resolver: resolver) { gateway, port async throws in
            resolver.ids.withLock { $0["Math"] = id }
            resolver.urls.withLock {
                $0["Math"] = isByHost ? "http://m.gw.test:\(port)/kite" : "http://127.0.0.1:\(port)/proxy/\(id)"
            }
            let agent = try makeAgent(
                gateway: port, target: target,
                tunnels: [TunnelRequest(name: "m", kind: .kite, kiteID: id, path: "/kite")])
            try await withAgent(agent) { _ async throws in
                for _ in 0..<3 { #expect(try await get("/proxy/Math/x", port: port).contains("GET /kite/x ")) }
            }
        }
        await mirror.close()
    }

    @Test("Each request has its line in the access log, however it ended")
    func accessLog() async throws {
        let lines = Mutex<[String]>([])
        let logger = Logger(label: "test") { _ in LineLog { line in lines.withLock { $0.append(line) } } }
        let (mirror, target) = try await startMirror()
        try await withGateway(
            {
                $0.isAccessLogged = true
                $0.limits.bodyBytes = 100
                $0.timeouts.response = .milliseconds(900)
            }, logger: logger
        ) { gateway, port async throws in
            let agent = try makeAgent(
                gateway: port, target: target, tunnels: [TunnelRequest(name: "shop", kind: .http)])
            try await withAgent(agent) { _ async throws in
                for path in ["/proxy/shop/a", "/proxy/shop", "/proxy/shop/silent", "/proxy/none/", "/nowhere"] {
                    _ = try await get(path, port: port)
                }
                _ = try await send(
                    "GET /proxy/shop/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly",
                    to: port, until: "early")
                _ = try await send("nonsense\r\n\r\n", to: port)
                _ = try await send(
                    "POST /proxy/shop/big HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\nConnection: close\r\n\r\n",
                    to: port)
                let gone = try await PausedVisitor.connect(to: port)
                gone.write("GET /proxy/shop/gone/silent HTTP/1.1\r\nHost: x\r\n\r\n")
                while await gateway.metrics().activeRequests == 0 { await Task.yield() }
                gone.abort()
                while await gateway.metrics().activeRequests > 0 { await Task.yield() }
            }
        }
        #expect(
            lines.withLock { $0 }.sorted()
                == [
                    // Refused before there was a request to speak of.
                    "- 400", "- 413", "/nowhere 404", "/proxy/none/ 404", "/proxy/shop 308", "/proxy/shop/a 200",
                    "/proxy/shop/gone/silent 0", "/proxy/shop/silent 504", "/proxy/shop/ws 101",
                ])
        await mirror.close()
    }

    @Test("What the gateway answers itself has its line in the access log, too")
    func ownAccessLog() async throws {
        let lines = Mutex<[String]>([])
        let logger = Logger(label: "test") { _ in LineLog { line in lines.withLock { $0.append(line) } } }
        let id = "0e1d7b54-0000-4000-8000-00000000000b"
        try await withGateway({ $0.isAccessLogged = true }, kite: { _ in MirrorAcceptor() }, logger: logger) {
            _, port async throws in
            for path in ["/kite/info", "/kite/break", "/-/kite.js", "/proxy/1/2/xhr?kiteID=\(id)", "/tunnel/info"] {
                _ = try await get(path, port: port)
            }
            _ = try await send("PUT /-/kite.js HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", to: port)
            let body = "POST /kite/1/2/xhr_send HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
            #expect(try await send(body, to: port).hasSuffix("\n\nhi"))
            _ = try await send(
                "GET /kite/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly", to: port,
                until: "early")
        }
        #expect(
            lines.withLock { $0 }.sorted()
                == [
                    "/-/kite.js 200", "/-/kite.js 405", "/kite/1/2/xhr_send 200", "/kite/break 0", "/kite/info 200",
                    "/kite/ws 101", "/proxy/1/2/xhr 404", "/tunnel/info 401",
                ])
    }

    @Test("What Kontrol said stays good while Kontrol is away, and is asked for again afterwards")
    func stale() async throws {
        let (mirror, target) = try await startMirror()
        let resolver = ScriptedResolver()
        let id = "0e1d7b54-0000-4000-8000-00000000000b"
        resolver.urls.withLock { $0[id] = "http://127.0.0.1:\(target)/kite" }
        try await withGateway({ $0.timeouts.resolved = .milliseconds(500) }, resolver: resolver) {
            _, port async throws in
            #expect(try await get("/proxy/\(id)/x", port: port).contains("GET /kite/x "))
            resolver.isDown.store(true, ordering: .relaxed)
            let before = resolver.questions.load(ordering: .relaxed)
            while resolver.questions.load(ordering: .relaxed) < before + 3 {
                #expect(try await get("/proxy/\(id)/x", port: port).contains("GET /kite/x "))
            }
            resolver.urls.withLock { $0[id] = nil }
            resolver.isDown.store(false, ordering: .relaxed)
            while try await !get("/proxy/\(id)/x", port: port).hasPrefix("HTTP/1.1 404 ") {}
        }
        await mirror.close()
    }

    @Test("Nonsense is not asked of Kontrol")
    func nonsense() async throws {
        let resolver = ScriptedResolver()
        try await withGateway(resolver: resolver) { _, port async throws in
            for name in ["a%2Fb", "~", String(repeating: "a", count: 200)] {
                #expect(try await get("/proxy/\(name)/", port: port).hasPrefix("HTTP/1.1 404 "))
            }
            #expect(resolver.questions.load(ordering: .relaxed) == 0)
        }
    }

    @Test("An address that may not be reached is refused when it is registered")
    func forbiddenLiteral() async throws {
        try await withGateway { gateway, _ async throws in
            for url in [
                "http://169.254.169.254/kite", "http://[::ffff:169.254.169.254]:80/kite", "http://0.0.0.0/kite",
            ] {
                await #expect(throws: RegistrationError.self) {
                    _ = try await gateway.register(
                        kiteID: "0e1d7b54-0000-4000-8000-00000000000c", url: url, username: "user-a")
                }
            }
        }
    }

    @Test("The id of a kite that has gone stays its user's")
    func idsOfAbsentKites() async throws {
        let id = "0e1d7b54-0000-4000-8000-00000000000d"
        try await withGateway { gateway, _ async throws in
            let first = try await gateway.register(kiteID: id, url: "http://127.0.0.1:1/kite", username: "user-a")
            await gateway.unregister(kiteID: id, registration: first.registration)
            await #expect(throws: RegistrationError.self) {
                _ = try await gateway.register(kiteID: id, url: "http://127.0.0.1:1/kite", username: "user-b")
            }
            _ = try await gateway.register(kiteID: id, url: "http://127.0.0.1:1/kite", username: "user-a")
        }
    }

    @Test("The end of a direct registration leaves the same kite's tunnel alone")
    func tunnelAndRegistration() async throws {
        let (mirror, target) = try await startMirror()
        let id = "0e1d7b54-0000-4000-8000-00000000000e"
        try await withGateway { gateway, port async throws in
            let agent = try makeAgent(
                gateway: port, target: target, tunnels: [TunnelRequest(kind: .kite, kiteID: id, path: "/kite")])
            try await withAgent(agent) { _ async throws in
                let direct = try await gateway.register(kiteID: id, url: "http://127.0.0.1:1/k", username: "user-a")
                await gateway.unregister(kiteID: id, registration: direct.registration)
                #expect(try await get("/proxy/\(id)/x", port: port).contains("GET /kite/x "))
            }
        }
        await mirror.close()
    }

    @Test("Tunnels without a name leave the names of their user alone, and keep theirs over sessions")
    func namelessTunnels() async throws {
        try await withGateway({ $0.tunnels.namesPerUser = 1 }) { _, port async throws in
            for (name, status) in [("mine", nil), (nil, nil), ("second", 429)] as [(String?, Int?)] {
                let agent = try makeAgent(gateway: port, target: 1, tunnels: [TunnelRequest(name: name, kind: .http)])
                do {
                    try await withAgent(agent) { grants in #expect(grants.first?.refusal?.status == status) }
                } catch let refusal as TunnelRefusal {
                    #expect(refusal.status == status)
                }
            }
        }
        #expect(RouteBoard.name(agent: "u/agent", tunnel: 0) == RouteBoard.name(agent: "u/agent", tunnel: 0))
        #expect(RouteBoard.name(agent: "u/agent", tunnel: 0) != RouteBoard.name(agent: "u/agent", tunnel: 1))
        #expect(RouteBoard.name(agent: "u/agent", tunnel: 0) != RouteBoard.name(agent: "v/agent", tunnel: 0))
        #expect(RouteBoard.isLabel(RouteBoard.name(agent: "u/agent", tunnel: 0)))
    }
}

/// Hands over path and status of the access log's lines.
private struct LineLog: LogHandler {
    let write: @Sendable (String) -> Void
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.info
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }
    init(_ write: @escaping @Sendable (String) -> Void) { self.write = write }
    func log(event: LogEvent) {
        guard "\(event.message)" == "request", let fields = event.metadata else { return }
        write("\(fields["path"] ?? "?") \(fields["status"] ?? "?")")
    }
}

/// A visitor who sends and reads nothing until asked to.
final class PausedVisitor: ByteTransportDelegate {
    private let transport: any ByteTransport
    private var received = ByteBuffer()
    private let done: EventLoopPromise<String>

    private init(_ transport: any ByteTransport) {
        self.transport = transport
        done = transport.eventLoop.makePromise()
        transport.setReading(false)
        transport.delegate = self
    }
    func transportReceived(_ bytes: ByteBuffer) { received.writeImmutableBuffer(bytes) }
    func transportInputClosed() { transport.close() }
    func transportClosed(_ error: TransportError?) { done.succeed(String(buffer: received)) }
    func transportWritabilityChanged(_ isWritable: Bool) {}

    /// The visitor from any thread.
    struct Reference: Sendable {
        fileprivate let bound: NIOLoopBound<PausedVisitor>

        func write(_ text: String) {
            bound.eventLoop.execute { [bound] in bound.value.transport.write(ByteBuffer(string: text)) }
        }
        func abort() {
            bound.eventLoop.execute { [bound] in bound.value.transport.abort(TransportError(.cancelled, "gone")) }
        }
        /// Reads from now on, until the other side closes.
        func readAll() async throws -> String {
            try await bound.eventLoop.flatSubmit { [bound] in
                bound.value.transport.setReading(true)
                return bound.value.done.futureResult
            }.get()
        }
    }

    static func connect(to port: Int) async throws -> Reference {
        let loop = testGroup.next()
        let dialer = try Dialer()
        let promise = loop.makePromise(of: Reference.self)
        loop.execute {
            dialer.dial(Endpoint(.tcp(host: "127.0.0.1", port: port)), on: loop) { result in
                promise.completeWith(
                    result.map { Reference(bound: NIOLoopBound(PausedVisitor($0), eventLoop: loop)) }
                        .mapError { $0 as any Error })
            }
        }
        return try await promise.futureResult.get()
    }
}
