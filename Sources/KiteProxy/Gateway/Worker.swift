/// All that one event loop needs to serve its visitors and agents, so that no request leaves it, waits on a lock or asks
/// somebody else.
import KiteCore
import KiteDialing
import KiteHTTP
import KiteHTTP2
import KiteSupport
import KiteTLS
import KiteTunnel
import Logging
import NIOCore

/// A way to reach the worker of another event loop.
struct WorkerReference: Sendable {
    let index: Int
    /// Counts the connections of all listeners.
    let limiter: ConnectionLimiter
    private let bound: NIOLoopBound<Worker>

    init(_ worker: Worker) {
        index = worker.index
        limiter = worker.settings.limiter
        bound = NIOLoopBound(worker, eventLoop: worker.eventLoop)
    }

    var eventLoop: any EventLoop { bound.eventLoop }

    /// Runs something on the worker's loop.
    func run(_ body: @escaping @Sendable (Worker) -> Void) {
        let bound = bound
        bound.eventLoop.execute { body(bound.value) }
    }

    /// Runs something on the worker's loop and waits for it.
    func ask<Result: Sendable>(_ body: @escaping @Sendable (Worker) -> Result) async -> Result? {
        let bound = bound
        return try? await bound.eventLoop.submit { body(bound.value) }.get()
    }

    /// The worker, for code that already runs on its loop.
    var here: Worker { bound.value }
}

/// One event loop's share of the gateway. Every member must be used on ``eventLoop``.
final class Worker {
    let index: Int
    let eventLoop: any EventLoop
    /// Replaced as a whole when the configuration is read again.
    private(set) var settings: WorkerSettings
    let wheel: TimerWheel
    let resources: HTTPLoopResources
    var routes = RouteTable()
    var metrics = GatewayMetrics()
    var neighbours: [WorkerReference] = []
    private(set) var isDraining = false
    /// How the outside reaches the gateway, without a trailing slash; empty until it listens.
    var publicURL = "" {
        didSet {
            let isGiven = settings.options.publicURL != nil
            publicHost =
                isGiven ? VisitorConnection.host(in: ByteBuffer(string: RouteBoard.host(of: publicURL))) : nil
        }
    }
    /// Its host in lower case; nil where the URL was not configured, but made from what the gateway listens on.
    private(set) var publicHost: String?
    /// The gateway's own kite, where one is mounted.
    private(set) var kite: (any ExchangeAcceptor)?
    private(set) lazy var resolution = KontrolResolution(self)
    private(set) lazy var door = TunnelDoor(self)
    /// Rules for hosts and routes; nil where none are configured.
    private(set) var rules: RuleTable?
    private(set) lazy var passwords = PasswordGate(eventLoop: eventLoop)
    private(set) lazy var stalled = StalledUpstreams(wheel: wheel)

    private var connections: [ObjectIdentifier: HTTPServerConnection] = [:]
    private var http2Connections: [ObjectIdentifier: HTTP2ServerConnection] = [:]
    private var lanes: [ObjectIdentifier: AttachedLane] = [:]
    private var relays: [ObjectIdentifier: TransportRelay] = [:]
    private var spareExchanges: [ProxyExchange] = []
    private var refusalLog = LogRateLimit<RefusalCause>()
    private var acceptLog = LogRateLimit<String>()
    private var faultLog = LogRateLimit<HTTP2Fault>()

    /// A lane and what its agent serves over it.
    struct AttachedLane {
        let lane: TunnelLane
        let session: String
        let number: Int
        let routes: [RouteKey]
        let delegate: AttachedLaneDelegate
    }

