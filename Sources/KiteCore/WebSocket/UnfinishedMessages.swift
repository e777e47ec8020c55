/// A bound on what all connections of a service hold together of messages that have not arrived whole.
import Synchronization

/// Counts the bytes of unfinished messages. Each message is bounded by itself; without this, many connections that each send all but the
/// end of one could take all memory. Shared by event loops.
package final class UnfinishedMessages: Sendable {
    /// What one connection may hold without being counted, so that ordinary traffic never comes here.
    package static let freeBytes = 16 << 10

    private let capacity: Int
    private let used = Atomic<Int>(0)

    /// - Parameter capacity: the most bytes that are held, not counting the first 16 KiB of each connection.
    package init(capacity: Int) { self.capacity = max(capacity, 0) }

    /// Bytes that are counted now.
    package var countedBytes: Int { used.load(ordering: .relaxed) }

    /// One connection holds more or less than before.
    /// - Returns: false, with nothing changed, when there is no room for more.
    package func change(from old: Int, to new: Int) -> Bool {
        let difference = max(new - Self.freeBytes, 0) - max(old - Self.freeBytes, 0)
        guard difference != 0 else { return true }
        let sum = used.wrappingAdd(difference, ordering: .relaxed).newValue
        guard difference > 0, sum > capacity else { return true }
        used.wrappingSubtract(difference, ordering: .relaxed)
        return false
    }
}
