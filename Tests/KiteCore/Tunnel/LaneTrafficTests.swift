/// Megabytes over many streams between two lanes, with random scheduling, slow readers and lost connections.
import KiteHTTP
import KiteTunnel
import NIOCore
import NIOEmbedded
import Testing

@Suite struct LaneTrafficTests {
    /// One direction of one stream: what was written and what came out must be the same.
    private final class Flow {
        let source: TunnelStream
        let sink: StreamRecorder
        var remaining: Int
        var sent: UInt64 = 0xCBF2_9CE4_8422_2325
        var got: UInt64 = 0xCBF2_9CE4_8422_2325
        var gotBytes = 0
        let total: Int
        var next: UInt8 = 0

        init(source: TunnelStream, sink: StreamRecorder, total: Int) {
            self.source = source
            self.sink = sink
            remaining = total
            self.total = total
            sink.onBytes = { [unowned self] bytes in
                got = Flow.hash(bytes, got)
                gotBytes += bytes.readableBytes
            }
        }

        static func hash(_ bytes: ByteBuffer, _ start: UInt64) -> UInt64 {
            bytes.withUnsafeReadableBytes { $0.reduce(start) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 } }
        }

        func write(_ random: inout SeededGenerator) {
            guard remaining > 0, source.isWritable else { return }
            let sizes = [1, 100, 1_000, 3_000, 20_000, 70_000]
            let count = min(remaining, sizes.randomElement(using: &random) ?? 1)
            let bytes = ByteBuffer(bytes: (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31) &+ next })
            next &+= 1
            sent = Flow.hash(bytes, sent)
            source.write(bytes)
            remaining -= count
            if remaining == 0 { source.closeOutput() }
        }

        var isDone: Bool { remaining == 0 && gotBytes == total }
    }

    /// Runs flows both ways until all is delivered, cutting the connection at random.
    private func run(seed: UInt64, streams count: Int, bytes: Int, cutChance: Int) throws {
        var random = SeededGenerator(seed: seed)
        var configuration = LaneConfiguration()
        configuration.resumeLogLimit = 1 << 20
        let pair = LanePair(configuration)
        pair.gatewayEnd.highWater = 32 << 10
        var flows: [Flow] = []
        var far: [TunnelStream] = []
        pair.agentDelegate.onStream = { stream, _ in
            far.append(stream)
        }
        var near: [TunnelStream] = []
        for _ in 0..<count { near.append(try pair.gateway.openStream(StreamOpening(kind: .tcp))) }
        pair.settle()
        try #require(far.count == count)
        for index in 0..<count {
            let farSink = StreamRecorder()
            let nearSink = StreamRecorder()
            far[index].delegate = farSink
            near[index].delegate = nearSink
            flows.append(Flow(source: near[index], sink: farSink, total: bytes))
            flows.append(Flow(source: far[index], sink: nearSink, total: bytes / 2))
        }
        var slow: Set<Int> = []
        var steps = 0
        while !flows.allSatisfy(\.isDone) {
            steps += 1
            try #require(steps < 400_000, "seed \(seed): stalled")
            let index = Int.random(in: 0..<flows.count, using: &random)
            flows[index].write(&random)
            switch Int.random(in: 0..<20, using: &random) {
            case 0:
                let victim = Int.random(in: 0..<count, using: &random)
                if slow.remove(victim) == nil { slow.insert(victim) }
                far[victim].setReading(!slow.contains(victim))
            case 1: pair.loop.advanceTime(by: .milliseconds(Int64.random(in: 0..<50, using: &random)))
            default: break
            }
            let piece = [1, 9, 500, 20_000, 100_000].randomElement(using: &random) ?? 1
            pair.gatewayEnd.pump(piece)
            pair.agentEnd.pump(piece)
            if Bool.random(using: &random) { pair.loop.run() }
            if cutChance > 0, Int.random(in: 0..<cutChance, using: &random) == 0 {
                pair.gatewayEnd.cut()
                pair.loop.run()
                // Streams are written to and opened while there is no connection.
                flows[index].write(&random)
                if Bool.random(using: &random) { pair.loop.run() }
                try pair.reconnect()
                pair.gatewayEnd.highWater = 32 << 10
            }
            #expect(pair.gateway.unacknowledgedBytes <= (1 << 20) + (128 << 10), "the log is bounded")
        }
        pair.settle()
        for flow in flows {
            #expect(flow.sent == flow.got, "seed \(seed)")
            #expect(flow.sink.inputClosed == 1)
            #expect(flow.sink.closed == [nil])
        }
        #expect(pair.gateway.streamCount == 0)
        #expect(pair.agent.streamCount == 0)
        pair.loop.advanceTime(by: .seconds(6))
        pair.settle()
        #expect(pair.gateway.unacknowledgedBytes == 0)
        #expect(pair.agent.unacknowledgedBytes == 0)
    }

    @Test(.timeLimit(.minutes(1)), arguments: [1, 2, 3] as [UInt64])
    func manyStreamsMoveMegabytesWithSlowReaders(seed: UInt64) throws {
        try run(seed: seed, streams: 20, bytes: 150_000, cutChance: 0)
    }

    @Test(.timeLimit(.minutes(1)), arguments: [11, 12, 13, 14] as [UInt64])
    func nothingIsLostRepeatedOrReorderedWhenTheConnectionIsCut(seed: UInt64) throws {
        try run(seed: seed, streams: 8, bytes: 100_000, cutChance: 40)
    }
}

