/// Counts requests of visitors for all event loops at once, without a lock and in a bounded table.
import NIOCore
import Synchronization

/// Token buckets in a table of fixed size. A bucket is one number, the time at which it is full again (the generic cell rate algorithm),
/// beside a keyed hash of whom it belongs to; both are exchanged in one atomic step, so that the limit is exact over all loops.
///
/// Each visitor has eight places where its bucket may lie; where all are taken the one that is full soonest gives way. A visitor that
/// loses its bucket has a full one next time: who floods the table with addresses can get others more, never less.
// Sound: the storage is made in `init`, freed in `deinit`, and between the two only accessed atomically.
final class RateLimitTable: @unchecked Sendable {
    private let slots: UnsafeMutablePointer<Atomic<WordPair>>
    private let count: Int
    private static let ways = 8

    /// - Parameter places: how many buckets there are, rounded up to a power of two; 16 bytes each.
    init(places: Int = 1 << 17) {
        var count = Self.ways
        while count < places { count *= 2 }
        self.count = count
        slots = .allocate(capacity: count)
        for index in 0..<count { (slots + index).initialize(to: Atomic(WordPair(first: 0, second: 0))) }
    }

    deinit {
        slots.deinitialize(count: count)
        slots.deallocate()
    }

    /// Takes one request out of a bucket.
    /// - Parameters:
    ///   - hash: keyed hash of whom the bucket belongs to and which limit it is for.
    /// - Returns: nil where it may pass, else how long until the next one may.
    func take(_ hash: Int, interval: TimeAmount, burst: Int, now: NIODeadline) -> TimeAmount? {
        let owner = hash == 0 ? 1 : UInt(bitPattern: hash)
        let interval = UInt(clamping: max(interval.nanoseconds, 1))
        let tolerance = interval.multipliedReportingOverflow(by: UInt(clamping: burst - 1))
        let time = UInt(now.uptimeNanoseconds)
        let latest = time &+ (tolerance.overflow ? UInt(Int.max / 2) : min(tolerance.partialValue, UInt(Int.max / 2)))
        let first = Int(owner % UInt(count / Self.ways)) * Self.ways
        // A step that another loop got in between of is done anew; after a few, being exact is worth less than going on.
        for _ in 0..<16 {
            var place = first
            var oldest = WordPair(first: 0, second: .max)
            for index in first..<first + Self.ways {
                let pair = slots[index].load(ordering: .relaxed)
                if pair.first == owner {
                    place = index
                    oldest = pair
                    break
                }
                let age = pair.first == 0 ? 0 : pair.second
                if age < oldest.second || (oldest.second == .max && oldest.first == 0) {
                    place = index
                    oldest = pair
                }
            }
            let full = oldest.first == owner ? max(oldest.second, time) : time
            guard full <= latest else { return .nanoseconds(Int64(clamping: full - latest)) }
            let next = full.addingReportingOverflow(interval)
            let pair = WordPair(first: owner, second: next.overflow ? .max : next.partialValue)
            if slots[place].compareExchange(expected: oldest, desired: pair, ordering: .relaxed).exchanged {
                return nil
            }
        }
        return nil
    }
}
