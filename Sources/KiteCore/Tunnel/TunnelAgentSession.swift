/// The agent's side of the tunnel: keeps its tunnels up for as long as it runs.
import KiteHTTP
import KiteSupport
package import Logging
package import NIOCore
public import ServiceLifecycle

/// An agent: opens a session with a gateway and one lane per loop of it, resumes lanes whose connection is lost, reconnects with
/// full-jitter back-off for ever, and follows a gateway that goes away.
///
/// Tunnels that the gateway refuses for a time while it serves others get a session of their own, so that asking for them again does
/// not disturb those others.
public final class TunnelAgentSession: Service {
    /// What happens, for one consumer. The oldest events are dropped beyond 1,024. Ends with ``run()``.
    public var events: AsyncStream<TunnelEvent> { reports.events }

    private let configuration: TunnelAgentConfiguration
    private let loops: [any EventLoop]
    private let connector: AgentConnector
    private let reports: AgentReports
    private let logger: Logger
    private let onStream: @Sendable (IncomingTunnelStream) -> Void

    /// - Parameters:
    ///   - loops: Where lanes live, in turn; at least one.
    ///   - onStream: Called on the stream's loop.
    package init(
        configuration: TunnelAgentConfiguration, loops: [any EventLoop], dialer: @escaping LaneDialer, logger: Logger,
        onStream: @escaping @Sendable (IncomingTunnelStream) -> Void
    ) {
        self.configuration = configuration
        self.loops = loops
        self.logger = logger
        self.onStream = onStream
        connector = AgentConnector(configuration, dialer: dialer)
        reports = AgentReports(configuration.tunnels)
    }

    /// Runs until the task is cancelled or the service group shuts down; then lets streams finish for
    /// ``TunnelAgentConfiguration/drainTime``.
    /// - Throws: ``TunnelRefusal`` when trying again is of no use, or before connecting when the configuration is wrong.
    public func run() async throws {
        defer { reports.finish() }
        let home = try GatewayAddress(url: configuration.gateway)
        try configuration.check()
        guard !loops.isEmpty else { throw TunnelRefusal(status: 400, reason: "no event loop was given") }
        try await cancelWhenGracefulShutdown { try await self.keepGroups(home) }
    }

    /// What groups of tunnels tell the task that runs them.
    private enum Message: Sendable {
        /// Refused for a time; not before so long.
        case split([Int], after: Duration)
        /// A group has ended: by a final refusal, or since the task was cancelled.
        case ended
    }

    private func keepGroups(_ home: GatewayAddress) async throws {
        let (messages, continuation) = AsyncStream<Message>.makeStream()
        let context = TunnelGroup.Context(
            configuration: configuration, home: home, loops: loops, connector: connector, reports: reports,
            logger: logger, onStream: onStream
        ) { continuation.yield(.split($0, after: $1)) }
        var groups: [TunnelGroup] = []
        await withTaskGroup(of: Void.self) { tasks in
            func add(_ tunnels: [Int], after pause: Duration) {
                let group = TunnelGroup(context, number: groups.count, tunnels: tunnels)
                groups.append(group)
                tasks.addTask {
                    await group.keep(after: pause)
                    continuation.yield(.ended)
                }
            }
            add(Array(configuration.tunnels.indices), after: .zero)
            var running = 1
            // Ends when the task is cancelled, too; the groups then end by themselves.
            for await message in messages {
                switch message {
                case .split(let tunnels, let pause):
                    running += 1
                    add(tunnels, after: pause)
                case .ended:
                    running -= 1
                    if running == 0 { return }
                }
            }
        }
        // As long as one group goes on, the others' refusals were only told.
        let refusals = groups.compactMap(\.refusal)
        if refusals.count == groups.count, let first = refusals.first { throw first }
    }
}
