/// Sends each request of one connection where it belongs: to a route, the tunnel door or the gateway's kite. Between the edge and
/// everything else.
import KiteHTTP
import KiteTLS
import KiteTunnel
import NIOCore

/// What the gateway knows of one visitor's connection. Event-loop bound.
final class VisitorConnection: ExchangeAcceptor {
    let worker: Worker
    private let peer: ExchangePeer
    private let security: ConnectionSecurity?
    /// Made with the first request.
    private var preparedOrigin: ForwardedOrigin?

    init(worker: Worker, peer: ExchangePeer, security: ConnectionSecurity? = nil) {
        self.worker = worker
        self.peer = peer
        self.security = security
    }

    func accept(_ exchange: any Exchange) {
        if let answer = worker.settings.options.challengeAnswer, AuthorityChallenge.answer(exchange, answer) {
            worker.metrics.responses[2] &+= 1
            return
        }
        let head = exchange.request
        if peer.version == .http2 { worker.metrics.http2Requests &+= 1 }
        if let shortage = worker.settings.pressure.shortage, isNewWork(head) {
            return worker.refuse(
                exchange, RefusalCause(shortage),
                Refusal(
                    503, "This gateway has too much to do at the moment; please try again.", retryAfter: 5,
                    endsConnection: true))
        }
        let destination = worker.settings.directory.destination(authority: head.authority, target: head.target)
        guard security == nil && worker.settings.options.clientRules.isEmpty || isMeant(for: head, destination) else {
            return worker.refuse(
                exchange, .misdirected,
                Refusal(421, "This host takes client certificates: ask for it over a TLS connection of its own."))
        }
        if let table = worker.rules,
            let rules = table.find(
                authority: head.authority,
                ownHost: table.book.knowsHosts ? worker.settings.directory.ownHost(of: destination) : nil,
                route: destination.route)
        {
            return accept(exchange, under: rules, to: destination) { self.dispatch($0, to: destination) }
        }
        dispatch(exchange, to: destination)
    }

    private func dispatch(_ exchange: any Exchange, to destination: Destination) {
        let head = exchange.request
        switch destination {
        case .route(let key, let dropped, let byHost):
            let origin = origin
            if origin.isLoop(head) {
                return worker.refuse(
                    exchange, .loop,
                    Refusal(
                        508, "This request has passed this gateway before; the target of the route leads back here."),
                    route: key)
            }
            switch MaxForwards(head) {
            case .unlimited, .remaining: break
            case .exhausted: return answerAsLast(exchange, route: key)
            case .malformed:
                return worker.refuse(
                    exchange, .malformed, Refusal(400, "Max-Forwards is no single number."), route: key)
            }
            let route = worker.routes.find(asWritten: key)
            if !byHost, let target = dialBackTarget(key, route, head.target, dropped) {
                return logged(exchange) { worker.settings.kiteTunnels.serveVisitor($0, target, worker: worker) }
            }
            let proxied = worker.takeExchange()
            proxied.begin(
                exchange, origin: origin, key: key, route: route, droppedPathBytes: dropped, byHost: byHost)
        case .door: worker.door.accept(exchange)
        case .kite:
            guard let kite = worker.kite else { return refuseUnknown(exchange) }
            logged(exchange, kite.accept)
        case .kiteSession(let target):
            logged(exchange) { worker.settings.kiteTunnels.serveVisitor($0, target, worker: worker) }
        case .kiteTunnel(let dropped):
            let path = head.path.dropFirst(dropped)
            logged(exchange) { worker.settings.kiteTunnels.serveKite($0, path: path, worker: worker) }
        case .browserModule(let module):
            logged(exchange) { exchange in
                if let status = module.answer(exchange) {
                    worker.metrics.responses[Int(status / 100)] &+= 1
                } else {
                    worker.refuse(
                        exchange, .methodNotAllowed, Refusal(405, "Use GET here."), fields: ["Allow": "GET, HEAD"])
                }
            }
        case .nowhere: refuseUnknown(exchange)
        }
    }

