/// A bound on what many holders on different threads keep in memory together.
import Synchronization

/// Counts bytes of any number of holders; unlike ``ByteBudget`` it is not bound to an event loop, and only says when it is exceeded.
package final class SharedByteBudget: Sendable {
    /// In bytes.
    package let limit: Int
    private let count = Atomic<Int>(0)

    package init(limit: Int) { self.limit = limit }

    /// Bytes held now.
    package var used: Int { count.load(ordering: .relaxed) }
    package var isExceeded: Bool { used > limit }

    /// - Parameter bytes: negative where they are given back.
    package func add(_ bytes: Int) { count.add(bytes, ordering: .relaxed) }
}
