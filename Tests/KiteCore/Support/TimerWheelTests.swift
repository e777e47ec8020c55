/// Timers fire once, in time, never early, whatever happens to them meanwhile.
import KiteSupport
import NIOCore
import NIOEmbedded
import Testing

@Suite struct TimerWheelTests {
    let loop = EmbeddedEventLoop()

    private final class Record {
        var fired: [Int] = []
    }

    @Test func firesOnceAndNotEarly() {
        let wheel = TimerWheel(eventLoop: loop)
        let record = Record()
        let timer = WheelTimer(wheel: wheel) { record.fired.append(1) }
        timer.start(after: .milliseconds(250))
        #expect(timer.isArmed)
        loop.advanceTime(by: .milliseconds(249))
        #expect(record.fired.isEmpty)
        loop.advanceTime(by: .milliseconds(101))
        #expect(record.fired == [1])
        #expect(!timer.isArmed)
        loop.advanceTime(by: .seconds(100))
        #expect(record.fired == [1])
        #expect(wheel.count == 0)
    }

    @Test func cancelledDoesNotFire() {
        let wheel = TimerWheel(eventLoop: loop)
        let record = Record()
        let timer = WheelTimer(wheel: wheel) { record.fired.append(1) }
        timer.start(after: .milliseconds(250))
        timer.cancel()
        timer.cancel()
        loop.advanceTime(by: .seconds(2))
        #expect(record.fired.isEmpty)
        timer.start(after: .seconds(1))
        loop.advanceTime(by: .milliseconds(1100))
        #expect(record.fired == [1])
    }

    @Test func movesLaterAndEarlier() {
        let wheel = TimerWheel(eventLoop: loop)
        let record = Record()
        let timer = WheelTimer(wheel: wheel) { record.fired.append(1) }
        timer.start(after: .seconds(1))
        loop.advanceTime(by: .milliseconds(900))
        timer.start(after: .seconds(1))
        loop.advanceTime(by: .milliseconds(900))
        #expect(record.fired.isEmpty)
        timer.start(after: .seconds(60))
        loop.advanceTime(by: .seconds(5))
        #expect(record.fired.isEmpty)
        timer.start(after: .milliseconds(100))
        loop.advanceTime(by: .milliseconds(200))
        #expect(record.fired == [1])
    }

    @Test func firesBeyondOneTurnOfTheWheel() {
        let wheel = TimerWheel(eventLoop: loop, resolution: .milliseconds(10), slots: 8)
        let record = Record()
        let timers = (0..<40).map { number in WheelTimer(wheel: wheel) { record.fired.append(number) } }
        for (number, timer) in timers.enumerated() { timer.start(after: .milliseconds(Int64(number) * 10 + 5)) }
        for step in 0..<40 {
            loop.advanceTime(by: .milliseconds(10))
            #expect(record.fired == Array(0...step))
        }
    }

    @Test func aLateLoopFiresEverythingDue() {
        let wheel = TimerWheel(eventLoop: loop, resolution: .milliseconds(10), slots: 8)
        let record = Record()
        let timers = (0..<100).map { number in WheelTimer(wheel: wheel) { record.fired.append(number) } }
        for (number, timer) in timers.enumerated() { timer.start(after: .milliseconds(Int64(number))) }
        loop.advanceTime(by: .seconds(1))
        #expect(record.fired.sorted() == Array(0..<100))
    }

    @Test func callbacksMayCancelAndStartTimers() {
        let wheel = TimerWheel(eventLoop: loop, resolution: .milliseconds(10), slots: 4)
        let record = Record()
        let second = WheelTimer(wheel: wheel) { record.fired.append(2) }
        var again: WheelTimer?
        let first = WheelTimer(wheel: wheel) {
            record.fired.append(1)
            second.cancel()
            if record.fired.count < 3 { again?.start(after: .milliseconds(40)) }
        }
        again = first
        first.start(after: .milliseconds(10))
        second.start(after: .milliseconds(10))
        loop.advanceTime(by: .milliseconds(500))
        #expect(record.fired == [1, 1, 1])
        again = nil
    }

    @Test func aTimerThatAnotherOneDueWithItPutsOffFiresAtItsNewTime() {
        let wheel = TimerWheel(eventLoop: loop)
        let record = Record()
        let second = WheelTimer(wheel: wheel) { record.fired.append(2) }
        let first = WheelTimer(wheel: wheel) {
            record.fired.append(1)
            second.start(after: .seconds(60))
        }
        first.start(after: .milliseconds(100))
        second.start(after: .milliseconds(100))
        loop.advanceTime(by: .milliseconds(200))
        #expect(record.fired == [1])
        #expect(second.isArmed)
        loop.advanceTime(by: .seconds(59))
        #expect(record.fired == [1])
        loop.advanceTime(by: .seconds(1))
        #expect(record.fired == [1, 2])
        #expect(wheel.count == 0)
    }

    @Test func behavesLikeAListOfDeadlinesUnderRandomUse() {
        var generator = SeededGenerator(seed: 7)
        let wheel = TimerWheel(eventLoop: loop, resolution: .milliseconds(10), slots: 16)
        var deadlines: [Int: NIODeadline] = [:]
        let record = Record()
        let timers = (0..<50).map { number in WheelTimer(wheel: wheel) { record.fired.append(number) } }
        for _ in 0..<3000 {
            let number = Int.random(in: 0..<50, using: &generator)
            switch Int.random(in: 0..<4, using: &generator) {
            case 0:
                timers[number].cancel()
                deadlines[number] = nil
            case 1:
                loop.advanceTime(by: .milliseconds(Int64.random(in: 0...60, using: &generator)))
                for fired in record.fired {
                    let deadline = deadlines.removeValue(forKey: fired)
                    #expect(deadline != nil && deadline ?? .distantFuture <= loop.now)
                }
                record.fired = []
                for (_, deadline) in deadlines { #expect(deadline + .milliseconds(10) > loop.now) }
            default:
                let delay = TimeAmount.milliseconds(Int64.random(in: 1...500, using: &generator))
                timers[number].start(after: delay)
                deadlines[number] = loop.now + delay
            }
            #expect(wheel.count == deadlines.count)
        }
    }
}

/// SplitMix64: repeatable randomness.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}
