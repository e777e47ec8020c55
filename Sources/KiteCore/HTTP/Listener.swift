/// Accepts connections: one listening socket per event loop, so that a connection lives its whole life on the loop that accepted
/// it.
public import NIOCore
import NIOPosix
import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// Listens on one address with all event loops and makes a ``SocketTransport`` of each connection.
public final class Listener: Sendable {
    /// How a listener behaves.
    public struct Configuration: Sendable {
        /// Connections that the system queues until they are accepted, per event loop.
        public var backlog: Int32 = 4096
        /// How many connections may be open; more are closed at once. Give several listeners the same one to have their connections counted
        /// together.
        public var limiter: ConnectionLimiter
        /// What may wait in a connection to be written.
        public var waterMarks = SocketTransport.WaterMarks()
        /// Whether each event loop gets a socket of its own for the port (SO_REUSEPORT), which spreads connections evenly. Other
        /// processes of the same user may bind the port then, too: no for ports that must belong to one listener alone.
        public var sharesPort = true
        /// Adds TLS to the pipeline of an accepted connection, on its loop. The connection is handed on when the handshake is over.
        public var addSecurity: (@Sendable (any Channel) throws -> Void)?
        /// How long a TLS handshake may take; the connection is closed then.
        public var handshakeTimeout = TimeAmount.seconds(10)
        /// Whether connections from an address begin with a header of the PROXY protocol, which must be there within
        /// ``handshakeTimeout``. The address in it counts as the connection's.
        public var expectsProxyHeader: (@Sendable (SocketAddress) -> Bool)?

        /// - Parameter limiter: nil: one of its own, with 100,000 connections in all and 16,384 from one address.
        public init(limiter: ConnectionLimiter? = nil) {
            self.limiter = limiter ?? ConnectionLimiter(connections: 100_000, connectionsPerAddress: 16_384)
        }
    }

    /// What an operator wants to know of.
    public enum Event: Sendable {
        /// A connection was closed at once: too many in all, or from this address.
        case refused(SocketAddress?, perAddress: Bool)
        /// Accepting failed, such as for lack of file descriptors; it goes on after a pause.
        case acceptFailed(any Error)
        /// A TLS handshake came to nothing, and the connection was closed; the error is nil when it took too long.
        case handshakeFailed(SocketAddress?, (any Error)?)
        /// A load balancer's connection did not begin with a header of the PROXY protocol, and was closed; the error is nil when it took
        /// too long.
        case proxyHeaderFailed(SocketAddress?, (any Error)?)
    }

    /// Where it listens.
    public let address: SocketAddress
    private let channels: [any Channel]
    private let openCount: OpenCount
    private let held: Mutex<[ListeningSocket]>

    private init(address: SocketAddress, channels: [any Channel], openCount: OpenCount, sockets: [ListeningSocket]) {
        self.address = address
        self.channels = channels
        self.openCount = openCount
        held = Mutex(sockets)
    }

    /// Open connections that were accepted here.
    public var connectionCount: Int { openCount.value.load(ordering: .relaxed) }

    /// What it listens on, for a successor; empty for UNIX sockets, and once it is closed.
    public var sockets: [ListeningSocket] { held.withLock { $0 } }

    /// Binds and accepts.
    /// - Parameters:
    ///   - address: port 0 lets the system choose; a UNIX socket is served by the first loop only.
    ///   - onAccept: called on the connection's loop before anything arrives; it must set the transport's delegate. With TLS the handshake
    ///     is over by then.
    ///   - onEvent: called on some loop.
    /// - Throws: `IOError` when the address cannot be bound.
    public static func bind(
        to address: SocketAddress, loops: [any EventLoop], configuration: Configuration = Configuration(),
        onEvent: @escaping @Sendable (Event) -> Void = { _ in }, onAccept: @escaping @Sendable (SocketTransport) -> Void
    ) async throws -> Listener {
        if case .unixDomainSocket = address {
            let openCount = OpenCount()
            let channel = try await bootstrap(loops[0], configuration, openCount, onEvent, onAccept)
                .bind(to: address).get()
            return Listener(address: address, channels: [channel], openCount: openCount, sockets: [])
        }
        var sockets: [ListeningSocket] = []
        for _ in configuration.sharesPort ? loops : Array(loops.prefix(1)) {
            // The first one finds the port where the system chooses; the others share it.
            sockets.append(
                try ListeningSocket.bind(to: sockets.first?.address ?? address, isShared: configuration.sharesPort))
        }
        return try await listen(
            on: sockets, loops: loops, configuration: configuration, onEvent: onEvent, onAccept: onAccept)
    }

