/// A tunnel inside the process that it leads to: a Swift kite is reached through a gateway without listening anywhere.
package import KiteHTTP
import KiteSupport
package import Logging
package import NIOCore
public import ServiceLifecycle

/// Serves visitors' exchanges straight from the lanes of a ``TunnelAgentSession``.
public final class EmbeddedTunnel: Service {
    /// What happens, for one consumer. The oldest events are dropped beyond 1,024. Ends with ``run()``.
    public var events: AsyncStream<TunnelEvent> { session.events }

    private let session: TunnelAgentSession

    /// What the streams of one loop share.
    private final class LoopState {
        let acceptor: any ExchangeAcceptor
        let resources: HTTPLoopResources

        init(acceptor: any ExchangeAcceptor, eventLoop: any EventLoop) {
            self.acceptor = acceptor
            resources = HTTPLoopResources(eventLoop: eventLoop)
        }
    }

    /// - Parameters:
    ///   - configuration: The gateway and the tunnels; tunnels of kind `tcp` are refused by this type.
    ///   - loops: Where lanes live, in turn; at least one.
    ///   - acceptor: Makes what answers the exchanges of one loop; called on it, once for each.
    package init(
        configuration: TunnelAgentConfiguration, loops: [any EventLoop], dialer: @escaping LaneDialer, logger: Logger,
        acceptor: @escaping @Sendable (any EventLoop) -> any ExchangeAcceptor
    ) {
        let states = loops.map { NIOLoopBoundBox<LoopState?>.makeEmptyBox(eventLoop: $0) }
        session = TunnelAgentSession(configuration: configuration, loops: loops, dialer: dialer, logger: logger) {
            incoming in
            let loop = incoming.stream.eventLoop
            guard incoming.opening.kind != .tcp, let position = loops.firstIndex(where: { $0 === loop }) else {
                return incoming.stream.abort(TransportError(.refused, "only HTTP is served here"))
            }
            let state = states[position].value ?? LoopState(acceptor: acceptor(loop), eventLoop: loop)
            states[position].value = state
            // The gateway in between is believed: the agent chose it.
            var peer = ExchangePeer(
                address: incoming.clientAddress, isSecure: incoming.isSecure, isTrustedProxy: true)
            peer.isGateway = true
            HTTPServerConnection(
                transport: incoming.stream, acceptor: state.acceptor, peer: peer, resources: state.resources)
        }
    }

    /// Runs until the task is cancelled or the service group shuts down.
    /// - Throws: ``TunnelRefusal`` when trying again is of no use.
    public func run() async throws { try await session.run() }
}
