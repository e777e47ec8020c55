/// What the admin listener answers: metrics, health, routes and agents as JSON, and the dashboard. Written against the HTTP exchange, so
/// that tests need no socket.
import KiteCommand
import KiteHTTP
import KiteSupport
import NIOCore

/// Where the admin listener gets what it shows.
protocol AdminSource: Sendable {
    /// The text of `/metrics`.
    func metrics() async -> String
    /// Why the gateway is not ready; nil when it is.
    func unreadiness() async -> String?
    /// JSON of `/api/routes`.
    func routes() async -> String
    /// JSON of `/api/agents`.
    func agents() async -> String
}

/// Answers the exchanges of one event loop.
final class AdminAcceptor: ExchangeAcceptor {
    private let source: any AdminSource
    private let tasks: TaskPool

    /// - Parameter tasks: gathers what is asked for.
    init(source: any AdminSource, tasks: TaskPool) {
        self.source = source
        self.tasks = tasks
    }

    func accept(_ exchange: any Exchange) {
        guard exchange.request.method == .get || exchange.request.method == .head else {
            var fields = HeaderBlock()
            fields.append("Allow", "GET, HEAD")
            return Self.answer(
                exchange, Reply(status: 405, type: "text/plain", body: "Only GET is served here.\n"), fields: fields)
        }
        // A page of another origin must not read this through a name that it lets point to 127.0.0.1.
        guard Self.isOwnName(exchange.request.authority) else {
            return Self.answer(
                exchange,
                Reply(
                    status: 421, type: "text/plain",
                    body: "Ask for this by IP address or as localhost; other names are refused for safety.\n"))
        }
        let path = exchange.request.path
        guard path != "/healthz" else {
            return Self.answer(exchange, Reply(status: 200, type: "text/plain", body: "ok\n"))
        }
        let handler = PendingReply(exchange: exchange)
        exchange.handler = handler
        let eventLoop = exchange.eventLoop
        let bound = NIOLoopBound(handler, eventLoop: eventLoop)
        let source = source
        let isAccepted = tasks.spawn {
            let reply = await Self.reply(to: path, source)
            eventLoop.execute { bound.value.answer(reply) }
        }
        if !isAccepted {
            handler.answer(
                Reply(status: 503, type: "text/plain", body: "Too many requests at a time, or shutting down.\n"))
        }
    }

    /// The answer to a path.
    static func reply(to path: String, _ source: any AdminSource) async -> Reply {
        switch path {
        case "/": return Reply(status: 200, type: "text/html; charset=utf-8", body: Dashboard.html)
        case "/metrics": return Reply(status: 200, type: PrometheusText.contentType, body: await source.metrics())
        case "/readyz":
            let problem = await source.unreadiness()
            return Reply(status: problem == nil ? 200 : 503, type: "text/plain", body: (problem ?? "ready") + "\n")
        case "/api/routes": return Reply(status: 200, type: "application/json", body: await source.routes())
        case "/api/agents": return Reply(status: 200, type: "application/json", body: await source.agents())
        default:
            return Reply(
                status: 404, type: "text/plain",
                body: "Not here. There are /, /metrics, /healthz, /readyz, /api/routes and /api/agents.\n")
        }
    }

    /// One answer.
    struct Reply: Sendable, Hashable {
        var status: UInt16
        var type: String
        var body: String
    }

    /// Whether an authority is an IP literal or `localhost`.
    static func isOwnName(_ authority: ByteBuffer) -> Bool {
        var host = String(buffer: authority).lowercased()
        if host.hasPrefix("[") { return true }
        if let colon = host.lastIndex(of: ":") { host = String(host[..<colon]) }
        return host.isEmpty || host == "localhost" || host.utf8.allSatisfy { ($0 >= 0x30 && $0 <= 0x39) || $0 == 0x2E }
    }

    static func answer(_ exchange: any Exchange, _ reply: Reply, fields: HeaderBlock = HeaderBlock()) {
        var fields = fields
        fields.append("Content-Type", reply.type)
        fields.append("Cache-Control", "no-store")
        fields.append("X-Content-Type-Options", "nosniff")
        if reply.type.hasPrefix("text/html") {
            fields.append(
                "Content-Security-Policy",
                "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'"
            )
        }
        exchange.respond(ResponseHead(status: reply.status, fields: fields), body: ByteBuffer(string: reply.body))
    }
}

/// Holds an exchange until what it asks for has been gathered; a body it may have is thrown away.
private final class PendingReply: ExchangeHandler {
    private var exchange: (any Exchange)?

    init(exchange: any Exchange) { self.exchange = exchange }

    func answer(_ reply: AdminAcceptor.Reply) {
        guard let exchange, !exchange.isEnded else { return }
        AdminAcceptor.answer(exchange, reply)
    }

    func exchangeReceived(_ exchange: any Exchange, body: ByteBuffer) {}
    func exchangeRequestEnded(_ exchange: any Exchange, trailers: HeaderBlock?) {}
    func exchangeWritabilityChanged(_ exchange: any Exchange, isWritable: Bool) {}
    func exchangeEnded(_ exchange: any Exchange, error: TransportError?) { self.exchange = nil }
}
