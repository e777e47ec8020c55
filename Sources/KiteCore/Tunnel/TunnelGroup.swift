/// The tunnels of an agent that share a session: all of them at first, and those apart that the gateway refused for a time.
import KiteHTTP
import KiteSupport
import Logging
import NIOCore
import Synchronization

/// Keeps one session with a gateway up. Its lanes are kept by `TunnelGroup+Lanes.swift`.
final class TunnelGroup: Sendable {
    /// What the groups of an agent share.
    struct Context: Sendable {
        let configuration: TunnelAgentConfiguration
        let home: GatewayAddress
        let loops: [any EventLoop]
        let connector: AgentConnector
        let reports: AgentReports
        let logger: Logger
        let onStream: @Sendable (IncomingTunnelStream) -> Void
        /// Tunnels (positions in the configuration) are to go on in a group of their own, not before so long.
        let split: @Sendable ([Int], Duration) -> Void
    }
    let context: Context
    /// Counts the groups of the agent, from 0.
    let number: Int
    /// Of its own for each group: a session supersedes the older ones of the same agent.
    let agent: String
    let state: Mutex<State>

    struct State {
        /// Positions in the configuration.
        var tunnels: [Int]
        var fate = Fate.running
        var refusal: TunnelRefusal?
    }
    /// What made trying again useless.
    var refusal: TunnelRefusal? { state.withLock { $0.refusal } }

    /// What becomes of a session's lanes when their tasks end.
    enum Fate: Sendable { case running, moved, lost }

    /// The bound on the wait between two attempts: a gateway that is back is found within it.
    static let longestPause = Duration.seconds(3)
    /// The same for lanes that are resumed: visitors wait behind them, and SockJS sessions end after some seconds without a poll.
    static let longestResumePause = Duration.milliseconds(500)
    /// The bound on the wait before tunnels that were refused are asked for again.
    static let longestRefusal = Duration.seconds(30)
    /// What lasted so long was no failure: the next attempt is made at once.
    static let lasting = Duration.seconds(10)

    init(_ context: Context, number: Int, tunnels: [Int]) {
        self.context = context
        self.number = number
        var random = SystemRandomNumberGenerator()
        agent = hex(random.next()) + hex(random.next())
        state = Mutex(State(tunnels: tunnels))
    }

    /// How a session ended.
    enum SessionEnd: Error {
        /// The gateway knows it no longer, or its last lane is lost.
        case lost(String)
        /// The gateway goes away; lanes are left to finish.
        case moved(TunnelGoAway)
        /// No tunnel is served now. `after`: what the gateway wants to be waited.
        case refused(after: Duration)
    }

    struct Session: Sendable {
        let address: GatewayAddress
        let epoch: UInt64
        /// What its tunnels are in the configuration.
        let tunnels: [Int]
        let first: ActiveLane
    }

    /// Opens sessions until the task is cancelled or there is a ``refusal``.
    func keep(after delay: Duration) async {
        let (reports, logger) = (context.reports, context.logger)
        var address = context.home
        var backoff = Backoff(limit: Self.longestPause)
        var refusals = Backoff(base: .milliseconds(500), limit: Self.longestRefusal)
        var epoch: UInt64 = 0
        var wait = max(delay, backoff.next())
        while await pause(wait) {
            reports.emit(.connecting(attempt: backoff.attempts))
            epoch += 1
            // Where a gateway that went away has sent us is good for one session.
            let current = address
            address = context.home
            var opened: ContinuousClock.Instant?
            do {
                let session = try await open(current, epoch: epoch)
                opened = .now
                try await serve(session)
                break
            } catch SessionEnd.moved(let goAway) {
                // Its lanes finish what runs, without being watched, while a new session begins.
                reports.ended(group: number, cause: nil)
                reports.emit(.goingAway(reason: goAway.reason))
                if !goAway.next.isEmpty, let next = try? GatewayAddress(url: goAway.next) { address = next }
                if hasLasted(opened, .seconds(1)) { backoff.reset() }
                wait = backoff.next()
            } catch SessionEnd.refused(let after) {
                reports.ended(group: number, cause: nil)
                backoff.reset()
                if refusals.attempts == 0 { _ = refusals.next() }
                wait = max(backoff.next(), refusals.next(), after)
            } catch AgentHandshakeError.refused(let refusal) {
                reports.emit(.refused(refusal))
                logger.error(
                    "The gateway refuses the agent",
                    metadata: ["status": "\(refusal.status)", "reason": "\(refusal.reason)"])
                if refusal.isFinal { return state.withLock { $0.refusal = refusal } }
                wait = max(backoff.next(), Self.wanted(by: refusal))
            } catch let refusal as TunnelRefusal {
                reports.ended(group: number, cause: nil)
                return state.withLock { $0.refusal = refusal }
            } catch {
                guard !Task.isCancelled else { break }
                if hasLasted(opened, Self.lasting) { backoff.reset() }
                if hasLasted(opened, Self.lasting) { refusals.reset() }
                wait = backoff.next()
                let cause = if case SessionEnd.lost(let cause) = error { cause } else { "\(error)" }
                if opened == nil {
                    reports.emit(.connectFailed(cause: cause, retry: wait.inSeconds))
                } else {
                    reports.ended(group: number, cause: cause, retry: wait)
                }
                logger.warning("No session with the gateway", metadata: ["cause": "\(cause)", "retry": "\(wait)"])
            }
        }
        reports.ended(group: number, cause: nil)
    }

