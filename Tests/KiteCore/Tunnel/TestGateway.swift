/// A gateway with the door and nothing behind it: real sockets, sessions in a dictionary.
import KiteDialing
import KiteHTTP
import KiteSupport
import KiteTunnel
import KiteWebSocket
import NIOCore
import NIOPosix
import Synchronization

final class TestGateway: Sendable {
    struct Lane: Sendable {
        let session: String
        let number: Int
        let loop: Int
        let lane: NIOLoopBound<TunnelLane>
        let recorder: NIOLoopBound<LaneRecorder>
    }
    struct State {
        var lanes: [Lane] = []
        var sessions: [String: SessionSecret] = [:]
        var hellos: [AgentHello] = []
        var connections: [NIOLoopBound<SocketTransport>] = []
        var requests = 0
        var webSockets = 0
        var refusal: TunnelRefusal?
        var grantRefusal: TunnelRefusal?
        /// By the names of tunnels.
        var grantRefusals: [String: TunnelRefusal] = [:]
        var joinRefusal: TunnelRefusal?
        /// Plain upgrades get no answer.
        var swallowsPlainUpgrade = false
        /// After the 101 to a plain upgrade nothing passes.
        var swallowsPlainFrames = false
        var refusesPlainUpgrade = false
        var httpStatus: UInt16?
        var resumed = 0
    }
    let state = Mutex(State())
    let loops: [any EventLoop]
    let changes: AsyncStream<Void>
    private let changed: AsyncStream<Void>.Continuation
    private let listener: Mutex<Listener?> = Mutex(nil)

    init(loops: [any EventLoop]) {
        self.loops = loops
        (changes, changed) = AsyncStream.makeStream()
    }

    func start(port: Int = 0) async throws -> Int {
        let listener = try await Listener.bind(
            to: try SocketAddress(ipAddress: "127.0.0.1", port: port), loops: loops
        ) { [self] transport in
            state.withLock { $0.connections.append(NIOLoopBound(transport, eventLoop: transport.eventLoop)) }
            HTTPServerConnection(
                transport: transport, acceptor: Door(gateway: self), peer: ExchangePeer(),
                resources: HTTPLoopResources(eventLoop: transport.eventLoop))
        }
        self.listener.withLock { $0 = listener }
        return listener.address.port ?? 0
    }

    func stop() async {
        let listener = self.listener.withLock { $0 }
        await listener?.close()
        cutAll()
    }

    /// Breaks all connections, as a network would.
    func cutAll() {
        let connections = state.withLock { state in
            defer { state.connections = [] }
            return state.connections
        }
        for connection in connections {
            connection.eventLoop.execute { connection.value.channel.close(promise: nil) }
        }
    }

    /// Waits until the state is as wanted.
    func wait(_ condition: @Sendable (borrowing State) -> Bool) async throws {
        let end = ContinuousClock.now + .seconds(20)
        while !state.withLock({ condition($0) }) {
            guard ContinuousClock.now < end else { throw TransportError(.idleTimeout, "the state never came") }
            try await Task.sleep(for: .milliseconds(5))
        }
    }

    /// Waits until every lane there ever was is over.
    func waitUntilAllLanesAreClosed() async throws {
        let end = ContinuousClock.now + .seconds(5)
        for lane in state.withLock({ $0.lanes }) {
            let bound = lane.lane
            while !(try await bound.eventLoop.submit { bound.value.isClosed }.get()) {
                guard ContinuousClock.now < end else {
                    throw TransportError(.idleTimeout, "lane \(lane.number) of \(lane.session) is still there")
                }
                try await Task.sleep(for: .milliseconds(5))
            }
        }
    }

    private final class Door: ExchangeAcceptor, ExchangeHandler {
        let gateway: TestGateway
        init(gateway: TestGateway) { self.gateway = gateway }

        func accept(_ exchange: any Exchange) {
            exchange.handler = self
            let wantsWebSocket = exchange.request.fields.contains(.upgrade, token: "websocket")
            let (status, refusesPlain, swallows, swallowsFrames) = gateway.state.withLock { state in
                state.requests += 1
                if wantsWebSocket { state.webSockets += 1 }
                return (
                    state.httpStatus, state.refusesPlainUpgrade, state.swallowsPlainUpgrade, state.swallowsPlainFrames
                )
            }
            if swallows, !wantsWebSocket { return }
            if let status {
                return exchange.respond(ResponseHead(status: status), body: ByteBuffer(string: "go away\n"))
            }
            if refusesPlain, !wantsWebSocket {
                return exchange.respond(ResponseHead(status: 400), body: ByteBuffer(string: "what?\n"))
            }
            guard exchange.request.path == "/-/tunnel", exchange.request.fields.text("Authorization") == "Bearer key"
            else {
                return exchange.respond(ResponseHead(status: 401), body: ByteBuffer(string: "Sign in first\n"))
            }
            let transport: (any ByteTransport)?
            if wantsWebSocket {
                guard let head = try? WebSocketHandshake.accept(exchange.request) else {
                    return exchange.respond(ResponseHead(status: 426), body: ByteBuffer())
                }
                transport = exchange.upgrade(head).map {
                    WebSocketByteTransport(
                        WebSocketConnection(
                            transport: $0, role: .server, wheel: TimerWheel(eventLoop: exchange.eventLoop)))
                }
            } else {
                transport = exchange.upgrade(
                    ResponseHead(
                        status: 101, fields: HeaderBlock(["Upgrade": "kite-tunnel/1", "Connection": "Upgrade"])))
            }
            guard let transport else { return }
            if swallowsFrames, !wantsWebSocket { return }
            let gateway = self.gateway
            let handshake = GatewayLaneHandshake(transport: transport)
            handshake.onHello = { gateway.answer($0, $1) }
        }

