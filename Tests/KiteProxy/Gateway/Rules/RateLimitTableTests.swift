/// Token buckets: exact, for all threads together, and bounded.
import NIOCore
import Synchronization
import Testing

@testable import KiteGateway

@Suite("Rate limits")
struct RateLimitTableTests {
    private let start = NIODeadline.uptimeNanoseconds(1_000_000_000_000)

    @Test("A burst at once, then the rate; who waits as long as told may pass")
    func bucket() {
        let table = RateLimitTable(places: 64)
        for _ in 0..<5 { #expect(table.take(7, interval: .seconds(1), burst: 5, now: start) == nil) }
        #expect(table.take(7, interval: .seconds(1), burst: 5, now: start) == .seconds(1))
        #expect(table.take(8, interval: .seconds(1), burst: 5, now: start) == nil, "somebody else's bucket")
        #expect(table.take(7, interval: .seconds(1), burst: 5, now: start + .milliseconds(400)) == .milliseconds(600))
        #expect(table.take(7, interval: .seconds(1), burst: 5, now: start + .seconds(1)) == nil)
        #expect(table.take(7, interval: .seconds(1), burst: 5, now: start + .seconds(1)) != nil)
        for _ in 0..<5 { #expect(table.take(7, interval: .seconds(1), burst: 5, now: start + .hours(1)) == nil) }
        #expect(table.take(7, interval: .seconds(1), burst: 5, now: start + .hours(1)) != nil)
    }

    @Test("A flood of others takes no memory, and nobody gets less by it")
    func flood() {
        let table = RateLimitTable(places: 64)
        for owner in 1...10_000 { #expect(table.take(owner &* 7919, interval: .hours(1), burst: 1, now: start) == nil) }
        #expect(table.take(3, interval: .hours(1), burst: 1, now: start + .seconds(1)) == nil)
        #expect(table.take(3, interval: .hours(1), burst: 1, now: start + .seconds(1)) != nil)
    }

    @Test("Extreme numbers do not trap")
    func extremes() {
        let table = RateLimitTable(places: 8)
        for (interval, burst) in [(Int64.max, Int.max), (0, 1), (-5, 1), (1, Int.max), (Int64.max, 1)] {
            for _ in 0..<3 { _ = table.take(.min, interval: .nanoseconds(interval), burst: burst, now: start) }
        }
        _ = table.take(0, interval: .seconds(1), burst: 1, now: .uptimeNanoseconds(0))
    }

    @Test("Threads together get as many as the limit says, not one more")
    func exact() async {
        let table = RateLimitTable(places: 1024)
        let start = start
        let admitted = await withTaskGroup(of: Int.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    (0..<1000).count { _ in table.take(42, interval: .hours(1), burst: 500, now: start) == nil }
                }
            }
            return await group.reduce(0, +)
        }
        // A thread that loses sixteen races in a row lets its request pass.
        #expect((500...505).contains(admitted))
    }
}
