/// What an agent's session reports to who displays or logs it.
import KiteHTTP

/// Events of a ``TunnelAgentSession``, in the order in which they happened.
public enum TunnelEvent: Sendable, Hashable {
    /// A connection to the gateway is being made, the `attempt`th in a row, from 1.
    case connecting(attempt: Int)
    /// The gateway serves the session: one grant per tunnel asked for, in that order.
    case connected([TunnelGrant])
    /// A tunnel that was refused for a time has been asked for again: whether it serves now, or why not where the reason is another. `tunnel`: its
    /// position in the list that was asked for.
    case granted(tunnel: Int, TunnelGrant)
    /// The gateway could not be reached, or did not open a session. `retry`: seconds until the next attempt.
    case connectFailed(cause: String, retry: Double)
    /// A lane has a connection. `lanes`: how many have one, of `wanted`.
    case laneUp(lane: Int, lanes: Int, wanted: Int)
    /// A lane lost its connection. `retry`: seconds until the next attempt.
    case laneDown(lane: Int, cause: String, retry: Double)
    /// An attempt to get a lane back has failed. `retry`: seconds until the next.
    case laneRetry(lane: Int, cause: String, retry: Double)
    /// The gateway asked to go elsewhere or come back.
    case goingAway(reason: String)
    /// The gateway refuses; after a final refusal the session ends.
    case refused(TunnelRefusal)
    /// A request passed.
    case note(TunnelNote)
}