    private func hasLasted(_ begin: ContinuousClock.Instant?, _ time: Duration) -> Bool {
        begin.map { $0.duration(to: .now) > time } ?? false
    }

    /// How long a gateway wants to be left alone, within reason.
    private static func wanted(by refusal: TunnelRefusal) -> Duration {
        .seconds(min(max(refusal.retryAfter ?? 0, 0), 60))
    }

    // MARK: a session

    private func open(_ address: GatewayAddress, epoch: UInt64) async throws -> Session {
        let tunnels = state.withLock { $0.tunnels }
        let loop = context.loops[0]
        let hello = context.connector.hello(
            agent: agent, epoch: epoch, .open(tunnels.map { context.configuration.tunnels[$0] }))
        let connection = try await context.connector.connect(address, loop, hello)
        guard let first = try await startUnlessSurplus(connection, on: loop, tunnels: tunnels) else {
            throw SessionEnd.lost("the gateway called the first lane surplus")
        }
        return Session(address: address, epoch: epoch, tunnels: tunnels, first: first)
    }

    /// Keeps a session's lanes. Returns when the task was cancelled.
    private func serve(_ session: Session) async throws {
        let wanted = min(max(session.first.welcome.lanes, 1), 64)
        state.withLock { $0.fate = .running }
        do { try report(session) } catch {
            await leave(session.first)
            throw error
        }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for position in 0..<wanted {
                group.addTask { try await self.keepLane(position, of: wanted, session) }
            }
            // The first that throws ends the session: leaving the group cancels the others.
            while try await group.next() != nil {}
        }
        if !Task.isCancelled { throw SessionEnd.lost("all lanes are gone") }
    }

    /// Tells which tunnels are served, and lets those go that are not, for now.
    /// - Throws: ``TunnelRefusal`` when none is, and that is final; `SessionEnd.refused` when none is for now.
    private func report(_ session: Session) throws {
        let grants = session.first.welcome.tunnels
        context.reports.opened(group: number, tunnels: session.tunnels, grants: grants)
        let refused = zip(session.tunnels, grants).compactMap { tunnel, grant in
            grant.refusal.map { (tunnel: tunnel, refusal: $0) }
        }
        let temporary = refused.filter { !$0.refusal.isFinal }
        let after = temporary.map { Self.wanted(by: $0.refusal) }.max() ?? .zero
        if refused.count == session.tunnels.count {
            guard temporary.isEmpty, let first = refused.first else { throw SessionEnd.refused(after: after) }
            throw first.refusal
        }
        guard !temporary.isEmpty else { return }
        let tunnels = temporary.map(\.tunnel)
        state.withLock { $0.tunnels.removeAll(where: tunnels.contains) }
        var backoff = Backoff(base: .milliseconds(500))
        _ = backoff.next()
        context.split(tunnels, max(after, backoff.next()))
    }

    /// - Returns: false when the task was cancelled meanwhile.
    func pause(_ time: Duration) async -> Bool {
        if time > .zero { try? await Task.sleep(for: time) }
        return !Task.isCancelled
    }
}
