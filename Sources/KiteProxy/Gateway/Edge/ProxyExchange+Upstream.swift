/// Steps 2 and 3 of a proxied request: an upstream that can answer it, waiting for one where there is none, and a connection to it.
import KiteHTTP
import KiteSupport
import KiteTunnel
import NIOCore

extension ProxyExchange {
    // MARK: 2. An upstream

    func proceed(on found: Route, excluding failed: Upstream? = nil) {
        let now = worker.eventLoop.now
        found.isUsed = true
        found.lastUsed = now
        var route = found
        if !found.aliases.isEmpty {
            route = found.standIn(
                in: worker.routes, session: exchange.flatMap { SockJSSession.hash(in: $0.request.target) })
        }
        self.route = route
        let session = route.upstreams.count > 1 ? exchange.flatMap { SockJSSession.hash(in: $0.request.target) } : nil
        if let session, failed == nil, !hasWaitedForOwner, route.isOwnerAway(of: session) {
            return waitForOwner(on: route)
        }
        if let upstream = route.choose(at: now, excluding: failed, session: session) {
            if isSlashMissing, !(upstream is DirectUpstream), upstream.pathPrefix(in: route) == nil {
                redirectToDirectory()
            } else {
                connect(to: upstream)
            }
        } else {
            park(on: route)
        }
    }

    /// Whether this is a page request for `/proxy/<name>`, without anything after it. Clients of WebSockets follow no redirects.
    private var isSlashMissing: Bool {
        guard !byHost, let request = exchange?.request, !request.wantsUpgrade else { return false }
        switch request.method {
        case .get, .head: break
        default: return false
        }
        let rest = request.target.readableBytesView.dropFirst(droppedPathBytes)
        return rest.isEmpty || rest.first == UInt8(ascii: "?")
    }

    /// A browser takes the relative links of what lies at `/proxy/<name>` for paths below `/proxy/`: sends it to `/proxy/<name>/`.
    private func redirectToDirectory() {
        guard let exchange, let origin else { return }
        let target = exchange.request.target
        var location = origin.prefix(of: exchange.request, droppedPathBytes: droppedPathBytes)
        location.writeStaticString("/")
        location.writeBytes(target.readableBytesView.dropFirst(droppedPathBytes))
        status = 308
        hasResponded = true
        record()
        exchange.respond(
            ResponseHead(
                status: status,
                // The name may stand for something else tomorrow.
                fields: HeaderBlock(["Location": String(buffer: location), "Cache-Control": "no-store"])),
            body: ByteBuffer())
    }

    func park(on route: Route) {
        let parking = worker.settings.options.parking
        guard parking.time > .zero, !worker.isDraining, route.awaitedUntil > worker.eventLoop.now else {
            return refuseAway()
        }
        guard route.parked.count < parking.requestsPerRoute, worker.metrics.parkedRequests < parking.requests else {
            return refuse(
                .parkingFull,
                Refusal(
                    503, "The service is away and too many wait for it already; please try again later.", retryAfter: 10
                ))
        }
        park(on: route, for: parking.time)
    }

    private func park(on route: Route, for time: TimeAmount) {
        stage = .parked
        worker.metrics.parkedRequests += 1
        route.parked.append(self)
        let timer = parkingTimer ?? WheelTimer(wheel: worker.wheel) { [weak self] in self?.parkingEnded() }
        parkingTimer = timer
        timer.start(after: time)
    }

    /// The agent of this SockJS session has lost its connection a moment ago.
    private func waitForOwner(on route: Route) {
        let parking = worker.settings.options.parking
        hasWaitedForOwner = true
        guard parking.time > .zero, route.parked.count < parking.requestsPerRoute,
            worker.metrics.parkedRequests < parking.requests
        else { return proceed(on: route) }
        isAwaitingOwner = true
        park(on: route, for: StalledUpstreams.patience)
    }

    func parkingEnded() {
        guard stage == .parked else { return }
        leaveParking()
        if isAwaitingOwner, let route {
            isAwaitingOwner = false
            return proceed(on: route)
        }
        refuseAway()
    }

    func refuseAway() {
        refuse(
            .noLane,
            Refusal(503, "The service behind this address is away at the moment; please try again.", retryAfter: 5))
    }

    func leaveParking() {
        parkingTimer?.cancel()
        guard let route, let place = route.parked.firstIndex(where: { $0 === self }) else { return }
        route.parked.remove(at: place)
        worker.metrics.parkedRequests -= 1
    }

    /// An upstream is there; the route's list has been emptied already.
    func unparked() {
        guard stage == .parked, let route else { return }
        parkingTimer?.cancel()
        isAwaitingOwner = false
        // Another agent's lane may be what has come; the wait begins anew, but not for ever.
        proceed(on: route)
    }

    /// What this waited for will not come: the route was taken away, or its agent is gone for good.
    func waitedInVain() {
        guard stage == .parked else { return }
        worker.metrics.parkedRequests -= 1
        parkingTimer?.cancel()
        refuseAway()
    }

    // MARK: 3. A connection

    func connect(to upstream: Upstream) {
        self.upstream = upstream
        upstream.enter(self)
        attempts += 1
        // What was idle together dies together: the second attempt is made on a new connection.
        if attempts == 1, let connection = upstream.pool.takeIdle() { return send(on: connection) }
        guard upstream.pool.hasRoom else {
            return refuse(
                .upstreamBusy,
                Refusal(503, "The service has too many connections already; please try again.", retryAfter: 1))
        }
        stage = .connecting
        let current = generation
        upstream.pool.openingStarted()
        upstream.open(opening()) { [self] result in
            upstream.pool.openingEnded()
            guard current == generation, stage == .connecting, let upstream = self.upstream else {
                // The visitor has gone meanwhile.
                if case .success(let transport) = result {
                    transport.abort(TransportError(.cancelled, "The visitor went away"))
                }
                return
            }
            switch result {
            case .success(let transport): send(on: upstream.pool.adopt(transport))
            case .failure(let error):
                failed(HTTPClientFailure(cause: error, responseStarted: false, bytesReceived: false, wasReused: false))
            }
        }
    }

    func opening() -> StreamOpening {
        guard let exchange else { return StreamOpening(kind: .http) }
        var host = exchange.request.authority
        if host.readableBytes > 255 { host = ByteBuffer() }
        return StreamOpening(
            kind: .http, clientAddress: exchange.peer.address, host: host, isSecure: exchange.peer.isSecure)
    }
}
