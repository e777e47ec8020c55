/// A kite that listens by itself.
package import KiteHTTP
import KiteSupport
import Logging
public import NIOCore
import NIOPosix
public import ServiceLifecycle

/// Listens for a kite. Made by ``Kite/listen(host:port:path:routes:)``.
public final class KiteServer: Service {
    /// What the connections of one event loop share; used on that loop only.
    private final class Loop {
        let resources: HTTPLoopResources
        let acceptor: any ExchangeAcceptor
        var connections: [ObjectIdentifier: HTTPServerConnection] = [:]

        init(_ eventLoop: any EventLoop, _ endpoint: KiteEndpoint) {
            resources = HTTPLoopResources(eventLoop: eventLoop)
            acceptor = endpoint.acceptor(on: eventLoop)
        }

        func serve(_ transport: SocketTransport) {
            let peer = ExchangePeer(
                address: transport.remoteAddress, localAddress: transport.channel.localAddress, isSecure: false)
            let connection = HTTPServerConnection(
                transport: transport, acceptor: acceptor, peer: peer, resources: resources
            ) { [weak self] connection, _ in
                self?.connections[ObjectIdentifier(connection)] = nil
            }
            connections[ObjectIdentifier(connection)] = connection
        }

        func drain() {
            for connection in connections.values { connection.drain() }
        }
    }

    /// How long connections may take to end after a shutdown began.
    private static let drainTime = Duration.seconds(2)

    private let endpoint: KiteEndpoint
    private let listener: Listener
    private let loops: [NIOLoopBound<Loop>]
    private let logger: Logger

    private init(endpoint: KiteEndpoint, listener: Listener, loops: [NIOLoopBound<Loop>]) {
        self.endpoint = endpoint
        self.listener = listener
        self.loops = loops
        logger = endpoint.kite.logger
    }

    /// Where it listens.
    public var address: SocketAddress { listener.address }

    /// What it listens on, for a successor in another process.
    package var sockets: [ListeningSocket] { listener.sockets }

    /// The predecessor accepts no more: serves its listeners from now on.
    package func resume() async { await listener.resume() }

    /// The URL by which clients of this machine reach the kite.
    public var url: String {
        let host = address.ipAddress ?? "127.0.0.1"
        return "http://\(host.contains(":") ? "[\(host)]" : host):\(address.port ?? 0)\(endpoint.path)"
    }

    static func listen(
        _ endpoint: KiteEndpoint, host: String, port: Int, inherited: [ListeningSocket]
    ) async throws -> KiteServer {
        let group = MultiThreadedEventLoopGroup.singleton
        var loops: [NIOLoopBound<Loop>] = []
        var byLoop: [ObjectIdentifier: NIOLoopBound<Loop>] = [:]
        for eventLoop in group.makeIterator() {
            let loop = try await eventLoop.submit { NIOLoopBound(Loop(eventLoop, endpoint), eventLoop: eventLoop) }
                .get()
            loops.append(loop)
            byLoop[ObjectIdentifier(eventLoop)] = loop
        }
        let logger = endpoint.kite.logger
        let configuration = Listener.Configuration(
            limiter: ConnectionLimiter(
                connections: endpoint.kite.configuration.limits.maximumConnections, connectionsPerAddress: 16_384))
        let table = byLoop
        let onEvent: @Sendable (Listener.Event) -> Void = { event in
            switch event {
            case .refused(let address, _):
                logger.notice(
                    "Refused a connection: too many are open",
                    metadata: ["peer": "\(address.map { "\($0)" } ?? "unknown")"])
            case .acceptFailed(let error):
                logger.error("Cannot accept a connection", metadata: ["error": "\(error)"])
            case .handshakeFailed, .proxyHeaderFailed: break
            }
        }
        let onAccept: @Sendable (SocketTransport) -> Void = { transport in
            table[ObjectIdentifier(transport.eventLoop)]?.value.serve(transport)
        }
        let eventLoops = Array(group.makeIterator())
        let listener =
            if inherited.isEmpty {
                try await Listener.bind(
                    to: SocketAddress.makeAddressResolvingHost(host, port: port), loops: eventLoops,
                    configuration: configuration, onEvent: onEvent, onAccept: onAccept)
            } else {
                try await Listener.listen(
                    on: inherited, loops: eventLoops, isWaiting: true, configuration: configuration, onEvent: onEvent,
                    onAccept: onAccept
                )
            }
        return KiteServer(endpoint: endpoint, listener: listener, loops: loops)
    }

    /// Serves until the task is cancelled or the service group shuts down; then stops listening, closes the sessions and waits a little
    /// for what is on its way.
    public func run() async throws {
        logger.info("The kite listens", metadata: ["url": "\(url)", "id": "\(endpoint.kite.identity.id)"])
        let outcome: Result<Void, any Error>
        do { outcome = .success(try await endpoint.run()) } catch { outcome = .failure(error) }
        await listener.close()
        for loop in loops { loop.eventLoop.execute { loop.value.drain() } }
        let end = ContinuousClock.now + Self.drainTime
        while listener.connectionCount > 0, ContinuousClock.now < end, !Task.isCancelled {
            try? await Task.sleep(for: .milliseconds(10))
        }
        try outcome.get()
    }
}

extension Kite: Service {
    /// Listens for connections. They are served once ``KiteServer/run()`` is called.
    /// - Parameters:
    ///   - host: a name or an IP address of this machine; that of the configuration where nil.
    ///   - port: 0 for any that is free; that of the configuration where nil.
    ///   - path: the path below which the kite is reached.
    ///   - routes: answers exchanges for other paths.
    /// - Throws: when the address does not exist or is taken.
    public func listen(
        host: String? = nil, port: Int? = nil, path: String = "/kite", routes: KiteEndpoint.Routes? = nil
    ) async throws -> KiteServer {
        try await KiteServer.listen(
            KiteEndpoint(kite: self, path: path, routes: routes), host: host ?? configuration.host,
            port: port ?? configuration.port, inherited: [])
    }

    /// Listens on the sockets of a predecessor in another process; binds where there are none.
    package func listen(
        host: String, port: Int, inherited: [ListeningSocket], routes: KiteEndpoint.Routes?
    ) async throws -> KiteServer {
        try await KiteServer.listen(
            KiteEndpoint(kite: self, routes: routes), host: host, port: port, inherited: inherited)
    }

    /// Listens where the configuration says and serves until the task is cancelled or the service group shuts down.
    public func run() async throws { try await listen().run() }
}
