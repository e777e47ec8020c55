/// An agent's session when something goes wrong: what is up stays up, what is refused for a time is tried again, and all of it is told.
import KiteHTTP
import KiteTunnel
import Logging
import NIOCore
import NIOPosix
import Synchronization
import Testing

@Suite(.serialized) struct AgentTroubleTests: AgentTesting {
    /// Fails while the switch is on.
    private final class Fault: Sendable {
        private let isOn = Mutex(false)
        private let count = Mutex(0)
        var hits: Int { count.withLock { $0 } }
        func set(_ value: Bool) { isOn.withLock { $0 = value } }
        func check() throws {
            guard isOn.withLock({ $0 }) else { return }
            count.withLock { $0 += 1 }
            throw TransportError(.connectFailed, "there is no way")
        }
        func wait(for hits: Int) async throws {
            let end = ContinuousClock.now + .seconds(20)
            while self.hits < hits {
                guard ContinuousClock.now < end else { throw TransportError(.idleTimeout, "the fault never struck") }
                try await Task.sleep(for: .milliseconds(5))
            }
        }
    }

    // MARK: further lanes

    enum Trouble: CaseIterable { case dialling, credential, unauthorized, busy }

    @Test(.timeLimit(.minutes(1)), arguments: Trouble.allCases)
    func aFurtherLaneThatDoesNotComeUpLeavesTheSessionAlone(_ trouble: Trouble) async throws {
        let gateway = gateway(loops: 2)
        let port = try await gateway.start()
        let fault = Fault()
        let dials = Mutex(0)
        switch trouble {
        case .dialling, .credential: break
        case .unauthorized:
            gateway.state.withLock { $0.joinRefusal = TunnelRefusal(status: 401, reason: "Sign in first") }
        case .busy: gateway.state.withLock { $0.joinRefusal = TunnelRefusal(status: 429, reason: "busy") }
        }
        try await withAgent(
            port: port, agentLoops: 2,
            dialer: { endpoint, loop in
                if dials.withLock({
                    $0 += 1; return $0
                }) > 1, trouble == .dialling {
                    try fault.check()
                }
                return try await plainDialer(endpoint, loop)
            },
            credential: {
                if dials.withLock({ $0 }) > 0, trouble == .credential { try fault.check() }
                return "key"
            }
        ) { _, log in
            fault.set(true)
            // The first lane may have been followed by others before the fault was on.
            try await gateway.wait { $0.lanes.count >= 1 }
            let lane = try #require(gateway.state.withLock { $0.lanes.first })
            let loop = lane.lane.eventLoop
            let answer = loop.makePromise(of: String.self)
            let stream = try await loop.submit {
                let stream = try lane.lane.value.openStream(StreamOpening(kind: .tcp))
                let sees = StreamRecorder()
                sees.onInputClosed = { [unowned sees] in answer.succeed(sees.text) }
                sees.onClosed = { answer.fail($0 ?? TransportError(.reset, "closed early")) }
                stream.delegate = sees
                stream.write(ByteBuffer(string: "before "))
                return NIOLoopBound(stream, eventLoop: loop)
            }.get()
            if trouble == .dialling || trouble == .credential {
                if gateway.state.withLock({ $0.lanes.count }) == 1 { try await fault.wait(for: 3) }
            } else {
                try await gateway.wait { $0.hellos.count >= 4 }
            }
            fault.set(false)
            gateway.state.withLock { $0.joinRefusal = nil }
            try await gateway.wait { $0.lanes.count == 2 }
            loop.execute {
                stream.value.write(ByteBuffer(string: "after"))
                stream.value.closeOutput()
            }
            #expect(try await answer.futureResult.get() == "before after")
            try await log.wait { $0.contains(.laneUp(lane: 1, lanes: 2, wanted: 2)) }
        }
        #expect(gateway.state.withLock { $0.sessions.count } == 1)
        await gateway.stop()
    }

