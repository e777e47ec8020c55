/// The agent against a gateway that has a door and nothing behind it, over real sockets.
import KiteCommand
import KiteDialing
import KiteHTTP
import KiteTunnel
import Logging
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import TunnelClient

/// Remembers what was shown.
private final class Shown: EventDisplay {
    private let events = Mutex<[AgentEvent]>([])
    let stream: AsyncStream<AgentEvent>
    private let continuation: AsyncStream<AgentEvent>.Continuation

    init() { (stream, continuation) = AsyncStream.makeStream() }

    var showsRequests: Bool { true }
    var all: [AgentEvent] { events.withLock { $0 } }
    func show(_ event: AgentEvent) {
        events.withLock { $0.append(event) }
        continuation.yield(event)
    }

    /// Waits for an event.
    func first(_ matches: (AgentEvent) -> Bool) async -> AgentEvent? {
        for await event in stream where matches(event) { return event }
        return nil
    }
}

/// Accepts one session with one lane, or refuses.
private final class Door: ExchangeAcceptor, ExchangeHandler, TunnelLaneDelegate {
    private let refusal: TunnelRefusal?
    private let grantRefusal: TunnelRefusal?
    private let onLane: (TunnelLane) -> Void

    init(refusal: TunnelRefusal?, grantRefusal: TunnelRefusal?, onLane: @escaping (TunnelLane) -> Void) {
        self.refusal = refusal
        self.grantRefusal = grantRefusal
        self.onLane = onLane
    }

    func accept(_ exchange: any Exchange) {
        exchange.handler = self
        let head = ResponseHead(
            status: 101, fields: HeaderBlock(["Upgrade": "kite-tunnel/1", "Connection": "Upgrade"]))
        guard let transport = exchange.upgrade(head) else { return }
        let handshake = GatewayLaneHandshake(transport: transport)
        handshake.onHello = { [self] handshake, hello in
            if let refusal { return handshake.refuse(refusal) }
            guard case .open(let tunnels) = hello.purpose else {
                return handshake.refuse(TunnelRefusal(status: 404, reason: "no such session"))
            }
            let grants = tunnels.map {
                TunnelGrant(
                    name: $0.name ?? "", url: grantRefusal == nil ? "http://gw/\($0.name ?? "")/" : nil,
                    refusal: grantRefusal)
            }
            let welcome = GatewayWelcome(
                session: "session-1", secret: .random(), lane: 0, lanes: 1, loop: 0, tunnels: grants)
            guard let lane = handshake.accept(welcome, configuration: LaneConfiguration(), delegate: self) else {
                return
            }
            onLane(lane)
        }
    }

    func exchangeReceived(_ exchange: any Exchange, body: ByteBuffer) {}
    func exchangeRequestEnded(_ exchange: any Exchange, trailers: HeaderBlock?) {}
    func exchangeWritabilityChanged(_ exchange: any Exchange, isWritable: Bool) {}
    func exchangeEnded(_ exchange: any Exchange, error: TransportError?) {}
    func laneAccepted(_ lane: TunnelLane, stream: TunnelStream, opening: StreamOpening) {
        stream.abort(TransportError(.refused, "not here"))
    }
    func laneReceived(_ lane: TunnelLane, goAway: TunnelGoAway) {}
    func laneReceived(_ lane: TunnelLane, note: TunnelNote) {}
    func laneSuspended(_ lane: TunnelLane, cause: TransportError) {}
    func laneClosed(_ lane: TunnelLane, error: TransportError?) {}
}

/// Collects what a stream brings.
private final class Collector: ByteTransportDelegate {
    private var text = ""
    private let promise: EventLoopPromise<String>
    init(_ promise: EventLoopPromise<String>) { self.promise = promise }
    func transportReceived(_ bytes: ByteBuffer) { text += String(buffer: bytes) }
    func transportInputClosed() { promise.succeed(text) }
    func transportClosed(_ error: TransportError?) {
        if let error { promise.fail(error) } else { promise.succeed(text) }
    }
    func transportWritabilityChanged(_ isWritable: Bool) {}
}

/// Sends back what it gets, until the other side has ended.
private final class Echo: ByteTransportDelegate {
    private var transport: (any ByteTransport)?
    init(_ transport: any ByteTransport) { self.transport = transport }
    func transportReceived(_ bytes: ByteBuffer) { transport?.write(bytes) }
    func transportInputClosed() { transport?.closeOutput() }
    func transportClosed(_ error: TransportError?) { transport = nil }
    func transportWritabilityChanged(_ isWritable: Bool) {}
}

@Suite("Agent")
struct AgentTests {
    private let loop: any EventLoop = MultiThreadedEventLoopGroup.singleton.next()

    private func listen(_ onAccept: @escaping @Sendable (SocketTransport) -> Void) async throws -> Listener {
        try await Listener.bind(
            to: SocketAddress(ipAddress: "127.0.0.1", port: 0), loops: [loop], onAccept: onAccept)
    }

    private func gateway(
        refusal: TunnelRefusal? = nil, grantRefusal: TunnelRefusal? = nil,
        onLane: @escaping @Sendable (NIOLoopBound<TunnelLane>) -> Void = { _ in }
    ) async throws -> Listener {
        let loop = loop
        return try await listen { transport in
            let door = Door(refusal: refusal, grantRefusal: grantRefusal) { lane in
                onLane(NIOLoopBound(lane, eventLoop: loop))
            }
            HTTPServerConnection(
                transport: transport, acceptor: door, peer: ExchangePeer(),
                resources: HTTPLoopResources(eventLoop: loop))
        }
    }