    init(index: Int, eventLoop: any EventLoop, settings: WorkerSettings) {
        self.index = index
        self.eventLoop = eventLoop
        self.settings = settings
        wheel = LoopFlusher.on(eventLoop).wheel
        resources = HTTPLoopResources(wheel: wheel)
        kite = settings.mount?(eventLoop)
        rules = settings.options.rules.map(RuleTable.init)
        resources.onRefusal = { [weak self] error, peer, exchange in
            let handler = exchange?.handler
            let proxied = ((handler as? RuledExchange)?.handler ?? handler) as? ProxyExchange
            proxied?.refusedByEngine(error.status)
            self?.record(
                RefusalCause(error), status: error.status, route: nil, peer: peer, detail: error.message)
            if proxied == nil { self?.logRefusal(exchange?.request, peer, error.status, nil) }
        }
    }

    /// What begins from now on goes by other settings; connections that are open keep theirs.
    func reconfigure(_ settings: WorkerSettings) {
        self.settings = settings
        rules = settings.options.rules.map(RuleTable.init)
    }

    // MARK: Visitors' connections

    func accept(_ transport: SocketTransport) {
        metrics.acceptedConnections &+= 1
        metrics.openConnections += 1
        let address = transport.remoteAddress
        let isTrusted =
            address.map { address in settings.options.trustedProxies.contains { $0.contains(address) } } ?? false
        var peer = ExchangePeer(
            address: address, localAddress: transport.localAddress, isSecure: transport.isSecure,
            isTrustedProxy: isTrusted,
            version: transport.negotiatedProtocol == HTTPVersion.http2.name ? .http2 : .http1)
        if isTrusted { peer.trustedProxies = settings.options.trustedProxies }
        transport.channel.closeFuture.assumeIsolated().whenComplete { [weak self] _ in
            self?.metrics.openConnections -= 1
        }
        let visitor = VisitorConnection(worker: self, peer: peer, security: transport.security)
        if peer.version == .http2 { return acceptHTTP2(transport, visitor, peer) }
        let connection = HTTPServerConnection(
            transport: transport, acceptor: visitor, limits: settings.http, peer: peer, resources: resources
        ) { [weak self] connection, _ in self?.connections[ObjectIdentifier(connection)] = nil }
        connections[ObjectIdentifier(connection)] = connection
        if isDraining { connection.drain() }
    }

    private func acceptHTTP2(_ transport: SocketTransport, _ visitor: VisitorConnection, _ peer: ExchangePeer) {
        let connection: HTTP2ServerConnection
        do {
            connection = try HTTP2ServerConnection.install(
                on: transport, acceptor: visitor, limits: settings.http, http2: settings.http2, peer: peer,
                resources: resources,
                onFault: { [weak self] fault, detail in self?.note(fault, peer, detail) },
                onClosed: { [weak self] connection in
                    self?.http2Connections[ObjectIdentifier(connection)] = nil
                    self?.metrics.http2Connections -= 1
                })
        } catch {
            return settings.logger.error("HTTP/2 connection not set up", metadata: ["cause": "\(error)"])
        }
        metrics.http2Connections += 1
        http2Connections[ObjectIdentifier(connection)] = connection
        if isDraining { connection.drain() }
    }

    /// A visitor breaks the rules of HTTP/2.
    private func note(_ fault: HTTP2Fault, _ peer: ExchangePeer, _ detail: String) {
        metrics.http2Faults[fault, default: 0] &+= 1
        guard let suppressed = faultLog.admit(fault, now: eventLoop.now) else { return }
        settings.logger.notice(
            "HTTP/2 fault",
            metadata: [
                "cause": "\(fault.rawValue)", "visitor": "\(peer.address?.ipAddress ?? "-")", "detail": "\(detail)",
                "suppressed": "\(suppressed)",
            ])
    }

