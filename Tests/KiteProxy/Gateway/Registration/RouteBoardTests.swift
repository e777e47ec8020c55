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
