import KiteDialing
import KiteHTTP
import KiteSupport
import KiteTunnel
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import KiteGateway

/// A store whose first save waits until it is told how to end.
private actor HeldClaimStore: ClaimStore {
    private(set) var saved: [Claim] = []
    private var held: CheckedContinuation<Void, any Error>?
    private var isHolding: Bool

    init(isHolding: Bool) { self.isHolding = isHolding }

    var isHeld: Bool { held != nil }
    func claims() -> [Claim] { [] }
    func save(_ claim: Claim) async throws {
        if isHolding {
            isHolding = false
            try await withCheckedThrowingContinuation { held = $0 }
        }
        saved.append(claim)
    }
    func remove(name: String) {}
    func end(with error: (any Error)?) {
        if let error { held?.resume(throwing: error) } else { held?.resume() }
        held = nil
    }
    func waitUntilHeld() async { while held == nil { await Task.yield() } }
}

@Suite("The route board", .timeLimit(.minutes(1)))
struct RouteBoardTests {
    private func hello(_ agent: String, epoch: UInt64 = 1, _ tunnels: [TunnelRequest]) -> AgentHello {
        AgentHello(agent: agent, epoch: epoch, software: "test", purpose: .open(tunnels))
    }

    private func refusal(_ decision: LaneDecision) -> TunnelRefusal? {
        switch decision {
        case .refuse(let refusal): refusal
        case .attach(let welcome, _), .resume(let welcome, _): welcome.tunnels.first?.refusal
        }
    }

    @Test("A name that one session could not record stays with the other session that was given it")
    func failedRecord() async throws {
        let store = HeldClaimStore(isHolding: true)
        let board = RouteBoard(options: GatewayOptions(), claims: store, logger: testLogger)
        try await board.start(workers: [], publicURL: "http://gw", policy: .allowingLoopback)
        let tunnels = [TunnelRequest(name: "shop", kind: .http)]
        async let first = board.open(hello("agent-one", tunnels), tunnels: tunnels, username: "a", loop: 0)
        await store.waitUntilHeld()
        let second = await board.open(hello("agent-two", tunnels), tunnels: tunnels, username: "a", loop: 0)
        #expect(refusal(second) == nil)
        await store.end(with: CancellationError())
        #expect(refusal(await first)?.status == 503)
        let other = await board.open(hello("agent-other", tunnels), tunnels: tunnels, username: "b", loop: 0)
        #expect(refusal(other)?.status == 409)
        #expect(await store.saved.map(\.name) == ["shop"])
    }

    @Test("A session that was being opened when the shutdown began is refused, and its public port closed")
    func portAtShutdown() async throws {
        let probe = try await Listener.bind(
            to: SocketAddress(ipAddress: "127.0.0.1", port: 0), loops: [testGroup.next()]
        ) { _ in }
        let port = try #require(probe.address.port)
        await probe.close()
        var options = GatewayOptions()
        options.tunnels.tcpPorts = port...port
        let store = HeldClaimStore(isHolding: true)
        let board = RouteBoard(options: options, claims: store, logger: testLogger)
        let worker = try await makeWorker(options: options, board: board)
        try await board.start(workers: [worker], publicURL: "http://gw", policy: .allowingLoopback)
        let tunnels = [TunnelRequest(name: "db", kind: .tcp)]
        async let opened = board.open(hello("agent-one", tunnels), tunnels: tunnels, username: "a", loop: 0)
        await store.waitUntilHeld()
        await board.close()
        await store.end(with: nil)
        #expect(refusal(await opened)?.status == 503)
        await #expect(throws: TransportError.self) { _ = try await send("", to: port) }
    }

