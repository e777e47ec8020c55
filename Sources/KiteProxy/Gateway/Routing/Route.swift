/// A public name on one event loop, and what can answer its requests.
import KiteHTTP
import NIOCore

/// What all event loops are told of a route.
struct RouteSpec: Sendable, Hashable {
    enum Kind: String, Sendable {
        /// Agents hold lanes for it.
        case tunnel
        /// A kite registered an address.
        case direct
        /// Kontrol named an address.
        case kontrol
    }
    var key: RouteKey
    var kind: Kind
    /// The user it belongs to.
    var owner: String
    /// Put before the rest of a path URL, such as `/kite`; empty: the rest as it is.
    var path: String
}

/// The agents' sessions that have a lane for a route on an event loop, as the others are told.
struct LanesHere: Sendable {
    var connected: [String] = []
    /// Their connection is lost and waited for.
    var lost: [String] = []
}

/// One event loop's view of a route.
final class Route {
    let key: RouteKey
    private(set) var spec: RouteSpec
    /// Put before the rest of a path URL on its way to an agent; targets with an address have their own.
    private(set) var tunnelPath: ByteBuffer?
    private(set) var upstreams: [Upstream] = []
    /// Where the search for an upstream, or for another route, begins.
    private var turn = 0
    /// Set with each request; whoever is interested takes it back.
    var isUsed = false
    /// Requests that wait for an agent.
    var parked: [ProxyExchange] = []
    /// When a request came last.
    var lastUsed = NIODeadline.distantPast
    /// Other routes that serve what this one stands for: Kontrol names kites under this name that are reached through this gateway.
    var aliases: [RouteKey] = []
    /// Until when an agent can be expected to come: requests are parked before that and refused after.
    var awaitedUntil: NIODeadline

    init(_ spec: RouteSpec, awaitedUntil: NIODeadline = .distantFuture) {
        self.awaitedUntil = awaitedUntil
        key = spec.key
        self.spec = spec
        update(spec)
    }

    func update(_ spec: RouteSpec) {
        self.spec = spec
        if spec.kind == .tunnel { tunnelPath = Self.prefix(spec.path) }
    }

    /// What a path is on the hot path: nil where nothing is put in front.
    static func prefix(_ path: String) -> ByteBuffer? { path.isEmpty ? nil : ByteBuffer(string: path) }

    /// How the target of a request by path changes on its way to an upstream.
    func rewrite(for upstream: Upstream, droppedPathBytes: Int, byHost: Bool) -> RequestRewrite {
        byHost
            ? RequestRewrite()
            : RequestRewrite(droppedPathBytes: droppedPathBytes, pathPrefix: upstream.pathPrefix(in: self))
    }

    /// Whether something can answer now.
    var isServing: Bool { upstreams.contains { $0.isConnected } }

    /// An agent's lane on this event loop, while it is connected.
    func connectedLane(of session: String) -> LaneUpstream? {
        for upstream in upstreams {
            if let lane = upstream as? LaneUpstream, lane.session == session, lane.isConnected { return lane }
        }
        return nil
    }

    /// The agents that have a lane on this event loop.
    var lanes: LanesHere {
        var lanes = LanesHere()
        for case let upstream as LaneUpstream in upstreams {
            if upstream.isConnected { lanes.connected.append(upstream.session) }
            if upstream.isStalled { lanes.lost.append(upstream.session) }
        }
        return lanes
    }

    func add(_ upstream: Upstream) { upstreams.append(upstream) }

    func remove(where isGone: (Upstream) -> Bool) {
        for upstream in upstreams where isGone(upstream) { upstream.pool.close() }
        upstreams.removeAll(where: isGone)
    }

    /// The route that serves the next request: one of those it stands for, where it has no upstream of its own that can.
    func standIn(in table: RouteTable, session: UInt64?) -> Route {
        guard !aliases.isEmpty, !isServing else { return self }
        let known = aliases.compactMap { table.find($0) }.filter { $0.spec.kind != .kontrol }
        let serving = known.filter(\.isServing)
        guard let first = serving.first else { return known.first ?? self }
        if let session {
            return serving.min {
                SockJSSession.rank(of: SockJSSession.number($0.key.bytes.readableBytesView), for: session)
                    < SockJSSession.rank(of: SockJSSession.number($1.key.bytes.readableBytesView), for: session)
            } ?? first
        }
        turn = turn < serving.count - 1 ? turn + 1 : 0
        return serving[turn]
    }

    /// The upstream for the next request: of those connected and healthy the one with the fewest exchanges under way (in turn where there
    /// are several), lanes of this event loop first; of those ejected when there is no other.
    /// - Parameter session: of a SockJS session: its requests belong to one kite, so they are given to the upstream that it ranks first
    ///   (rendezvous hashing: the others' sessions stay where they are when one comes or goes).
    func choose(at now: NIODeadline, excluding failed: Upstream? = nil, session: UInt64? = nil) -> Upstream? {
        var best: Upstream?
        var bestRank = Int.max
        var place = turn < upstreams.count ? turn : 0
        turn = place + 1
        for _ in upstreams.indices {
            let upstream = upstreams[place]
            place = place + 1 < upstreams.count ? place + 1 : 0
            guard upstream.isConnected else { continue }
            let isElsewhere = upstream is NeighbourUpstream
            var rank: Int
            if let session {
                // Which agent comes first; which of its lanes only then.
                rank = SockJSSession.rank(of: upstream.identity, for: session) << 1 + (isElsewhere ? 1 : 0)
            } else {
                rank = upstream.outstanding + (isElsewhere ? 1 << 40 : 0)
            }
            if upstream.isEjected(at: now) { rank += 1 << 48 }
            if upstream === failed { rank += 1 << 56 }
            if rank < bestRank {
                best = upstream
                bestRank = rank
            }
        }
        return best
    }

    /// Whether a session's requests belong to an agent that has just lost its connection: it is likely to be back in a moment, and the
    /// session is not known anywhere else.
    func isOwnerAway(of session: UInt64) -> Bool {
        var (best, isAway) = (Int.max, false)
        for upstream in upstreams where upstream.isConnected || upstream.isStalled {
            let rank = SockJSSession.rank(of: upstream.identity, for: session)
            if rank < best || rank == best && upstream.isConnected {
                best = rank
                isAway = !upstream.isConnected
            }
        }
        return isAway
    }
}
