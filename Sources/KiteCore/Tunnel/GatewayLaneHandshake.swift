/// The gateway's half of a lane's beginning: waits for HELLO on a connection that was just upgraded, and answers it.
package import KiteHTTP
package import NIOCore

/// Reads HELLO under a deadline and a size limit. ``onHello`` is called with it and may answer later, by exactly one of
/// ``accept(_:configuration:delegate:)``, ``resume(_:welcome:peerReceived:)`` and ``refuse(_:)``. Event-loop bound.
package final class GatewayLaneHandshake {
    package let eventLoop: any EventLoop
    /// HELLO has arrived.
    package var onHello: ((GatewayLaneHandshake, AgentHello) -> Void)?
    /// The connection ended, was silent or spoke nonsense before it became a lane; it is closed already.
    package var onFailure: ((TransportError) -> Void)?

    /// Keeps itself alive until it is over. Set the closures before returning to the loop.
    package init(transport: any ByteTransport, timeout: TimeAmount = .seconds(10)) {
        eventLoop = transport.eventLoop
    }

    /// Answers with a WELCOME; the connection is a lane. Nil when the connection has gone.
    package func accept(
        _ welcome: GatewayWelcome, configuration: LaneConfiguration, delegate: any TunnelLaneDelegate
    ) -> TunnelLane? { nil }

    /// Answers with a WELCOME (its ``GatewayWelcome/received`` is filled in) and goes on with a suspended lane of the same loop.
    /// - Parameter peerReceived: From HELLO.
    /// - Returns: Whether the lane has a connection again.
    package func resume(_ lane: TunnelLane, welcome: GatewayWelcome, peerReceived: UInt64) -> Bool { false }

    /// Answers with why not, and closes.
    package func refuse(_ refusal: TunnelRefusal) {}
}