    /// A listener could not take a connection.
    func notAccepted(_ event: Listener.Event) {
        let cause: String
        let detail: String
        switch event {
        case .refused(let address, let perAddress):
            metrics.refusals[.tooManyConnections, default: 0] &+= 1
            cause = perAddress ? "too many from one address" : "too many in all"
            detail = address?.ipAddress ?? "-"
        case .acceptFailed(let error):
            cause = "accepting failed"
            detail = "\(error)"
        case .handshakeFailed(_, is ChallengeAnswered): return
        case .proxyHeaderFailed(let address, let error):
            metrics.failedProxyHeaders &+= 1
            cause = error == nil ? "no PROXY protocol header in time" : "no PROXY protocol header"
            detail = "\(address?.ipAddress ?? "-")\(error.map { ": \($0)" } ?? "")"
        case .handshakeFailed(let address, let error):
            metrics.failedHandshakes &+= 1
            cause = error == nil ? "no TLS handshake in time" : "TLS handshake failed"
            detail = "\(address?.ipAddress ?? "-")\(error.map { ": \($0)" } ?? "")"
        }
        guard let suppressed = acceptLog.admit(cause, now: eventLoop.now) else { return }
        settings.logger.warning(
            "connection not accepted",
            metadata: ["cause": "\(cause)", "detail": "\(detail)", "suppressed": "\(suppressed)"])
    }

    func track(_ relay: TransportRelay) {
        metrics.openUpgrades += 1
        relays[ObjectIdentifier(relay)] = relay
    }

    func untrack(_ relay: TransportRelay, _ outcome: TransportRelay.Outcome) {
        metrics.openUpgrades -= 1
        metrics.bytesIn &+= UInt64(outcome.forward)
        metrics.bytesOut &+= UInt64(outcome.backward)
        relays[ObjectIdentifier(relay)] = nil
    }

    // MARK: Exchanges

    func takeExchange() -> ProxyExchange { spareExchanges.popLast() ?? ProxyExchange(worker: self) }
    func give(_ exchange: ProxyExchange) { if spareExchanges.count < 256 { spareExchanges.append(exchange) } }

    /// Answers with a refusal, counts it and tells the operator, with the cause and not too often.
    /// - Parameters:
    ///   - fields: more fields for the response, such as `Allow` with 405.
    ///   - page: for visitors that want HTML, in place of the one that rules name for the status.
    func refuse(
        _ exchange: any Exchange, _ cause: RefusalCause, _ refusal: Refusal, route: RouteKey? = nil,
        detail: String = "",
        fields: KeyValuePairs<String, String> = [:], page: PageTemplate? = nil
    ) {
        record(cause, status: refusal.status, route: route, peer: exchange.peer, detail: detail)
        if !(exchange.handler is ProxyExchange), !(exchange is LoggedExchange) {
            logRefusal(exchange.request, exchange.peer, refusal.status, route)
        }
        let ruled = exchange as? RuledExchange ?? (exchange as? LoggedExchange)?.base as? RuledExchange
        if let ruled { return ruled.refuse(refusal, fields: fields, page: page) }
        exchange.refuse(refusal, fields: fields)
    }

    /// Rules have answered a request otherwise than by refusing it: counts that, and writes the access log's line.
    func answered(_ exchange: any Exchange, status: UInt16) {
        metrics.responses[min(Int(status / 100), metrics.responses.count - 1)] &+= 1
        logRefusal(exchange.request, exchange.peer, status, nil)
    }

    /// Writes the access log's line for what was answered without an upstream.
    private func logRefusal(_ request: RequestHead?, _ peer: ExchangePeer, _ status: UInt16, _ route: RouteKey?) {
        guard settings.options.isAccessLogged else { return }
        AccessLog.write(request, peer: peer, status: status, route: route, duration: nil, logger: settings.logger)
    }

    /// Counts a refusal and tells the operator.
    private func record(_ cause: RefusalCause, status: UInt16, route: RouteKey?, peer: ExchangePeer, detail: String) {
        metrics.refusals[cause, default: 0] &+= 1
        metrics.responses[min(Int(status / 100), metrics.responses.count - 1)] &+= 1
        guard let suppressed = refusalLog.admit(cause, now: eventLoop.now) else { return }
        settings.logger.notice(
            "request refused",
            metadata: [
                "cause": "\(cause.rawValue)", "status": "\(status)", "route": "\(route.map(\.description) ?? "-")",
                "visitor": "\(peer.address?.ipAddress ?? "-")", "detail": "\(detail)", "suppressed": "\(suppressed)",
            ])
    }

