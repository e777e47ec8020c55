/// A lane of an agent's session, seen from its event loop; what happens to it goes to the task that keeps it up.
import KiteHTTP
import KiteSupport
import NIOCore

/// What an agent's lane tells the task that keeps it up.
enum AgentLaneSignal: Sendable {
    /// The connection is lost, the lane waits.
    case suspended(String)
    case goAway(TunnelGoAway)
    /// The lane is over.
    case closed(String)
}

/// Event-loop bound.
final class AgentLane: TunnelLaneDelegate {
    private(set) var lane: TunnelLane?
    private let signals: AsyncStream<AgentLaneSignal>.Continuation
    private let onNote: @Sendable (TunnelNote) -> Void
    private let onStream: @Sendable (IncomingTunnelStream) -> Void
    /// The session's tunnels, as positions among all of the agent.
    private let tunnels: [Int]
    private let closed: EventLoopPromise<Void>
    private var isLetGo = false

    init(
        _ connection: EstablishedConnection, wheel: TimerWheel, tunnels: [Int],
        signals: AsyncStream<AgentLaneSignal>.Continuation, onNote: @escaping @Sendable (TunnelNote) -> Void,
        onStream: @escaping @Sendable (IncomingTunnelStream) -> Void
    ) {
        self.signals = signals
        self.onNote = onNote
        self.onStream = onStream
        self.tunnels = tunnels
        closed = connection.transport.eventLoop.makePromise()
        var configuration = LaneConfiguration()
        configuration.maximumStreams = connection.welcome.maximumStreams
        configuration.pingInterval = .milliseconds(Int64(min(connection.welcome.pingInterval, 60_000)))
        configuration.resumeWindow = .milliseconds(Int64(min(max(connection.welcome.resumeWindow, 0), 600_000)))
        lane = TunnelLane(
            transport: connection.transport, role: .agent, configuration: configuration, wheel: wheel,
            received: connection.rest, delegate: self)
    }

    /// Goes on over a new connection.
    /// - Returns: false when the lane is over.
    func resume(_ connection: EstablishedConnection) -> Bool {
        guard let lane, !lane.isClosed, let received = connection.welcome.received else {
            connection.transport.abort(TransportError(.cancelled, "the lane is over"))
            return false
        }
        do {
            try lane.resume(over: connection.transport, peerReceived: received, received: connection.rest)
            return true
        } catch {
            return false
        }
    }

    /// Takes no more streams, lets those that run finish for a while, then closes. The future succeeds at the end.
    func drain(within time: TimeAmount, reason: String) -> EventLoopFuture<Void> {
        guard let lane, !lane.isClosed else { return closed.futureResult }
        lane.goAway(TunnelGoAway(reason: reason))
        lane.eventLoop.assumeIsolated().scheduleTask(in: time) { lane.close() }
        if !lane.isConnected { lane.close() }
        return closed.futureResult
    }

    /// Nobody resumes the lane from now on: its streams finish over the connection that it has, and fail with it.
    func letGo() {
        isLetGo = true
        if let lane, !lane.isConnected { abort(TransportError(.laneLost, "the gateway went away")) }
    }

    func abort(_ reason: TransportError) { lane?.abort(reason) }

    // MARK: TunnelLaneDelegate

    func laneAccepted(_ lane: TunnelLane, stream: TunnelStream, opening: StreamOpening) {
        guard tunnels.indices.contains(Int(opening.tunnel)) else {
            return stream.abort(TransportError(.refused, "the agent has no tunnel \(opening.tunnel)"))
        }
        onStream(IncomingTunnelStream(stream: stream, tunnel: tunnels[Int(opening.tunnel)], opening: opening))
    }

    func laneReceived(_ lane: TunnelLane, goAway: TunnelGoAway) { signals.yield(.goAway(goAway)) }

    func laneReceived(_ lane: TunnelLane, note: TunnelNote) {
        guard tunnels.indices.contains(note.tunnel) else { return }
        var note = note
        note.tunnel = tunnels[note.tunnel]
        onNote(note)
    }

    func laneSuspended(_ lane: TunnelLane, cause: TransportError) {
        if isLetGo { return lane.abort(cause) }
        signals.yield(.suspended(cause.message))
    }

    func laneClosed(_ lane: TunnelLane, error: TransportError?) {
        self.lane = nil
        signals.yield(.closed(error?.message ?? "the lane was closed"))
        signals.finish()
        closed.succeed()
    }
}
