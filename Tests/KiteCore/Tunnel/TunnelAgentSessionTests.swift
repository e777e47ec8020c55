/// An agent's session against a gateway over real sockets: lanes come up, come back, move, and are refused.
import KiteHTTP
import KiteTunnel
import Logging
import NIOCore
import NIOPosix
import Synchronization
import Testing

@Suite(.serialized) struct TunnelAgentSessionTests: AgentTesting {
    @Test(.timeLimit(.minutes(1))) func streamsReachTheAgentAndComeBack() async throws {
        let gateway = gateway()
        let port = try await gateway.start()
        try await withAgent(port: port) { _, log in
            try await log.wait { $0.contains(.laneUp(lane: 0, lanes: 1, wanted: 1)) }
            #expect(log.all.contains(.connected([TunnelGrant(name: "blog", url: "http://blog.test/")])))
            let lane = try #require(gateway.state.withLock { $0.lanes.first })
            #expect(try await gateway.exchange(lane, .tcp, "hello") == "hello")
            let big = String(repeating: "x", count: 3_000_000)
            #expect(try await gateway.exchange(lane, .tcp, big) == big)
        }
        let hello = try #require(gateway.state.withLock { $0.hellos.first })
        #expect(hello.wantsNotes)
        #expect(hello.software == "test/1")
        await gateway.stop()
    }

    @Test(.timeLimit(.minutes(1))) func oneLaneComesUpForEachLoopOfTheGateway() async throws {
        let gateway = gateway(loops: 2)
        let port = try await gateway.start()
        try await withAgent(port: port, agentLoops: 2) { _, log in
            try await gateway.wait { $0.lanes.count == 2 }
            #expect(Set(gateway.state.withLock { $0.lanes.map(\.loop) }) == [0, 1])
            try await log.wait { $0.contains(.laneUp(lane: 1, lanes: 2, wanted: 2)) }
            for lane in gateway.state.withLock({ $0.lanes }) {
                #expect(try await gateway.exchange(lane, .tcp, "both") == "both")
            }
        }
        await gateway.stop()
    }

    @Test(.timeLimit(.minutes(1))) func aLostConnectionIsResumedWithItsStreams() async throws {
        let gateway = gateway(loops: 2)
        let port = try await gateway.start()
        try await withAgent(port: port, agentLoops: 2) { _, log in
            try await gateway.wait { $0.lanes.count == 2 }
            try await log.wait { $0.contains(.laneUp(lane: 1, lanes: 2, wanted: 2)) }
            let lanes = gateway.state.withLock { $0.lanes }
            for round in 1...5 {
                let text = String(repeating: "\(round)", count: 1_000_000)
                async let first = gateway.exchange(lanes[0], .tcp, text)
                async let second = gateway.exchange(lanes[1], .tcp, text)
                gateway.cutAll()
                #expect(try await first == text)
                #expect(try await second == text)
                try await gateway.wait { $0.resumed >= 2 * round }
            }
        }
        await gateway.stop()
    }

    @Test(.timeLimit(.minutes(1)), arguments: [1, 2])
    func aRestartedGatewayGetsANewSessionWithAHigherEpoch(loops: Int) async throws {
        let first = gateway(loops: loops)
        let port = try await first.start()
        try await withAgent(port: port, agentLoops: loops) { _, log in
            try await first.wait { $0.lanes.count == loops }
            await first.stop()
            let second = gateway(loops: loops)
            _ = try await second.start(port: port)
            try await second.wait { $0.lanes.count == loops }
            let lane = try #require(second.state.withLock { $0.lanes.first })
            #expect(try await second.exchange(lane, .tcp, "again") == "again")
            let epochs = second.state.withLock { $0.hellos.map(\.epoch) }
            #expect(epochs.last == 2)
            await second.stop()
        }
    }

    @Test(.timeLimit(.minutes(1)), arguments: [1, 2])
    func goAwayLeadsToANewSessionWhileOldStreamsFinish(loops: Int) async throws {
        let gateway = gateway(loops: loops)
        let port = try await gateway.start()
        try await withAgent(port: port, agentLoops: loops) { _, log in
            try await log.wait { $0.contains(.laneUp(lane: loops - 1, lanes: loops, wanted: loops)) }
            let lane = try #require(gateway.state.withLock { $0.lanes.first })
            let bound = lane.lane
            let loop = lane.lane.eventLoop
            let answer = loop.makePromise(of: String.self)
            let stream = try await loop.submit {
                let stream = try bound.value.openStream(StreamOpening(kind: .tcp))
                let sees = StreamRecorder()
                sees.onInputClosed = { [unowned sees] in answer.succeed(sees.text) }
                stream.delegate = sees
                stream.write(ByteBuffer(string: "before "))
                bound.value.goAway(TunnelGoAway(reason: "upgrade"))
                return NIOLoopBound(stream, eventLoop: loop)
            }.get()
            try await log.wait { $0.contains(.goingAway(reason: "upgrade")) }
            try await gateway.wait { $0.lanes.count == 2 * loops }
            loop.execute {
                stream.value.write(ByteBuffer(string: "after"))
                stream.value.closeOutput()
            }
            #expect(try await answer.futureResult.get() == "before after")
        }
        await gateway.stop()
    }