    // MARK: Routes

    /// A connection pool for a new upstream.
    func makePool() -> ConnectionPool {
        var limits = ConnectionPool.Limits()
        limits.idle = settings.options.limits.idleConnectionsPerTarget
        limits.connections = settings.options.limits.connectionsPerTarget
        limits.idleTimeout = settings.options.timeouts.upstreamIdle
        return ConnectionPool(wheel: wheel, limits: limits, http: settings.http)
    }

    func install(_ spec: RouteSpec) {
        guard let route = routes.find(spec.key) else {
            return routes.insert(
                Route(spec, awaitedUntil: eventLoop.now + settings.options.parking.grace))
        }
        // An agent or a registration is better than Kontrol's word.
        if route.spec.kind == .kontrol, spec.kind != .kontrol { route.remove { $0 is DirectUpstream } }
        route.update(spec)
    }

    /// Gives a route one direct target, in place of those it had.
    func install(_ spec: RouteSpec, target: DirectTarget) {
        install(spec)
        guard let route = routes.find(spec.key) else { return }
        route.remove { $0 is DirectUpstream }
        route.add(DirectUpstream(target, dialer: settings.dialer, eventLoop: eventLoop, pool: makePool()))
        unpark(route)
    }

    /// Takes a route's direct target away, and the route with it when nothing else stands behind it.
    func uninstallTarget(_ key: RouteKey, remaining: RouteSpec?) {
        guard let remaining, let route = routes.find(key) else { return uninstall(key) }
        route.update(remaining)
        route.remove { $0 is DirectUpstream }
    }

    func uninstall(_ key: RouteKey) {
        guard let route = routes.find(key) else { return }
        routes.remove(key)
        route.remove { _ in true }
        let parked = route.parked
        route.parked = []
        for exchange in parked { exchange.waitedInVain() }
    }

    /// A session serves routes: an agent is waited for as long as it lasts, even while no lane has a connection.
    func agentIsThere(_ keys: [RouteKey]) {
        for key in keys { routes.find(key)?.awaitedUntil = .distantFuture }
    }

    /// The session that served routes is over, or about to be.
    /// - Parameter isGone: nobody comes back to these: kites have new ids when they start again. Otherwise an agent may start again and
    ///   claim the names.
    func agentHasLeft(_ keys: [RouteKey], isGone: Bool) {
        for key in keys {
            guard let route = routes.find(key) else { continue }
            route.awaitedUntil = isGone ? .distantPast : eventLoop.now + settings.options.parking.grace
            guard isGone else { continue }
            let parked = route.parked
            route.parked = []
            for exchange in parked { exchange.waitedInVain() }
        }
    }

    /// A route has got an upstream.
    func unpark(_ route: Route) {
        stalled.look()
        guard !route.parked.isEmpty, route.isServing else { return }
        let parked = route.parked
        route.parked = []
        metrics.parkedRequests -= parked.count
        for exchange in parked { exchange.unparked() }
    }

    // MARK: Lanes

    func attach(
        _ lane: TunnelLane, session: String, number: Int, tunnels: [TunnelBinding], wantsNotes: Bool,
        delegate: AttachedLaneDelegate
    ) {
        metrics.acceptedLanes &+= 1
        metrics.lanes += 1
        lanes[ObjectIdentifier(lane)] = AttachedLane(
            lane: lane, session: session, number: number, routes: tunnels.flatMap(\.keys), delegate: delegate)
        for tunnel in tunnels {
            for key in tunnel.keys {
                guard let route = routes.find(key) else { continue }
                route.add(
                    LaneUpstream(
                        lane: lane, tunnel: tunnel.index, session: session, wantsNotes: wantsNotes, pool: makePool()))
            }
        }
        laneIsUp(lane)
    }

