/// The life of a request: from the visitor's exchange to a route's upstream and back.
///
/// 1. ``begin(_:origin:key:droppedPathBytes:byHost:)``: find the route; a miss asks Kontrol.
/// 2. `proceed`: choose an upstream; none that is connected: wait for one (parking).
/// 3. `connect`: take an idle connection to it or open one.
/// 4. `send`: the head, written anew; then the body, as it comes.
/// 5. The response, as it comes; or `failed`: once more on another connection, or a refusal.
import KiteHTTP
import KiteSupport
import KiteTunnel
import NIOCore

/// One request under way. Event-loop bound; used again for later requests of the loop.
final class ProxyExchange: ExchangeHandler, HTTPClientHandler {
    private enum Stage {
        case idle
        /// Kontrol is being asked.
        case resolving
        /// No upstream is connected.
        case parked
        /// A connection is being opened.
        case connecting
        /// The upstream has the request, or is getting it.
        case exchanging
    }

    private unowned let worker: Worker
    private var stage = Stage.idle
    private var exchange: (any Exchange)?
    private var origin: ForwardedOrigin?
    private(set) var key = RouteKey.none
    private var droppedPathBytes = 0
    private var byHost = false
    private var route: Route?
    private var upstream: Upstream?
    private var connection: HTTPClientConnection?
    private var began = NIODeadline.distantPast
    private var status: UInt16 = 0
    private var requestEnded = false
    private var bodyConsumed = false
    private var hasResponded = false
    private var attempts = 0
    /// What of the body arrived before there was a connection: at most one read.
    private var heldBody: [ByteBuffer] = []
    /// Tells an opener that comes back late that this is another request by now.
    private var generation: UInt64 = 0
    private var parkingTimer: WheelTimer?

    init(worker: Worker) { self.worker = worker }

    // MARK: 1. The route

    func begin(_ exchange: any Exchange, origin: ForwardedOrigin, key: RouteKey, droppedPathBytes: Int, byHost: Bool) {
        self.exchange = exchange
        self.origin = origin
        self.key = key
        self.droppedPathBytes = droppedPathBytes
        self.byHost = byHost
        began = worker.eventLoop.now
        worker.metrics.activeRequests += 1
        exchange.handler = self
        if exchange.request.bodyLength != .none { exchange.setReading(false) }
        if let route = worker.routes.find(key) {
            proceed(on: route)
        } else {
            stage = .resolving
            worker.resolution.resolve(key, for: self, generation)
        }
    }

    /// Kontrol has answered.
    func resolved(_ route: Route?, unavailable: Bool, _ generation: UInt64) {
        guard stage == .resolving, generation == self.generation else { return }
        if let route { return proceed(on: route) }
        if unavailable {
            refuse(
                .kontrolUnavailable,
                Refusal(503, "The registry that knows this kite cannot be asked now; please try again.", retryAfter: 2))
        } else if byHost {
            refuse(
                .unknownHost,
                Refusal(
                    404,
                    "There is no service under this host name. Check the name, or ask its owner whether it is still offered."
                ))
        } else {
            refuse(
                .unknownKite,
                Refusal(
                    404,
                    "There is no service of this name here, nor is a kite with this id registered. Check the address, or ask its owner."
                ))
        }
    }

    // MARK: 2. An upstream

    private func proceed(on route: Route, excluding failed: Upstream? = nil) {
        self.route = route
        route.isUsed = true
        if let upstream = route.choose(at: worker.eventLoop.now, excluding: failed) {
            connect(to: upstream)
        } else {
            park(on: route)
        }
    }

    private func park(on route: Route) {
        let parking = worker.settings.options.parking
        guard parking.time > .zero, !worker.isDraining else { return refuseAway() }
        guard route.parked.count < parking.requestsPerRoute, worker.metrics.parkedRequests < parking.requests else {
            return refuse(
                .parkingFull,
                Refusal(
                    503, "The service is away and too many wait for it already; please try again later.", retryAfter: 10
                ))
        }
        stage = .parked
        worker.metrics.parkedRequests += 1
        route.parked.append(self)
        let timer = parkingTimer ?? WheelTimer(wheel: worker.wheel) { [weak self] in self?.parkingEnded() }
        parkingTimer = timer
        timer.start(after: parking.time)
    }

    private func parkingEnded() {
        guard stage == .parked else { return }
        leaveParking()
        refuseAway()
    }

    private func refuseAway() {
        refuse(
            .noLane,
            Refusal(503, "The service behind this address is away at the moment; please try again.", retryAfter: 5))
    }

    private func leaveParking() {
        parkingTimer?.cancel()
        guard let route, let place = route.parked.firstIndex(where: { $0 === self }) else { return }
        route.parked.remove(at: place)
        worker.metrics.parkedRequests -= 1
    }