    private func agent(_ gateway: Listener, targets: [String], hostHeader: String? = nil, display: Shown) throws
        -> Agent
    {
        let dialers = try AgentDialers(Settings(schema: AgentSettings.schema))
        let tunnels = try targets.enumerated().map { index, target in
            TunnelDefinition(
                name: "t\(index)", target: try TunnelTarget(target, kind: .http), hostHeader: hostHeader)
        }
        return Agent(
            Agent.Configuration(
                gateway: "http://127.0.0.1:\(gateway.address.port ?? 0)", tunnels: tunnels,
                credential: { "key" }, software: "test"),
            loops: [loop], dialLane: dialers.lane, dialTarget: dialers.target, display: display,
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
    }

    /// Opens a stream, sends text, and returns what comes back.
    private func exchange(_ lane: NIOLoopBound<TunnelLane>, tunnel: UInt16, _ text: String) async throws -> String {
        let promise = loop.makePromise(of: String.self)
        loop.execute {
            do throws(TransportError) {
                let stream = try lane.value.openStream(StreamOpening(kind: .http, tunnel: tunnel))
                stream.delegate = Collector(promise)
                stream.write(ByteBuffer(string: text))
                stream.closeOutput()
            } catch {
                promise.fail(error)
            }
        }
        return try await promise.futureResult.get()
    }

    @Test("Streams reach the target of their tunnel, with what was sent while it was dialled", .timeLimit(.minutes(1)))
    func relaying() async throws {
        let target = try await listen { transport in transport.delegate = Echo(transport) }
        let (lanes, continuation) = AsyncStream<NIOLoopBound<TunnelLane>>.makeStream()
        let gateway = try await gateway { continuation.yield($0) }
        let shown = Shown()
        let agent = try agent(
            gateway, targets: ["127.0.0.1:1", "127.0.0.1:\(target.address.port ?? 0)"], display: shown)
        let running = Task { try await agent.run() }
        var iterator = lanes.makeAsyncIterator()
        let lane = try #require(await iterator.next())
        #expect(try await exchange(lane, tunnel: 1, "hello") == "hello")
        let long = String(repeating: "0123456789", count: 20_000)
        #expect(try await exchange(lane, tunnel: 1, long) == long)
        running.cancel()
        try await running.value
        #expect(shown.all.contains(.laneUp(lane: 0, lanes: 1, wanted: 1)))
        #expect(shown.all.last == .stopped)
        await target.close()
        await gateway.close()
    }

    @Test(
        "A target that does not accept resets the stream with connectFailed and is told once", .timeLimit(.minutes(1)))
    func deadTarget() async throws {
        let closed = try await listen { _ in }
        let port = closed.address.port ?? 0
        await closed.close()
        let (lanes, continuation) = AsyncStream<NIOLoopBound<TunnelLane>>.makeStream()
        let gateway = try await gateway { continuation.yield($0) }
        let shown = Shown()
        let agent = try agent(gateway, targets: ["127.0.0.1:\(port)"], display: shown)
        let running = Task { try await agent.run() }
        var iterator = lanes.makeAsyncIterator()
        let lane = try #require(await iterator.next())
        for _ in 0..<3 {
            let error = await #expect(throws: TransportError.self) { try await exchange(lane, tunnel: 0, "x") }
            #expect(error?.code == .connectFailed)
        }
        running.cancel()
        try await running.value
        let told = shown.all.filter { if case .targetFailed = $0 { true } else { false } }
        #expect(told.count == 1)
        await gateway.close()
    }

    @Test("A tunnel with a host of its own says it to the target", .timeLimit(.minutes(1)))
    func hostHeader() async throws {
        let target = try await listen { transport in transport.delegate = Echo(transport) }
        let (lanes, continuation) = AsyncStream<NIOLoopBound<TunnelLane>>.makeStream()
        let gateway = try await gateway { continuation.yield($0) }
        let agent = try agent(
            gateway, targets: ["127.0.0.1:\(target.address.port ?? 0)"], hostHeader: "own", display: Shown())
        let running = Task { try await agent.run() }
        var iterator = lanes.makeAsyncIterator()
        let lane = try #require(await iterator.next())
        let seen = try await exchange(lane, tunnel: 0, "GET / HTTP/1.1\r\nHost: public\r\n\r\n")
        #expect(seen == "GET / HTTP/1.1\r\nHost: own\r\n\r\n")
        running.cancel()
        try await running.value
        await target.close()
        await gateway.close()
    }

    @Test("The public URL is shown as soon as the gateway serves", .timeLimit(.minutes(1)))
    func serving() async throws {
        let gateway = try await gateway()
        let shown = Shown()
        let agent = try agent(gateway, targets: ["8080"], display: shown)
        let running = Task { try await agent.run() }
        let event = await shown.first { if case .serving = $0 { true } else { false } }
        #expect(
            event == .serving(name: "t0", url: "http://gw/t0/", kind: .http, target: "http://localhost:8080"))
        running.cancel()
        try await running.value
        await gateway.close()
    }

    @Test(
        "A final refusal of the agent or of its only tunnel ends it", .timeLimit(.minutes(1)), arguments: [true, false])
    func refused(whole: Bool) async throws {
        let refusal = TunnelRefusal(status: whole ? 401 : 409, reason: "no")
        let gateway = try await gateway(refusal: whole ? refusal : nil, grantRefusal: whole ? nil : refusal)
        let shown = Shown()
        let agent = try agent(gateway, targets: ["8080"], display: shown)
        await #expect(throws: refusal) { try await agent.run() }
        let told = shown.all.filter { if case .refused = $0 { true } else { false } }
        #expect(told == [.refused(name: whole ? nil : "t0", status: refusal.status, reason: "no")])
        await gateway.close()
    }
}
