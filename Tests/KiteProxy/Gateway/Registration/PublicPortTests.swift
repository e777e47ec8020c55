import KiteHTTP
import KiteTunnel
import NIOCore
import NIOPosix
import Testing

@testable import KiteGateway

@Suite("Public ports", .timeLimit(.minutes(1)))
struct PublicPortTests {
    /// A range of ports the first of which was free a moment ago.
    private func range() async throws -> ClosedRange<Int> {
        let probe = try await Listener.bind(
            to: SocketAddress(ipAddress: "127.0.0.1", port: 0), loops: [testGroup.next()]
        ) { _ in }
        let port = try #require(probe.address.port)
        await probe.close()
        return port...min(port + 20, 65_535)
    }

    private let tunnels = [TunnelRequest(name: "db", kind: .tcp)]

    @Test("Each tunnel has a port of its own", arguments: [1, 2])
    func ownPorts(threads: Int) async throws {
        let (mirror, target) = try await startMirror()
        let range = try await range()
        try await withGateway({
            $0.tunnels.tcpPorts = range
            $0.threads = threads
        }) { _, port async throws in
            let first = try makeAgent(gateway: port, target: target, tunnels: tunnels)
            try await withAgent(first) { grants async throws in
                let ours = try #require(grants.first?.port)
                let second = try makeAgent(
                    gateway: port, target: 1,
                    tunnels: [TunnelRequest(name: "one", kind: .tcp), TunnelRequest(name: "two", kind: .tcp)],
                    user: "user-b")
                try await withAgent(second) { grants async throws in
                    let theirs = grants.compactMap(\.port)
                    #expect(Set(theirs + [ours]).count == 3)
                    #expect(theirs.allSatisfy(range.contains))
                    for _ in 0..<10 {
                        #expect(try await get("/raw", port: ours, host: "h").contains("GET /raw h\n"))
                        // Reset: there is nothing behind it.
                        #expect(await (try? get("/raw", port: theirs[0], host: "h")) ?? "" == "")
                    }
                }
            }
        }
        await mirror.close()
    }

