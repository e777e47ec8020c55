/// How lanes get their connections outside of tests: with a ``Dialer``, on the loops of a group.
public import KiteDialing
public import KiteHTTP
public import Logging
public import NIOCore
import NIOPosix

/// Makes a connection on an event loop: TCP, TLS where the endpoint says so, through a proxy where the environment says so.
package typealias LaneDialer =
    @Sendable (_ endpoint: Endpoint, _ eventLoop: any EventLoop) async throws -> NIOLoopBound<any ByteTransport>

extension TunnelAgentSession {
    /// - Parameters:
    ///   - dialer: Connects to the gateway.
    ///   - group: Where lanes live, one per loop in turn; nil: the process's shared group.
    ///   - onStream: Called on the stream's loop for each visitor's connection.
    public convenience init(
        configuration: TunnelAgentConfiguration, dialer: Dialer, group: (any EventLoopGroup)? = nil,
        logger: Logger = Logger(label: "tunnel"), onStream: @escaping @Sendable (IncomingTunnelStream) -> Void
    ) {
        self.init(
            configuration: configuration, loops: eventLoops(of: group), dialer: laneDialer(dialer), logger: logger,
            onStream: onStream)
    }
}

extension EmbeddedTunnel {
    /// - Parameters:
    ///   - configuration: The gateway and the tunnels; streams of tunnels of kind `tcp` are refused.
    ///   - dialer: Connects to the gateway.
    ///   - group: Where lanes live, one per loop in turn; nil: the process's shared group.
    ///   - acceptor: Makes what answers the exchanges of one loop; called on it, once for each.
    public convenience init(
        configuration: TunnelAgentConfiguration, dialer: Dialer, group: (any EventLoopGroup)? = nil,
        logger: Logger = Logger(label: "tunnel"),
        acceptor: @escaping @Sendable (any EventLoop) -> any ExchangeAcceptor
    ) {
        self.init(
            configuration: configuration, loops: eventLoops(of: group), dialer: laneDialer(dialer), logger: logger,
            acceptor: acceptor)
    }
}

private func eventLoops(of group: (any EventLoopGroup)?) -> [any EventLoop] {
    let group = group ?? MultiThreadedEventLoopGroup.singleton
    return Array(group.makeIterator())
}

/// A dialler that gives up waiting at once when its task is cancelled; a connection that comes later is dropped.
package func laneDialer(_ dialer: Dialer) -> LaneDialer {
    { endpoint, loop in
        let promise = loop.makePromise(of: NIOLoopBound<any ByteTransport>.self)
        let isOver = NIOLoopBoundBox<Bool>.makeBoxSendingValue(false, eventLoop: loop)
        return try await withTaskCancellationHandler {
            loop.execute {
                guard !isOver.value else { return }
                dialer.dial(endpoint, on: loop) { result in
                    guard !isOver.value else {
                        if case .success(let transport) = result {
                            transport.abort(TransportError(.cancelled, "no longer wanted"))
                        }
                        return
                    }
                    isOver.value = true
                    switch result {
                    case .success(let transport): promise.succeed(NIOLoopBound(transport, eventLoop: loop))
                    case .failure(let error): promise.fail(error)
                    }
                }
            }
            return try await promise.futureResult.get()
        } onCancel: {
            loop.execute {
                guard !isOver.value else { return }
                isOver.value = true
                promise.fail(CancellationError())
            }
        }
    }
}
