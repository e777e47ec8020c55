/// The admin listener as a service: a socket, an event loop of its own, so that a flood of visitors does not keep an operator from looking.
import KiteCommand
import KiteHTTP
import KiteSupport
import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle

/// Serves an ``AdminSource`` until the task is cancelled or the service group shuts down.
final class AdminService: Service {
    /// Where it listens.
    let address: SocketAddress
    private let listener: Listener
    private let group: MultiThreadedEventLoopGroup
    private let tasks: TaskPool
    private let logger: Logger

    private init(listener: Listener, group: MultiThreadedEventLoopGroup, tasks: TaskPool, logger: Logger) {
        self.listener = listener
        self.group = group
        self.tasks = tasks
        self.logger = logger
        address = listener.address
    }

    /// Binds; what connects waits until ``run()``.
    /// - Throws: ``CommandFailure`` naming the address and the cure.
    /// - Parameter inherited: the sockets of a gateway whose place this one takes; it binds where there are none.
    static func bind(
        _ address: ListenAddress, inherited: [ListeningSocket] = [], source: any AdminSource, logger: Logger
    ) async throws -> AdminService {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let tasks = TaskPool(limit: 64)
        let configuration = Listener.Configuration(
            limiter: ConnectionLimiter(connections: 256, connectionsPerAddress: 256))
        var limits = HTTPLimits()
        limits.bodyBytes = 4096
        let ready = limits
        do {
            let socket = try await address.resolve()
            let onAccept: @Sendable (SocketTransport) -> Void = { transport in
                HTTPServerConnection(
                    transport: transport, acceptor: AdminAcceptor(source: source, tasks: tasks), limits: ready,
                    peer: ExchangePeer(address: transport.remoteAddress, localAddress: transport.localAddress),
                    resources: HTTPLoopResources(eventLoop: transport.eventLoop))
            }
            let loops = Array(group.makeIterator())
            let listener =
                if inherited.isEmpty {
                    try await Listener.bind(to: socket, loops: loops, configuration: configuration, onAccept: onAccept)
                } else {
                    try await Listener.listen(
                        on: inherited, loops: loops, isWaiting: true, configuration: configuration, onAccept: onAccept)
                }
            return AdminService(listener: listener, group: group, tasks: tasks, logger: logger)
        } catch {
            try? await group.shutdownGracefully()
            throw CommandFailure.listening(on: address, key: "admin-listen", error)
        }
    }

    /// What it listens on, for a successor.
    var sockets: [ListeningSocket] { listener.sockets }

    /// The predecessor accepts no more: serves its listener from now on.
    func resume() async { await listener.resume() }

    /// Another process serves the listener now.
    func handedOver() async { await listener.close() }

    func run() async throws {
        logger.info("Admin listener", metadata: ["address": "\(address.ipAddress ?? ""):\(address.port ?? 0)"])
        try await tasks.run()
        await listener.close()
        try? await group.shutdownGracefully()
    }
}

extension ListenAddress {
    /// The socket address of the host.
    func resolve() async throws -> SocketAddress {
        let (host, port) = (host, port)
        return try await NIOThreadPool.singleton.runIfActive {
            try SocketAddress.makeAddressResolvingHost(host, port: port)
        }
    }
}

extension CommandFailure {
    /// Why an address cannot be listened on, and what to do about it.
    static func listening(on address: ListenAddress, key: String, _ error: any Error) -> CommandFailure {
        let reason =
            switch (error as? IOError)?.errnoCode {
            case EADDRINUSE: "another process listens there: stop it, or choose another port with --\(key)"
            case EACCES: "this user may not listen there: choose a port from 1024 upwards, or give CAP_NET_BIND_SERVICE"
            case EADDRNOTAVAIL: "this machine does not have that address: choose another host with --\(key)"
            default: "\(error)"
            }
        return CommandFailure(.failed, "cannot listen on \(address) (\(key)): \(reason)")
    }
}
