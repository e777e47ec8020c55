/// The agent: a session with the gateway, a target behind each tunnel, and what its user sees.
import KiteDialing
import KiteHTTP
import KiteTunnel
import Logging
import NIOCore
import ServiceLifecycle
import Synchronization

/// Serves tunnels until it is told to stop.
final class Agent: Service {
    struct Configuration: Sendable {
        /// `http://` or `https://`, without a path.
        var gateway: String
        var tunnels: [TunnelDefinition]
        /// Gives the kite key for each connection, so that a new file is taken up.
        var credential: @Sendable () async throws -> String
        var software: String
    }
    private let configuration: Configuration
    private let session: TunnelAgentSession
    private let display: any EventDisplay

    /// - Parameters:
    ///   - loops: where lanes and targets live.
    ///   - dialLane: connects to the gateway.
    ///   - dialTarget: connects to private services.
    init(
        _ configuration: Configuration, loops: [any EventLoop], dialLane: @escaping LaneDialer,
        dialTarget: @escaping TargetDialer, display: any EventDisplay, logger: Logger
    ) {
        self.configuration = configuration
        self.display = display
        let tunnels = configuration.tunnels
        let failures = FailureNotices(display: display)
        // The display tells what the session would log, with the names of tunnels.
        var sessionLogger = logger
        if logger.logLevel > .debug { sessionLogger.logLevel = .critical }
        session = TunnelAgentSession(
            configuration: TunnelAgentConfiguration(
                gateway: configuration.gateway, tunnels: tunnels.map(\.request), software: configuration.software,
                wantsNotes: display.showsRequests, credential: configuration.credential),
            loops: loops, dialer: dialLane, logger: sessionLogger
        ) { incoming in
            guard tunnels.indices.contains(incoming.tunnel) else {
                return incoming.stream.abort(TransportError(.refused, "The agent has no such tunnel"))
            }
            let tunnel = tunnels[incoming.tunnel]
            let visitor: any ByteTransport =
                if let host = tunnel.hostHeader, tunnel.target.kind != .tcp {
                    HostRewritingTransport(incoming.stream, host: host)
                } else {
                    incoming.stream
                }
            TargetConnector(visitor, endpoints: tunnel.target.endpoints, dial: dialTarget) { cause in
                failures.report(tunnel, cause)
            }
        }
    }

    /// - Throws: ``TunnelRefusal`` when the gateway refuses for good.
    func run() async throws {
        let session = session
        async let ended: Void = session.run()
        var translator = EventTranslator(gateway: configuration.gateway, tunnels: configuration.tunnels)
        for await event in session.events {
            for translated in translator.translate(event) { display.show(translated) }
        }
        display.show(.stopped)
        try await ended
    }
}

/// Turns a session's events into what its user sees.
struct EventTranslator: Sendable {
    let gateway: String
    let tunnels: [TunnelDefinition]
    private var urls: [Int: String] = [:]
    /// Refusals that were told with the name of their tunnel; the session tells each once more.
    private var told: [TunnelRefusal: Int] = [:]

    init(gateway: String, tunnels: [TunnelDefinition]) {
        self.gateway = gateway
        self.tunnels = tunnels
    }

    mutating func translate(_ event: TunnelEvent) -> [AgentEvent] {
        switch event {
        case .connecting(let attempt): return [.connecting(gateway: gateway, attempt: attempt)]
        case .connected(let grants): return zip(tunnels.indices, grants).compactMap { serving($0, $1) }
        case .granted(let position, let grant):
            guard tunnels.indices.contains(position) else { return [] }
            if let refusal = grant.refusal {
                return [
                    .refused(name: tunnels[position].name, status: refusal.status, reason: refusal.reason)
                ]
            }
            return serving(position, grant).map { [$0] } ?? []
        case .connectFailed(let cause, let retry): return [.connectFailed(cause: cause, retry: retry)]
        case .laneUp(let lane, let lanes, let wanted): return [.laneUp(lane: lane, lanes: lanes, wanted: wanted)]
        case .laneDown(let lane, let cause, let retry): return [.laneDown(lane: lane, cause: cause, retry: retry)]
        case .laneRetry(let lane, let cause, let retry): return [.laneRetry(lane: lane, cause: cause, retry: retry)]
        case .goingAway(let reason): return [.goingAway(reason: reason)]
        case .refused(let refusal):
            if let count = told[refusal], count > 0 {
                told[refusal] = count - 1
                return []
            }
            return [.refused(name: nil, status: refusal.status, reason: refusal.reason)]
        case .note(let note):
            guard tunnels.indices.contains(note.tunnel) else { return [] }
            return [
                .request(
                    name: tunnels[note.tunnel].name, method: note.method, path: note.path, status: Int(note.status),
                    milliseconds: Double(note.microseconds) / 1000)
            ]
        }
    }

    private mutating func serving(_ position: Int, _ grant: TunnelGrant) -> AgentEvent? {
        let tunnel = tunnels[position]
        if let refusal = grant.refusal {
            told[refusal, default: 0] += 1
            return .refused(name: tunnel.name, status: refusal.status, reason: refusal.reason)
        }
        guard let url = grant.url, urls.updateValue(url, forKey: position) != url else { return nil }
        return .serving(name: grant.name, url: url, kind: tunnel.target.kind, target: tunnel.target.description)
    }
}

/// Tells of targets that do not accept, but not of each visitor anew.
private final class FailureNotices: Sendable {
    private let display: any EventDisplay
    private let last = Mutex<[String: ContinuousClock.Instant]>([:])

    init(display: any EventDisplay) { self.display = display }

    func report(_ tunnel: TunnelDefinition, _ cause: TransportError) {
        let isNews = last.withLock { last in
            let now = ContinuousClock.now
            if let before = last[tunnel.name], before.duration(to: now) < .seconds(5) { return false }
            last[tunnel.name] = now
            return true
        }
        guard isNews else { return }
        display.show(.targetFailed(name: tunnel.name, target: tunnel.target.description, cause: cause.message))
    }
}
