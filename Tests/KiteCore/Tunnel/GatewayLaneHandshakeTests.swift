/// How a lane begins at the gateway: HELLO in time, well-formed, answered once.
import KiteHTTP
import NIOCore
import NIOEmbedded
import Testing

@testable import KiteTunnel

@Suite struct GatewayLaneHandshakeTests {
    private final class Door {
        let loop: EmbeddedEventLoop
        let agent: PipeTransport
        let agentSees = StreamRecorder()
        let handshake: GatewayLaneHandshake
        var hellos: [AgentHello] = []
        var failures: [TransportError] = []

        init(loop: EmbeddedEventLoop = EmbeddedEventLoop()) {
            self.loop = loop
            let (gatewayEnd, agentEnd) = PipeTransport.pair(loop)
            gatewayEndForPump = gatewayEnd
            agent = agentEnd
            agent.delegate = agentSees
            handshake = GatewayLaneHandshake(transport: gatewayEnd, timeout: .seconds(10))
            handshake.onHello = { [unowned self] _, hello in hellos.append(hello) }
            handshake.onFailure = { [unowned self] error in failures.append(error) }
        }
        private let gatewayEndForPump: PipeTransport

        func settle() {
            repeat { loop.run() } while agent.pump(.max) || gatewayEndForPump.pump(.max)
        }

        var answer: GatewayAnswer? {
            var decoder = TunnelFrameDecoder()
            decoder.receive(agentSees.received)
            guard case .welcome(let json)? = try? decoder.next() else { return nil }
            return try? GatewayAnswer(json: json)
        }
    }

    static let hello = AgentHello(
        agent: "0123456789abcdef", epoch: 1, software: "test", purpose: .open([TunnelRequest(kind: .http)]))

    private func send(_ door: Door, _ frame: TunnelFrame) {
        var bytes = ByteBuffer()
        bytes.writeTunnelFrame(frame)
        door.agent.write(bytes)
        door.settle()
    }

    @Test func helloIsHandedOverAndWelcomeMakesALane() throws {
        let door = Door()
        send(door, .hello(Self.hello.json()))
        #expect(door.hellos == [Self.hello])
        let welcome = GatewayWelcome(session: "fedcba9876543210", secret: .random(), lane: 0, lanes: 1, loop: 0)
        let recorder = LaneRecorder()
        let lane = door.handshake.accept(welcome, configuration: LaneConfiguration(), delegate: recorder)
        let made = try #require(lane)
        #expect(made.isConnected)
        door.settle()
        #expect(door.answer == .welcome(welcome))
        #expect(door.handshake.accept(welcome, configuration: LaneConfiguration(), delegate: recorder) == nil)
    }

    @Test func aSurplusLaneIsToldSoAndClosed() throws {
        let door = Door()
        send(door, .hello(Self.hello.json()))
        let welcome = GatewayWelcome(
            session: "fedcba9876543210", secret: .random(), lane: 1, lanes: 1, loop: 0, isSurplus: true)
        let lane = door.handshake.accept(welcome, configuration: LaneConfiguration(), delegate: LaneRecorder())
        #expect(lane == nil)
        door.settle()
        #expect(door.answer == .welcome(welcome))
        #expect(door.agentSees.inputClosed == 1)
    }

    @Test func aRefusalIsSentAndTheConnectionClosed() {
        let door = Door()
        send(door, .hello(Self.hello.json()))
        let refusal = TunnelRefusal(status: 409, reason: "The name blog belongs to another user")
        door.handshake.refuse(refusal)
        door.settle()
        #expect(door.answer == .refused(refusal))
        #expect(door.agentSees.inputClosed == 1)
    }

    @Test func silenceIsRefusedInTime() {
        let door = Door()
        door.loop.advanceTime(by: .seconds(9))
        door.settle()
        #expect(door.failures.isEmpty)
        door.loop.advanceTime(by: .seconds(2))
        door.settle()
        #expect(door.failures.map(\.code) == [.idleTimeout])
        #expect(door.agentSees.inputClosed == 1)
    }

    @Test func aConnectionThatEndsFirstIsReported() {
        let door = Door()
        door.agent.closeOutput()
        door.settle()
        #expect(door.failures.map(\.code) == [.reset])
        let welcome = GatewayWelcome(session: "fedcba9876543210", secret: .random(), lane: 0, lanes: 1, loop: 0)
        let lane = door.handshake.accept(welcome, configuration: LaneConfiguration(), delegate: LaneRecorder())
        #expect(lane == nil)
    }