@Suite struct LaneResumptionTests {
    @Test func streamsGoOnOverANewConnection() throws {
        let pair = LanePair()
        let (near, nearSees, far, farSees) = try pair.stream()
        near.write(ByteBuffer(string: "one "))
        pair.loop.run()
        pair.gatewayEnd.cut()
        #expect(pair.gatewayDelegate.suspensions.count == 1)
        #expect(!pair.gateway.isConnected)
        near.write(ByteBuffer(string: "two "))
        far?.write(ByteBuffer(string: "three"))
        pair.settle()
        try pair.reconnect()
        pair.settle()
        #expect(farSees.text == "one two ")
        #expect(nearSees.text == "three")
        #expect(pair.gateway.statistics.resumptions == 1)
    }

    @Test func streamsFailWhenTheWindowEnds() throws {
        let pair = LanePair()
        let (_, nearSees, _, farSees) = try pair.stream()
        pair.gatewayEnd.cut()
        pair.loop.advanceTime(by: .seconds(29))
        pair.settle()
        #expect(nearSees.closed.isEmpty)
        pair.loop.advanceTime(by: .seconds(2))
        pair.settle()
        #expect(nearSees.closed.first??.code == .laneLost)
        #expect(farSees.closed.first??.code == .laneLost)
        #expect(pair.gatewayDelegate.closed.first??.code == .laneLost)
        #expect(throws: TransportError.self) { try pair.reconnect() }
    }

    @Test func withoutAWindowTheLaneIsLostAtOnce() throws {
        var configuration = LaneConfiguration()
        configuration.resumeWindow = .zero
        let pair = LanePair(configuration)
        let (_, nearSees, _, _) = try pair.stream()
        pair.gatewayEnd.cut()
        pair.settle()
        #expect(nearSees.closed.first??.code == .laneLost)
        #expect(pair.gatewayDelegate.suspensions.isEmpty)
    }

    @Test(arguments: [UInt64.max, 1_000]) func aCountThatCannotBeEndsTheLane(count: UInt64) throws {
        let pair = LanePair()
        _ = try pair.stream()
        pair.gatewayEnd.cut()
        let (end, _) = PipeTransport.pair(pair.loop)
        #expect(throws: TransportError.self) { try pair.gateway.resume(over: end, peerReceived: count) }
        pair.settle()
        #expect(pair.gateway.isClosed)
    }

    @Test func aSecondConnectionDropsTheFirst() throws {
        let pair = LanePair()
        let (near, _, _, farSees) = try pair.stream()
        let old = pair.gatewayEnd
        try pair.reconnect()
        #expect(old.isCut)
        near.write(ByteBuffer(string: "still here"))
        pair.settle()
        #expect(farSees.text == "still here")
    }
}
