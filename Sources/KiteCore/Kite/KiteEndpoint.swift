/// Where HTTP meets a kite: SockJS sessions and raw WebSockets below one path, and whatever else is to be served beside it.
public import KiteHTTP
import KiteSockJS
import KiteSupport
import Logging
public import NIOCore
public import ServiceLifecycle

/// Serves a kite over exchanges that somebody else accepts: a listener, a gateway, a tunnel. Give it to the service group; sessions
/// are served while it runs, those opened before wait for it.
public final class KiteEndpoint: Service {
    /// Makes what answers exchanges on one event loop; called on that loop.
    public typealias Routes = @Sendable (any EventLoop) -> any ExchangeAcceptor

    /// The kite that is served.
    public let kite: Kite
    /// The path below which the kite is reached, without a slash at the end.
    public let path: String
    private let routes: Routes?
    private let sessions: TaskPool
    private let service: SockJSService

    /// - Parameter routes: answers exchanges for other paths; 404 where nil.
    public init(kite: Kite, path: String = "/kite", routes: Routes? = nil) {
        self.kite = kite
        self.path = path
        self.routes = routes
        let limits = kite.configuration.limits
        let sessions = TaskPool(limit: limits.maximumConnections)
        self.sessions = sessions
        var options = SockJSOptions()
        options.maxMessageBytes = min(
            limits.dnode.maximumMessageSize, limits.maximumServedMessageSize ?? .max)
        options.maxSessions = limits.maximumConnections
        // As Go's kites, whose clients expect to hear something every 15 s.
        options.heartbeat = .seconds(10)
        options.disconnectDelay = .seconds(10)
        service = SockJSService(prefix: path, options: options) { channel in
            let isAccepted = sessions.spawn { await kite.serve(channel) }
            if !isAccepted { channel.close(code: 3000, reason: "The kite takes no more connections.") }
        }
    }

    /// What answers exchanges on an event loop. Call it on that loop, once.
    public func acceptor(on eventLoop: any EventLoop) -> any ExchangeAcceptor {
        KiteAcceptor(path: path, service: service, others: routes?(eventLoop))
    }

    /// Serves the sessions until the task is cancelled or the service group shuts down; then they are closed.
    public func run() async throws { try await sessions.run() }
}

/// Tells the kite's exchanges from others, on one event loop.
private final class KiteAcceptor: ExchangeAcceptor {
    private let path: String
    private let service: SockJSService
    private let others: (any ExchangeAcceptor)?

    init(path: String, service: SockJSService, others: (any ExchangeAcceptor)?) {
        self.path = path
        self.service = service
        self.others = others
    }

    func accept(_ exchange: any Exchange) {
        let path = exchange.request.path
        if path.hasPrefix(self.path) {
            let rest = path.dropFirst(self.path.count)
            if rest.isEmpty || rest.first == "/" { return service.serve(exchange, path: rest) }
        }
        if let others { return others.accept(exchange) }
        exchange.refuse(Refusal(404, "There is nothing at this path; the kite is at \(self.path)."))
    }
}