    /// Lets something answer that does not write the access log's line itself.
    private func logged(_ exchange: any Exchange, _ answer: (any Exchange) -> Void) {
        guard worker.settings.options.isAccessLogged else { return answer(exchange) }
        LoggedExchange.accept(exchange, logger: worker.settings.logger, answer)
    }

    /// Whether a request begins something. Those of SockJS sessions mostly go on with what has begun; an agent's lane may be one that is
    /// resumed, which the door finds out.
    private func isNewWork(_ head: RequestHead) -> Bool {
        if head.wantsUpgrade { return head.path != TunnelWire.path }
        return SockJSSession.hash(in: head.target) == nil
    }

    /// A kite that dials back, when that is what a path means: what an agent or a registration has brought comes first, Kontrol's word
    /// last.
    private func dialBackTarget(
        _ key: RouteKey, _ route: Route?, _ target: ByteBuffer, _ dropped: Int
    ) -> KiteSessionTarget? {
        if let route, route.spec.kind != .kontrol { return nil }
        let book = worker.settings.kiteTunnels.book
        guard book.isUsed else { return nil }
        switch book.presence(of: key) {
        case .serving: return KiteSessionTarget(key, in: target, droppedPathBytes: dropped)
        case .away where route?.isServing != true:
            return KiteSessionTarget(key, in: target, droppedPathBytes: dropped)
        case .away, .unknown: return nil
        }
    }

    /// Whether the handshake was made by the rule for client certificates of the host that is asked for (RFC 9110 section 7.4), and of the
    /// host of the route, where it is reached by path. A certificate that the gateway's own host demands is demanded wherever its paths are
    /// served.
    private func isMeant(for head: RequestHead, _ destination: Destination) -> Bool {
        let settings = worker.settings
        let rules = settings.options.clientRules
        let host = Self.host(in: head.authority)
        let rule = rules.value(for: host)
        guard
            ClientRuleName.allows(
                rule, handshake: security?.clientRule, hasCertificate: security?.clientCertificate != nil,
                isSecure: peer.isSecure)
        else { return false }
        // What is not a route's own host is the gateway's, whatever name it is asked for by.
        if case .route(_, _, byHost: true) = destination {
        } else if let gateway = worker.publicHost, let own = rules.value(for: gateway), own.isRequired,
            own.pattern != rule?.pattern
        {
            return false
        }
        guard let domain = settings.directory.domain,
            case .route(let key, _, byHost: false) = destination,
            let own = rules.value(for: "\(key)".lowercased() + "." + domain)
        else { return true }
        return own.pattern == rule?.pattern
    }

    /// In lower case, without port and full stop at the end.
    static func host(in authority: ByteBuffer) -> String {
        var host = String(buffer: authority).lowercased()
        if let colon = host.lastIndex(of: ":"), !host.hasSuffix("]") { host = String(host[..<colon]) }
        if host.hasSuffix(".") { host.removeLast() }
        return host
    }

    /// The visitor asks about the way, and this is as far as the question goes (RFC 9110 section 7.6.2).
    private func answerAsLast(_ exchange: any Exchange, route: RouteKey) {
        guard exchange.request.method == .options else {
            return worker.refuse(
                exchange, .methodNotAllowed, Refusal(501, "This gateway does not answer TRACE itself."), route: route)
        }
        exchange.respond(ResponseHead(status: 200), body: ByteBuffer())
    }

    private func refuseUnknown(_ exchange: any Exchange) {
        worker.refuse(
            exchange, .unknownPath,
            Refusal(
                404,
                "Nothing is served here. A route is reached at /proxy/<name>/, or by its own host name where the gateway has a domain."
            ))
    }

    private var origin: ForwardedOrigin {
        if let preparedOrigin { return preparedOrigin }
        let origin = ForwardedOrigin(peer: peer, gateway: worker.settings.viaName, security: security)
        preparedOrigin = origin
        return origin
    }
}