    /// A lane has a connection, for the first time or again.
    func laneIsUp(_ lane: TunnelLane) {
        guard let attached = lanes[ObjectIdentifier(lane)] else { return }
        for key in attached.routes {
            if let route = routes.find(key) { unpark(route) }
            tellNeighbours(of: key)
        }
    }

    /// A lane has lost its connection and waits to be resumed.
    func laneIsDown(_ lane: TunnelLane) {
        guard let attached = lanes[ObjectIdentifier(lane)] else { return }
        for key in attached.routes {
            for upstream in routes.find(key)?.upstreams ?? [] where (upstream as? LaneUpstream)?.lane === lane {
                if upstream.isStalled { stalled.add(upstream) }
            }
            tellNeighbours(of: key)
        }
    }

    /// The agent will take no more on this lane: connections over it that wait for requests would only keep it.
    func laneIsLeaving(_ lane: TunnelLane) {
        laneIsDown(lane)
        guard let attached = lanes[ObjectIdentifier(lane)] else { return }
        for key in attached.routes {
            for upstream in routes.find(key)?.upstreams ?? [] where (upstream as? LaneUpstream)?.lane === lane {
                upstream.pool.close()
            }
        }
    }

    func detach(_ lane: TunnelLane) {
        guard let attached = lanes.removeValue(forKey: ObjectIdentifier(lane)) else { return }
        metrics.lanes -= 1
        metrics.openedStreams &+= lane.statistics.openedStreams
        for key in attached.routes {
            routes.find(key)?.remove { ($0 as? LaneUpstream)?.lane === lane }
            tellNeighbours(of: key)
        }
    }

    func lane(session: String, number: Int) -> TunnelLane? {
        lanes.values.first { $0.session == session && $0.number == number }?.lane
    }

    func connectedLane(session: String) -> TunnelLane? {
        lanes.values.first { $0.session == session && $0.lane.isConnected && $0.lane.acceptsStreams }?.lane
    }

    func hasLane(session: String) -> Bool { lanes.values.contains { $0.session == session } }

    func closeLanes(session: String, _ message: TunnelGoAway?) {
        for attached in lanes.values where attached.session == session {
            if let message { attached.lane.goAway(message) }
            attached.lane.close()
        }
    }

    // MARK: Numbers and the end

    func snapshot() -> GatewayMetrics {
        var result = metrics
        for attached in lanes.values {
            let statistics = attached.lane.statistics
            result.openStreams += statistics.openStreams
            result.openedStreams &+= statistics.openedStreams
        }
        for route in routes.all {
            for upstream in route.upstreams where upstream is DirectUpstream {
                result.upstreamConnections += upstream.pool.count
            }
        }
        return result
    }

    /// Takes no more work, lets what runs come to its end, and tells agents to go.
    /// Lets what is under way come to its end.
    /// - Parameter idleTime: see ``HTTPServerConnection/drain(idleTime:)``.
    func drain(idleTime: TimeAmount?) {
        guard !isDraining else { return }
        isDraining = true
        for connection in connections.values { connection.drain(idleTime: idleTime) }
        // By its GOAWAY a visitor knows which requests are not answered here, so nothing needs to be waited for.
        for connection in http2Connections.values { connection.drain() }
        for attached in lanes.values {
            // Visitors who are still here need it to the end.
            attached.lane.goAway(TunnelGoAway(reason: "the gateway is shutting down"), stayingUseful: true)
        }
    }

    /// Whether nothing is under way any more.
    var isQuiet: Bool { connections.isEmpty && http2Connections.isEmpty && relays.isEmpty }

    /// Ends what is still there.
    func stop() {
        let reason = TransportError(.goingAway, "The gateway is shutting down")
        for relay in relays.values { relay.abort(reason) }
        for attached in lanes.values { attached.lane.close() }
        for route in routes.all { route.remove { _ in true } }
    }
}
