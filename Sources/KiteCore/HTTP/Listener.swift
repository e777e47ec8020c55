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
        /// Adds TLS (or something else that turns bytes into bytes) to the pipeline of an accepted connection, on its loop.
        public var addSecurity: (@Sendable (any Channel) throws -> Void)?

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
    }

    /// Where it listens.
    public let address: SocketAddress
    private let channels: [any Channel]
    private let openCount: OpenCount

    private init(address: SocketAddress, channels: [any Channel], openCount: OpenCount) {
        self.address = address
        self.channels = channels
        self.openCount = openCount
    }

    /// Open connections that were accepted here.
    public var connectionCount: Int { openCount.value.load(ordering: .relaxed) }

    /// Binds and accepts.
    /// - Parameters:
    ///   - address: port 0 lets the system choose; a UNIX socket is served by the first loop only.
    ///   - onAccept: called on the connection's loop before anything arrives; it must set the transport's delegate.
    ///   - onEvent: called on some loop.
    /// - Throws: `IOError` when the address cannot be bound.
    public static func bind(
        to address: SocketAddress, loops: [any EventLoop], configuration: Configuration = Configuration(),
        onEvent: @escaping @Sendable (Event) -> Void = { _ in }, onAccept: @escaping @Sendable (SocketTransport) -> Void
    ) async throws -> Listener {
        let openCount = OpenCount()
        var channels: [any Channel] = []
        var bound = address
        let isInternet: Bool
        if case .unixDomainSocket = address { isInternet = false } else { isInternet = true }
        do {
            for loop in isInternet ? loops : Array(loops.prefix(1)) {
                let channel = try await bootstrap(
                    loop, isInternet: isInternet, configuration, openCount, onEvent, onAccept
                ).bind(to: bound).get()
                channels.append(channel)
                if isInternet, let local = channel.localAddress { bound = local }
            }
        } catch {
            for channel in channels { channel.close(promise: nil) }
            throw error
        }
        return Listener(address: bound, channels: channels, openCount: openCount)
    }

    private static func bootstrap(
        _ loop: any EventLoop, isInternet: Bool, _ configuration: Configuration, _ openCount: OpenCount,
        _ onEvent: @escaping @Sendable (Event) -> Void, _ onAccept: @escaping @Sendable (SocketTransport) -> Void
    ) -> ServerBootstrap {
        let limiter = configuration.limiter
        let bootstrap = ServerBootstrap(group: loop, childGroup: loop)
            .serverChannelOption(.backlog, value: configuration.backlog)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: isInternet ? 1 : 0)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(AcceptErrorHandler(onEvent))
                }
            }
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let peer = channel.remoteAddress
                    let admission: ConnectionLimiter.Admission
                    do throws(ConnectionLimiter.Refusal) {
                        admission = try limiter.enter(peer)
                    } catch {
                        onEvent(.refused(peer, perAddress: error == .tooManyFromAddress))
                        throw error
                    }
                    openCount.value.add(1, ordering: .relaxed)
                    channel.closeFuture.whenComplete { _ in
                        openCount.value.subtract(1, ordering: .relaxed)
                        limiter.leave(admission)
                    }
                    try configuration.addSecurity?(channel)
                    let transport = try SocketTransport.install(
                        on: channel, marks: configuration.waterMarks, isSecure: configuration.addSecurity != nil)
                    onAccept(transport)
                }
            }
        guard isInternet else { return bootstrap }
        return
            bootstrap
            .serverChannelOption(ChannelOptions.socket(SocketOptionLevel(SOL_SOCKET), SO_REUSEPORT), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
    }

    /// Stops accepting; connections that are open stay.
    public func close() async {
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