        func exchangeReceived(_ exchange: any Exchange, body: ByteBuffer) {}
        func exchangeRequestEnded(_ exchange: any Exchange, trailers: HeaderBlock?) {}
        func exchangeWritabilityChanged(_ exchange: any Exchange, isWritable: Bool) {}
        func exchangeEnded(_ exchange: any Exchange, error: TransportError?) {}
    }

    private func answer(_ handshake: GatewayLaneHandshake, _ hello: AgentHello) {
        let refusal = state.withLock { state in
            state.hellos.append(hello)
            return state.refusal
        }
        if let refusal { return handshake.refuse(refusal) }
        let loop = loops.firstIndex { $0 === handshake.eventLoop } ?? 0
        switch hello.purpose {
        case .open(let tunnels):
            let session = "session-\(hello.epoch)-\(hello.agent)".prefix(40)
            let secret = SessionSecret.random()
            let (general, special) = state.withLock { state in
                state.sessions[String(session)] = secret
                return (state.grantRefusal, state.grantRefusals)
            }
            let grants = tunnels.enumerated().map { index, tunnel in
                let name = tunnel.name ?? "t\(index)"
                let refusal = special[name] ?? general
                return TunnelGrant(name: name, url: refusal == nil ? "http://\(name).test/" : nil, refusal: refusal)
            }
            accept(handshake, String(session), secret, loop, grants)
        case .join(let session, let secret):
            if let refusal = state.withLock({ $0.joinRefusal }) { return handshake.refuse(refusal) }
            guard state.withLock({ $0.sessions[session] == secret }) else {
                return handshake.refuse(TunnelRefusal(status: 404, reason: "no such session"))
            }
            accept(handshake, session, secret, loop, [])
        case .resume(let session, let secret, let number, let received):
            let lane = state.withLock { state in
                state.sessions[session] == secret
                    ? state.lanes.first { $0.session == session && $0.number == number } : nil
            }
            guard let lane else { return handshake.refuse(TunnelRefusal(status: 404, reason: "no such lane")) }
            handshake.resume(
                lane.lane,
                welcome: GatewayWelcome(
                    session: session, secret: secret, lane: number, lanes: loops.count, loop: lane.loop),
                peerReceived: received
            ) { [self] resumed in
                if resumed { state.withLock { $0.resumed += 1 } }
            }
        }
    }

    private func accept(
        _ handshake: GatewayLaneHandshake, _ session: String, _ secret: SessionSecret, _ loop: Int,
        _ grants: [TunnelGrant]
    ) {
        let (number, isSurplus) = state.withLock { state in
            let mine = state.lanes.filter { $0.session == session }
            return (mine.count, mine.contains { $0.loop == loop })
        }
        let recorder = LaneRecorder()
        let lane = handshake.accept(
            GatewayWelcome(
                session: session, secret: secret, lane: number, lanes: loops.count, loop: loop, isSurplus: isSurplus,
                tunnels: grants), configuration: LaneConfiguration(), delegate: recorder)
        guard let lane else { return }
        state.withLock {
            $0.lanes.append(
                Lane(
                    session: session, number: number, loop: loop,
                    lane: NIOLoopBound(lane, eventLoop: lane.eventLoop),
                    recorder: NIOLoopBound(recorder, eventLoop: lane.eventLoop)))
        }
    }

    /// Sends bytes over a new stream of a lane and returns what comes back until the agent's END.
    func exchange(_ lane: Lane, _ kind: StreamKind, tunnel: UInt16 = 0, _ text: String) async throws -> String {
        let loop = lane.lane.eventLoop
        let promise = loop.makePromise(of: String.self)
        loop.execute {
            do {
                let stream = try lane.lane.value.openStream(StreamOpening(kind: kind, tunnel: tunnel))
                let sees = StreamRecorder()
                sees.onInputClosed = { [unowned sees] in promise.succeed(sees.text) }
                sees.onClosed = { promise.fail($0 ?? TransportError(.reset, "closed")) }
                stream.delegate = sees
                stream.write(ByteBuffer(string: text))
                if kind == .tcp { stream.closeOutput() }
            } catch {
                promise.fail(error)
            }
        }
        return try await promise.futureResult.get()
    }
}

/// Connects to 127.0.0.1.
let plainDialer: LaneDialer = { endpoint, loop in
    guard case .tcp(_, let port) = endpoint.address else { throw TransportError(.connectFailed, "no TCP") }
    return try await ClientBootstrap(group: loop).connect(host: "127.0.0.1", port: port) { channel in
        channel.eventLoop.makeCompletedFuture {
            let transport: any ByteTransport = try SocketTransport.install(on: channel)
            return NIOLoopBound(transport, eventLoop: loop)
        }
    }
}