    @Test("A kite's id is given to nobody but the user whom Kontrol knows it of")
    func idsKnownToKontrol() async throws {
        let alices = "0e1d7b54-0000-4000-8000-0000000000b1"
        let unknown = "0e1d7b54-0000-4000-8000-0000000000b2"
        let resolver = ScriptedResolver()
        resolver.urls.withLock { $0[alices] = "http://127.0.0.1:1/kite" }
        let board = RouteBoard(
            options: GatewayOptions(), claims: MemoryClaimStore(), resolver: resolver, logger: testLogger)
        try await board.start(workers: [], publicURL: "http://gw", policy: .allowingLoopback)
        func status(_ tunnel: TunnelRequest, _ username: String) async -> Int? {
            let agent = hello("agent-\(UInt64.random(in: 0 ... .max))", [tunnel])
            return refusal(await board.open(agent, tunnels: [tunnel], username: username, loop: 0))?.status
        }
        for tunnel in [TunnelRequest(kind: .kite, kiteID: alices), TunnelRequest(name: alices, kind: .http)] {
            #expect(await status(tunnel, "user-b") == 409)
        }
        await #expect(throws: RegistrationError.self) {
            _ = try await board.register(kiteID: alices, url: "http://127.0.0.1:1/kite", username: "user-b")
        }
        await #expect(throws: RegistrationError.self) {
            try await board.claim(kiteID: RouteKey(alices), username: "user-b")
        }
        #expect(await status(TunnelRequest(kind: .kite, kiteID: alices), "user-a") == nil)
        _ = try await board.register(kiteID: alices, url: "http://127.0.0.1:1/kite", username: "user-a")
        #expect(await status(TunnelRequest(kind: .kite, kiteID: unknown), "user-b") == nil)
        // What is known already goes on while Kontrol is away; the rest has to wait.
        resolver.isDown.store(true, ordering: .relaxed)
        #expect(await status(TunnelRequest(kind: .kite, kiteID: alices), "user-a") == nil)
        #expect(
            await status(TunnelRequest(kind: .kite, kiteID: "0e1d7b54-0000-4000-8000-0000000000b3"), "user-a") == 503)
    }

    @Test("A session does not lose what it was given to its own further tunnels")
    func ownNames() async throws {
        var options = GatewayOptions()
        options.tunnels.namesPerUser = 2
        let board = RouteBoard(options: options, claims: MemoryClaimStore(), logger: testLogger)
        try await board.start(workers: [], publicURL: "http://gw", policy: .allowingLoopback)
        let ids = (1...3).map { "0e1d7b54-0000-4000-8000-0000000000c\($0)" }
        let tunnels = ids.map { TunnelRequest(name: $0, kind: .http) }
        for epoch in 1...2 as ClosedRange<UInt64> {
            let opened = await board.open(
                hello("agent-one", epoch: epoch, tunnels), tunnels: tunnels, username: "a", loop: 0)
            guard case .attach(let welcome, _) = opened else {
                Issue.record("not opened")
                return
            }
            #expect(welcome.tunnels.map { $0.refusal?.status } == [nil, nil, 429])
        }
        // Nor to another session of its user.
        let other = await board.open(hello("agent-two", [tunnels[2]]), tunnels: [tunnels[2]], username: "a", loop: 0)
        #expect(refusal(other)?.status == 429)
        for id in ids.prefix(2) { #expect(await board.book.owner(of: RouteKey(id)) == "a") }
    }

    @Test("Tunnels above the limit of an agent are refused one by one, and agents above that of a user")
    func limits() async throws {
        var options = GatewayOptions()
        options.tunnels.tunnelsPerSession = 1
        options.tunnels.sessionsPerUser = 2
        let board = RouteBoard(options: options, claims: MemoryClaimStore(), logger: testLogger)
        try await board.start(workers: [], publicURL: "http://gw", policy: .allowingLoopback)
        let tunnels = ["one", "two"].map { TunnelRequest(name: $0, kind: .http) }
        for (agent, epoch) in [("agent-one", 1), ("agent-two", 1), ("agent-one", 2)] as [(String, UInt64)] {
            let opened = await board.open(
                hello(agent, epoch: epoch, tunnels), tunnels: tunnels, username: "a", loop: 0)
            guard case .attach(let welcome, _) = opened else {
                Issue.record("\(agent) was not let in")
                return
            }
            #expect(welcome.tunnels.map { $0.refusal?.status } == [nil, 403])
        }
        let third = await board.open(hello("agent-three", tunnels), tunnels: tunnels, username: "a", loop: 0)
        guard case .refuse(let refusal) = third else {
            Issue.record("one too many was let in")
            return
        }
        #expect(refusal.status == 429)
        let other = [TunnelRequest(name: "other", kind: .http)]
        let opened = await board.open(hello("agent-four", other), tunnels: other, username: "b", loop: 0)
        #expect(self.refusal(opened) == nil)
    }

    @Test("When a name was last used is recorded, at most once a minute")
    func lastUse() async throws {
        let store = HeldClaimStore(isHolding: false)
        let time = Mutex<Int64>(1000)
        let board = RouteBoard(options: GatewayOptions(), claims: store, logger: testLogger) { time.withLock { $0 } }
        try await board.start(workers: [], publicURL: "http://gw", policy: .allowingLoopback)
        let tunnels = [TunnelRequest(name: "shop", kind: .http), TunnelRequest(kind: .http)]
        for (epoch, seconds) in [1: 1000, 2: 1030, 3: 1061, 4: 1062, 5: 1200].sorted(by: { $0.key < $1.key }) {
            time.withLock { $0 = Int64(seconds) }
            let opened = await board.open(
                hello("agent-one", epoch: UInt64(epoch), tunnels), tunnels: tunnels, username: "a", loop: 0)
            #expect(refusal(opened) == nil)
        }
        #expect(await store.saved == [1000, 1061, 1200].map { Claim(name: "shop", username: "a", lastUsed: $0) })
    }
}