    /// Accepts on sockets that are bound already, such as those of a predecessor of this process.
    /// - Parameters:
    ///   - sockets: at least one, all bound to one address. Loops that get none have one bound for them where the port is shared.
    ///   - isWaiting: whether nobody is accepted before ``resume()``: of two that accept from one socket one would come too late.
    /// - Throws: `IOError`.
    public static func listen(
        on sockets: [ListeningSocket], loops: [any EventLoop], isWaiting: Bool = false,
        configuration: Configuration = Configuration(),
        onEvent: @escaping @Sendable (Event) -> Void = { _ in }, onAccept: @escaping @Sendable (SocketTransport) -> Void
    ) async throws -> Listener {
        guard let address = sockets.first?.address, !loops.isEmpty else { throw ChannelError.unknownLocalAddress }
        let openCount = OpenCount()
        var sockets = sockets
        if configuration.sharesPort {
            while sockets.count < loops.count { sockets.append(try ListeningSocket.bind(to: address, isShared: true)) }
        }
        var channels: [any Channel] = []
        do {
            for (index, socket) in sockets.enumerated() {
                let channel = try await bootstrap(
                    loops[index % loops.count], configuration, openCount, onEvent, onAccept
                ).serverChannelOption(.autoRead, value: !isWaiting).withBoundSocket(socket.duplicate()).get()
                channels.append(channel)
            }
        } catch {
            for channel in channels { channel.close(promise: nil) }
            throw error
        }
        return Listener(address: address, channels: channels, openCount: openCount, sockets: sockets)
    }

