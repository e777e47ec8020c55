/// One place that can answer a route's requests: an agent's lane, a lane of another event loop, or a kite with an address. The last
/// stop of a request before the wire.
import KiteDialing
import KiteHTTP
import KiteSupport
import KiteTunnel
import NIOCore

/// What the gateway can send requests of a route to, on one event loop. Keeps the connections that are open to it.
class Upstream {
    let pool: ConnectionPool
    /// Exchanges that are under way.
    var outstanding = 0
    /// Those of them that are told when the way there is lost; see ``StalledUpstreams``.
    private(set) var exchanges: [ProxyExchange] = []
    private var failures = 0
    private var ejectedUntil = NIODeadline.distantPast

    init(pool: ConnectionPool) { self.pool = pool }

    /// Whether requests sent there now can be expected to arrive.
    var isConnected: Bool { true }
    /// Whether the connection underneath is lost and waited for: what was sent there may have arrived or not.
    var isStalled: Bool { false }
    /// Whether ``isStalled`` can ever be.
    var canStall: Bool { false }
    /// For operators.
    var name: String { "" }
    /// What sessions are assigned by: the same on all event loops that have a way of their own.
    private(set) lazy var identity = SockJSSession.number(identityText.utf8)
    var identityText: String { name }

    /// What is put before the rest of a path URL.
    func pathPrefix(in route: Route) -> ByteBuffer? { route.tunnelPath }

    /// Opens a connection for a visitor's request. `completion` may be called before this returns.
    func open(_ opening: StreamOpening, completion: @escaping (Result<any ByteTransport, TransportError>) -> Void) {
        completion(.failure(TransportError(.refused, "There is nothing here")))
    }

    /// Tells the agent, where there is one that wants to know, that a request has passed.
    func note(_ request: @autoclosure () -> RequestHead, status: UInt16, duration: TimeAmount) {}

    // MARK: Exchanges under way

    func enter(_ exchange: ProxyExchange) {
        outstanding += 1
        guard canStall else { return }
        exchange.placeAtUpstream = exchanges.count
        exchanges.append(exchange)
    }

    func leave(_ exchange: ProxyExchange) {
        outstanding -= 1
        forget(exchange)
    }

    /// The exchange has become a relay: it is still something to do, and goes where its lane goes.
    func forget(_ exchange: ProxyExchange) {
        let place = exchange.placeAtUpstream
        guard exchanges.indices.contains(place), exchanges[place] === exchange, let last = exchanges.popLast() else {
            return
        }
        guard last !== exchange else { return }
        exchanges[place] = last
        last.placeAtUpstream = place
    }

    // MARK: Passive health

    /// Failures in a row after which an upstream is left out for a while.
    private static let toleratedFailures = 3
    private static let ejection = TimeAmount.seconds(10)

    func isEjected(at now: NIODeadline) -> Bool { ejectedUntil > now }

    func succeeded() {
        failures = 0
        ejectedUntil = .distantPast
    }

    /// - Returns: whether this ejected it.
    func failed(at now: NIODeadline) -> Bool {
        failures += 1
        guard failures >= Self.toleratedFailures else { return false }
        failures = 0
        ejectedUntil = now + Self.ejection
        return true
    }
}

/// An agent's tunnel over a lane of this event loop: the usual case.
final class LaneUpstream: Upstream {
    let lane: TunnelLane
    /// Which of the session's tunnels.
    private let tunnel: UInt16
    private let wantsNotes: Bool
    let session: String

    init(lane: TunnelLane, tunnel: UInt16, session: String, wantsNotes: Bool, pool: ConnectionPool) {
        self.lane = lane
        self.tunnel = tunnel
        self.session = session
        self.wantsNotes = wantsNotes
        super.init(pool: pool)
    }

    override var isConnected: Bool { lane.isConnected && lane.acceptsStreams }
    override var isStalled: Bool { !lane.isConnected && !lane.isClosed }
    override var canStall: Bool { true }
    override var name: String { Self.name(of: session) }
    static func name(of session: String) -> String { "session \(session)" }