    /// An upstream is there; the route's list has been emptied already.
    func unparked() {
        guard stage == .parked, let route else { return }
        parkingTimer?.cancel()
        proceed(on: route)
    }

    /// The route was taken away while this waited for it.
    func routeVanished() {
        guard stage == .parked else { return }
        worker.metrics.parkedRequests -= 1
        parkingTimer?.cancel()
        refuseAway()
    }

    // MARK: 3. A connection

    private func connect(to upstream: Upstream) {
        self.upstream = upstream
        upstream.outstanding += 1
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
        upstream.open(opening()) { [self] result in
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

    private func opening() -> StreamOpening {
        guard let exchange else { return StreamOpening(kind: .http) }
        var host = exchange.request.authority
        if host.readableBytes > 255 { host = ByteBuffer() }
        return StreamOpening(
            kind: .http, clientAddress: exchange.peer.address, host: host, isSecure: exchange.peer.isSecure)
    }

    // MARK: 4. The request

    private func send(on connection: HTTPClientConnection) {
        guard let exchange, let origin, let route else { return }
        stage = .exchanging
        self.connection = connection
        let head = exchange.request
        var buffer = ByteBufferAllocator().buffer(capacity: 1024)
        MessageWriter.writeForwardedRequest(
            head, rewrite: route.rewrite(droppedPathBytes: droppedPathBytes, byHost: byHost), origin: origin,
            isUpgrade: head.wantsUpgrade, into: &buffer)
        connection.send(
            head: buffer, method: head.method, bodyLength: head.bodyLength, wantsUpgrade: head.wantsUpgrade,
            timeout: worker.settings.options.timeouts.response, handler: self)
        guard stage == .exchanging, self.connection === connection, head.bodyLength != .none else { return }
        for bytes in heldBody { forward(bytes, on: connection) }
        heldBody = []
        if requestEnded {
            finishRequest(on: connection, trailers: nil)
        } else if connection.isWritable {
            exchange.setReading(true)
        }
    }

    func exchangeReceived(_ exchange: any Exchange, body: ByteBuffer) {
        worker.metrics.bytesIn &+= UInt64(body.readableBytes)
        guard let connection else {
            if stage != .exchanging { heldBody.append(body) }
            return
        }
        forward(body, on: connection)
        if !connection.isWritable { exchange.setReading(false) }
    }

    private func forward(_ body: ByteBuffer, on connection: HTTPClientConnection) {
        bodyConsumed = true
        connection.write(body)
    }

    private func finishRequest(on connection: HTTPClientConnection, trailers: HeaderBlock?) {
        bodyConsumed = true
        connection.finish(trailers: trailers)
    }

    func exchangeRequestEnded(_ exchange: any Exchange, trailers: HeaderBlock?) {
        requestEnded = true
        guard exchange.request.bodyLength != .none, let connection else { return }
        finishRequest(on: connection, trailers: trailers)
    }

    func clientWritabilityChanged(_ isWritable: Bool) {
        if stage == .exchanging, !requestEnded { exchange?.setReading(isWritable) }
    }

    // MARK: 5. The response

    func clientInformational(_ head: ResponseHead) {
        // The edge answers 100-continue itself.
        if head.status != 100 { exchange?.sendInformational(head) }
    }

    func clientResponded(_ head: ResponseHead) {
        upstream?.succeeded()
        hasResponded = true
        status = head.status
        exchange?.respond(head)
    }

    func clientReceived(_ body: ByteBuffer) {
        worker.metrics.bytesOut &+= UInt64(body.readableBytes)
        guard let exchange else { return }
        exchange.write(body)
        if !exchange.isWritable { connection?.setReading(false) }
    }

    func exchangeWritabilityChanged(_ exchange: any Exchange, isWritable: Bool) {
        if stage == .exchanging { connection?.setReading(isWritable) }
    }

    func clientEnded(trailers: HeaderBlock?) {
        connection = nil
        record()
        exchange?.finish(trailers: trailers)
    }

    func clientUpgraded(_ head: ResponseHead, transport: any ByteTransport) {
        connection = nil
        upstream?.succeeded()
        guard let exchange else { return transport.abort(TransportError(.cancelled, "The visitor went away")) }
        status = 101
        worker.metrics.responses[1] &+= 1
        logAccess(exchange)
        let visitor = exchange.upgrade(head)
        finish()
        guard let visitor else { return transport.abort(TransportError(.cancelled, "The visitor went away")) }
        let worker = worker
        let box = RelayEnd()
        let relay = TransportRelay(visitor, transport) { outcome in
            if let relay = box.relay { worker.untrack(relay, outcome) }
            box.relay = nil
        }
        box.relay = relay
        worker.track(relay)
    }

    func clientFailed(_ failure: HTTPClientFailure) {
        connection = nil
        failed(failure)
    }

    private func failed(_ failure: HTTPClientFailure) {
        guard let exchange, let upstream, let route else { return }
        if failure.responseStarted {
            worker.metrics.responses[0] &+= 1
            return exchange.abort(failure.cause)
        }
        let countsAgainst: Bool
        switch failure.cause.code {
        case .connectFailed, .connectTimeout, .reset, .idleTimeout, .protocolViolation, .tlsFailed:
            countsAgainst = !failure.wasReused
        default: countsAgainst = false
        }
        if countsAgainst, upstream.failed(at: worker.eventLoop.now) { worker.metrics.ejections &+= 1 }
        let mayRepeat =
            attempts < 2
            && (failure.isRetryable(method: exchange.request.method, bodyConsumed: bodyConsumed)
                || (!bodyConsumed && Self.neverArrived(failure.cause.code) && route.upstreams.count > 1))
        if mayRepeat {
            worker.metrics.retries &+= 1
            leaveUpstream()
            if exchange.request.bodyLength != .none { exchange.setReading(false) }
            stage = .connecting
            return proceed(on: route, excluding: failure.wasReused ? nil : upstream)
        }
        let (cause, refusal) = Self.refusal(for: failure.cause)
        refuse(cause, refusal, detail: failure.cause.message)
    }

    /// Whether the upstream cannot have seen anything of the request.
    private static func neverArrived(_ code: TransportError.Code) -> Bool {
        switch code {
        case .connectFailed, .connectTimeout, .tlsFailed, .refused: true
        default: false
        }
    }

    private static func refusal(for error: TransportError) -> (RefusalCause, Refusal) {
        switch error.code {
        case .connectFailed, .connectTimeout, .tlsFailed:
            (
                .connectFailed,
                Refusal(502, "The service behind this address does not accept connections; its owner has to start it.")
            )
        case .refused:
            (.targetForbidden, Refusal(502, "The service behind this address may not be reached through this gateway."))
        case .idleTimeout:
            (
                .upstreamSilent,
                Refusal(504, "The service behind this address did not answer in time; please try again later.")
            )
        case .protocolViolation:
            (.upstreamInvalid, Refusal(502, "The service behind this address gave an answer that is no valid HTTP."))
        case .limitExceeded:
            (.upstreamBusy, Refusal(503, "The service behind this address is busy; please try again.", retryAfter: 1))
        case .laneLost, .goingAway:
            (
                .noLane,
                Refusal(503, "The service behind this address is away at the moment; please try again.", retryAfter: 5)
            )
        case .reset, .cancelled:
            (.upstreamBroken, Refusal(502, "The service behind this address broke the connection without an answer."))
        }
    }

    private func refuse(_ cause: RefusalCause, _ refusal: Refusal, detail: String = "") {
        guard let exchange else { return }
        status = refusal.status
        hasResponded = true
        logAccess(exchange)
        worker.refuse(exchange, cause, refusal, route: key, detail: detail)
    }

    // MARK: The end

    /// The edge has answered with a refusal of its own, for what came after the head.
    func refusedByEngine() { hasResponded = true }

    func exchangeEnded(_ exchange: any Exchange, error: TransportError?) {
        if stage == .parked { leaveParking() }
        if let connection {
            self.connection = nil
            connection.abort(TransportError(.cancelled, "The visitor went away"))
        }
        if error != nil, !hasResponded { worker.metrics.responses[0] &+= 1 }
        finish()
    }

    private func record() {
        guard let exchange else { return }
        let duration = worker.eventLoop.now - began
        let hundreds = Int(status / 100)
        worker.metrics.responses[hundreds < worker.metrics.responses.count ? hundreds : 0] &+= 1
        worker.metrics.latency.record(duration)
        upstream?.note(exchange.request, status: status, duration: duration)
        logAccess(exchange)
    }

    private func logAccess(_ exchange: any Exchange) {
        guard worker.settings.options.isAccessLogged else { return }
        AccessLog.write(
            exchange, status: status, route: key, duration: worker.eventLoop.now - began, logger: worker.settings.logger
        )
    }

    private func leaveUpstream() {
        upstream?.outstanding -= 1
        upstream = nil
    }

    private func finish() {
        guard stage != .idle || exchange != nil else { return }
        leaveUpstream()
        worker.metrics.activeRequests -= 1
        generation &+= 1
        stage = .idle
        exchange = nil
        // It points into what was received.
        key = .none
        origin = nil
        route = nil
        status = 0
        requestEnded = false
        bodyConsumed = false
        hasResponded = false
        attempts = 0
        heldBody = []
        worker.give(self)
    }
}
