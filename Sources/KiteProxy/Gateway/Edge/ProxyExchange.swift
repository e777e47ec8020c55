/// The life of a request: from the visitor's exchange to a route's upstream and back.
///
/// 1. ``begin(_:origin:key:route:droppedPathBytes:byHost:)``: where there is no route, Kontrol is asked.
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
    enum Stage {
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

    unowned let worker: Worker
    var stage = Stage.idle
    var exchange: (any Exchange)?
    var origin: ForwardedOrigin?
    var key = RouteKey.none
    var droppedPathBytes = 0
    var byHost = false
    var route: Route?
    var upstream: Upstream?
    var connection: HTTPClientConnection?
    var began = NIODeadline.distantPast
    var status: UInt16 = 0
    var requestEnded = false
    var bodyConsumed = false
    var hasResponded = false
    var attempts = 0
    /// How often a lane went before it took the request.
    var detours = 0
    /// What of the body arrived before there was a connection: at most one read.
    var heldBody: [ByteBuffer] = []
    /// The trailers, where the body ended before there was a connection.
    var heldTrailers: HeaderBlock?
    /// Where it is in its upstream's list.
    var placeAtUpstream = 0
    /// It has waited for its SockJS session's agent, or need not.
    var hasWaitedForOwner = false
    /// It is parked for that.
    var isAwaitingOwner = false
    /// Tells an opener that comes back late that this is another request by now.
    var generation: UInt64 = 0
    var parkingTimer: WheelTimer?

    init(worker: Worker) { self.worker = worker }

    // MARK: 1. The route

    /// - Parameter found: the route of `key` on this event loop.
    func begin(
        _ exchange: any Exchange, origin: ForwardedOrigin, key: RouteKey, route found: Route?, droppedPathBytes: Int,
        byHost: Bool
    ) {
        self.exchange = exchange
        self.origin = origin
        self.key = key
        self.droppedPathBytes = droppedPathBytes
        self.byHost = byHost
        began = worker.eventLoop.now
        worker.metrics.activeRequests += 1
        exchange.handler = self
        if exchange.hasRequestBody { exchange.setReading(false) }
        if let found {
            proceed(on: found)
        } else {
            stage = .resolving
            worker.resolution.resolve(key, for: self, generation)
        }
    }

    /// Kontrol has answered.
    func resolved(_ answer: KontrolResolution.Answer, _ generation: UInt64) {
        guard stage == .resolving, generation == self.generation else { return }
        switch answer {
        case .route(let route): proceed(on: route)
        case .unavailable:
            refuse(
                .kontrolUnavailable,
                Refusal(503, "The registry that knows this kite cannot be asked now; please try again.", retryAfter: 2))
        case .full:
            refuse(
                .routesFull,
                Refusal(503, "This gateway serves as many kites as it can; please try again later.", retryAfter: 30))
        case .unknown: refuseUnknown()
        }
    }

    private func refuseUnknown() {
        if byHost {
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

    func refuse(_ cause: RefusalCause, _ refusal: Refusal, detail: String = "") {
        guard let exchange else { return }
        status = refusal.status
        hasResponded = true
        upstream?.note(exchange.request, status: status, duration: worker.eventLoop.now - began)
        worker.refuse(exchange, cause, refusal, route: key, detail: detail)
    }

    // MARK: The end

    /// The edge has answered with a refusal of its own, for what came after the head.
    func refusedByEngine(_ status: UInt16) {
        hasResponded = true
        self.status = status
    }

    func exchangeEnded(_ exchange: any Exchange, error: TransportError?) {
        if stage == .parked { leaveParking() }
        if let connection {
            self.connection = nil
            connection.abort(TransportError(.cancelled, "The visitor went away"))
        }
        if error != nil, !hasResponded { worker.metrics.responses[0] &+= 1 }
        logAccess(exchange, error)
        finish()
    }

    func record() {
        guard let exchange else { return }
        let duration = worker.eventLoop.now - began
        let hundreds = Int(status / 100)
        worker.metrics.responses[hundreds < worker.metrics.responses.count ? hundreds : 0] &+= 1
        worker.metrics.latency.record(duration)
        upstream?.note(exchange.request, status: status, duration: duration)
    }

    /// - Parameter error: why it was broken off.
    func logAccess(_ exchange: any Exchange, _ error: TransportError? = nil) {
        guard worker.settings.options.isAccessLogged else { return }
        AccessLog.write(
            exchange.request, peer: exchange.peer, status: status, route: key,
            duration: worker.eventLoop.now - began, error: error, logger: worker.settings.logger)
    }

    func leaveUpstream() {
        upstream?.leave(self)
        upstream = nil
    }

    func finish() {
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
        detours = 0
        hasWaitedForOwner = false
        isAwaitingOwner = false
        heldBody = []
        heldTrailers = nil
        worker.give(self)
    }
}
