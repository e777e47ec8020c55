/// Collects what the transports of one event loop have to do at the end of the current turn, so that everything written during
/// a turn leaves with one system call per connection.
public import KiteSupport
public import NIOCore
import NIOPosix

/// Something that has work to do when the current turn of its event loop ends.
public protocol LoopFlushable: AnyObject {
    /// Called once for each ``LoopFlusher/add(_:)``, after the input of this turn has been handled.
    func turnEnded()
}

/// The list of one event loop. Get it with ``on(_:)``; use it on that loop only.
public final class LoopFlusher {
    // Sound: a thread-specific variable shows each thread only the value that this thread has set.
    nonisolated(unsafe) private static let current = ThreadSpecificVariable<LoopFlusher>()

    /// The loop whose turns end here.
    public let eventLoop: any EventLoop
    /// The loop's timer wheel for the deadlines of transports.
    public let wheel: TimerWheel
    private var members: [any LoopFlushable] = []
    private var running: [any LoopFlushable] = []
    private var isScheduled = false

    private init(eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
        wheel = TimerWheel(eventLoop: eventLoop)
    }

    /// The flusher of a loop. Must be called on the loop.
    public static func on(_ eventLoop: any EventLoop) -> LoopFlusher {
        eventLoop.preconditionInEventLoop()
        if let flusher = current.currentValue, flusher.eventLoop === eventLoop { return flusher }
        let flusher = LoopFlusher(eventLoop: eventLoop)
        current.currentValue = flusher
        return flusher
    }

    /// Has `member` called back at the end of this turn. A member adds itself at most once before it is called.
    public func add(_ member: any LoopFlushable) {
        members.append(member)
        guard !isScheduled else { return }
        isScheduled = true
        eventLoop.assumeIsolated().execute { self.run() }
    }

    private func run() {
        isScheduled = false
        swap(&members, &running)
        // By position: what is added meanwhile goes into the other list, for another call within the same turn of the loop.
        for member in running { member.turnEnded() }
        running.removeAll(keepingCapacity: running.count <= 1024)
    }
}
