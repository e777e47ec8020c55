/// What an agent's sessions tell whoever displays or logs it, as if they were one.
import Synchronization

/// Turns what happens to the groups of an agent's tunnels into one stream of events. Lanes are counted from 0 over all groups.
final class AgentReports: Sendable {
    let events: AsyncStream<TunnelEvent>
    private let continuation: AsyncStream<TunnelEvent>.Continuation
    private let state: Mutex<State>

    private struct State {
        var grants: [TunnelGrant]
        var groups: [Int: Lanes] = [:]

        /// A lane's number among those of all groups.
        func number(_ group: Int, _ position: Int) -> Int {
            groups.reduce(position) { $1.key < group ? $0 + $1.value.wanted : $0 }
        }
    }
    private struct Lanes {
        var wanted: Int
        var up: Set<Int> = []
    }

    init(_ tunnels: [TunnelRequest]) {
        (events, continuation) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1_024))
        state = Mutex(State(grants: tunnels.map { TunnelGrant(name: $0.name ?? "") }))
    }

    func emit(_ event: TunnelEvent) { continuation.yield(event) }

    func finish() { continuation.finish() }

    /// A group has a session.
    /// - Parameters:
    ///   - tunnels: the group's, as positions among all tunnels of the agent.
    ///   - grants: what became of them, in that order.
    func opened(group: Int, tunnels: [Int], grants: [TunnelGrant]) {
        state.withLock { state in
            var changed: [Int] = []
            for (tunnel, grant) in zip(tunnels, grants) where state.grants.indices.contains(tunnel) {
                if state.grants[tunnel] != grant { changed.append(tunnel) }
                state.grants[tunnel] = grant
            }
            guard group == 0 else {
                for tunnel in changed { continuation.yield(.granted(tunnel: tunnel, state.grants[tunnel])) }
                return
            }
            continuation.yield(.connected(state.grants))
            for refusal in state.grants.compactMap(\.refusal) { continuation.yield(.refused(refusal)) }
        }
    }

    func laneUp(group: Int, _ position: Int, wanted: Int) {
        state.withLock { state in
            state.groups[group, default: Lanes(wanted: wanted)].wanted = wanted
            state.groups[group]?.up.insert(position)
            continuation.yield(
                .laneUp(
                    lane: state.number(group, position), lanes: state.groups.values.reduce(0) { $0 + $1.up.count },
                    wanted: state.groups.values.reduce(0) { $0 + $1.wanted }))
        }
    }

    /// A lane has lost its connection, or an attempt to get it back has failed.
    func laneDown(group: Int, _ position: Int, cause: String, retry: Duration) {
        state.withLock { state in
            let lane = state.number(group, position)
            let wasUp = state.groups[group]?.up.remove(position) != nil
            continuation.yield(
                wasUp
                    ? .laneDown(lane: lane, cause: cause, retry: retry.inSeconds)
                    : .laneRetry(lane: lane, cause: cause, retry: retry.inSeconds))
        }
    }

    /// How many of a group's lanes have a connection.
    func lanesUp(group: Int) -> Int { state.withLock { $0.groups[group]?.up.count ?? 0 } }

    /// A group has its session no more.
    /// - Parameter cause: tell of each lane that was up; nil where it goes on or ends as it was meant to.
    func ended(group: Int, cause: String?, retry: Duration = .zero) {
        state.withLock { state in
            let up = state.groups[group]?.up ?? []
            state.groups[group]?.up = []
            guard let cause else { return }
            for position in up.sorted() {
                continuation.yield(
                    .laneDown(lane: state.number(group, position), cause: cause, retry: retry.inSeconds))
            }
        }
    }
}

extension Duration {
    /// As events say it.
    var inSeconds: Double {
        let (seconds, attoseconds) = components
        return Double(seconds) + Double(attoseconds / 1_000_000_000_000_000) / 1_000
    }
}
