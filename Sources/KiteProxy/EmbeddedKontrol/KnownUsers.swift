/// Passes on the names of users once each, from wherever they are seen to where they are written down.
import Synchronization

/// Users that were seen, in any thread.
final class KnownUsers: Sendable {
    /// Beyond so many names the memory begins anew: a name is then passed on twice, which does no harm.
    private static let capacity = 10_000

    /// Each name that was not seen before.
    let fresh: AsyncStream<String>
    private let names: AsyncStream<String>.Continuation
    private let seen = Mutex<Set<String>>([])

    init() { (fresh, names) = AsyncStream.makeStream(bufferingPolicy: .bufferingOldest(Self.capacity)) }

    func note(_ username: String) {
        let isNew = seen.withLock { seen in
            if seen.count >= Self.capacity { seen.removeAll() }
            return seen.insert(username).inserted
        }
        if isNew { names.yield(username) }
    }
}