    @Test(arguments: [
        TunnelFrame.ping(1), .data(TunnelStreamID(rawValue: 0), ByteBuffer(string: "x"), isEnd: false),
        .welcome(ByteBuffer(string: "{}")), .hello(ByteBuffer(string: "[]")), .hello(ByteBuffer(string: "nonsense")),
        .hello(ByteBuffer(string: String(repeating: "[", count: 16_000))),
    ])
    func anythingElseIsRefused(frame: TunnelFrame) {
        let door = Door()
        send(door, frame)
        #expect(door.hellos.isEmpty)
        #expect(door.failures.map(\.code) == [.protocolViolation])
        if case .refused(let refusal) = door.answer {
            #expect(refusal.status == 400)
        } else {
            Issue.record("no answer")
        }
    }

    @Test func aHelloThatComesMuchTooLateLeavesTheLaneItsConnection() throws {
        let pair = LanePair()
        let (near, _, far, farSees) = try pair.stream()
        far?.write(ByteBuffer(string: "acknowledges"))
        pair.settle()
        let door = Door(loop: pair.loop)
        let hello = AgentHello(
            agent: "0123456789abcdef", epoch: 1, software: "",
            purpose: .resume(session: "fedcba9876543210", secret: .random(), lane: 0, received: 0))
        send(door, .hello(hello.json()))
        let welcome = GatewayWelcome(session: "fedcba9876543210", secret: .random(), lane: 0, lanes: 1, loop: 0)
        #expect(!door.handshake.resume(pair.gateway, welcome: welcome, peerReceived: 0))
        door.settle()
        if case .refused(let refusal) = door.answer {
            #expect(refusal.status == 404)
        } else {
            Issue.record("no answer")
        }
        #expect(pair.gateway.isConnected)
        near.write(ByteBuffer(string: "goes on"))
        pair.settle()
        #expect(farSees.text == "goes on")
    }

    @Test func aLaneIsResumedOverANewConnection() throws {
        let door = Door()
        let pair = LanePair()
        let (near, _, _, farSees) = try pair.stream()
        pair.gatewayEnd.cut()
        near.write(ByteBuffer(string: "kept"))
        send(
            door,
            .hello(
                AgentHello(
                    agent: "0123456789abcdef", epoch: 1, software: "",
                    purpose: .resume(
                        session: "fedcba9876543210", secret: .random(), lane: 0, received: pair.agent.receivedCount)
                ).json()))
        let welcome = GatewayWelcome(session: "fedcba9876543210", secret: .random(), lane: 0, lanes: 1, loop: 0)
        // Another loop's lane is not for this call.
        #expect(!door.handshake.resume(pair.gateway, welcome: welcome, peerReceived: 1))
        #expect(farSees.text.isEmpty)
        door.settle()
        if case .refused(let refusal) = door.answer {
            #expect(refusal.status == 404)
        } else {
            Issue.record("no answer")
        }
    }
}

@Suite struct TunnelHelloTests {
    @Test(arguments: [
        #"{"version":2,"agent":"0123456789abcdef","epoch":1,"tunnels":[{"kind":"http"}]}"#,
        #"{"version":1,"agent":"short","epoch":1,"tunnels":[{"kind":"http"}]}"#,
        #"{"version":1,"agent":"0123456789abcdef\n","epoch":1,"tunnels":[{"kind":"http"}]}"#,
        #"{"version":1,"agent":"0123456789abcdef","epoch":-1,"tunnels":[{"kind":"http"}]}"#,
        #"{"version":1,"agent":"0123456789abcdef","epoch":1e99,"tunnels":[{"kind":"http"}]}"#,
        #"{"version":1,"agent":"0123456789abcdef","epoch":1,"tunnels":[]}"#,
        #"{"version":1,"agent":"0123456789abcdef","epoch":1}"#,
        #"{"version":1,"agent":"0123456789abcdef","epoch":1,"tunnels":[{"kind":"udp"}]}"#,
        #"{"version":1,"agent":"0123456789abcdef","epoch":1,"tunnels":[{"kind":"http","name":""}]}"#,
        #"{"version":1,"agent":"0123456789abcdef","epoch":1,"tunnels":[{"kind":"http"}],"join":{"session":"fedcba9876543210","secret":"x"}}"#,
        #"{"version":1,"agent":"0123456789abcdef","epoch":1,"join":{"session":"../../etc","secret":"x"}}"#,
        #"{"version":1,"agent":"0123456789abcdef","epoch":1,"join":{"session":"fedcba9876543210"}}"#,
        #"{"version":1,"agent":"0123456789abcdef","epoch":1,"resume":{"session":"fedcba9876543210","secret":"x","lane":-1,"received":0}}"#,
        #"{"version":1,"agent":"0123456789abcdef","epoch":1,"resume":{"session":"fedcba9876543210","secret":"x","lane":0,"received":-5}}"#,
    ])
    func malformedHelloIsRefused(json: String) {
        #expect(throws: TunnelRefusal.self) { try AgentHello(json: ByteBuffer(string: json)) }
    }

