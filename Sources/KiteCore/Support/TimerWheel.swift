/// One coarse timer wheel per event loop: the deadlines of thousands of connections and requests cost one scheduled task
/// between them instead of one each.
public import NIOCore

/// Fires ``WheelTimer``s on one event loop, never early and at most about one tick late.
///
/// Every member must be used on ``eventLoop``. While no timer is armed nothing is scheduled.
public final class TimerWheel {
    /// The loop on which timers are armed and fire.
    public let eventLoop: any EventLoop
    /// The length of a tick, in nanoseconds.
    private let resolution: Int64
    private let slotCount: Int
    private let origin: NIODeadline
    /// The last tick whose slot has been visited.
    private var lastTick: Int64 = 0
    private var armedCount = 0
    private var isScheduled = false
    private var isVisiting = false

    /// The lists live in one array, linked by position, so that arming allocates nothing once the array has grown and letting go
    /// of a long list does not recurse. The first `slotCount` nodes are the heads of the slots, the next is the head of the list of timers
    /// that are about to fire.
    private var nodes: [Node]
    private var freeNodes: [Int] = []

    private struct Node {
        var timer: WheelTimer?
        var previous: Int
        var next: Int
        /// The tick at which the timer fires.
        var deadline: Int64 = 0
        /// The tick at which the slot it hangs in is visited next; not after `deadline`.
        var visit: Int64 = 0
    }

    /// - Parameters:
    ///   - resolution: the length of a tick, at least one millisecond.
    ///   - slots: how many ticks one turn of the wheel has; timers beyond are looked at once a turn.
    public init(eventLoop: any EventLoop, resolution: TimeAmount = .milliseconds(100), slots: Int = 512) {
        self.eventLoop = eventLoop
        self.resolution = max(resolution.nanoseconds, 1_000_000)
        slotCount = max(slots, 1)
        origin = eventLoop.now
        nodes = (0...slotCount).map { Node(timer: nil, previous: $0, next: $0) }
    }

    /// How many timers are armed.
    public var count: Int { armedCount }

    // MARK: What timers call

    func start(_ timer: WheelTimer, after delay: TimeAmount) {
        eventLoop.preconditionInEventLoop()
        if armedCount == 0 && !isVisiting { lastTick = tick(at: eventLoop.now) }
        let deadline = max(firstTick(notBefore: eventLoop.now + delay), lastTick + 1)
        if let position = timer.position {
            nodes[position].deadline = deadline
            // Put off: the timer is moved when its slot comes up. Until then re-arming costs this one store.
            if deadline >= nodes[position].visit { return }
            unlink(position)
            link(position, deadline: deadline)
        } else {
            let position = freeNodes.popLast() ?? nodes.endIndex
            if position == nodes.endIndex { nodes.append(Node(timer: nil, previous: position, next: position)) }
            nodes[position].timer = timer
            timer.position = position
            armedCount += 1
            link(position, deadline: deadline)
            schedule()
        }
    }

    func cancel(_ timer: WheelTimer) {
        guard let position = timer.position else { return }
        eventLoop.preconditionInEventLoop()
        unlink(position)
        remove(position)
    }

    // MARK: Time

    private func tick(at time: NIODeadline) -> Int64 { max(0, (time - origin).nanoseconds / resolution) }

    private func firstTick(notBefore time: NIODeadline) -> Int64 {
        let elapsed = max(0, (time - origin).nanoseconds)
        return elapsed / resolution + (elapsed % resolution == 0 ? 0 : 1)
    }

    private func schedule() {
        guard !isScheduled, armedCount > 0 else { return }
        isScheduled = true
        let next = origin + .nanoseconds((lastTick + 1) * resolution)
        eventLoop.assumeIsolated().scheduleTask(deadline: next) { [weak self] in
            self?.isScheduled = false
            self?.turn()
        }
    }

    private func turn() {
        let now = tick(at: eventLoop.now)
        isVisiting = true
        let firing = slotCount
        if now > lastTick {
            let first = max(lastTick + 1, now - Int64(slotCount) + 1)
            lastTick = now
            for tick in first...now { visit(Int(tick % Int64(slotCount)), now: now) }
        }
        while nodes[firing].next != firing {
            let position = nodes[firing].next
            let timer = nodes[position].timer
            unlink(position)
            remove(position)
            timer?.fire()
        }
        isVisiting = false
        schedule()
    }

    private func visit(_ slot: Int, now: Int64) {
        // What is put back into this slot is appended behind `last`, where the walk ends.
        let last = nodes[slot].previous
        var position = slot
        var next = nodes[slot].next
        while position != last {
            position = next
            next = nodes[position].next
            if nodes[position].deadline <= now {
                unlink(position)
                append(position, to: slotCount)
                // Started again before it fires, by another timer that fires, it must leave this list whatever its new deadline.
                nodes[position].visit = .max
            } else {
                unlink(position)
                link(position, deadline: nodes[position].deadline)
            }
        }
    }

    // MARK: Lists

    private func link(_ position: Int, deadline: Int64) {
        let turnLength = Int64(slotCount)
        nodes[position].deadline = deadline
        nodes[position].visit = lastTick + (deadline - lastTick - 1) % turnLength + 1
        append(position, to: Int(deadline % turnLength))
    }

    private func append(_ position: Int, to head: Int) {
        let previous = nodes[head].previous
        nodes[position].previous = previous
        nodes[position].next = head
        nodes[previous].next = position
        nodes[head].previous = position
    }

    private func unlink(_ position: Int) {
        let previous = nodes[position].previous
        let next = nodes[position].next
        nodes[previous].next = next
        nodes[next].previous = previous
    }

    private func remove(_ position: Int) {
        nodes[position].timer?.position = nil
        nodes[position].timer = nil
        freeNodes.append(position)
        armedCount -= 1
    }
}

/// A deadline that can be set, moved and taken back any number of times without allocating.
///
/// The wheel holds it while it is armed, so `onFire` should capture its owner weakly.
public final class WheelTimer {
    private let wheel: TimerWheel
    private let onFire: () -> Void
    /// Where it hangs in the wheel while armed.
    fileprivate var position: Int?

    /// - Parameter onFire: called on the wheel's loop; the timer is not armed any more then and may be started again.
    public init(wheel: TimerWheel, onFire: @escaping () -> Void) {
        self.wheel = wheel
        self.onFire = onFire
    }

    /// Whether it is going to fire.
    public var isArmed: Bool { position != nil }

    /// Arms it, or moves the deadline when armed. Moving it later is the cheapest.
    public func start(after delay: TimeAmount) { wheel.start(self, after: delay) }

    /// Disarms it.
    public func cancel() { wheel.cancel(self) }

    fileprivate func fire() { onFire() }
}