    @Test(.timeLimit(.minutes(1))) func aFinalRefusalEndsTheSessionOnceNoLaneIsUp() async throws {
        let gateway = gateway(loops: 2)
        let refusal = TunnelRefusal(status: 401, reason: "Sign in first")
        gateway.state.withLock { $0.joinRefusal = refusal }
        let port = try await gateway.start()
        await #expect(throws: refusal) {
            try await withAgent(port: port, agentLoops: 2) { _, log in
                try await gateway.wait { $0.hellos.count >= 3 }
                let lane = try #require(gateway.state.withLock { $0.lanes.first })
                // It is not resumed: the gateway has it no more.
                gateway.state.withLock { $0.lanes = [] }
                lane.lane.eventLoop.execute { lane.lane.value.abort(TransportError(.reset, "broken")) }
                try await log.wait { $0.contains(.refused(refusal)) }
            }
        }
        #expect(gateway.state.withLock { $0.sessions.count } == 1)
        await gateway.stop()
    }

    // MARK: refused tunnels

    @Test(.timeLimit(.minutes(1)), arguments: [429, 503])
    func whenAllTunnelsAreRefusedForATimeTheyAreAskedForAgain(status: Int) async throws {
        let gateway = gateway()
        let refusal = TunnelRefusal(status: status, reason: "come back later")
        gateway.state.withLock { $0.grantRefusal = refusal }
        let port = try await gateway.start()
        try await withAgent(port: port) { _, log in
            try await gateway.wait { $0.hellos.count >= 3 }
            gateway.state.withLock { $0.grantRefusal = nil }
            let grant = TunnelGrant(name: "blog", url: "http://blog.test/")
            try await log.wait { $0.contains(.connected([grant])) && $0.contains(.refused(refusal)) }
            let lane = try #require(gateway.state.withLock { $0.lanes.last })
            #expect(try await gateway.exchange(lane, .tcp, "served") == "served")
        }
        let epochs = gateway.state.withLock { $0.hellos.map(\.epoch) }
        #expect(epochs == epochs.sorted() && Set(epochs).count == epochs.count)
        try await gateway.waitUntilAllLanesAreClosed()
        await gateway.stop()
    }

    @Test(.timeLimit(.minutes(1))) func theTimeThatTheGatewayAsksForIsWaited() async throws {
        let gateway = gateway()
        gateway.state.withLock {
            $0.grantRefusals = ["a": TunnelRefusal(status: 429, reason: "later", retryAfter: 1)]
        }
        let port = try await gateway.start()
        let began = ContinuousClock.now
        try await withAgent(port: port, tunnels: [TunnelRequest(name: "a", kind: .http)]) { _, _ in
            try await gateway.wait { $0.hellos.count >= 2 }
        }
        #expect(began.duration(to: .now) >= .seconds(1))
        await gateway.stop()
    }

    @Test(.timeLimit(.minutes(1))) func aFinalAndAPassingRefusalLeadToAnotherTry() async throws {
        let gateway = gateway()
        gateway.state.withLock {
            $0.grantRefusals = [
                "a": TunnelRefusal(status: 409, reason: "taken"), "b": TunnelRefusal(status: 503, reason: "later"),
            ]
        }
        let port = try await gateway.start()
        let tunnels = ["a", "b"].map { TunnelRequest(name: $0, kind: .http) }
        try await withAgent(port: port, tunnels: tunnels) { _, log in
            try await gateway.wait { $0.hellos.count >= 2 }
            gateway.state.withLock { $0.grantRefusals["b"] = nil }
            try await log.wait {
                $0.contains { if case .connected(let grants) = $0 { grants.last?.url != nil } else { false } }
            }
        }
        await gateway.stop()
    }

    @Test(.timeLimit(.minutes(1))) func aTunnelRefusedForATimeIsAskedForInASessionOfItsOwn() async throws {
        let gateway = gateway()
        let busy = TunnelRefusal(status: 429, reason: "come back later")
        gateway.state.withLock { $0.grantRefusals = ["b": busy] }
        let port = try await gateway.start()
        let tunnels = ["a", "b", "c"].map { TunnelRequest(name: $0, kind: .http) }
        try await withAgent(port: port, tunnels: tunnels) { _, log in
            try await gateway.wait { $0.hellos.count >= 3 }
            let lane = try #require(gateway.state.withLock { $0.lanes.first })
            let bound = lane.recorder
            gateway.state.withLock { $0.grantRefusals = [:] }
            let grant = TunnelGrant(name: "b", url: "http://b.test/")
            try await log.wait { $0.contains(.granted(tunnel: 1, grant)) }
            let own = try #require(gateway.state.withLock { $0.lanes.last })
            #expect(try await gateway.exchange(own, .tcp, "of b") == "of b")
            #expect(try await gateway.exchange(lane, .tcp, tunnel: 2, "of c") == "of c")
            #expect(log.streams == [1, 2])
            try await log.wait { $0.contains(.laneUp(lane: 1, lanes: 2, wanted: 2)) }
            // The lane of the others has not been touched.
            let heard = try await lane.lane.eventLoop.submit {
                (bound.value.goAways.count, bound.value.suspensions.count, bound.value.closed.count)
            }.get()
            #expect(heard == (0, 0, 0))
        }
        let hellos = gateway.state.withLock { $0.hellos }
        let first = try #require(hellos.first)
        for hello in hellos.dropFirst() {
            #expect(hello.agent != first.agent)
            #expect(hello.purpose == .open([tunnels[1]]))
        }
        await gateway.stop()
    }

    @Test(.timeLimit(.minutes(1))) func aSplitTunnelThatIsRefusedForGoodLeavesTheOthers() async throws {
        let gateway = gateway()
        gateway.state.withLock { $0.grantRefusals = ["b": TunnelRefusal(status: 429, reason: "later")] }
        let port = try await gateway.start()
        let tunnels = ["a", "b"].map { TunnelRequest(name: $0, kind: .http) }
        try await withAgent(port: port, tunnels: tunnels) { _, log in
            try await gateway.wait { $0.hellos.count >= 2 }
            let taken = TunnelRefusal(status: 409, reason: "taken")
            gateway.state.withLock { $0.grantRefusals["b"] = taken }
            try await log.wait { $0.contains(.granted(tunnel: 1, TunnelGrant(name: "b", refusal: taken))) }
            let lane = try #require(gateway.state.withLock { $0.lanes.first })
            #expect(try await gateway.exchange(lane, .tcp, "of a") == "of a")
        }
        await gateway.stop()
    }

    // MARK: kinds of upgrade

    enum Middlebox: CaseIterable { case swallowsRequests, swallowsFrames }

    @Test(.timeLimit(.minutes(1)), arguments: Middlebox.allCases)
    func aWebSocketIsTriedWhereThePlainUpgradeIsSwallowed(_ middlebox: Middlebox) async throws {
        let gateway = gateway(loops: 2)
        gateway.state.withLock {
            switch middlebox {
            case .swallowsRequests: $0.swallowsPlainUpgrade = true
            case .swallowsFrames: $0.swallowsPlainFrames = true
            }
        }
        let port = try await gateway.start()
        try await withAgent(port: port, agentLoops: 2, welcomeTimeout: .milliseconds(400)) { _, log in
            try await gateway.wait { $0.lanes.count == 2 }
            let lane = try #require(gateway.state.withLock { $0.lanes.first })
            #expect(try await gateway.exchange(lane, .tcp, "w") == "w")
            // What has worked is tried first from now on.
            let before = gateway.state.withLock { $0.requests - $0.webSockets }
            gateway.cutAll()
            try await gateway.wait { $0.resumed >= 2 }
            #expect(gateway.state.withLock { $0.requests - $0.webSockets } == before)
        }
        await gateway.stop()
    }

    @Test(.timeLimit(.minutes(1))) func aProxyWhoseGatewayIsAwayDoesNotMakeAWebSocketOfAnAgent() async throws {
        let gateway = gateway()
        let port = try await gateway.start()
        try await withAgent(port: port) { _, log in
            try await gateway.wait { $0.lanes.count == 1 }
            gateway.state.withLock { $0.httpStatus = 502 }
            gateway.cutAll()
            // Long enough for the WebSocket to have had its turn.
            try await gateway.wait { $0.webSockets >= 1 }
            gateway.state.withLock {
                $0.httpStatus = nil
                $0.webSockets = 0
            }
            try await gateway.wait { $0.resumed >= 1 }
            gateway.cutAll()
            try await gateway.wait { $0.resumed >= 2 }
            #expect(gateway.state.withLock { $0.webSockets } <= 1)
        }
        await gateway.stop()
    }

    // MARK: what is told

    @Test(.timeLimit(.minutes(1))) func aGatewayThatIsNotThereIsToldOfAsSuch() async throws {
        let first = gateway()
        let port = try await first.start()
        await first.stop()
        try await withAgent(port: port) { _, log in
            try await log.wait { events in
                events.count { if case .connectFailed(_, let retry) = $0 { retry > 0 } else { false } } >= 3
            }
            #expect(!log.all.contains { if case .laneDown = $0 { true } else { false } })
        }
    }

    @Test(.timeLimit(.minutes(1))) func aLostLaneIsToldOfOnceAndItsAttemptsWithTheirPauses() async throws {
        let gateway = gateway()
        let port = try await gateway.start()
        try await withAgent(port: port) { _, log in
            try await log.wait { $0.contains(.laneUp(lane: 0, lanes: 1, wanted: 1)) }
            await gateway.stop()
            try await log.wait { events in
                events.count { if case .laneRetry(0, _, let retry) = $0 { retry > 0 } else { false } } >= 3
            }
            #expect(log.all.count { if case .laneDown = $0 { true } else { false } } == 1)
        }
    }

    // MARK: configuration

    @Test(arguments: [
        (0..<65).map { TunnelRequest(name: "t\($0)", kind: .http) }, [],
        [TunnelRequest(name: String(repeating: "n", count: 64), kind: .http)],
        [TunnelRequest(kind: .kite, path: "/" + String(repeating: "p", count: 1_024))],
        (0..<64).map { TunnelRequest(name: "t\($0)", kind: .kite, path: "/" + String(repeating: "p", count: 300)) },
    ])
    func whatNoGatewayAcceptsIsToldBeforeConnecting(tunnels: [TunnelRequest]) async throws {
        let session = TunnelAgentSession(
            configuration: TunnelAgentConfiguration(gateway: "http://127.0.0.1:1", tunnels: tunnels) { "key" },
            loops: [Self.loops.next()],
            dialer: { _, _ in
                Issue.record("it has dialled")
                throw TransportError(.connectFailed, "")
            },
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        ) { _ in }
        let refusal = await #expect(throws: TunnelRefusal.self) { try await session.run() }
        #expect(refusal?.status == 400)
        #expect(refusal?.reason.contains("HELLO") == false)
    }
}
