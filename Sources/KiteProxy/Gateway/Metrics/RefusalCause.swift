/// Why the gateway answered a request itself instead of passing it on.
import KiteHTTP
import KiteTunnel

/// The cause of a refusal; its raw value labels metrics and log lines.
package enum RefusalCause: String, Sendable, CaseIterable, Codable {
    // Routing
    case unknownHost = "unknown_host"
    case unknownKite = "unknown_kite"
    case unknownPath = "unknown_path"
    case loop
    case kontrolUnavailable = "kontrol_unavailable"
    case routesFull = "routes_full"
    // Upstream
    case noLane = "no_lane"
    case parkingFull = "parking_full"
    case upstreamBusy = "upstream_busy"
    case connectFailed = "connect_failed"
    case targetForbidden = "target_forbidden"
    case tunnelRefused = "tunnel_refused"
    case upstreamBroken = "upstream_broken"
    case upstreamInvalid = "upstream_invalid"
    case upstreamSilent = "upstream_silent"
    // The visitor's request
    case malformed
    case headTooLarge = "head_too_large"
    case targetTooLong = "target_too_long"
    case bodyTooLarge = "body_too_large"
    case slowHead = "slow_head"
    case misdirected
    case tooManyConnections = "too_many_connections"
    case methodNotAllowed = "method_not_allowed"
    // Rules of hosts and routes
    case addressDenied = "address_denied"
    case maintenance
    case rateLimited = "rate_limited"
    case originDenied = "origin_denied"
    case passwordRequired = "password_required"
    case passwordsBusy = "passwords_busy"
    // Too little of something
    case shortOfMemory = "short_of_memory"
    case shortOfFiles = "short_of_files"
    // The tunnel door
    case unauthenticated
    case nameTaken = "name_taken"
    case badTunnel = "bad_tunnel"
    case sessionOver = "session_over"
    case superseded
    case tunnelForbidden = "tunnel_forbidden"
    case tunnelLimit = "tunnel_limit"
    case tunnelUnavailable = "tunnel_unavailable"
    case shuttingDown = "shutting_down"

    /// Its place in an array of counters.
    var index: Int { Self.allCases.firstIndex(of: self) ?? 0 }
}

extension RefusalCause {
    init(_ shortage: Shortage) {
        self =
            switch shortage {
            case .memory: .shortOfMemory
            case .descriptors: .shortOfFiles
            }
    }

    /// What an agent's connection was refused for.
    init(session refusal: TunnelRefusal) {
        self =
            switch refusal.status {
            case 404: .sessionOver
            case 409: .superseded
            case 429: .tunnelLimit
            default: .shuttingDown
            }
    }

    /// What one tunnel of an agent was refused for.
    init(tunnel refusal: TunnelRefusal) {
        self =
            switch refusal.status {
            case 403: .tunnelForbidden
            case 409: .nameTaken
            case 429: .tunnelLimit
            default: .tunnelUnavailable
            }
    }

    /// What the engine refused a request for.
    init(_ error: HTTPError) {
        self =
            switch error.code {
            case .headTooLarge, .tooManyFields: .headTooLarge
            case .targetTooLong: .targetTooLong
            case .bodyTooLarge: .bodyTooLarge
            case .slowHead, .slowBody: .slowHead
            case .unsupportedMethod: .methodNotAllowed
            default: .malformed
            }
    }
}
