/// The machines below the lane, as tables.
import KiteHTTP
import NIOCore
import Testing

@testable import KiteTunnel

@Suite struct StreamStateMachineTests {
    typealias State = StreamStateMachine.State

    @Test(arguments: [
        (State.open, State.outputEnded), (.inputEnded, .closed), (.outputEnded, .outputEnded),
        (.resetting, .resetting), (.resettingEnded, .resettingEnded), (.closed, .closed),
    ])
    func sendEnd(from: State, to: State) {
        var machine = StreamStateMachine(state: from)
        machine.sendEnd()
        #expect(machine.state == to)
    }

    @Test(arguments: [
        (State.open, State.resetting, true), (.inputEnded, .resetting, true), (.outputEnded, .resettingEnded, true),
        (.resetting, .resetting, false), (.resettingEnded, .resettingEnded, false), (.closed, .closed, false),
    ])
    func sendReset(from: State, to: State, sends: Bool) {
        var machine = StreamStateMachine(state: from)
        #expect(machine.sendReset() == sends)
        #expect(machine.state == to)
    }

    @Test(arguments: [
        (State.open, State.closed, StreamStateMachine.ResetAction.failAndAnswer),
        (.inputEnded, .closed, .failAndAnswer), (.outputEnded, .closed, .failAndAnswer),
        (.resetting, .closed, .ignore), (.resettingEnded, .closed, .ignore), (.closed, .closed, .ignore),
    ])
    func receiveReset(from: State, to: State, action: StreamStateMachine.ResetAction) {
        var machine = StreamStateMachine(state: from)
        #expect(machine.receiveReset() == action)
        #expect(machine.state == to)
    }

    @Test(arguments: [
        (State.open, false, State.open, StreamStateMachine.DataAction.deliver),
        (.open, true, .inputEnded, .deliver),
        (.outputEnded, false, .outputEnded, .deliver),
        (.outputEnded, true, .closed, .deliver),
        (.inputEnded, false, .inputEnded, .violation),
        (.inputEnded, true, .inputEnded, .violation),
        (.resetting, true, .resetting, .ignore),
        (.resettingEnded, false, .resettingEnded, .ignore),
        (.resettingEnded, true, .closed, .ignore),
        (.closed, true, .closed, .ignore),
    ])
    func receiveData(from: State, isEnd: Bool, to: State, action: StreamStateMachine.DataAction) {
        var machine = StreamStateMachine(state: from)
        #expect(machine.receiveData(isEnd: isEnd) == action)
        #expect(machine.state == to)
    }

    /// Two ends and the frames under way between them: whatever happens in whatever order, both close, and none gets a
    /// frame its state forbids.
    @Test func bothEndsAlwaysClose() {
        var random = SeededGenerator(seed: 5)
        enum Frame { case data(end: Bool), reset }
        for round in 0..<20_000 {
            var ends = [StreamStateMachine(), StreamStateMachine()]
            var wires: [[Frame]] = [[], []]
            var steps = 0
            while !(ends.allSatisfy(\.isClosed) && wires.allSatisfy(\.isEmpty)) {
                steps += 1
                guard steps < 1_000 else {
                    Issue.record("round \(round): \(ends)")
                    return
                }
                let side = Int.random(in: 0...1, using: &random)
                switch Int.random(in: 0..<6, using: &random) {
                case 0 where ends[side].canSend: wires[side].append(.data(end: false))
                case 1 where ends[side].canSend:
                    ends[side].sendEnd()
                    wires[side].append(.data(end: true))
                case 2: if ends[side].sendReset() { wires[side].append(.reset) }
                default:
                    guard !wires[1 - side].isEmpty else { continue }
                    switch wires[1 - side].removeFirst() {
                    case .data(let isEnd): #expect(ends[side].receiveData(isEnd: isEnd) != .violation)
                    case .reset:
                        if ends[side].receiveReset() == .failAndAnswer { wires[side].append(.reset) }
                    }
                }
            }
        }
    }
}

