/// Back-off, budget, comparison and log limiting.
import KiteSupport
import NIOCore
import Testing

@Suite struct BackoffTests {
    @Test func startsAtOnceThenStaysWithinADoublingBound() {
        var generator = SeededGenerator(seed: 1)
        var backoff = Backoff(base: .milliseconds(100), limit: .seconds(2))
        #expect(backoff.next(using: &generator) == .zero)
        var highest: Duration = .zero
        for bound in [100, 200, 400, 800, 1600, 2000, 2000, 2000] {
            let delay = backoff.next(using: &generator)
            #expect(delay >= .zero && delay <= .milliseconds(bound))
            highest = max(highest, delay)
        }
        #expect(highest > .milliseconds(100))
        for _ in 0..<1000 { #expect(backoff.next(using: &generator) <= .seconds(2)) }
        backoff.reset()
        #expect(backoff.next(using: &generator) == .zero)
    }

    @Test func usesTheWholeRange() {
        var generator = SeededGenerator(seed: 2)
        var delays: [Duration] = []
        for _ in 0..<200 {
            var backoff = Backoff(base: .seconds(1), limit: .seconds(1))
            _ = backoff.next(using: &generator)
            delays.append(backoff.next(using: &generator))
        }
        #expect(delays.contains { $0 < .milliseconds(100) })
        #expect(delays.contains { $0 > .milliseconds(900) })
    }
}

@Suite struct ByteBudgetTests {
    @Test func refusesWhatDoesNotFit() {
        let budget = ByteBudget(capacity: 100)
        #expect(budget.reserve(60))
        #expect(!budget.reserve(41))
        #expect(budget.used == 60)
        #expect(!budget.reserve(-1))
        #expect(budget.reserve(40))
        budget.release(100)
        budget.release(100)
        #expect(budget.available == 100)
    }

    @Test func tellsWhenItGetsTightAndWhenThereIsRoomAgain() {
        let budget = ByteBudget(capacity: 100, highWater: 80, lowWater: 20)
        var changes: [Bool] = []
        budget.onChange = { changes.append($0) }
        budget.take(79)
        #expect(changes == [])
        budget.take(1)
        budget.take(200)
        #expect(changes == [true])
        budget.release(259)
        #expect(changes == [true])
        budget.release(1)
        #expect(changes == [true, false])
    }

    @Test func doesNotOverflow() {
        let budget = ByteBudget(capacity: 100)
        budget.take(.max)
        budget.take(.max)
        #expect(budget.available == 0)
    }
}

@Suite struct SecureCompareTests {
    @Test func comparesBytes() {
        #expect(SecureCompare.equal("", ""))
        #expect(SecureCompare.equal("secret", "secret"))
        #expect(!SecureCompare.equal("secret", "secres"))
        #expect(!SecureCompare.equal("xecret", "secret"))
        #expect(!SecureCompare.equal("secret", "secret1"))
        #expect(SecureCompare.equal([1, 2] as [UInt8], ArraySlice([1, 2])))
    }
}

@Suite struct LogRateLimitTests {
    @Test func countsWhatItHoldsBackPerCause() {
        var limit = LogRateLimit<String>(linesPerSecond: 2)
        let start = NIODeadline.uptimeNanoseconds(1_000_000_000)
        #expect(limit.admit("a", now: start) == 0)
        #expect(limit.admit("a", now: start) == 0)
        #expect(limit.admit("a", now: start) == nil)
        #expect(limit.admit("a", now: start + .milliseconds(999)) == nil)
        #expect(limit.admit("b", now: start) == 0)
        #expect(limit.admit("a", now: start + .seconds(1)) == 2)
        #expect(limit.admit("a", now: start + .seconds(1)) == 0)
    }

    @Test func boundsTheNumberOfCauses() {
        var limit = LogRateLimit<Int>(linesPerSecond: 1, maximumCauses: 3)
        let start = NIODeadline.uptimeNanoseconds(1_000_000_000)
        for cause in 0..<3 { #expect(limit.admit(cause, now: start) == 0) }
        #expect(limit.admit(3, now: start) == nil)
        #expect(limit.admit(3, now: start + .seconds(2)) == 0)
    }
}