    @Test(.timeLimit(.minutes(1))) func stoppingDoesNotWaitForAConnectionUnderWay() async throws {
        // A listening socket that nobody accepts from: the upgrade is never answered.
        let silent = try await ServerBootstrap(group: Self.loops).serverChannelOption(.autoRead, value: false)
            .bind(host: "127.0.0.1", port: 0).get()
        let port = try #require(silent.localAddress?.port)
        let began = ContinuousClock.now
        try await withAgent(port: port) { _, log in
            try await log.wait { $0.contains(.connecting(attempt: 1)) }
        }
        #expect(began.duration(to: .now) < .seconds(5))
        try await silent.close().get()
    }

    @Test(.timeLimit(.minutes(1))) func stoppingRightAfterConnectingLeavesNoLaneBehind() async throws {
        let gateway = gateway()
        let port = try await gateway.start()
        for _ in 0..<20 {
            let session = TunnelAgentSession(
                configuration: TunnelAgentConfiguration(
                    gateway: "http://127.0.0.1:\(port)", tunnels: [TunnelRequest(kind: .http)]
                ) { "key" },
                loops: [Self.loops.next()], dialer: plainDialer,
                logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            ) { _ in }
            let began = ContinuousClock.now
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await session.run() }
                for await event in session.events { if case .connected = event { break } }
                group.cancelAll()
                try await group.waitForAll()
            }
            // Nothing was under way: no reason to wait for the drain time.
            #expect(began.duration(to: .now) < .milliseconds(1_500))
        }
        try await gateway.waitUntilAllLanesAreClosed()
        await gateway.stop()
    }

    @Test(.timeLimit(.minutes(1))) func aLaneWhoseTunnelsAreRefusedIsNotKept() async throws {
        let gateway = gateway()
        let refusal = TunnelRefusal(status: 409, reason: "The name blog belongs to another user")
        gateway.state.withLock { $0.grantRefusal = refusal }
        let port = try await gateway.start()
        await #expect(throws: refusal) {
            try await withAgent(port: port) { _, log in try await log.wait { $0.contains(.refused(refusal)) } }
        }
        try await gateway.waitUntilAllLanesAreClosed()
        await gateway.stop()
    }

    @Test(.timeLimit(.minutes(1))) func streamsOfAGatewayThatWentAwayEndWithItsConnection() async throws {
        let gateway = gateway()
        let port = try await gateway.start()
        let ended = Mutex<[TransportError?]>([])
        let session = TunnelAgentSession(
            configuration: TunnelAgentConfiguration(
                gateway: "http://127.0.0.1:\(port)", tunnels: [TunnelRequest(kind: .http)]
            ) { "key" },
            loops: [Self.loops.next()], dialer: plainDialer,
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        ) { incoming in
            let sees = StreamRecorder()
            sees.onClosed = { error in ended.withLock { $0.append(error) } }
            incoming.stream.delegate = sees
        }
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await session.run() }
            try await gateway.wait { $0.lanes.count == 1 }
            let lane = try #require(gateway.state.withLock { $0.lanes.first })
            let bound = lane.lane
            try await bound.eventLoop.submit {
                let stream = try bound.value.openStream(StreamOpening(kind: .tcp))
                stream.delegate = StreamRecorder()
                stream.write(ByteBuffer(string: "held"))
                bound.value.goAway(TunnelGoAway(reason: "upgrade"))
            }.get()
            try await gateway.wait { $0.lanes.count == 2 }
            // The window to resume in is 30 s by default, but nobody would resume this lane.
            let began = ContinuousClock.now
            gateway.cutAll()
            while ended.withLock({ $0.isEmpty }), began.duration(to: .now) < .seconds(10) {
                try await Task.sleep(for: .milliseconds(5))
            }
            #expect(ended.withLock { $0.count } == 1)
            group.cancelAll()
            try await group.waitForAll()
        }
        await gateway.stop()
    }

    @Test(.timeLimit(.minutes(1))) func aRefusedCredentialIsFinal() async throws {
        let gateway = gateway()
        let port = try await gateway.start()
        await #expect(throws: TunnelRefusal(status: 401, reason: "Sign in first")) {
            try await withAgent(port: port, credential: { "wrong" }) { _, log in
                try await log.wait { $0.contains(.refused(TunnelRefusal(status: 401, reason: "Sign in first"))) }
            }
        }
        #expect(gateway.state.withLock { $0.requests } == 1)
        await gateway.stop()
    }

    @Test(.timeLimit(.minutes(1))) func aNameThatBelongsToAnotherIsFinal() async throws {
        let gateway = gateway()
        let refusal = TunnelRefusal(status: 409, reason: "The name blog belongs to another user")
        gateway.state.withLock { $0.grantRefusal = refusal }
        let port = try await gateway.start()
        await #expect(throws: refusal) {
            try await withAgent(port: port) { _, log in try await log.wait { $0.contains(.refused(refusal)) } }
        }
        await gateway.stop()
    }

    @Test(.timeLimit(.minutes(1))) func aBusyGatewayIsTriedAgain() async throws {
        let gateway = gateway()
        gateway.state.withLock { $0.httpStatus = 503 }
        let port = try await gateway.start()
        try await withAgent(port: port) { _, log in
            try await gateway.wait { $0.requests >= 3 }
            gateway.state.withLock { $0.httpStatus = nil }
            try await gateway.wait { $0.lanes.count == 1 }
            #expect(log.all.contains { if case .refused(let refusal) = $0 { refusal.status == 503 } else { false } })
        }
        #expect(gateway.state.withLock { $0.webSockets } == 0)
        await gateway.stop()
    }

    @Test(.timeLimit(.minutes(1))) func aWebSocketIsTriedWhereThePlainUpgradeDoesNotPass() async throws {
        let gateway = gateway()
        gateway.state.withLock { $0.refusesPlainUpgrade = true }
        let port = try await gateway.start()
        try await withAgent(port: port) { _, log in
            try await gateway.wait { $0.lanes.count == 1 }
            let lane = try #require(gateway.state.withLock { $0.lanes.first })
            let big = String(repeating: "w", count: 500_000)
            #expect(try await gateway.exchange(lane, .tcp, big) == big)
        }
        #expect(gateway.state.withLock { $0.webSockets } >= 1)
        await gateway.stop()
    }

    @Test(.timeLimit(.minutes(1))) func theFirstConnectIsTriedUntilTheGatewayIsThere() async throws {
        let first = gateway()
        let port = try await first.start()
        await first.stop()
        try await withAgent(port: port) { _, log in
            try await log.wait { $0.contains(.connecting(attempt: 3)) }
            let second = gateway()
            _ = try await second.start(port: port)
            try await second.wait { $0.lanes.count == 1 }
            await second.stop()
        }
    }

    @Test(.timeLimit(.minutes(1))) func anEmbeddedTunnelServesExchanges() async throws {
        final class Greeter: ExchangeAcceptor {
            func accept(_ exchange: any Exchange) {
                exchange.respond(ResponseHead(status: 200), body: ByteBuffer(string: "hello \(exchange.request.path)"))
            }
        }
        let gateway = gateway()
        let port = try await gateway.start()
        let tunnel = EmbeddedTunnel(
            configuration: TunnelAgentConfiguration(
                gateway: "http://127.0.0.1:\(port)", tunnels: [TunnelRequest(kind: .kite)]
            ) { "key" },
            loops: [Self.loops.next()], dialer: plainDialer,
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        ) { _ in Greeter() }
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await tunnel.run() }
            try await gateway.wait { $0.lanes.count == 1 }
            let lane = try #require(gateway.state.withLock { $0.lanes.first })
            let answer = try await gateway.exchange(
                lane, .http, "GET /kite HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            #expect(answer.hasPrefix("HTTP/1.1 200 "))
            #expect(answer.hasSuffix("hello /kite"))
            group.cancelAll()
        }
        await gateway.stop()
    }

    @Test(arguments: [
        "ftp://a", "http://", "127.0.0.1:3999", "http://a:99999", "http://user@a/", "http://a/?x=1", "",
    ])
    func aMalformedGatewayURLIsFinal(url: String) async throws {
        let session = TunnelAgentSession(
            configuration: TunnelAgentConfiguration(gateway: url, tunnels: [TunnelRequest(kind: .http)]) { "key" },
            loops: [Self.loops.next()], dialer: plainDialer,
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        ) { _ in }
        await #expect(throws: TunnelRefusal.self) { try await session.run() }
    }
}