@Suite struct StreamCreditTests {
    @Test func creditIsReturnedForHalfAWindow() {
        var credit = StreamCredit(now: .uptimeNanoseconds(0))
        #expect(credit.receiveData(40_000) == true)
        #expect(credit.consume(32_767) == false)
        #expect(credit.consume(1) == true)
        let (increment, growth) = credit.grant(
            now: .uptimeNanoseconds(10_000_000_000), roundTripTime: .milliseconds(50), limit: 1 << 24, spare: 1 << 24)
        #expect(increment == 32_768)
        #expect(growth == 0)
    }

    @Test func moreThanTheWindowIsRefused() {
        var credit = StreamCredit(now: .uptimeNanoseconds(0))
        #expect(credit.receiveData(65_536) == true)
        #expect(credit.receiveData(1) == false)
    }

    @Test(arguments: [(1 << 24, 1 << 24, 65_536), (100_000, 1 << 24, 34_464), (1 << 24, 1_000, 1_000), (1 << 24, 0, 0)])
    func theWindowDoublesWithinItsLimits(limit: Int, spare: Int, growth: Int) {
        var credit = StreamCredit(now: .uptimeNanoseconds(0))
        _ = credit.receiveData(65_536)
        #expect(credit.consume(65_536) == true)
        let grant = credit.grant(
            now: .uptimeNanoseconds(1_000_000), roundTripTime: .milliseconds(50), limit: limit, spare: spare)
        #expect(grant.growth == growth)
        #expect(Int(grant.increment) == 65_536 + growth)
        #expect(Int(credit.window) == 65_536 + growth)
    }

    @Test func creditBeyondTheMaximumIsRefused() {
        var credit = StreamCredit(now: .uptimeNanoseconds(0))
        #expect(credit.receiveCredit(UInt32(TunnelWire.maximumWindow - TunnelWire.initialWindow)) == true)
        #expect(credit.receiveCredit(1) == false)
        #expect(credit.receiveCredit(.max) == false)
    }
}

