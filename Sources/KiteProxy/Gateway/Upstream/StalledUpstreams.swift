/// Lets requests go on elsewhere whose agent has lost its connection and does not come back at once.
import KiteSupport
import NIOCore

/// The upstreams of one event loop that wait for their connection. Requests over them that must not be made twice wait, too; others are
/// given to another upstream of their route, at once where one comes later.
final class StalledUpstreams {
    /// An agent whose network is well resumes its lanes sooner.
    static let patience = TimeAmount.seconds(1)

    private let wheel: TimerWheel
    private var entries: [(upstream: Upstream, since: NIODeadline)] = []
    private var timer: WheelTimer?
    private var isTimed = false

    init(wheel: TimerWheel) { self.wheel = wheel }

    /// An upstream has lost its connection.
    func add(_ upstream: Upstream) {
        guard !entries.contains(where: { $0.upstream === upstream }) else { return }
        entries.append((upstream, wheel.eventLoop.now))
        if !isTimed { start(after: Self.patience) }
    }

    /// Another upstream has come, or time has passed.
    func look() {
        guard !entries.isEmpty else { return }
        entries.removeAll { !$0.upstream.isStalled }
        let patient = wheel.eventLoop.now - Self.patience
        for entry in entries where entry.since <= patient {
            for exchange in entry.upstream.exchanges { exchange.leaveStalled(entry.upstream) }
        }
        if !isTimed, let next = entries.first(where: { $0.since > patient }) { start(after: next.since - patient) }
    }

    private func start(after time: TimeAmount) {
        let timer = timer ?? WheelTimer(wheel: wheel) { [weak self] in self?.timePassed() }
        isTimed = true
        self.timer = timer
        timer.start(after: time)
    }

    private func timePassed() {
        isTimed = false
        look()
    }
}