    override func open(
        _ opening: StreamOpening, completion: @escaping (Result<any ByteTransport, TransportError>) -> Void
    ) {
        var opening = opening
        opening.tunnel = tunnel
        do throws(TransportError) {
            completion(.success(try lane.openStream(opening)))
        } catch {
            completion(.failure(error))
        }
    }

    override func note(_ request: @autoclosure () -> RequestHead, status: UInt16, duration: TimeAmount) {
        guard wantsNotes else { return }
        let request = request()
        lane.send(
            TunnelNote(
                tunnel: Int(tunnel), method: request.method.name, path: request.path, status: status,
                microseconds: UInt32(clamping: duration.nanoseconds / 1_000)))
    }
}

/// An agent's lane on another event loop, for requests that this loop has no lane for.
final class NeighbourUpstream: Upstream {
    private let neighbour: WorkerReference
    private let route: RouteKey
    let session: String
    private let eventLoop: any EventLoop
    /// Its worker has said that the lane is lost, and waited for.
    private(set) var isLost = false

    init(
        neighbour: WorkerReference, route: RouteKey, session: String, eventLoop: any EventLoop, pool: ConnectionPool
    ) {
        self.neighbour = neighbour
        self.route = route
        self.session = session
        self.eventLoop = eventLoop
        super.init(pool: pool)
    }

    var loopIndex: Int { neighbour.index }
    override var name: String { "event loop \(neighbour.index), session \(session)" }
    // As the lanes of this loop: a session of SockJS comes to the same agent from all loops.
    override var identityText: String { LaneUpstream.name(of: session) }
    override var isConnected: Bool { !isLost }
    override var isStalled: Bool { isLost }
    override var canStall: Bool { true }

    /// The lane is lost, or back.
    func isLost(_ isLost: Bool) {
        self.isLost = isLost
        // What is idle there would only be found dead.
        if isLost { pool.closeIdle() }
    }

    override func open(
        _ opening: StreamOpening, completion: @escaping (Result<any ByteTransport, TransportError>) -> Void
    ) {
        let loop = eventLoop
        let done = NIOLoopBound(completion, eventLoop: loop)
        let (route, session) = (route, session)
        neighbour.run { worker in
            guard let local = worker.routes.find(route)?.connectedLane(of: session) else {
                let error = TransportError(.laneLost, "The agent's lane is gone")
                return loop.execute { done.value(.failure(error)) }
            }
            local.open(opening) { result in
                switch result {
                case .success(let stream): CrossLoopTransport.bridge(stream, to: loop) { done.value(.success($0)) }
                case .failure(let error): loop.execute { done.value(.failure(error)) }
                }
            }
        }
    }
}

/// Where a kite is reached that has an address of its own.
struct DirectTarget: Sendable, Hashable {
    var endpoint: Endpoint
    /// Put before the rest of a path URL, such as `/kite`; empty: the rest as it is.
    var path: String

    init(endpoint: Endpoint, path: String) {
        self.endpoint = endpoint
        self.path = path
    }

    init(_ url: URLParts) {
        endpoint = url.endpoint
        path = url.path.hasSuffix("/") ? String(url.path.dropLast()) : url.path
    }
}

/// A kite that has an address of its own.
final class DirectUpstream: Upstream {
    let target: DirectTarget
    private let path: ByteBuffer?
    private let dialer: Dialer
    private let eventLoop: any EventLoop

    init(_ target: DirectTarget, dialer: Dialer, eventLoop: any EventLoop, pool: ConnectionPool) {
        self.target = target
        path = Route.prefix(target.path)
        self.dialer = dialer
        self.eventLoop = eventLoop
        super.init(pool: pool)
    }

    override var name: String { target.endpoint.description }
    override var identityText: String { name + target.path }
    override func pathPrefix(in route: Route) -> ByteBuffer? { path }

    override func open(
        _ opening: StreamOpening, completion: @escaping (Result<any ByteTransport, TransportError>) -> Void
    ) {
        dialer.dial(target.endpoint, on: eventLoop, completion: completion)
    }
}