    @Test("A user has so many ports and no more")
    func limit() async throws {
        try await withGateway({
            $0.tunnels.tcpPorts = 0...0
            $0.tunnels.portsPerUser = 2
        }) { _, port async throws in
            let many = ["one", "two", "three"].map { TunnelRequest(name: $0, kind: .tcp) }
            for _ in 0..<2 {
                try await withAgent(try makeAgent(gateway: port, target: 1, tunnels: many)) { grants async throws in
                    #expect(grants.map { $0.refusal?.status } == [nil, nil, 429])
                    let other = try makeAgent(gateway: port, target: 1, tunnels: tunnels, user: "user-b")
                    try await withAgent(other) { grants in #expect(grants.first?.port != nil) }
                }
            }
        }
    }

    @Test("A tunnel that comes back has the port it had, though others came meanwhile")
    func samePort() async throws {
        let range = try await range()
        try await withGateway({ $0.tunnels.tcpPorts = range }) { gateway, port async throws in
            var ports: [Int?] = []
            for (name, user) in [("db", "user-a"), ("other", "user-b"), ("db", "user-a"), ("other", "user-b")] {
                let agent = try makeAgent(
                    gateway: port, target: 1, tunnels: [TunnelRequest(name: name, kind: .tcp)], user: user)
                let granted = ListenerPort()
                try await withAgent(agent) { grants in await granted.set(grants.first?.port) }
                ports.append(await granted.port)
                while await gateway.metrics().sessions > 0 { await Task.yield() }
            }
            #expect(ports[0] != nil && ports[0] != ports[1])
            #expect(ports[2] == ports[0])
            #expect(ports[3] == ports[1])
        }
    }

    @Test("An agent that was killed and started anew has its port before the old session has ended")
    func killed() async throws {
        let (mirror, target) = try await startMirror()
        let range = try await range()
        try await withGateway({ $0.tunnels.tcpPorts = range }) { gateway, port async throws in
            let breaker = Breaker()
            let through = try await breaker.start(to: port)
            try await withAgent(try makeAgent(gateway: through, target: 1, tunnels: tunnels)) { grants async throws in
                let before = try #require(grants.first?.port)
                // While it lives, another agent gets another port.
                try await withAgent(try makeAgent(gateway: port, target: 1, tunnels: tunnels)) { grants in
                    #expect(grants.first?.port != nil && grants.first?.port != before)
                }
                while await gateway.metrics().sessions > 1 { await Task.yield() }
                await breaker.stop()
                breaker.cut()
                // Until the gateway has noticed, another port is given.
                var after: Int?
                for _ in 0..<300 where after != before {
                    let granted = ListenerPort()
                    let agent = try makeAgent(gateway: port, target: target, tunnels: tunnels)
                    try await withAgent(agent) { grants async throws in
                        await granted.set(grants.first?.port)
                        guard grants.first?.port == before else { return }
                        #expect(try await get("/raw", port: before, host: "h").contains("GET /raw h\n"))
                    }
                    after = await granted.port
                }
                #expect(after == before)
            }
        }
        await mirror.close()
    }

    @Test("A port is free as soon as its agent has said that it stops, or the gateway is about to")
    func leaving() async throws {
        let range = try await range()
        var options = GatewayOptions()
        options.tunnels.tcpPorts = range
        let board = RouteBoard(options: options, claims: MemoryClaimStore(), logger: testLogger)
        let worker = try await makeWorker(options: options, board: board)
        try await board.start(workers: [worker], publicURL: "http://gw", policy: .allowingLoopback)
        func open(_ agent: String) async throws -> (session: String, port: Int) {
            let hello = AgentHello(agent: agent, epoch: 1, software: "test", purpose: .open(tunnels))
            guard
                case .attach(let welcome, _) = await board.open(hello, tunnels: tunnels, username: "a", loop: 0),
                let port = welcome.tunnels.first?.port
            else { throw TunnelRefusal(status: 500, reason: "no port") }
            return (welcome.session, port)
        }
        let first = try await open("agent-one")
        await board.agentIsLeaving(first.session)
        let second = try await open("agent-two")
        #expect(second.port == first.port)
        await board.end(first.session, nil)
        #expect(await board.ports.sessions(holding: RouteKey("db"), of: "a") == [second.session])
        await board.closePorts()
        await #expect(throws: TransportError.self) { _ = try await send("", to: second.port) }
        await board.close()
        // Its worker must be there until all that was sent to it is done.
        _ = await worker.ask { _ in }
    }

    @Test(arguments: [
        ("127.0.0.1", nil, nil, "tcp://127.0.0.1:5"), ("db.example", nil, "gw.example", "tcp://db.example:5"),
        ("::1", nil, nil, "tcp://[::1]:5"), ("0.0.0.0", nil, nil, "tcp://localhost:5"),
        ("::", nil, "gw.example", "tcp://gw.example:5"),
        ("0.0.0.0", "https://front.example:8443", "gw.example", "tcp://front.example:5"),
        ("0.0.0.0", "http://[2001:db8::1]:80", nil, "tcp://[2001:db8::1]:5"),
    ])
    func urls(host: String, publicURL: String?, domain: String?, expected: String) async throws {
        var options = GatewayOptions()
        options.tunnels.tcpHost = host
        options.publicURL = publicURL
        options.domain = domain
        let board = RouteBoard(options: options, claims: MemoryClaimStore(), logger: testLogger)
        try await board.start(
            workers: [], publicURL: publicURL ?? "http://localhost:3999", policy: .allowingLoopback)
        #expect(await board.portURL(5) == expected)
    }

    private actor ListenerPort {
        var port: Int?
        func set(_ port: Int?) { self.port = port }
    }
}

@Suite("Who has which port")
struct PortBookTests {
    private func holder(_ name: String, _ user: String = "a", session: String = "s") -> PortBook.Holder {
        PortBook.Holder(name: RouteKey(name), username: user, session: session)
    }

    @Test("A port is one tunnel's, and after that kept for it while there are others")
    func order() {
        var book = PortBook(limit: 8)
        #expect(book.candidates(for: RouteKey("x"), in: 5...7) == [5, 6, 7])
        #expect(book.take(5, for: holder("x")) == 5)
        #expect(book.take(5, for: holder("y")) == nil)
        book.opened(5, as: 5)
        #expect(book.candidates(for: RouteKey("y"), in: 5...7) == [6, 7])
        book.release(5)
        #expect(book.candidates(for: RouteKey("y"), in: 5...7) == [6, 7, 5])
        #expect(book.candidates(for: RouteKey("x"), in: 5...7) == [5, 6, 7])
        #expect(book.candidates(for: RouteKey("x"), in: 6...7) == [6, 7])
        #expect(book.candidates(for: RouteKey("x"), in: 0...0) == [5, 0])
        // Taken by another after all.
        #expect(book.take(5, for: holder("y")) == 5)
        book.opened(5, as: 5)
        book.release(5)
        #expect(book.candidates(for: RouteKey("x"), in: 5...7) == [6, 7, 5])
    }

    @Test("Ports that the system chooses are many, and count")
    func chosen() {
        var book = PortBook(limit: 2)
        guard let one = book.take(0, for: holder("one")), let two = book.take(0, for: holder("two", session: "t"))
        else {
            Issue.record("not taken")
            return
        }
        #expect(one != two)
        #expect(!book.hasRoom(for: "a") && book.hasRoom(for: "b"))
        book.opened(one, as: 40_000)
        book.release(two)
        #expect(book.hasRoom(for: "a"))
        #expect(book.take(40_000, for: holder("x", "b")) == nil)
        #expect(book.sessions(holding: RouteKey("one"), of: "a") == ["s"])
        #expect(book.sessions(holding: RouteKey("one"), of: "b").isEmpty)
        book.release(40_000)
        #expect(book.sessions(holding: RouteKey("one"), of: "a").isEmpty)
    }
}
