/// The gateway put together: listeners, workers, routes and the tunnel door, as one service.
package import KiteCore
import KiteDialing
package import KiteHTTP
import KiteSupport
import KiteTLS
package import Logging
package import NIOCore
import NIOPosix
import ServiceLifecycle
import Synchronization

/// Serves visitors and agents until it is told to stop.
///
/// ``run()`` binds, serves, and after a graceful shutdown lets exchanges that are under way come to their end within
/// ``GatewayOptions/Timeouts/drain``.
package final class Gateway: Service {
    package let options: GatewayOptions
    private let resolver: (any KiteResolver)?
    private let authenticator: any GatewayAuthenticator
    private let mount: (@Sendable (any EventLoop) -> any ExchangeAcceptor)?
    let board: RouteBoard
    let kiteTunnels: KiteTunnels
    /// Of visitors and agents, and of the public ports of tcp tunnels.
    private let limiter: ConnectionLimiter
    let logger: Logger
    let pressure: Pressure
    private let started = Latch<Running>()
    private let ready = Atomic<Bool>(false)
    /// By listener; what is not there is bound.
    private let inherited: [[ListeningSocket]]
    private let hasSuccessor = Atomic<Bool>(false)
    /// How long visitors' connections that are at rest wait for one more request when another process has taken the listeners over.
    private static let lastRequestTime = TimeAmount.seconds(5)

    /// What exists while it runs.
    private struct Running: Sendable {
        var addresses: [SocketAddress]
        var publicURL: String
        var workers: [WorkerReference]
        var listeners: [Listener]
        /// Before the system chose ports.
        var configuredAddresses: [SocketAddress]
    }

    /// - Parameters:
    ///   - resolver: where kites are looked for that no route is known of; nil: nowhere.
    ///   - authenticator: who may open tunnels.
    ///   - claims: where it is kept who owns which name.
    ///   - visitors: judges what visitors of kites that dial back show; nobody is let in to those that are not public where nil.
    ///   - kite: answers what is under `/kite`, one for each event loop; nil: nothing is there.
    ///   - inherited: for each listener of the options the sockets of a gateway whose place this one takes; it binds where there are none.
    package init(
        options: GatewayOptions, resolver: (any KiteResolver)? = nil, authenticator: any GatewayAuthenticator,
        claims: any ClaimStore = MemoryClaimStore(), visitors: any KiteAuthenticator = RefusingAuthenticator(),
        kite: (@Sendable (any EventLoop) -> any ExchangeAcceptor)? = nil, inherited: [[ListeningSocket]] = [],
        logger: Logger
    ) {
        self.options = options
        pressure = Pressure(options.limits, logger: logger)
        self.inherited = inherited
        self.resolver = resolver
        self.authenticator = authenticator
        mount = kite
        let trusted = options.trustedProxies
        limiter = ConnectionLimiter(
            connections: options.limits.connections, connectionsPerAddress: options.limits.connectionsPerAddress
        ) { address in trusted.contains { $0.contains(address) } }
        kiteTunnels = KiteTunnels(
            options: options.kiteTunnels, parkingTime: options.parking.time,
            names: KiteTunnelBook.Naming(
                username: options.kontrolUsername, environment: options.kontrolEnvironment),
            authenticator: visitors, logger: logger)
        board = RouteBoard(
            options: options, claims: claims, resolver: resolver, kiteTunnels: kiteTunnels.book, logger: logger)
        self.logger = logger
    }

    package func run() async throws {
        do {
            try await serve()
        } catch {
            started.fail(error)
            throw error
        }
    }

    private func serve() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: max(options.threads, 1))
        let loops = Array(group.makeIterator())
        let pool = TaskPool(limit: 4096)
        do {
            try await withThrowingTaskGroup { tasks in
                tasks.addTask { try await pool.run() }
                tasks.addTask { [pressure] in await pressure.run() }
                tasks.addTask { [kiteTunnels] in try await kiteTunnels.run() }
                let addresses = try options.listeners.map { try Self.address($0) }
                let workers = try await makeWorkers(loops, pool: pool, addresses: addresses)
                var listeners: [Listener] = []
                do {
                    for (index, (options, address)) in zip(options.listeners, addresses).enumerated() {
                        let sockets = inherited.indices.contains(index) ? inherited[index] : []
                        listeners.append(try await listen(options, address, sockets, workers))
                    }
                    let publicURL = publicURL(of: listeners)
                    kiteTunnels.start(publicURL: publicURL)
                    try await board.start(
                        workers: workers, publicURL: publicURL,
                        policy: options.directTargets.resolved(listeningOn: addresses))
                    for (options, listener) in zip(options.listeners, listeners) {
                        logger.info(
                            "listening",
                            metadata: [
                                "address": "\(Self.text(listener.address))", "tls": "\(options.isSecure)",
                                "url": "\(publicURL)",
                            ])
                    }
                    started.succeed(
                        Running(
                            addresses: listeners.map(\.address), publicURL: publicURL, workers: workers,
                            listeners: listeners, configuredAddresses: addresses))
                    ready.store(true, ordering: .relaxed)
                    try? await gracefulShutdown()
                    await drain(listeners, workers)
                } catch {
                    for listener in listeners { await listener.close() }
                    throw error
                }
                tasks.cancelAll()
                try? await tasks.waitForAll()
            }
        } catch {
            try? await group.shutdownGracefully()
            throw error
        }
        try await group.shutdownGracefully()
    }

    private func makeWorkers(_ loops: [any EventLoop], pool: TaskPool, addresses: [SocketAddress]) async throws
        -> [WorkerReference]
    {
        let policy = options.directTargets.resolved(listeningOn: addresses)
        let settings = WorkerSettings(
            options: options, directory: Directory(domain: options.domain),
            http: WorkerSettings.limits(options),
            viaName: options.viaName ?? "kiteproxy-" + String(UInt64.random(in: .min ... .max), radix: 36),
            authenticator: authenticator, resolver: resolver,
            dialer: try Dialer(
                configuration: WorkerSettings.dialing(options, policy), tls: options.upstreamTLSContext), board: board,
            kiteTunnels: kiteTunnels, pool: pool, logger: logger, limiter: limiter, mount: mount,
            pressure: pressure, laneBudget: SharedByteBudget(limit: options.limits.laneBytes))
        var workers: [WorkerReference] = []
        for (index, loop) in loops.enumerated() {
            workers.append(
                try await loop.submit { WorkerReference(Worker(index: index, eventLoop: loop, settings: settings)) }
                    .get())
        }
        let all = workers
        for worker in workers {
            _ = await worker.ask { worker in worker.neighbours = all.filter { $0.index != worker.index } }
        }
        return workers
    }

    private static func address(_ listener: GatewayOptions.Listener) throws -> SocketAddress {
        do {
            return try SocketAddress.makeAddressResolvingHost(listener.host, port: listener.port)
        } catch {
            throw GatewayError("\(listener.host) is no address that can be listened on: \(error)")
        }
    }

    private func listen(
        _ options: GatewayOptions.Listener, _ address: SocketAddress, _ sockets: [ListeningSocket],
        _ workers: [WorkerReference]
    ) async throws -> Listener {
        var configuration = Listener.Configuration(limiter: limiter)
        let balancers = self.options.proxyProtocol
        if !balancers.isEmpty {
            configuration.expectsProxyHeader = { address in balancers.contains { $0.contains(address) } }
        }
        configuration.handshakeTimeout = self.options.timeouts.tlsHandshake
        if options.isSecure {
            guard let certificates = self.options.certificates else {
                throw GatewayError("a TLS listener needs a certificate and its key")
            }
            configuration.addSecurity = {
                try $0.pipeline.syncOperations.addHandler(ServerTLSHandler(store: certificates))
            }
        }
        do {
            let loops = workers.map(\.eventLoop)
            let onEvent: @Sendable (Listener.Event) -> Void = { event in
                for worker in workers where worker.eventLoop.inEventLoop { worker.here.notAccepted(event) }
            }
            let onAccept: @Sendable (SocketTransport) -> Void = { transport in
                for worker in workers where worker.eventLoop === transport.eventLoop {
                    return worker.here.accept(transport)
                }
                transport.abort(TransportError(.goingAway, "no worker"))
            }
            guard sockets.isEmpty else {
                return try await Listener.listen(
                    on: sockets, loops: loops, isWaiting: true, configuration: configuration, onEvent: onEvent,
                    onAccept: onAccept)
            }
            return try await Listener.bind(
                to: address, loops: loops, configuration: configuration, onEvent: onEvent, onAccept: onAccept)
        } catch {
            throw GatewayError(
                "cannot listen on \(options.host):\(options.port): \(error); is another program listening there?")
        }
    }

    private func publicURL(of listeners: [Listener]) -> String {
        if let url = options.publicURL { return url.hasSuffix("/") ? String(url.dropLast()) : url }
        guard let listener = listeners.first, let first = options.listeners.first else { return "" }
        let wildcards = ["0.0.0.0", "::", ""]
        let host = wildcards.contains(first.host) ? "localhost" : first.host
        let name = host.contains(":") ? "[\(host)]" : host
        return "\(first.isSecure ? "https" : "http")://\(name):\(listener.address.port ?? first.port)"
    }

    private static func text(_ address: SocketAddress) -> String {
        "\(address.ipAddress ?? "-"):\(address.port ?? 0)"
    }

    /// Stops accepting, lets what is under way come to its end, then ends the rest.
    private func drain(_ listeners: [Listener], _ workers: [WorkerReference]) async {
        ready.store(false, ordering: .relaxed)
        logger.info("shutting down", metadata: ["drain": "\(options.timeouts.drain.nanoseconds / 1_000_000_000) s"])
        for listener in listeners { await listener.close() }
        await board.closePorts()
        let idleTime = hasSuccessor.load(ordering: .relaxed) ? Self.lastRequestTime : nil
        for worker in workers { _ = await worker.ask { $0.drain(idleTime: idleTime) } }
        let end = NIODeadline.now() + options.timeouts.drain
        while NIODeadline.now() < end {
            var isQuiet = true
            for worker in workers { isQuiet = await worker.ask { $0.isQuiet } ?? true && isQuiet }
            if isQuiet { break }
            do { try await Task.sleep(for: .milliseconds(50)) } catch { break }
        }
        await board.close()
        for worker in workers { _ = await worker.ask { $0.stop() } }
        // One more turn, so that what was written last leaves.
        for worker in workers { _ = await worker.ask { _ in } }
    }

    /// The addresses it listens on, in the order of ``GatewayOptions/listeners``. Waits until they are bound; from then on connections
    /// are accepted.
    /// - Throws: ``GatewayError`` when binding failed.
    package func boundAddresses() async throws -> [SocketAddress] { try await started.value().addresses }

    /// Puts other limits, times and rules into effect, for what begins from now on. Listeners, domain, public URL, event loops and the
    /// limits on connections in all stay as they are. Without effect before ``run()`` listens.
    package func reconfigure(_ options: GatewayOptions) async {
        guard let running = started.current else { return }
        let policy = options.directTargets.resolved(listeningOn: running.configuredAddresses)
        pressure.reconfigure(options.limits)
        for worker in running.workers {
            _ = await worker.ask { $0.reconfigure($0.settings.changed(to: options, policy: policy)) }
        }
        await board.reconfigure(options, policy: policy)
    }

    /// The sockets of the listeners, in the order of ``GatewayOptions/listeners``, for a successor; empty before they are bound.
    package var listeningSockets: [[ListeningSocket]] { (started.current?.listeners ?? []).map(\.sockets) }

    /// The predecessor accepts no more: serves its listeners from now on.
    package func resumeListening() async {
        for listener in started.current?.listeners ?? [] { await listener.resume() }
    }

    /// Another process serves the listeners now: stops accepting. A graceful shutdown should follow at once.
    package func handedOver() async {
        hasSuccessor.store(true, ordering: .relaxed)
        for listener in started.current?.listeners ?? [] { await listener.close() }
    }

    /// How the outside reaches the gateway, without a trailing slash. Waits as ``boundAddresses()`` does.
    package func publicURL() async throws -> String { try await started.value().publicURL }

    /// Whether connections are accepted and shutdown has not begun: what `/readyz` answers.
    package var isReady: Bool { ready.load(ordering: .relaxed) }

    /// The numbers of all event loops.
    package func metrics() async -> GatewayMetrics {
        guard let running = started.current else { return GatewayMetrics() }
        var sum = GatewayMetrics()
        for worker in running.workers { if let part = await worker.ask({ $0.snapshot() }) { sum.add(part) } }
        let routes = await self.routes()
        sum.routes = routes.count
        sum.servingRoutes = routes.count { $0.isServing }
        sum.sessions = await board.sessionCount
        sum.kiteSessions = kiteTunnels.sessionCount
        sum.isShort = pressure.shortage != nil
        sum.reconnects &+= await board.reconnects
        return sum
    }

    /// The routes, for operators.
    package func routes() async -> [RouteStatus] { await board.status() + kiteRoutes }

    /// Whether a user has claimed a name for good, so that it may have a certificate.
    package func isClaimed(_ name: String) async -> Bool { await board.isClaimed(name) }

    /// A kite registers the address it is reached at; the route is gone with ``unregister(kiteID:registration:)``.
    /// - Returns: where visitors reach it, and the registration's number.
    /// - Throws: a sentence for the caller.
    package func register(kiteID: String, url: String, username: String) async throws -> (
        url: String, registration: UInt64
    ) {
        try await board.register(kiteID: kiteID, url: url, username: username)
    }

    /// Takes a registration back; a newer one of the same kite stays.
    package func unregister(kiteID: String, registration: UInt64) async {
        await board.unregister(kiteID: kiteID, registration: registration)
    }
}

/// Why a gateway could not start.
package struct GatewayError: Error, Sendable, Hashable, CustomStringConvertible {
    /// A human sentence: what is wrong, and how to mend it where that is known.
    package let description: String
    package init(_ description: String) { self.description = description }
}

/// One route as an operator sees it.
package struct RouteStatus: Sendable, Hashable, Codable {
    /// A name, or a kite id.
    package var name: String
    /// `tunnel`, `direct`, `kite` (a kite that dials back) or `kontrol` (found through Kontrol).
    package var kind: String
    package var owner: String
    /// Where visitors reach it.
    package var publicURL: String
    /// The addresses behind it, or the agent's.
    package var targets: [String]
    /// Lanes of its agent, or targets that are not ejected.
    package var lanes: Int
    package var isServing: Bool

    package init(
        name: String, kind: String, owner: String, publicURL: String, targets: [String], lanes: Int, isServing: Bool
    ) {
        self.name = name
        self.kind = kind
        self.owner = owner
        self.publicURL = publicURL
        self.targets = targets
        self.lanes = lanes
        self.isServing = isServing
    }
}