@Suite struct ResumeLogTests {
    private func frame(_ number: Int, _ length: Int = 4) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeTunnelFrame(
            .data(TunnelStreamID(rawValue: UInt32(number)), ByteBuffer(repeating: 1, count: length), isEnd: false))
        return buffer
    }

    @Test(arguments: 0...9) func replaysExactlyWhatWasNotAcknowledged(acknowledged: Int) throws {
        var log = ResumeLog()
        // Three small frames in one buffer; then one with its payload apart behind two small ones; then three again.
        var first = ByteBuffer()
        for number in 1...3 { first.writeImmutableBuffer(frame(number)) }
        log.append(first, tail: nil, frames: 3)
        var second = ByteBuffer()
        for number in 4...5 { second.writeImmutableBuffer(frame(number)) }
        second.writeTunnelHeader(.data, length: 3_000, stream: 6)
        log.append(second, tail: ByteBuffer(repeating: 2, count: 3_000), frames: 3)
        var third = ByteBuffer()
        for number in 7...9 { third.writeImmutableBuffer(frame(number)) }
        log.append(third, tail: nil, frames: 3)
        try log.acknowledge(UInt64(acknowledged))
        var decoder = TunnelFrameDecoder()
        var numbers: [UInt32] = []
        for buffer in log.replay() {
            decoder.receive(buffer)
            while let found = try decoder.next() {
                if case .data(let id, _, _) = found { numbers.append(id.rawValue) }
            }
        }
        #expect(numbers == (1...9).filter { $0 > acknowledged }.map { UInt32($0) })
        #expect(log.isEmpty == (acknowledged == 9))
        if acknowledged == 9 { #expect(log.bytes == 0) }
    }

    /// A log that is full of small frames must not be many times as large as it says.
    @Test func smallFramesAreKeptInLittleMemory() throws {
        var log = ResumeLog()
        for number in 0..<10_000 {
            var gathered = ByteBuffer()
            gathered.reserveCapacity(1_000)
            gathered.writeImmutableBuffer(frame(number, 1 + number % 40))
            log.append(gathered, tail: nil, frames: 1)
        }
        #expect(log.storageBytes < 2 * log.bytes)
        try log.acknowledge(9_000)
        #expect(log.storageBytes < 2 * log.bytes + 10_000)
        var random = SeededGenerator(seed: 3)
        var acknowledged = 9_000
        while acknowledged < 10_000 {
            acknowledged = min(acknowledged + Int.random(in: 0...40, using: &random), 10_000)
            try log.acknowledge(UInt64(acknowledged))
            var decoder = TunnelFrameDecoder()
            var next = acknowledged
            for buffer in log.replay() {
                decoder.receive(buffer)
                while let found = try decoder.next() {
                    guard case .data(let id, let bytes, _) = found else { continue }
                    #expect(Int(id.rawValue) == next && bytes.readableBytes == 1 + next % 40)
                    next += 1
                }
            }
            #expect(next == 10_000)
        }
        #expect(log.bytes == 0)
        #expect(log.isEmpty)
    }

    @Test func smallFramesBehindLargeOnesKeepTheirPlace() throws {
        var random = SeededGenerator(seed: 4)
        var log = ResumeLog()
        for number in 0..<500 {
            var head = frame(number * 2, Int.random(in: 1...700, using: &random))
            if Bool.random(using: &random) {
                head.writeTunnelHeader(.data, length: 3_000, stream: UInt32(number * 2 + 1))
                log.append(head, tail: ByteBuffer(repeating: 2, count: 3_000), frames: 2)
            } else {
                head.writeImmutableBuffer(frame(number * 2 + 1))
                log.append(head, tail: nil, frames: 2)
            }
        }
        for acknowledged in stride(from: 0, through: 1_000, by: 7) {
            try log.acknowledge(UInt64(acknowledged))
            var decoder = TunnelFrameDecoder()
            var found: [UInt32] = []
            for buffer in log.replay() {
                decoder.receive(buffer)
                while let next = try decoder.next() {
                    if case .data(let id, _, _) = next { found.append(id.rawValue) }
                }
            }
            #expect(found == (UInt32(acknowledged)..<1_000).map { $0 })
        }
    }

    @Test(arguments: [(3, 2), (3, 5), (0, UInt64.max)] as [(UInt64, UInt64)])
    func impossibleCountsAreRefused(first: UInt64, second: UInt64) throws {
        var log = ResumeLog()
        for number in 1...4 { log.append(frame(number), tail: nil, frames: 1) }
        try log.acknowledge(first)
        #expect(throws: TransportError.self) { try log.acknowledge(second) }
    }
}

@Suite struct ByteQueueTests {
    @Test func whatGoesInComesOutInOrder() {
        var random = SeededGenerator(seed: 9)
        for compact in [false, true] {
            var queue = ByteQueue()
            var expected: [UInt8] = []
            var found: [UInt8] = []
            var next: UInt8 = 0
            for _ in 0..<2_500 {
                if Int.random(in: 0..<5, using: &random) < 3 {
                    let length = [0, 1, 30, 2_047, 2_048, 5_000].randomElement(using: &random) ?? 0
                    let bytes = (0..<length).map { _ in
                        next &+= 1
                        return next
                    }
                    expected += bytes
                    queue.append(ByteBuffer(bytes: bytes), compact: compact)
                } else if let piece = queue.take(Int.random(in: 1..<9_000, using: &random)) {
                    found += piece.readableBytesView
                }
                #expect(queue.bytes == expected.count - found.count)
                if expected.count > 200_000 {
                    while let piece = queue.take(.max) { found += piece.readableBytesView }
                    #expect(found == expected)
                    expected = []
                    found = []
                }
            }
        }
    }
}
