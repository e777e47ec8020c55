/// What an agent tells its user: the events of its session with names in place of numbers, as text and as JSON.
import KiteCommand
import KiteTunnel

/// One thing that happened.
enum AgentEvent: Sendable, Hashable {
    case connecting(gateway: String, attempt: Int)
    /// A tunnel serves; sent again when its URL has changed.
    case serving(name: String, url: String, kind: TunnelKind, target: String)
    /// The gateway does not serve a tunnel; `name` is nil when it refuses the whole agent.
    case refused(name: String?, status: Int, reason: String)
    /// The gateway could not be reached, or did not open a session. `retry`: seconds until the next attempt.
    case connectFailed(cause: String, retry: Double)
    case laneUp(lane: Int, lanes: Int, wanted: Int)
    /// A lane is lost. `retry`: seconds until the next attempt.
    case laneDown(lane: Int, cause: String, retry: Double)
    /// An attempt to get a lane back has failed. `retry`: seconds until the next.
    case laneRetry(lane: Int, cause: String, retry: Double)
    case goingAway(reason: String)
    /// A visitor's request passed.
    case request(name: String, method: String, path: String, status: Int, milliseconds: Double)
    /// A target did not accept a connection.
    case targetFailed(name: String, target: String, cause: String)
    case stopped

    /// The value of `event` in JSON.
    var name: String {
        switch self {
        case .connecting: "connecting"
        case .serving: "serving"
        case .refused: "refused"
        case .connectFailed: "connect_failed"
        case .laneUp: "lane_up"
        case .laneDown: "lane_down"
        case .laneRetry: "lane_retry"
        case .goingAway: "going_away"
        case .request: "request"
        case .targetFailed: "target_failed"
        case .stopped: "stopped"
        }
    }

    /// One line of JSON, without the line's end.
    func json(time: String) -> String {
        var json = JSONText()
        json.beginObject()
        json.member("event", name)
        json.member("time", time)
        switch self {
        case .connecting(let gateway, let attempt):
            json.member("gateway", gateway)
            json.member("attempt", attempt)
        case .serving(let name, let url, let kind, let target):
            json.member("name", name)
            json.member("url", url)
            json.member("kind", kind.rawValue)
            json.member("target", target)
        case .refused(let name, let status, let reason):
            json.name("name")
            if let name { json.string(name) } else { json.null() }
            json.member("status", status)
            json.member("reason", reason)
        case .laneUp(let lane, let lanes, let wanted):
            json.member("lane", lane)
            json.member("lanes", lanes)
            json.member("wanted", wanted)
        case .connectFailed(let cause, let retry):
            json.member("cause", cause)
            json.member("retrySeconds", retry)
        case .laneDown(let lane, let cause, let retry), .laneRetry(let lane, let cause, let retry):
            json.member("lane", lane)
            json.member("cause", cause)
            json.member("retrySeconds", retry)
        case .goingAway(let reason): json.member("reason", reason)
        case .request(let name, let method, let path, let status, let milliseconds):
            json.member("name", name)
            json.member("method", method)
            json.member("path", path)
            json.member("status", status)
            json.member("milliseconds", milliseconds)
        case .targetFailed(let name, let target, let cause):
            json.member("name", name)
            json.member("target", target)
            json.member("cause", cause)
        case .stopped: break
        }
        json.endObject()
        return json.text
    }
}

/// Shows events to whoever started the agent.
protocol EventDisplay: Sendable {
    /// Whether each request that passes is to be shown. The gateway tells of requests only where somebody looks: that has its price.
    var showsRequests: Bool { get }

    func show(_ event: AgentEvent)
}
