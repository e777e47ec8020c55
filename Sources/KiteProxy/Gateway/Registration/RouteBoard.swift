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
    private var owners: [RouteKey: String] = [:]
    private var namesOf: [String: Int] = [:]
    private var sessions: [String: Session] = [:]
    private var sessionOfAgent: [String: String] = [:]
    private var direct: [RouteKey: DirectRoute] = [:]
    private var nextRegistration: UInt64 = 0
    private(set) var reconnects: UInt64 = 0
    private var isClosing = false

    init(options: GatewayOptions, claims: any ClaimStore, logger: Logger) {
        self.options = options
        self.claims = claims
        self.logger = logger
    }

    /// Begins: reads the claims, and makes their routes known to the event loops.
    func start(workers: [WorkerReference], publicURL: String) async throws {
        self.workers = workers
        self.publicURL = publicURL
        for claim in try await claims.claims() {
            let key = RouteKey(claim.name)
            own(key, claim.username)
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
        if let old = sessionOfAgent[agent], let session = sessions[old] {
            guard session.epoch < hello.epoch else {
                return .refuse(TunnelRefusal(status: 409, reason: "a newer session of this agent is open"))
            }
            reconnects += 1
            await end(old, TunnelGoAway(reason: "superseded by a newer session of the same agent"))
        }
        var bindings: [TunnelBinding] = []
        var grants: [TunnelGrant] = []
        var ports: [PublicPort] = []
        let id = Self.randomID()
        for (index, tunnel) in tunnels.enumerated() {
            let (grant, binding, port) = await grant(
                tunnel, index: UInt16(truncatingIfNeeded: index), username: username, session: id)
            grants.append(grant)
            if let binding { bindings.append(binding) }
            if let port { ports.append(port) }
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

    private static let noSession = TunnelRefusal(status: 404, reason: "the session is over; open a new one")

    private static func randomID() -> String {
        var generator = SystemRandomNumberGenerator()
        return String(generator.next() as UInt64, radix: 36) + String(generator.next() as UInt64, radix: 36)
            + "00000000".prefix(8)
    }

    // MARK: Grants and claims

    private func grant(_ tunnel: TunnelRequest, index: UInt16, username: String, session: String) async
        -> (TunnelGrant, TunnelBinding?, PublicPort?)
    {
        let name = tunnel.name?.lowercased() ?? "t" + String(Self.randomID().prefix(10))
        func refused(_ status: Int, _ reason: String) -> (TunnelGrant, TunnelBinding?, PublicPort?) {
            (TunnelGrant(name: name, refusal: TunnelRefusal(status: status, reason: reason)), nil, nil)
        }
        guard Self.isLabel(name) else {
            return refused(
                403, "\"\(name)\" cannot be a name: 1 to 63 of a-z, 0-9 and -, not beginning or ending with -")
        }
        var keys = [RouteKey(name)]
        if let id = tunnel.kiteID {
            let key = RouteKey(id)
            guard key.isKiteID else { return refused(403, "the kite's id is no UUID") }
            keys.append(key)
        }
        for key in keys {
            if let owner = owners[key], owner != username { return refused(409, "\"\(key)\" belongs to another user") }
        }
        let new = keys.filter { owners[$0] == nil }
        guard namesOf[username, default: 0] + new.count <= options.tunnels.namesPerUser else {
            return refused(429, "you hold \(options.tunnels.namesPerUser) names already, which is the limit here")
        }
        if tunnel.kind == .tcp {
            guard let range = options.tunnels.tcpPorts else {
                return refused(403, "this gateway gives no ports to tcp tunnels")
            }
            do {
                let port = try await PublicPort.open(
                    in: range, host: options.tunnels.tcpHost, session: session, tunnel: index, workers: workers)
                try await claim(keys, username)
                return (
                    TunnelGrant(name: name, url: "tcp://\(options.tunnels.tcpHost):\(port.number)", port: port.number),
                    TunnelBinding(index: index, keys: []), port
                )
            } catch {
                return refused(503, "no port could be opened: \(error)")
            }
        }
        do {
            try await claim(keys, username)
        } catch {
            return refused(503, "the claim could not be recorded; please try again")
        }
        let path = tunnel.kind == .kite ? Self.path(tunnel.path ?? "/kite") : ""
        for key in keys { await install(RouteSpec(key: key, kind: .tunnel, owner: username, path: path)) }
        return (TunnelGrant(name: name, url: url(of: name, path: path)), TunnelBinding(index: index, keys: keys), nil)
    }

    private func claim(_ keys: [RouteKey], _ username: String) async throws {
        for key in keys where owners[key] == nil {
            own(key, username)
            do {
                try await claims.save(Claim(name: key.description, username: username, lastUsed: 0))
            } catch {
                owners[key] = nil
                namesOf[username, default: 1] -= 1
                logger.error("a claim could not be recorded", metadata: ["name": "\(key)", "cause": "\(error)"])
                throw error
            }
        }
    }

    private func own(_ key: RouteKey, _ username: String) {
        owners[key] = username
        namesOf[username, default: 0] += 1
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
        if let owner = owners[key], owner != username {
            throw RegistrationError("the kite's id belongs to another user")
        }
        guard owners[key] != nil || namesOf[username, default: 0] < options.tunnels.namesPerUser else {
            throw RegistrationError("you hold \(options.tunnels.namesPerUser) routes already, which is the limit here")
        }
        if owners[key] == nil { own(key, username) }
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
        owners[key] = nil
        namesOf[route.username, default: 1] -= 1
        for worker in workers { _ = await worker.ask { $0.uninstall(key) } }
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
