/// Where agents come in: checks who they are before anything is set up, then turns the connection into a lane.
import KiteHTTP
import KiteSupport
import KiteTunnel
import KiteWebSocket
import Logging
import NIOCore

/// The tunnel door of one event loop (`/-/tunnel`).
final class TunnelDoor {
    private unowned let worker: Worker
    private var refusalLog = LogRateLimit<RefusalCause>()

    init(_ worker: Worker) { self.worker = worker }

    func accept(_ exchange: any Exchange) {
        guard worker.settings.options.tunnels.isEnabled else {
            return worker.refuse(exchange, .unknownPath, Refusal(404, "This gateway takes no tunnels."))
        }
        guard case .get = exchange.request.method else {
            return worker.refuse(
                exchange, .methodNotAllowed,
                Refusal(405, "Agents connect here with GET and an Upgrade field."), fields: ["Allow": "GET"])
        }
        guard !worker.isDraining else {
            return worker.refuse(exchange, .shuttingDown, Refusal(503, "The gateway is shutting down.", retryAfter: 1))
        }
        let username: String
        do throws(CredentialRefusal) {
            username = try worker.settings.authenticator.user(presenting: Self.credential(exchange.request))
        } catch {
            return worker.refuse(
                exchange, .unauthenticated, Refusal(401, "The kite key or token was not accepted: \(error)."),
                detail: error.description, fields: ["WWW-Authenticate": "Bearer"])
        }
        guard let transport = open(exchange) else { return }
        let handshake = GatewayLaneHandshake(transport: transport, wheel: worker.wheel)
        handshake.onHello = { [weak self] handshake, hello in self?.decide(handshake, hello, username) }
        handshake.onFailure = { [weak self] error in
            guard let self else { return }
            self.worker.metrics.refusals[.badTunnel, default: 0] &+= 1
            self.worker.settings.logger.notice(
                "an agent's connection was no tunnel", metadata: ["user": "\(username)", "cause": "\(error)"])
        }
    }

    private static func credential(_ request: RequestHead) throws(CredentialRefusal) -> String {
        guard let field = request.fields.first(.authorization) else {
            throw CredentialRefusal("there is none; it belongs into the Authorization field")
        }
        let words = field.split(separator: 0x20, maxSplits: 1)
        guard words.count == 2, words[0].equalsIgnoringCase("bearer") else {
            throw CredentialRefusal("the Authorization field does not begin with Bearer")
        }
        return String(decoding: words[1].trimmingWhitespace(), as: UTF8.self)
    }

    /// Takes the connection over, as the agent asked.
    private func open(_ exchange: any Exchange) -> (any ByteTransport)? {
        let fields = exchange.request.fields
        if exchange.request.wantsUpgrade, fields.contains(.upgrade, token: TunnelWire.upgradeToken) {
            return exchange.upgrade(
                ResponseHead(status: 101, fields: HeaderBlock(["Upgrade": TunnelWire.upgradeToken])))
        }
        if exchange.request.wantsUpgrade, fields.contains(.upgrade, token: "websocket") {
            return WebSocketHandshake.accept(exchange, wheel: worker.wheel).map(WebSocketByteTransport.init)
        }
        worker.refuse(
            exchange, .badTunnel,
            Refusal(426, "Agents connect here with Upgrade: \(TunnelWire.upgradeToken), or with a WebSocket."),
            fields: ["Upgrade": "\(TunnelWire.upgradeToken), websocket"])
        return nil
    }

    private func decide(_ handshake: GatewayLaneHandshake, _ hello: AgentHello, _ username: String) {
        let pending = NIOLoopBound(handshake, eventLoop: worker.eventLoop)
        let reference = WorkerReference(worker)
        let board = worker.settings.board
        let loop = worker.index
        if case .open = hello.purpose, let shortage = worker.settings.pressure.shortage {
            // Lanes of sessions that run are let in.
            return refuse(
                handshake, TunnelRefusal(status: 503, reason: "the gateway has too much to do", retryAfter: 5),
                RefusalCause(shortage), username)
        }
        let accepted = worker.settings.pool.spawn {
            let decision: LaneDecision
            switch hello.purpose {
            case .open(let tunnels):
                decision = await board.open(hello, tunnels: tunnels, username: username, loop: loop)
            case .join(let session, let secret):
                decision = await board.join(session, secret: secret, username: username, loop: loop)
            case .resume(let session, let secret, let lane, _):
                decision = await board.resume(session, secret: secret, lane: lane, username: username)
            }
            reference.run { $0.door.answer(pending.value, hello, decision, username) }
        }
        if !accepted {
            refuse(
                handshake, TunnelRefusal(status: 503, reason: "the gateway is busy", retryAfter: 1), .tunnelUnavailable,
                username)
        }
    }

    private func refuse(
        _ handshake: GatewayLaneHandshake, _ refusal: TunnelRefusal, _ cause: RefusalCause, _ username: String
    ) {
        report(cause, refusal, username)
        handshake.refuse(refusal)
    }

