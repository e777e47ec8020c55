/// Who owns which name and which session serves it: the control plane's book, from which the event loops' tables are
/// written.
import KiteCore
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
    struct Session {
        let agent: String
        let username: String
        let epoch: UInt64
        let secret: SessionSecret
        let bindings: [TunnelBinding]
        /// All that it was given.
        let names: Set<RouteKey>
        /// The event loop of each lane, by lane number.
        var loops: [Int: Int] = [:]
        var nextLane = 0
        /// The agent has said that it stops.
        var isLeaving = false
        var ports: [PublicPort] = []
    }
    /// A session that is being opened.
    struct Opening {
        let username: String
        /// What it has been given until now.
        var names: Set<RouteKey> = []
    }
    struct DirectRoute {
        let username: String
        let registration: UInt64
        let url: String
    }

    private(set) var options: GatewayOptions
    let claims: any ClaimStore
    /// Knows whose kites are that are registered with Kontrol; nil: nobody does.
    let resolver: (any KiteResolver)?
    /// Kites that dial back, whose ids are claimed here as well.
    let kiteTunnels: KiteTunnelBook
    let logger: Logger
    /// Seconds since 1970.
    let now: @Sendable () -> Int64
    var publicURL = ""
    var workers: [WorkerReference] = []
    var policy = DirectTargetPolicy.refusingLoopback
    var book: ClaimBook
    var ports: PortBook
    /// What a route is while agents serve it.
    var tunnelSpecs: [RouteKey: RouteSpec] = [:]
    var sessions: [String: Session] = [:]
    var opening: [String: Opening] = [:]
    var sessionOfAgent: [String: String] = [:]
    var direct: [RouteKey: DirectRoute] = [:]
    var nextRegistration: UInt64 = 0
    var reconnects: UInt64 = 0
    var isClosing = false

    init(
        options: GatewayOptions, claims: any ClaimStore, resolver: (any KiteResolver)? = nil,
        kiteTunnels: KiteTunnelBook = KiteTunnelBook(), logger: Logger,
        now: @escaping @Sendable () -> Int64 = secondsSince1970
    ) {
        self.now = now
        self.options = options
        self.claims = claims
        self.resolver = resolver
        self.kiteTunnels = kiteTunnels
        book = ClaimBook(limit: options.tunnels.namesPerUser)
        ports = PortBook(limit: options.tunnels.portsPerUser)
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
            book.restore(key, username: claim.username, lastUsed: claim.lastUsed)
            await install(RouteSpec(key: key, kind: .tunnel, owner: claim.username, path: ""))
        }
    }

    /// What is decided from now on goes by other limits; nothing that was granted is taken back.
    func reconfigure(_ options: GatewayOptions, policy: DirectTargetPolicy) {
        self.options = options
        self.policy = policy
        book.limit = options.tunnels.namesPerUser
        ports.limit = options.tunnels.portsPerUser
    }

    var sessionCount: Int { sessions.count }

    func install(_ spec: RouteSpec) async {
        for worker in workers { _ = await worker.ask { $0.install(spec) } }
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
        for session in sessions.values { for port in session.ports { await close(port) } }
        // Their event loops end next, and nothing that is asked of them then is ever answered: who unregisters a kite would wait for ever.
        workers = []
    }
}
