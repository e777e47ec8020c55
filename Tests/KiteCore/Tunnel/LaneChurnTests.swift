/// Streams that are opened, ended, closed and reset at random by both sides while connections come and go: no side ever sees
/// a violation, nothing is delivered that was not sent, and in the end no stream is left.
import KiteHTTP
import KiteTunnel
import NIOCore
import NIOEmbedded
import Testing

@Suite struct LaneChurnTests {
    /// One end of a stream; what it receives must be a beginning of what its other end wrote, and all of it after END.
    private final class End: ByteTransportDelegate {
        let stream: TunnelStream
        let number: UInt32
        var written: [UInt8] = []
        var received: [UInt8] = []
        var sawEnd = false
        var isClosed = false
        weak var other: End?
        var hasEnded = false

        init(_ stream: TunnelStream) {
            self.stream = stream
            number = stream.id.rawValue
            stream.delegate = self
        }

        func transportReceived(_ bytes: ByteBuffer) {
            #expect(!isClosed)
            #expect(!sawEnd)
            received.append(contentsOf: bytes.readableBytesView)
        }
        func transportInputClosed() {
            #expect(!isClosed)
            sawEnd = true
            if let other { #expect(received == other.written) }
        }
        func transportClosed(_ error: TransportError?) {
            #expect(!isClosed, "told twice")
            isClosed = true
            if let other { #expect(other.written.starts(with: received)) }
        }
        func transportWritabilityChanged(_ isWritable: Bool) {}
    }

    @Test(.timeLimit(.minutes(1)), arguments: 1...6 as ClosedRange<UInt64>)
    func churnLeavesNothingBehind(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        var configuration = LaneConfiguration()
        configuration.maximumStreams = 12
        let pair = LanePair(configuration)
        var ends: [End] = []
        var openers: [UInt32: End] = [:]
        func accept(_ stream: TunnelStream) {
            let end = End(stream)
            end.other = openers[stream.id.rawValue]
            end.other?.other = end
            ends.append(end)
        }
        pair.agentDelegate.onStream = { stream, _ in accept(stream) }
        pair.gatewayDelegate.onStream = { stream, _ in accept(stream) }
        for step in 0..<6_000 {
            switch Int.random(in: 0..<14, using: &random) {
            case 0, 1:
                let lane = Bool.random(using: &random) ? pair.gateway : pair.agent
                if let stream = try? lane.openStream(StreamOpening(kind: .tcp)) {
                    let end = End(stream)
                    openers[end.number] = end
                    ends.append(end)
                }
            case 2, 3, 4, 5:
                guard let end = ends.randomElement(using: &random), !end.isClosed, !end.hasEnded else { break }
                let count = Int.random(in: 1...4_000, using: &random)
                let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &+ step) }
                end.stream.write(ByteBuffer(bytes: bytes))
                end.written += bytes
            case 6:
                guard let end = ends.randomElement(using: &random) else { break }
                end.hasEnded = true
                end.stream.closeOutput()
            case 7:
                guard let end = ends.randomElement(using: &random) else { break }
                end.hasEnded = true
                end.stream.close()
            case 8:
                guard let end = ends.randomElement(using: &random) else { break }
                end.hasEnded = true
                end.stream.abort(TransportError(.cancelled, "at random"))
            case 9: ends.randomElement(using: &random)?.stream.setReading(Bool.random(using: &random))
            case 10:
                guard Int.random(in: 0..<10, using: &random) == 0 else { break }
                pair.gatewayEnd.cut()
                pair.loop.run()
                try pair.reconnect()
            case 11: pair.loop.run()
            default:
                let piece = [1, 7, 40, 3_000, 100_000].randomElement(using: &random) ?? 1
                pair.gatewayEnd.pump(piece)
                pair.agentEnd.pump(piece)
            }
            try #require(!pair.gateway.isClosed && !pair.agent.isClosed, "seed \(seed), step \(step)")
            ends.removeAll { $0.isClosed }
        }
        // What is still being opened gets both its ends first.
        pair.settle()
        for end in ends {
            end.stream.setReading(true)
            end.stream.closeOutput()
        }
        // Streams that were closed on one side and not ended on the other are reset after a while.
        for _ in 0..<6 {
            pair.settle()
            pair.loop.advanceTime(by: .seconds(5))
        }
        pair.settle()
        #expect(pair.gateway.streamCount == 0, "seed \(seed)")
        #expect(pair.agent.streamCount == 0, "seed \(seed)")
        let areAllClosed = ends.allSatisfy(\.isClosed)
        #expect(areAllClosed)
        #expect(pair.gateway.unacknowledgedBytes == 0)
        #expect(pair.gatewayDelegate.closed.isEmpty && pair.agentDelegate.closed.isEmpty)
    }
}