    /// Counts what an agent was refused and tells the operator.
    private func report(_ cause: RefusalCause, _ refusal: TunnelRefusal, _ username: String, name: String? = nil) {
        worker.metrics.refusals[cause, default: 0] &+= 1
        guard let suppressed = refusalLog.admit(cause, now: worker.eventLoop.now) else { return }
        worker.settings.logger.notice(
            name == nil ? "agent refused" : "tunnel refused",
            metadata: [
                "cause": "\(cause.rawValue)", "status": "\(refusal.status)", "user": "\(username)",
                "name": "\(name ?? "-")", "detail": "\(refusal.reason)", "suppressed": "\(suppressed)",
            ])
    }

    private var laneConfiguration: LaneConfiguration {
        var configuration = LaneConfiguration()
        configuration.sharedBudget = worker.settings.laneBudget
        return configuration
    }

    private func answer(
        _ handshake: GatewayLaneHandshake, _ hello: AgentHello, _ decision: LaneDecision, _ username: String
    ) {
        switch decision {
        case .refuse(let refusal): refuse(handshake, refusal, RefusalCause(session: refusal), username)
        case .attach(let welcome, let bindings):
            for grant in welcome.tunnels {
                if let refusal = grant.refusal {
                    report(RefusalCause(tunnel: refusal), refusal, username, name: grant.name)
                }
            }
            let delegate = AttachedLaneDelegate(worker: worker, session: welcome.session, number: welcome.lane)
            guard let lane = handshake.accept(welcome, configuration: laneConfiguration, delegate: delegate) else {
                if !welcome.isSurplus { delegate.tellBoard() }
                return
            }
            worker.attach(
                lane, session: welcome.session, number: welcome.lane, tunnels: bindings, wantsNotes: hello.wantsNotes,
                delegate: delegate)
        case .resume(let welcome, let home):
            guard case .resume(_, _, _, let received) = hello.purpose else { return }
            resume(handshake, welcome, received: received, home: home, username)
        }
    }

    /// Goes on with a lane of this event loop or, where chance brought the new connection elsewhere, of another.
    private func resume(
        _ handshake: GatewayLaneHandshake, _ welcome: GatewayWelcome, received: UInt64, home: Int, _ username: String
    ) {
        let waiting = NIOLoopBound(handshake, eventLoop: worker.eventLoop)
        let here = worker.eventLoop
        let reference =
            home == worker.index ? WorkerReference(worker) : worker.neighbours.first { $0.index == home }
        guard let reference else { return refuse(handshake, Self.noSession, .sessionOver, username) }
        let own = WorkerReference(worker)
        reference.run { worker in
            guard let lane = worker.lane(session: welcome.session, number: welcome.lane) else {
                return own.run { $0.door.refuse(waiting.value, Self.noSession, .sessionOver, username) }
            }
            let bound = NIOLoopBound(lane, eventLoop: worker.eventLoop)
            here.execute {
                waiting.value.resume(bound, welcome: welcome, peerReceived: received) { isResumed in
                    if isResumed { reference.run { $0.laneIsUp(bound.value) } }
                }
            }
        }
    }

    private static let noSession = TunnelRefusal(status: 404, reason: "the session is over; open a new one")
}

/// Follows a lane on its worker.
final class AttachedLaneDelegate: TunnelLaneDelegate {
    private unowned let worker: Worker
    private let session: String
    private let number: Int

    init(worker: Worker, session: String, number: Int) {
        self.worker = worker
        self.session = session
        self.number = number
    }

    func laneAccepted(_ lane: TunnelLane, stream: TunnelStream, opening: StreamOpening) {
        stream.abort(TransportError(.refused, "agents open no streams"))
    }

    func laneReceived(_ lane: TunnelLane, goAway: TunnelGoAway) {
        worker.laneIsLeaving(lane)
        let board = worker.settings.board
        let session = session
        _ = worker.settings.pool.spawn { await board.agentIsLeaving(session) }
    }
    func laneReceived(_ lane: TunnelLane, note: TunnelNote) {}

    func laneSuspended(_ lane: TunnelLane, cause: TransportError) {
        worker.settings.logger.info(
            "lane lost, waiting for its agent",
            metadata: ["session": "\(session)", "lane": "\(number)", "cause": "\(cause)"])
        worker.laneIsDown(lane)
    }

    func laneClosed(_ lane: TunnelLane, error: TransportError?) {
        if let error {
            worker.settings.logger.notice(
                "lane closed", metadata: ["session": "\(session)", "lane": "\(number)", "cause": "\(error)"])
        }
        worker.detach(lane)
        tellBoard()
    }

    /// The lane is no more.
    func tellBoard() {
        let board = worker.settings.board
        let (session, number) = (session, number)
        // When the pool takes no more, the gateway is ending and the book with it.
        _ = worker.settings.pool.spawn { await board.laneEnded(session, lane: number) }
    }
}
