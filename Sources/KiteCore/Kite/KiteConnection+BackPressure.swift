/// How much a peer may set going before nothing more is read from it.
import Synchronization

extension KiteConnection {
    /// What the peer has set going.
    struct Load {
        var count = 0
        var bytes = 0
        static func += (load: inout Load, size: Int) {
            load.count += 1
            load.bytes += size
        }
        static func -= (load: inout Load, size: Int) {
            load.count -= 1
            load.bytes -= size
        }
    }

    /// Whether more may be read.
    enum Room {
        case left
        /// Reading must go on, and there is nowhere to put what comes.
        case exceeded
    }

    /// Returns at once while the peer has set going no more than allowed. Otherwise nothing is read meanwhile.
    ///
    /// Calls alone don't come to that: beyond their limits they are refused, since a method may wait for an answer of this very peer.
    /// What piles up are refusals that the peer does not read, and calls of our functions that are slower than the peer. While calls of
    /// ours are pending, those functions may be waiting for the answer to one: then reading goes on up to a second limit. Beyond that it
    /// stops again, unless it is known that a function waits so. That can only end with the connection.
    func waitForRoom() async -> Room {
        await withTaskCancellationHandler {
            await withCheckedContinuation { (continuation: CheckedContinuation<Room, Never>) in
                let room: Room? = state.withLock { state in
                    let room = Task.isCancelled ? .left : self.room(in: state)
                    if room == nil { state.room = continuation }
                    return room
                }
                if let room { continuation.resume(returning: room) }
            }
        } onCancel: {
            let room: CheckedContinuation<Room, Never>? = state.withLock { state in
                defer { state.room = nil }
                return state.room
            }
            room?.resume(returning: .left)
        }
    }

    func otherEnded(size: Int) {
        let room = state.withLock { state in
            state.others -= size
            return takeRoom(&state)
        }
        room?()
    }

    /// Lets reading go on, where it waits and need not. What is returned is to be called without the lock.
    func takeRoom(_ state: inout State) -> (@Sendable () -> Void)? {
        guard let continuation = state.room, let room = room(in: state) else { return nil }
        state.room = nil
        return { continuation.resume(returning: room) }
    }

    /// - Returns: nil while reading has to wait.
    private func room(in state: State) -> Room? {
        let (count, bytes) = (state.others.count, state.others.bytes)
        if count < limits.maximumConcurrentCalls, bytes < limits.maximumBytesInProgress { return .left }
        if state.pending.isEmpty { return nil }
        if count < limits.maximumWaitingCallbacks, bytes / 2 < limits.maximumBytesInProgress { return .left }
        return state.nestedCalls > 0 ? .exceeded : nil
    }
}
