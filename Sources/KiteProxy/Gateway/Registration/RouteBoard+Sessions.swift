/// Sessions of agents: how they begin, are joined, resumed and superseded, and how they end.
import KiteTunnel
import Logging

extension RouteBoard {
    /// An agent opens a session.
    func open(_ hello: AgentHello, tunnels: [TunnelRequest], username: String, loop: Int) async -> LaneDecision {
        guard !isClosing else { return .refuse(Self.closing) }
        let agent = username + "/" + hello.agent
        guard await supersede(agent, epoch: hello.epoch) else { return .refuse(Self.superseded) }
        var bindings: [TunnelBinding] = []
        var grants: [TunnelGrant] = []
        var opened: [PublicPort] = []
        let id = Self.randomID()
        guard sessionCount(of: username) < options.tunnels.sessionsPerUser else {
            return .refuse(
                TunnelRefusal(
                    status: 429,
                    reason: "you have \(options.tunnels.sessionsPerUser) agents connected, which is the limit here",
                    retryAfter: 10))
        }
        opening[id] = Opening(username: username)
        defer { opening[id] = nil }
        for (index, tunnel) in tunnels.enumerated() {
            let (grant, binding, port) = await grant(
                tunnel, index: UInt16(truncatingIfNeeded: index), agent: agent, username: username, session: id)
            grants.append(grant)
            if let binding { bindings.append(binding) }
            if let port { opened.append(port) }
        }
        // Another session of the agent may have been opened while ports were, or the gateway's end may have begun.
        let isNewest = await supersede(agent, epoch: hello.epoch)
        guard isNewest, !isClosing else {
            for port in opened { await close(port) }
            return .refuse(isNewest ? Self.closing : Self.superseded)
        }
        let secret = SessionSecret.random()
        var session = Session(
            agent: agent, username: username, epoch: hello.epoch, secret: secret, bindings: bindings,
            names: opening[id]?.names ?? [],
            ports: opened)
        session.loops[0] = loop
        session.nextLane = 1
        sessions[id] = session
        sessionOfAgent[agent] = id
        let keys = bindings.flatMap(\.keys)
        for worker in workers { worker.run { $0.agentIsThere(keys) } }
        logger.info(
            "agent connected",
            metadata: [
                "session": "\(id)", "user": "\(username)", "software": "\(hello.software)",
                "tunnels": "\(grants.map { $0.url ?? $0.refusal?.reason ?? $0.name }.joined(separator: ", "))",
            ])
        return .attach(welcome(id, secret, lane: 0, loop: loop, grants: grants), bindings)
    }

    private func sessionCount(of username: String) -> Int {
        sessions.values.count { $0.username == username } + opening.values.count { $0.username == username }
    }

    /// Ends what older sessions of an agent are open.
    /// - Returns: false when one is not older.
    func supersede(_ agent: String, epoch: UInt64) async -> Bool {
        while let old = sessionOfAgent[agent], let session = sessions[old] {
            guard session.epoch < epoch else { return false }
            reconnects += 1
            await end(
                old, TunnelGoAway(reason: "superseded by a newer session of the same agent"), isSuperseded: true)
        }
        return true
    }

    /// An agent opens a further lane.
    func join(_ id: String, secret: SessionSecret, username: String, loop: Int) -> LaneDecision {
        guard var session = sessions[id], session.secret == secret, session.username == username else {
            return .refuse(Self.noSession)
        }
        if session.loops.values.contains(loop) {
            var surplus = welcome(id, secret, lane: session.nextLane, loop: loop)
            surplus.isSurplus = true
            return .attach(surplus, [])
        }
        let lane = session.nextLane
        session.nextLane += 1
        session.loops[lane] = loop
        sessions[id] = session
        return .attach(welcome(id, secret, lane: lane, loop: loop), session.bindings)
    }

    /// An agent goes on with a lane.
    func resume(_ id: String, secret: SessionSecret, lane: Int, username: String) -> LaneDecision {
        guard let session = sessions[id], session.secret == secret, session.username == username,
            let home = session.loops[lane]
        else {
            return .refuse(Self.noSession)
        }
        reconnects += 1
        return .resume(welcome(id, secret, lane: lane, loop: home), home: home)
    }

    /// A lane is over.
    func laneEnded(_ id: String, lane: Int) async {
        guard var session = sessions[id] else { return }
        session.loops[lane] = nil
        sessions[id] = session
        if session.loops.isEmpty { await end(id, nil) }
    }

    /// An agent has said that it stops; what is under way goes on.
    func agentIsLeaving(_ id: String) async {
        guard let session = sessions[id], !session.isLeaving else { return }
        sessions[id]?.isLeaving = true
        // Nobody can be served there any more, and the agent's next start wants them.
        sessions[id]?.ports = []
        tellOfLeaving(session, isSuperseded: false)
        for port in session.ports { await close(port) }
    }

    /// Tells the event loops which routes no agent serves any more.
    private func tellOfLeaving(_ session: Session, isSuperseded: Bool) {
        let keys = session.bindings.flatMap(\.keys).filter { key in
            !sessions.values.contains { !$0.isLeaving && $0.bindings.contains { $0.keys.contains(key) } }
        }
        let awaited = keys.filter { isSuperseded || book.term(of: $0) == .lasting }
        let gone = keys.filter { !awaited.contains($0) }
        for worker in workers {
            worker.run {
                $0.agentHasLeft(awaited, isGone: false)
                $0.agentHasLeft(gone, isGone: true)
            }
        }
    }

    func end(_ id: String, _ message: TunnelGoAway?, isSuperseded: Bool = false) async {
        guard let session = sessions.removeValue(forKey: id) else { return }
        tellOfLeaving(session, isSuperseded: isSuperseded)
        if sessionOfAgent[session.agent] == id { sessionOfAgent[session.agent] = nil }
        for worker in workers { worker.run { $0.closeLanes(session: id, message) } }
        for port in session.ports { await close(port) }
        for key in session.bindings.flatMap(\.keys) { await noteUse(of: key) }
        logger.info(
            "agent gone",
            metadata: [
                "session": "\(id)", "user": "\(session.username)", "cause": "\(message?.reason ?? "its lanes ended")",
            ])
    }

    func welcome(_ id: String, _ secret: SessionSecret, lane: Int, loop: Int, grants: [TunnelGrant] = [])
        -> GatewayWelcome
    {
        GatewayWelcome(
            session: id, secret: secret, lane: lane, lanes: max(workers.count, 1), loop: loop, tunnels: grants)
    }

    static let closing = TunnelRefusal(status: 503, reason: "the gateway is shutting down", retryAfter: 1)
    static let superseded = TunnelRefusal(status: 409, reason: "a newer session of this agent is open")
    static let noSession = TunnelRefusal(status: 404, reason: "the session is over; open a new one")

    static func randomID() -> String {
        var generator = SystemRandomNumberGenerator()
        return String(generator.next() as UInt64, radix: 36) + String(generator.next() as UInt64, radix: 36)
            + "00000000".prefix(8)
    }
}
