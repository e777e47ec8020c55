/// One connection between a gateway and an agent that carries many streams; it outlives the loss of its connection.
package import KiteHTTP
package import NIOCore

/// What a lane allows and how patient it is.
package struct LaneConfiguration: Sendable {
    /// The most streams the peer may have open at a time.
    package var maximumStreams = 8_192
    /// The most bytes of credit one stream is given, in bytes; auto-tuning starts at ``TunnelWire/initialWindow``.
    package var maximumStreamWindow = 16 << 20
    /// What all streams of the lane may hold unconsumed before those that hold most are reset, and what auto-tuning shares out, in bytes.
    package var receiveBudget = 64 << 20
    /// How much a stream queues before it stops being writable, in bytes.
    package var streamHighWater = 128 << 10
    /// The most bytes kept until the peer has acknowledged them; then no more data is sent. At least 1 MiB.
    package var resumeLogLimit = 32 << 20
    /// Time between pings, and how long an answer may take.
    package var pingInterval = TimeAmount.seconds(5)
    /// So many unanswered pings in a row and the connection counts as dead.
    package var pingMisses = 2
    /// How long a lane without connection waits to be resumed; zero: it is closed at once.
    package var resumeWindow = TimeAmount.seconds(30)

    package init() {}
}

/// What a lane has done so far.
package struct LaneStatistics: Sendable, Hashable {
    package var openStreams = 0
    package var openedStreams: UInt64 = 0
    /// Bytes of frames, both kinds, without replays.
    package var bytesReceived: UInt64 = 0
    package var bytesSent: UInt64 = 0
    /// The smoothed round-trip time; nil before the first PONG.
    package var roundTripTime: TimeAmount?
    /// How often the lane went on over a new connection.
    package var resumptions: UInt64 = 0

    package init() {}
}

/// Is told what happens on a lane, on the lane's event loop.
package protocol TunnelLaneDelegate: AnyObject {
    /// The peer opened a stream. Set its delegate before returning, or `abort` it with `.refused`.
    func laneAccepted(_ lane: TunnelLane, stream: TunnelStream, opening: StreamOpening)
    /// The peer will accept no more streams.
    func laneReceived(_ lane: TunnelLane, goAway: TunnelGoAway)
    /// A request passed (agent only, when asked for).
    func laneReceived(_ lane: TunnelLane, note: TunnelNote)
    /// The connection is lost; streams wait for ``TunnelLane/resume(over:peerReceived:received:)`` until the window ends.
    func laneSuspended(_ lane: TunnelLane, cause: TransportError)
    /// The last call. `error` is nil after ``TunnelLane/close()`` on this side or the peer's orderly end.
    func laneClosed(_ lane: TunnelLane, error: TransportError?)
}

/// Event-loop bound: every member must be used on ``eventLoop``.
package final class TunnelLane {
    package enum Role: Sendable { case gateway, agent }

    package let eventLoop: any EventLoop
    package let role: Role

    /// - Parameters:
    ///   - transport: The connection, after HELLO and WELCOME; the lane becomes its delegate.
    ///   - received: Bytes that came with the handshake and belong to the lane.
    ///   - delegate: Held strongly until the lane has closed.
    package init(
        transport: any ByteTransport, role: Role, configuration: LaneConfiguration, received: ByteBuffer? = nil,
        delegate: any TunnelLaneDelegate
    ) {
        eventLoop = transport.eventLoop
        self.role = role
    }

    /// What the lane has done so far.
    package var statistics: LaneStatistics { LaneStatistics() }
    /// Whether ``openStream(_:)`` may be called: not closed, not going away, below the peer's limit.
    /// A suspended lane accepts streams; they wait for the connection.
    package var acceptsStreams: Bool { false }
    /// Whether there is a connection.
    package var isConnected: Bool { false }
    /// How many sequenced frames have been received; said when resuming.
    package var receivedCount: UInt64 { 0 }

    /// Opens a stream; it can be written to at once.
    /// - Throws: `.goingAway`, `.laneLost` or `.limitExceeded`.
    package func openStream(_ opening: StreamOpening) throws(TransportError) -> TunnelStream {
        throw TransportError(.laneLost, "not yet")
    }

    /// Tells the agent that a request has passed; dropped when the lane is busy.
    package func send(_ note: TunnelNote) {}

    /// Tells the peer to open no more streams here. The lane closes once the last has ended.
    package func goAway(_ message: TunnelGoAway) {}

    /// Resets what runs with `.goingAway`, sends it and closes.
    package func close() {}

    /// Drops the connection and fails all streams with `reason`; not resumed.
    package func abort(_ reason: TransportError) {}

    /// Goes on over a new connection, on the same event loop, after HELLO and WELCOME: replays what the peer has not seen. A connection that is
    /// still there is dropped.
    /// - Throws: `.laneLost` when the lane is closed, `.protocolViolation` when `peerReceived` can't be.
    package func resume(
        over transport: any ByteTransport, peerReceived: UInt64, received: ByteBuffer? = nil
    ) throws(TransportError) {}
}