    @Test func tooManyTunnelsAreRefused() {
        let hello = AgentHello(
            agent: "0123456789abcdef", epoch: 1, software: "",
            purpose: .open((0..<65).map { _ in TunnelRequest(kind: .http) }))
        #expect(throws: TunnelRefusal.self) { try AgentHello(json: hello.json()) }
    }

    @Test(arguments: [
        "{}", #"{"version":1}"#,
        #"{"version":1,"session":"s","secret":"x","lane":0,"lanes":0,"loop":0,"surplus":false,"tunnels":[],"streams":1,"ping":5000,"resume":0}"#,
        #"{"version":1,"session":"s","secret":"x","lane":0,"lanes":1,"loop":0,"surplus":false,"tunnels":[],"streams":70000,"ping":5000,"resume":0}"#,
        #"{"version":1,"session":"s","secret":"x","lane":0,"lanes":1,"loop":0,"surplus":false,"tunnels":[],"streams":1,"ping":0,"resume":0}"#,
    ])
    func malformedWelcomeIsRefused(json: String) {
        #expect(throws: TunnelRefusal.self) { try GatewayAnswer(json: ByteBuffer(string: json)) }
    }

    @Test func secretsDoNotShow() {
        let secret = SessionSecret(text: "do-not-print")
        let welcome = GatewayWelcome(session: "s", secret: secret, lane: 0, lanes: 1, loop: 0)
        #expect(!"\(secret)".contains("print"))
        #expect(!"\(welcome)".contains("do-not-print"))
        #expect(!String(reflecting: welcome).contains("do-not-print"))
        #expect(SessionSecret.random() != SessionSecret.random())
        #expect(SessionSecret.random().text.utf8.count == 64)
    }
}

@Suite struct StreamSlotsTests {
    @Test func generationsWrapAround() throws {
        let loop = EmbeddedEventLoop()
        let (end, _) = PipeTransport.pair(loop)
        let lane = TunnelLane(
            transport: end, role: .gateway, configuration: LaneConfiguration(), delegate: LaneRecorder())
        var ours = StreamSlots()
        var theirs = StreamSlots()
        for round in 0..<70_000 {
            let id = try #require(ours.nextID(openedByAgent: false, limit: 4))
            #expect(Int(id.generation) == round % 32_768)
            #expect(id.slot == 0)
            let stream = TunnelStream(lane: lane, id: id, remoteAddress: nil)
            ours.insert(stream)
            #expect(theirs.accept(stream, limit: 4) == true)
            #expect(theirs.accept(stream, limit: 4) == false)
            #expect(ours.remove(id, isOurs: true) == true)
            #expect(theirs.remove(id, isOurs: false) == true)
        }
        #expect(ours.count == 0)
    }

    @Test func freeSlotsAreUsedAgainBeforeNewOnes() throws {
        let loop = EmbeddedEventLoop()
        let (end, _) = PipeTransport.pair(loop)
        let lane = TunnelLane(
            transport: end, role: .gateway, configuration: LaneConfiguration(), delegate: LaneRecorder())
        var slots = StreamSlots()
        var ids: [TunnelStreamID] = []
        for _ in 0..<4 {
            let id = try #require(slots.nextID(openedByAgent: false, limit: 4))
            ids.append(id)
            slots.insert(TunnelStream(lane: lane, id: id, remoteAddress: nil))
        }
        #expect(ids.map(\.slot) == [0, 1, 2, 3])
        #expect(slots.nextID(openedByAgent: false, limit: 4) == nil)
        _ = slots.remove(ids[2], isOurs: true)
        #expect(
            slots.nextID(openedByAgent: false, limit: 4) == TunnelStreamID(openedByAgent: false, generation: 1, slot: 2)
        )
        if case .ended = slots.find(ids[2]) {} else { Issue.record("ended expected") }
        if case .unknown = slots.find(TunnelStreamID(openedByAgent: false, generation: 9, slot: 2)) {
        } else {
            Issue.record("unknown expected")
        }
    }
}
