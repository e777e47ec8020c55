/// What is answered at limits that no other test of the gateway reaches.
import KiteHTTP
import KiteTunnel
import NIOCore
import Testing

@testable import KiteGateway

@Suite("Limits", .timeLimit(.minutes(1)))
struct LimitTests {
    /// Two routes whose agent has gone, so that requests for them wait.
    private func withParking(
        _ change: (inout GatewayOptions.Parking) -> Void,
        _ body: @escaping @Sendable (Gateway, Int) async throws -> Void
    ) async throws {
        var parking = GatewayOptions.Parking()
        parking.time = .seconds(5)
        change(&parking)
        let settled = parking
        try await withGateway({ $0.parking = settled }) { gateway, port async throws in
            let agent = try makeAgent(
                gateway: port, target: 1,
                tunnels: [TunnelRequest(name: "shop", kind: .http), TunnelRequest(name: "blog", kind: .http)])
            try await withAgent(agent) { _ async throws in }
            try await eventually { await gateway.metrics().servingRoutes == 0 }
            try await body(gateway, port)
        }
    }

    /// Asks for paths one after the other, each when the one before waits or is answered.
    private func statuses(_ paths: [String], _ gateway: Gateway, _ port: Int) async throws -> [String] {
        try await withThrowingTaskGroup(of: (Int, String).self) { tasks in
            for (number, path) in paths.enumerated() {
                let before = await gateway.metrics()
                tasks.addTask { (number, String(try await get(path, port: port).prefix(12))) }
                try await eventually {
                    let now = await gateway.metrics()
                    return now.parkedRequests > before.parkedRequests || now.requests > before.requests
                }
            }
            return try await tasks.reduce(into: [Int: String]()) { $0[$1.0] = $1.1 }.sorted { $0.key < $1.key }.map(
                \.value)
        }
    }

    @Test("No more requests wait for one route than may") func parkedPerRoute() async throws {
        try await withParking {
            $0.requestsPerRoute = 2
        } _: { gateway, port async throws in
            let all = try await statuses(
                ["/proxy/shop/1", "/proxy/shop/2", "/proxy/shop/3", "/proxy/blog/4"], gateway, port)
            #expect(all == Array(repeating: "HTTP/1.1 503", count: 4))
            let refusals = await gateway.metrics().refusals
            #expect(refusals[.parkingFull] == 1)
            #expect(refusals[.noLane] == 3)
        }
    }

    @Test("No more requests wait altogether than may") func parked() async throws {
        try await withParking {
            $0.requests = 2
        } _: { gateway, port async throws in
            _ = try await statuses(["/proxy/shop/1", "/proxy/blog/2", "/proxy/shop/3", "/proxy/blog/4"], gateway, port)
            let refusals = await gateway.metrics().refusals
            #expect(refusals[.parkingFull] == 2)
            #expect(refusals[.noLane] == 2)
        }
    }

    @Test("A connection at rest is closed after the time between requests") func keepAlive() async throws {
        try await withGateway({ $0.timeouts.keepAlive = .milliseconds(300) }) { _, port async throws in
            let began = ContinuousClock.now
            let all = try await send("GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", to: port)
            #expect(all.hasPrefix("HTTP/1.1 404"))
            #expect(!all.contains("Connection: close"))
            #expect((.milliseconds(250) ... .seconds(5)).contains(began.duration(to: .now)))
        }
    }

    @Test("An agent has one lane on each event loop") func lanes() async throws {
        let options = GatewayOptions()
        let board = RouteBoard(options: options, claims: MemoryClaimStore(), logger: testLogger)
        let worker = try await makeWorker(options: options, board: board)
        try await board.start(workers: [worker], publicURL: "http://gw", policy: .allowingLoopback)
        let tunnels = [TunnelRequest(name: "shop", kind: .http)]
        let hello = AgentHello(agent: "agent-one", epoch: 1, software: "test", purpose: .open(tunnels))
        guard case .attach(let welcome, _) = await board.open(hello, tunnels: tunnels, username: "a", loop: 0) else {
            Issue.record("the session was refused")
            return
        }
        #expect(welcome.lanes == 1)
        let further = await board.join(welcome.session, secret: welcome.secret, username: "a", loop: 0)
        guard case .attach(let second, _) = further else {
            Issue.record("\(further)")
            return
        }
        #expect(second.isSurplus)
        await board.close()
    }
}
