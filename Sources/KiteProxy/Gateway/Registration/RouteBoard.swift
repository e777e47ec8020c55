/// Who owns which name and which session serves it: the control plane's book, from which the event loops' tables are
/// written.
import KiteDialing
import KiteTunnel
import Logging
import NIOCore

/// A tunnel of a session and the routes it serves.
struct TunnelBinding: Sendable {
    /// Its place in the agent's list.
    var index: UInt16
    var keys: [RouteKey]
}

/// What a lane's connection becomes.
enum LaneDecision: Sendable {
    /// The first or a further lane of a session.
    case attach(GatewayWelcome, [TunnelBinding])
    /// A lane goes on.
    case resume(GatewayWelcome, home: Int)
    case refuse(TunnelRefusal)
}

/// Claims, sessions and direct registrations.
actor RouteBoard {
    private struct Session {
        let agent: String
        let username: String
        let epoch: UInt64
        let secret: SessionSecret
        let bindings: [TunnelBinding]
        /// The event loop of each lane, by lane number.
        var loops: [Int: Int] = [:]
        var nextLane = 0
        var ports: [PublicPort] = []
    }
    private struct DirectRoute {
        let username: String
        let registration: UInt64
        let url: String
    }

    private let options: GatewayOptions
    private let claims: any ClaimStore
    private let logger: Logger
    private var publicURL = ""
    private var workers: [WorkerReference] = []
    private var policy = DirectTargetPolicy.refusingLoopback
    private var book: ClaimBook
    /// What a route is while agents serve it.
    private var tunnelSpecs: [RouteKey: RouteSpec] = [:]
    private var sessions: [String: Session] = [:]
    private var sessionOfAgent: [String: String] = [:]
    private var direct: [RouteKey: DirectRoute] = [:]
    private var nextRegistration: UInt64 = 0
    private(set) var reconnects: UInt64 = 0
    private var isClosing = false

    init(options: GatewayOptions, claims: any ClaimStore, logger: Logger) {
        self.options = options
        self.claims = claims
        book = ClaimBook(limit: options.tunnels.namesPerUser)
        self.logger = logger
    }

    /// Begins: reads the claims, and makes their routes known to the event loops.
    func start(workers: [WorkerReference], publicURL: String, policy: DirectTargetPolicy) async throws {
        self.workers = workers
        self.publicURL = publicURL
        self.policy = policy
        for worker in workers { _ = await worker.ask { $0.publicURL = publicURL } }
        for claim in try await claims.claims() {
            let key = RouteKey(claim.name)
            // Kites get new ids; those of their former lives would only pile up.
            if key.isKiteID { continue }
            book.restore(key, username: claim.username)
            await install(RouteSpec(key: key, kind: .tunnel, owner: claim.username, path: ""))
        }
    }

    var sessionCount: Int { sessions.count }

    // MARK: Sessions

    /// An agent opens a session.
    func open(_ hello: AgentHello, tunnels: [TunnelRequest], username: String, loop: Int) async -> LaneDecision {
        guard !isClosing else {
            return .refuse(TunnelRefusal(status: 503, reason: "the gateway is shutting down", retryAfter: 1))
        }
        guard tunnels.count <= options.tunnels.tunnelsPerSession else {
            return .refuse(
                TunnelRefusal(
                    status: 403, reason: "at most \(options.tunnels.tunnelsPerSession) tunnels may be opened at once"))
        }
        let agent = username + "/" + hello.agent
        guard await supersede(agent, epoch: hello.epoch) else { return .refuse(Self.superseded) }
        var bindings: [TunnelBinding] = []
        var grants: [TunnelGrant] = []
        var ports: [PublicPort] = []
        let id = Self.randomID()
        for (index, tunnel) in tunnels.enumerated() {
            let (grant, binding, port) = await grant(
                tunnel, index: UInt16(truncatingIfNeeded: index), agent: agent, username: username, session: id)
            grants.append(grant)
            if let binding { bindings.append(binding) }
            if let port { ports.append(port) }
        }
        // Another session of the agent may have been opened while ports were.
        guard await supersede(agent, epoch: hello.epoch) else {
            for port in ports { await port.close() }
            return .refuse(Self.superseded)
        }
        let secret = SessionSecret.random()
        var session = Session(
            agent: agent, username: username, epoch: hello.epoch, secret: secret, bindings: bindings, ports: ports)
        session.loops[0] = loop
        session.nextLane = 1
        sessions[id] = session
        sessionOfAgent[agent] = id
        logger.info(
            "agent connected",
            metadata: [
                "session": "\(id)", "user": "\(username)", "software": "\(hello.software)",
                "tunnels": "\(grants.map { $0.url ?? $0.refusal?.reason ?? $0.name }.joined(separator: ", "))",
            ])
        return .attach(welcome(id, secret, lane: 0, loop: loop, grants: grants), bindings)
    }

    /// Ends what older sessions of an agent are open.
    /// - Returns: false when one is not older.
    private func supersede(_ agent: String, epoch: UInt64) async -> Bool {
        while let old = sessionOfAgent[agent], let session = sessions[old] {
            guard session.epoch < epoch else { return false }
            reconnects += 1
            await end(old, TunnelGoAway(reason: "superseded by a newer session of the same agent"))
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

    private func end(_ id: String, _ message: TunnelGoAway?) async {
        guard let session = sessions.removeValue(forKey: id) else { return }
        if sessionOfAgent[session.agent] == id { sessionOfAgent[session.agent] = nil }
        for worker in workers { worker.run { $0.closeLanes(session: id, message) } }
        for port in session.ports { await port.close() }
        logger.info(
            "agent gone",
            metadata: [
                "session": "\(id)", "user": "\(session.username)", "cause": "\(message?.reason ?? "its lanes ended")",
            ])
    }

    private func welcome(_ id: String, _ secret: SessionSecret, lane: Int, loop: Int, grants: [TunnelGrant] = [])
        -> GatewayWelcome
    {
        GatewayWelcome(
            session: id, secret: secret, lane: lane, lanes: max(workers.count, 1), loop: loop, tunnels: grants)
    }

    private static let superseded = TunnelRefusal(status: 409, reason: "a newer session of this agent is open")
    private static let noSession = TunnelRefusal(status: 404, reason: "the session is over; open a new one")

    private static func randomID() -> String {
        var generator = SystemRandomNumberGenerator()
        return String(generator.next() as UInt64, radix: 36) + String(generator.next() as UInt64, radix: 36)
            + "00000000".prefix(8)
    }

    // MARK: Grants and claims

    private func grant(_ tunnel: TunnelRequest, index: UInt16, agent: String, username: String, session: String) async
        -> (TunnelGrant, TunnelBinding?, PublicPort?)
    {
        let name = tunnel.name?.lowercased() ?? Self.name(agent: agent, tunnel: index)
        func refused(_ status: Int, _ reason: String) -> (TunnelGrant, TunnelBinding?, PublicPort?) {
            (TunnelGrant(name: name, refusal: TunnelRefusal(status: status, reason: reason)), nil, nil)
        }
        guard Self.isLabel(name) else {
            return refused(
                403, "\"\(name)\" cannot be a name: 1 to 63 of a-z, 0-9 and -, not beginning or ending with -")
        }
        if tunnel.kind == .tcp, options.tunnels.tcpPorts == nil {
            return refused(403, "this gateway gives no ports to tcp tunnels")
        }
        var wanted: [(key: RouteKey, term: ClaimBook.Term)] = [
            (RouteKey(name), tunnel.name == nil || RouteKey(name).isKiteID ? .passing : .lasting)
        ]
        if let id = tunnel.kiteID {
            let key = RouteKey(id)
            guard key.isKiteID else { return refused(403, "the kite's id is no UUID") }
            wanted.append((key, .passing))
        }
        do {
            try await claim(wanted, username)
        } catch let refusal as TunnelRefusal {
            return (TunnelGrant(name: name, refusal: refusal), nil, nil)
        } catch {
            return refused(503, "the claim could not be recorded; please try again")
        }
        if tunnel.kind == .tcp, let range = options.tunnels.tcpPorts {
            do {
                let port = try await PublicPort.open(
                    in: range, host: options.tunnels.tcpHost, session: session, tunnel: index, workers: workers)
                return (
                    TunnelGrant(name: name, url: "tcp://\(options.tunnels.tcpHost):\(port.number)", port: port.number),
                    TunnelBinding(index: index, keys: []), port
                )
            } catch {
                return refused(503, "no port could be opened: \(error)")
            }
        }
        let keys = wanted.map(\.key)
        let path = tunnel.kind == .kite ? Self.path(tunnel.path ?? "/kite") : ""
        for key in keys {
            let spec = RouteSpec(key: key, kind: .tunnel, owner: username, path: path)
            tunnelSpecs[key] = spec
            await install(spec)
        }
        return (TunnelGrant(name: name, url: url(of: name, path: path)), TunnelBinding(index: index, keys: keys), nil)
    }

    /// Enters names for a user and records those that last.
    /// - Throws: ``TunnelRefusal``, or what the store threw.
    private func claim(_ wanted: [(key: RouteKey, term: ClaimBook.Term)], _ username: String) async throws {
        switch book.take(wanted, for: username, isServed: isServed) {
        case .heldByAnother(let key): throw TunnelRefusal(status: 409, reason: "\"\(key)\" belongs to another user")
        case .full:
            throw TunnelRefusal(
                status: 429, reason: "you hold \(options.tunnels.namesPerUser) names already, which is the limit here")
        case .taken(let new, let dropped):
            for key in dropped {
                tunnelSpecs[key] = nil
                for worker in workers { worker.run { $0.uninstall(key) } }
            }
            for (key, term) in wanted where term == .lasting && new.contains(key) {
                do {
                    try await claims.save(Claim(name: key.description, username: username, lastUsed: 0))
                } catch {
                    book.release(key)
                    logger.error("a claim could not be recorded", metadata: ["name": "\(key)", "cause": "\(error)"])
                    throw error
                }
            }
        }
    }

    /// Whether a session or a registration stands behind a route.
    private func isServed(_ key: RouteKey) -> Bool {
        direct[key] != nil || isTunnelled(key)
    }

    private func isTunnelled(_ key: RouteKey) -> Bool {
        sessions.values.contains { $0.bindings.contains { $0.keys.contains(key) } }
    }

    /// A name for a tunnel that asked for none. An agent that comes back gets the same again (FNV-1a).
    static func name(agent: String, tunnel: UInt16) -> String {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in "\(tunnel)/\(agent)".utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return "t" + String(hash, radix: 36)
    }

    /// Where visitors reach a route.
    func url(of name: String, path: String) -> String {
        guard let domain = options.domain, Self.isLabel(name) else {
            return publicURL + "/proxy/\(name)" + (path.isEmpty ? "/" : "")
        }
        let parts = publicURL.components(splitBy: "://")
        let port = Self.portSuffix(of: parts.last ?? "")
        return "\(parts.first ?? "http")://\(name).\(domain)\(port)" + (path.isEmpty ? "/" : path)
    }

    private static func portSuffix(of authority: String) -> String {
        guard let colon = authority.lastIndex(of: ":"), !authority[colon...].contains("]") else { return "" }
        return String(authority[colon...])
    }

    static func isLabel(_ name: String) -> Bool {
        (1...63).contains(name.utf8.count) && name.first != "-" && name.last != "-"
            && name.utf8.allSatisfy { ($0 >= 0x61 && $0 <= 0x7A) || ($0 >= 0x30 && $0 <= 0x39) || $0 == 0x2D }
    }

    private static func path(_ text: String) -> String {
        let trimmed = text.hasSuffix("/") ? String(text.dropLast()) : text
        return trimmed.isEmpty || trimmed.hasPrefix("/") ? trimmed : "/" + trimmed
    }

    private func install(_ spec: RouteSpec) async {
        for worker in workers { _ = await worker.ask { $0.install(spec) } }
    }

    // MARK: Direct registrations

    /// A kite registers the address it is reached at.
    /// - Returns: where visitors reach it, and what ``unregister(_:registration:)`` wants to know.
    func register(kiteID: String, url: String, username: String) async throws -> (url: String, registration: UInt64) {
        let key = RouteKey(kiteID)
        guard key.isKiteID else { throw RegistrationError("the kite's id is no UUID") }
        guard let target = URLParts(url) else {
            throw RegistrationError("the URL is none that a kite can be reached at")
        }
        if case .tcp(let host, let port) = target.endpoint.address,
            let address = try? SocketAddress(ipAddress: host, port: port), !policy.allows(address)
        {
            throw RegistrationError("this gateway connects to no address like \(host)")
        }
        do {
            try await claim([(key, .passing)], username)
        } catch let refusal as TunnelRefusal {
            throw RegistrationError(refusal.reason)
        }
        nextRegistration += 1
        direct[key] = DirectRoute(username: username, registration: nextRegistration, url: url)
        let spec = RouteSpec(key: key, kind: .direct, owner: username, path: Self.path(target.path))
        for worker in workers { _ = await worker.ask { $0.install(spec, target: target.endpoint) } }
        logger.info(
            "kite registered", metadata: ["kite": "\(key)", "user": "\(username)", "target": "\(target.endpoint)"])
        return (publicURL + "/proxy/\(key)", nextRegistration)
    }

    /// The connection that registered a kite is gone. A newer registration stays.
    func unregister(kiteID: String, registration: UInt64) async {
        let key = RouteKey(kiteID)
        guard let route = direct[key], route.registration == registration else { return }
        direct[key] = nil
        // The id stays the user's, so that nobody can take it while the kite is away.
        let remaining = isTunnelled(key) ? tunnelSpecs[key] : nil
        for worker in workers { _ = await worker.ask { $0.uninstallTarget(key, remaining: remaining) } }
        logger.info("kite unregistered", metadata: ["kite": "\(key)", "user": "\(route.username)"])
    }

    // MARK: For operators, and the end

    func status() async -> [RouteStatus] {
        var merged: [RouteKey: RouteStatus] = [:]
        for worker in workers {
            let routes =
                await worker.ask { worker in
                    worker.routes.all.map { route in
                        (route.spec, route.upstreams.filter { !($0 is NeighbourUpstream) }.map(\.name), route.isServing)
                    }
                } ?? []
            for (spec, targets, isServing) in routes {
                var status =
                    merged[spec.key]
                    ?? RouteStatus(
                        name: spec.key.description, kind: spec.kind.rawValue, owner: spec.owner,
                        publicURL: url(of: spec.key.description, path: spec.path), targets: [], lanes: 0,
                        isServing: false)
                status.targets = Array(Set(status.targets + targets)).sorted()
                status.lanes += targets.count
                status.isServing = status.isServing || isServing
                merged[spec.key] = status
            }
        }
        return merged.values.sorted { $0.name < $1.name }
    }

    func close() async {
        isClosing = true
        for session in sessions.values { for port in session.ports { await port.close() } }
    }
}

/// Why a kite could not register an address.
struct RegistrationError: Error, Sendable, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

extension String {
    fileprivate func components(splitBy separator: String) -> [String] {
        guard let range = firstRange(of: separator) else { return [self] }
        return [String(self[..<range.lowerBound]), String(self[range.upperBound...])]
    }
}