    private static func bootstrap(
        _ loop: any EventLoop, _ configuration: Configuration, _ openCount: OpenCount,
        _ onEvent: @escaping @Sendable (Event) -> Void, _ onAccept: @escaping @Sendable (SocketTransport) -> Void
    ) -> ServerBootstrap {
        let limiter = configuration.limiter
        return ServerBootstrap(group: loop, childGroup: loop)
            .serverChannelOption(.backlog, value: configuration.backlog)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(AcceptErrorHandler(onEvent))
                }
            }
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let peer = channel.remoteAddress
                    let isForwarded = peer.map { configuration.expectsProxyHeader?($0) ?? false } ?? false
                    // The load balancer's own address has no limit.
                    let admission = try admit(isForwarded ? nil : peer, limiter, onEvent)
                    openCount.value.add(1, ordering: .relaxed)
                    guard isForwarded else {
                        channel.closeFuture.whenComplete { _ in
                            openCount.value.subtract(1, ordering: .relaxed)
                            limiter.leave(admission)
                        }
                        return try begin(channel, peer, configuration, onEvent, onAccept)
                    }
                    let held = NIOLoopBoundBox(admission, eventLoop: channel.eventLoop)
                    channel.closeFuture.whenComplete { _ in
                        openCount.value.subtract(1, ordering: .relaxed)
                        limiter.leave(held.value)
                    }
                    try awaitProxyHeader(on: channel, configuration, onEvent) { source in
                        if let source {
                            let counted = try admit(source, limiter, onEvent)
                            limiter.leave(held.value)
                            held.value = counted
                        }
                        try begin(channel, source ?? peer, configuration, onEvent, onAccept)
                    }
                }
            }
    }

    private static func admit(
        _ address: SocketAddress?, _ limiter: ConnectionLimiter, _ onEvent: @Sendable (Event) -> Void
    ) throws -> ConnectionLimiter.Admission {
        do throws(ConnectionLimiter.Refusal) {
            return try limiter.enter(address)
        } catch {
            onEvent(.refused(address, perAddress: error == .tooManyFromAddress))
            throw error
        }
    }

    /// Hands the connection on, after its handshake where it has one.
    private static func begin(
        _ channel: any Channel, _ peer: SocketAddress?, _ configuration: Configuration,
        _ onEvent: @escaping @Sendable (Event) -> Void, _ onAccept: @escaping @Sendable (SocketTransport) -> Void
    ) throws {
        guard let addSecurity = configuration.addSecurity else {
            return onAccept(
                try SocketTransport.install(on: channel, marks: configuration.waterMarks, peerAddress: peer))
        }
        try addSecurity(channel)
        try awaitHandshake(on: channel, peer, configuration, onEvent, onAccept)
    }

    /// - Parameter onHeader: gets the address of who connected to the load balancer, where it is said.
    private static func awaitProxyHeader(
        on channel: any Channel, _ configuration: Configuration, _ onEvent: @escaping @Sendable (Event) -> Void,
        _ onHeader: @escaping (SocketAddress?) throws -> Void
    ) throws {
        let handler = ProxyHeaderHandler(timeout: configuration.handshakeTimeout) { outcome in
            switch outcome {
            case .header(let header):
                do { try onHeader(header.source) } catch { channel.close(promise: nil) }
            case .failed(let error): onEvent(.proxyHeaderFailed(channel.remoteAddress, error))
            }
        }
        try channel.pipeline.syncOperations.addHandler(handler)
    }

    /// Hands the connection on once TLS is set up.
    private static func awaitHandshake(
        on channel: any Channel, _ peer: SocketAddress?, _ configuration: Configuration,
        _ onEvent: @escaping @Sendable (Event) -> Void,
        _ onAccept: @escaping @Sendable (SocketTransport) -> Void
    ) throws {
        let handler = HandshakeHandler(timeout: configuration.handshakeTimeout) { handler, outcome in
            switch outcome {
            case .completed(let negotiated, let security):
                do {
                    let transport = try SocketTransport.install(
                        on: channel, marks: configuration.waterMarks, isSecure: true, peerAddress: peer)
                    transport.negotiatedProtocol = negotiated
                    transport.security = security
                    channel.pipeline.syncOperations.removeHandler(handler, promise: nil)
                    onAccept(transport)
                } catch {
                    channel.close(promise: nil)
                }
            case .failed(let error): onEvent(.handshakeFailed(peer, error))
            case .timedOut: onEvent(.handshakeFailed(peer, nil))
            }
        }
        try channel.pipeline.syncOperations.addHandler(handler)
    }

    /// Accepts from now on, when ``listen(on:loops:isWaiting:configuration:onEvent:onAccept:)`` was told to wait. Who has connected
    /// meanwhile is in the system's queue.
    public func resume() async {
        for channel in channels { try? await channel.setOption(.autoRead, value: true).get() }
    }

    /// Stops accepting; connections that are open stay. Who connects from now on is refused, unless another process holds the sockets.
    public func close() async {
        held.withLock { $0 = [] }
        for channel in channels { try? await channel.close().get() }
    }
}

/// Connections of one listener that are open.
private final class OpenCount: Sendable {
    let value = Atomic<Int>(0)
}

/// Reports what goes wrong with accepting; NIO itself pauses and goes on.
private final class AcceptErrorHandler: ChannelInboundHandler {
    typealias InboundIn = any Channel
    private let onEvent: @Sendable (Listener.Event) -> Void

    init(_ onEvent: @escaping @Sendable (Listener.Event) -> Void) { self.onEvent = onEvent }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        onEvent(.acceptFailed(error))
        context.fireErrorCaught(error)
    }
}
