/// What two lanes do to each other, back to back.
import KiteHTTP
import KiteSupport
import KiteTunnel
import NIOCore
import NIOEmbedded
import Testing

@Suite struct TunnelLaneTests {
    @Test func bytesGoBothWaysAndHalfCloseIsSeen() throws {
        let pair = LanePair()
        let (near, nearSees, far, farSees) = try pair.stream()
        near.write(ByteBuffer(string: "ping"))
        near.closeOutput()
        pair.settle()
        #expect(farSees.text == "ping")
        #expect(farSees.inputClosed == 1)
        #expect(farSees.closed.isEmpty)
        far?.write(ByteBuffer(string: "pong"))
        far?.closeOutput()
        pair.settle()
        #expect(nearSees.text == "pong")
        #expect(nearSees.inputClosed == 1)
        #expect(nearSees.closed == [nil])
        #expect(farSees.closed == [nil])
        #expect(pair.gateway.streamCount == 0)
        #expect(pair.agent.streamCount == 0)
    }

    @Test func openingHeaderArrives() throws {
        let pair = LanePair()
        var seen: StreamOpening?
        pair.agentDelegate.onStream = { _, opening in seen = opening }
        let opening = StreamOpening(
            kind: .upgrade, tunnel: 3, clientAddress: try SocketAddress(ipAddress: "2001:db8::7", port: 4_711),
            host: ByteBuffer(string: "math.example.org"), isSecure: true)
        _ = try pair.gateway.openStream(opening)
        pair.settle()
        #expect(seen == opening)
    }

    @Test func abortReachesThePeerWithItsReasonAndFreesTheSlot() throws {
        let pair = LanePair()
        let (near, nearSees, _, farSees) = try pair.stream()
        near.write(ByteBuffer(string: "never sent"))
        near.abort(TransportError(.cancelled, "visitor went away"))
        #expect(nearSees.closed.isEmpty, "not from within abort")
        pair.settle()
        #expect(farSees.closed == [TransportError(.cancelled, "visitor went away")])
        #expect(farSees.text.isEmpty)
        #expect(nearSees.closed == [TransportError(.cancelled, "visitor went away")])
        #expect(pair.gateway.streamCount == 0)
        #expect(pair.agent.streamCount == 0)
        let next = try pair.gateway.openStream(StreamOpening(kind: .http))
        #expect(next.id == TunnelStreamID(openedByAgent: false, generation: 1, slot: near.id.slot))
    }

    @Test("A stream that ended both ways lets go of what nobody reads", arguments: [true, false])
    func unreadRest(isAborted: Bool) throws {
        let budget = SharedByteBudget(limit: 3 << 20)
        var configuration = LaneConfiguration()
        configuration.sharedBudget = budget
        let pair = LanePair(configuration)
        let (near, nearSees, far, farSees) = try pair.stream()
        near.setReading(false)
        near.closeOutput()
        far?.write(ByteBuffer(repeating: 1, count: 50_000))
        far?.closeOutput()
        pair.settle()
        #expect(farSees.closed == [nil])
        #expect(nearSees.closed.isEmpty)
        #expect(budget.used == 50_000)
        if isAborted { near.abort(TransportError(.cancelled, "the visitor went away")) } else { near.close() }
        pair.settle()
        #expect(nearSees.closed.count == 1)
        #expect(budget.used == 0)
    }

    @Test("What came before an end is delivered, whatever becomes of the connection that brought it")
    func breakAfterTheEnd() throws {
        let visitor = LanePair()
        let target = LanePair()
        let (near, nearSees, far, _) = try visitor.stream()
        let (inner, _, service, _) = try target.stream()
        near.setReading(false)
        let stream = try #require(far)
        let relay = TransportRelay(stream, inner)
        service?.write(ByteBuffer(repeating: 7, count: 30_000))
        service?.closeOutput()
        for _ in 0..<3 {
            target.settle()
            visitor.settle()
        }
        service?.abort(TransportError(.reset, "the service has closed"))
        for _ in 0..<3 {
            target.settle()
            visitor.settle()
        }
        near.setReading(true)
        for _ in 0..<20 {
            visitor.settle()
            target.settle()
        }
        #expect(nearSees.received.readableBytes == 30_000)
        #expect(nearSees.inputClosed == 1)
        _ = relay
    }

    @Test func theAgentCanOpenStreamsToo() throws {
        let pair = LanePair()
        var seen: TunnelStreamID?
        pair.gatewayDelegate.onStream = { stream, _ in seen = stream.id }
        let stream = try pair.agent.openStream(StreamOpening(kind: .tcp))
        pair.settle()
        #expect(stream.id.isOpenedByAgent)
        #expect(seen == stream.id)
    }

    @Test func aSlowReaderStallsOnlyItsOwnStream() throws {
        let pair = LanePair()
        let (slow, _, slowFar, slowSees) = try pair.stream()
        let (fast, _, _, fastSees) = try pair.stream()
        slowFar?.setReading(false)
        let block = ByteBuffer(repeating: 1, count: 1 << 20)
        slow.write(block)
        fast.write(block)
        #expect(!slow.isWritable)
        pair.settle()
        #expect(fastSees.received.readableBytes == 1 << 20)
        #expect(slowSees.received.readableBytes == 0)
        #expect(slow.queuedBytes == (1 << 20) - TunnelWire.initialWindow)
        slowFar?.setReading(true)
        #expect(slowSees.received.readableBytes == 0, "not from within setReading")
        pair.settle()
        #expect(slowSees.received.readableBytes == 1 << 20)
        #expect(slow.isWritable)
        _ = fast
    }

    @Test func writabilityIsToldInPairs() throws {
        let pair = LanePair()
        let (near, nearSees, far, _) = try pair.stream()
        far?.setReading(false)
        near.write(ByteBuffer(repeating: 1, count: 400_000))
        pair.settle()
        #expect(nearSees.writability == [false])
        far?.setReading(true)
        pair.settle()
        #expect(nearSees.writability == [false, true])
    }

    @Test func aWriterThatSawAPauseHearsOfItsEndAlsoWhenTheQueueDrainedFirst() throws {
        var configuration = LaneConfiguration()
        configuration.streamHighWater = 32 << 10
        let pair = LanePair(configuration)
        let (near, nearSees, _, farSees) = try pair.stream()
        let (other, _, _, _) = try pair.stream()
        pair.gatewayEnd.highWater = 1
        other.write(ByteBuffer(string: "x"))
        pair.loop.run()
        near.write(ByteBuffer(repeating: 1, count: 40 << 10))
        #expect(!near.isWritable, "what a writer that asks is told")
        // The connection takes everything before the turn ends in which the delegate would be told of the pause.
        pair.gatewayEnd.highWater = 1 << 20
        pair.gatewayEnd.pump(.max)
        #expect(near.isWritable)
        #expect(nearSees.writability.isEmpty)
        pair.settle()
        #expect(nearSees.writability == [true], "or it would wait for ever")
        #expect(farSees.received.readableBytes == 40 << 10)
    }

    @Test func theWindowGrowsWhileTheConsumerKeepsUp() throws {
        let pair = LanePair()
        let (near, _, far, farSees) = try pair.stream()
        for _ in 0..<64 {
            near.write(ByteBuffer(repeating: 7, count: 256 << 10))
            pair.settle()
        }
        #expect(farSees.received.readableBytes == 16 << 20)
        far?.setReading(false)
        near.write(ByteBuffer(repeating: 7, count: 32 << 20))
        pair.settle()
        #expect(near.queuedBytes <= 20 << 20, "a window of several MiB was in use")
        #expect(near.queuedBytes >= 15 << 20, "but never more than the configured maximum")
    }

    @Test func whatTheLaneHoldsIsBounded() throws {
        var configuration = LaneConfiguration()
        configuration.receiveBudget = 200_000
        let pair = LanePair(configuration)
        var recorders: [StreamRecorder] = []
        for _ in 0..<5 {
            let (near, nearSees, far, _) = try pair.stream()
            far?.setReading(false)
            near.write(ByteBuffer(repeating: 1, count: 65_536))
            recorders.append(nearSees)
        }
        pair.settle()
        #expect(recorders.filter { $0.closed.first??.code == .limitExceeded }.count == 2)
        #expect(pair.gateway.streamCount == 3)
    }

    @Test func theStreamThatHoldsMostPaysForALaneThatHoldsTooMuch() throws {
        var configuration = LaneConfiguration()
        configuration.receiveBudget = 100_000
        let pair = LanePair(configuration)
        var recorders: [StreamRecorder] = []
        for bytes in [20_000, 60_000, 15_000, 10_000] {
            let (near, nearSees, far, _) = try pair.stream()
            far?.setReading(false)
            near.write(ByteBuffer(repeating: 1, count: bytes))
            recorders.append(nearSees)
            pair.settle()
        }
        #expect(recorders.map { $0.closed.first??.code } == [nil, .limitExceeded, nil, nil])
        #expect(pair.gateway.streamCount == 3)
    }

    @Test func whatStreamsHoldThatHaveEndedCountsToo() throws {
        var configuration = LaneConfiguration()
        configuration.receiveBudget = 100_000
        let pair = LanePair(configuration)
        let (near, _, far, farSees) = try pair.stream()
        far?.setReading(false)
        near.write(ByteBuffer(repeating: 1, count: 60_000))
        near.closeOutput()
        far?.closeOutput()
        pair.settle()
        #expect(pair.gateway.streamCount == 0)
        let (other, otherSees, otherFar, _) = try pair.stream()
        otherFar?.setReading(false)
        other.write(ByteBuffer(repeating: 1, count: 50_000))
        pair.settle()
        #expect(otherSees.closed.isEmpty)
        #expect(pair.gateway.streamCount == 1)
        // It has lost bytes and must not look as if it had come to its end.
        far?.setReading(true)
        pair.settle()
        #expect(farSees.received.readableBytes == 0)
        #expect(farSees.inputClosed == 0)
        #expect(farSees.closed.map { $0?.code } == [.limitExceeded])
    }

    @Test func closeSendsWhatIsQueuedAndDropsWhatComes() throws {
        let pair = LanePair()
        let (near, nearSees, far, farSees) = try pair.stream()
        near.write(ByteBuffer(string: "last words"))
        near.close()
        pair.settle()
        #expect(farSees.text == "last words")
        #expect(farSees.inputClosed == 1)
        #expect(nearSees.closed == [nil])
        far?.write(ByteBuffer(string: "too late"))
        far?.closeOutput()
        pair.settle()
        #expect(nearSees.text.isEmpty)
        #expect(pair.gateway.streamCount == 0)
        #expect(pair.agent.streamCount == 0)
    }

    @Test func aPeerThatNeverEndsAClosedStreamIsReset() throws {
        let pair = LanePair()
        let (near, _, _, farSees) = try pair.stream()
        near.close()
        for _ in 0..<5 {
            pair.settle()
            pair.loop.advanceTime(by: .seconds(6))
        }
        pair.settle()
        #expect(farSees.closed.first??.code == .cancelled)
        #expect(pair.gateway.streamCount == 0)
        #expect(pair.agent.streamCount == 0)
    }

    @Test func delegateCanBeHandedOverWithoutLosingBytes() throws {
        let pair = LanePair()
        let (near, _, far, first) = try pair.stream()
        far?.delegate = nil
        near.write(ByteBuffer(string: "for the second"))
        near.closeOutput()
        pair.settle()
        #expect(first.text.isEmpty)
        let second = StreamRecorder()
        far?.delegate = second
        #expect(second.text.isEmpty, "not from within the setter")
        pair.settle()
        #expect(second.text == "for the second")
        #expect(second.inputClosed == 1)
    }

    @Test func goAwayLetsStreamsFinishThenClosesBothSides() throws {
        let pair = LanePair()
        let (near, _, far, _) = try pair.stream()
        pair.gateway.goAway(TunnelGoAway(reason: "restart", next: "https://other.example/"))
        pair.settle()
        #expect(pair.agentDelegate.goAways == [TunnelGoAway(reason: "restart", next: "https://other.example/")])
        #expect(!pair.agent.acceptsStreams)
        #expect(throws: TransportError.self) { try pair.gateway.openStream(StreamOpening(kind: .http)) }
        #expect(pair.gatewayDelegate.closed.isEmpty)
        near.closeOutput()
        far?.closeOutput()
        pair.settle()
        #expect(pair.gatewayDelegate.closed == [nil])
        #expect(pair.agentDelegate.closed == [nil])
    }

    @Test func streamsOpenedAcrossAGoAwayAreRefused() throws {
        let pair = LanePair()
        pair.settle()
        pair.agent.goAway(TunnelGoAway(reason: "stopping"))
        let recorder = StreamRecorder()
        let stream = try pair.gateway.openStream(StreamOpening(kind: .http))
        stream.delegate = recorder
        pair.settle()
        #expect(recorder.closed.first??.code == .goingAway)
    }

    @Test func closeResetsEverythingAndIsOrderly() throws {
        let pair = LanePair()
        let (_, nearSees, _, farSees) = try pair.stream()
        pair.gateway.close()
        pair.settle()
        // Not the code that says "not served".
        #expect(nearSees.closed.first??.code == .laneLost)
        #expect(farSees.closed.first??.code == .laneLost)
        #expect(pair.gatewayDelegate.closed == [nil])
        #expect(pair.agentDelegate.closed == [nil])
    }

    @Test func lanesTogetherHoldNoMoreThanTheirSharedBudget() throws {
        let budget = SharedByteBudget(limit: 3 << 20)
        var configuration = LaneConfiguration()
        configuration.sharedBudget = budget
        configuration.maximumStreamWindow = 65_536
        let pairs = (0..<4).map { _ in LanePair(configuration) }
        var ends: [StreamRecorder] = []
        for pair in pairs {
            // 24 streams of 64 KiB that nobody reads: 1.5 MiB a lane.
            for _ in 0..<24 {
                let (near, sees, far, _) = try pair.stream()
                near.setReading(false)
                far?.write(ByteBuffer(repeating: 1, count: 65_536))
                ends.append(sees)
            }
            pair.settle()
        }
        #expect(budget.used <= 5 << 20)
        let broken = ends.filter { $0.closed.first??.code == .limitExceeded }
        // The first two lanes fit, and one that holds 1 MiB is spared.
        #expect((8...20).contains(broken.count))
        #expect(ends.prefix(48).allSatisfy { $0.closed.isEmpty })
        for pair in pairs { pair.gateway.close() }
        for pair in pairs { pair.settle() }
        #expect(budget.used == 0)
    }

    @Test func aLaneThatClosesAsOlderAgentsDoDoesNotDenyThatItServed() throws {
        let pair = LanePair()
        let (_, nearSees, far, _) = try pair.stream()
        far?.abort(TransportError(.goingAway, "the lane is closed"))
        pair.settle()
        #expect(nearSees.closed.first??.code == .laneLost)
    }

    @Test func outputThatBreaksIsSentAndThenReset() throws {
        let pair = LanePair()
        let (near, nearSees, far, farSees) = try pair.stream()
        let text = String(repeating: "x", count: 200_000)
        far?.write(ByteBuffer(string: text))
        far?.breakOutput(TransportError(.truncated, "cut"))
        far?.close()
        pair.settle()
        #expect(nearSees.text == text)
        #expect(nearSees.inputClosed == 0)
        #expect(nearSees.closed.first??.code == .truncated)
        #expect(farSees.closed.count == 1)
        #expect(pair.gateway.streamCount == 0)
        #expect(pair.agent.streamCount == 0)
        withExtendedLifetime(near) {}
    }

    @Test func outputThatBreaksWithNothingQueuedIsResetAtOnce() throws {
        let pair = LanePair()
        let (_, nearSees, far, _) = try pair.stream()
        far?.breakOutput(TransportError(.truncated, "cut"))
        pair.settle()
        #expect(nearSees.closed.first??.code == .truncated)
    }

    @Test func aSilentPeerIsFoundDeadInTime() throws {
        let pair = LanePair()
        pair.settle()
        for _ in 0..<15 {
            pair.loop.advanceTime(by: .seconds(1))
            pair.loop.run()
        }
        #expect(pair.gatewayDelegate.suspensions.map(\.code) == [.idleTimeout])
    }

    @Test func pingsKeepAQuietLaneAliveAndMeasureTheRoundTrip() throws {
        let pair = LanePair()
        for _ in 0..<100 {
            pair.settle()
            pair.loop.advanceTime(by: .seconds(1))
        }
        #expect(pair.gatewayDelegate.suspensions.isEmpty)
        #expect(pair.agent.isConnected)
        #expect(pair.gateway.statistics.roundTripTime != nil)
        #expect(pair.gateway.unacknowledgedBytes == 0)
    }

    @Test func oneTickIsOneWriteForSmallFramesOfManyStreams() throws {
        let pair = LanePair()
        let streams = try (0..<50).map { _ in try pair.stream().near }
        pair.settle()
        let before = pair.gatewayEnd.writes
        for stream in streams { stream.write(ByteBuffer(string: "GET / HTTP/1.1\r\nhost: a\r\n\r\n")) }
        pair.loop.run()
        #expect(pair.gatewayEnd.writes == before + 1)
    }

    @Test func notesArrive() throws {
        let pair = LanePair()
        pair.settle()
        let note = TunnelNote(tunnel: 1, method: "GET", path: "/å", status: 200, microseconds: 1_234)
        pair.gateway.send(note)
        pair.settle()
        #expect(pair.agentDelegate.notes == [note])
    }

    @Test func theLimitOfStreamsHolds() throws {
        var configuration = LaneConfiguration()
        configuration.maximumStreams = 2
        let pair = LanePair(configuration)
        _ = try pair.gateway.openStream(StreamOpening(kind: .http))
        _ = try pair.gateway.openStream(StreamOpening(kind: .http))
        #expect(!pair.gateway.acceptsStreams)
        #expect(throws: TransportError.self) { try pair.gateway.openStream(StreamOpening(kind: .http)) }
    }
}

/// Frames that a well-behaved peer never sends.
@Suite struct HostilePeerTests {
    static let stream = TunnelStreamID(openedByAgent: false, generation: 0, slot: 0)
    static let cases: [(String, [TunnelFrame])] = [
        ("DATA without OPEN", [.data(stream, ByteBuffer(string: "x"), isEnd: false)]),
        ("CREDIT without OPEN", [.credit(stream, 1)]),
        ("RESET without OPEN", [.reset(stream, .reset, reason: ByteBuffer())]),
        ("OPEN twice", [.open(stream, StreamOpening(kind: .http)), .open(stream, StreamOpening(kind: .http))]),
        (
            "OPEN of the other side's stream",
            [.open(TunnelStreamID(openedByAgent: true, generation: 0, slot: 0), StreamOpening(kind: .http))]
        ),
        (
            "OPEN with a hole in the slots",
            [.open(TunnelStreamID(openedByAgent: false, generation: 0, slot: 9), StreamOpening(kind: .http))]
        ),
        (
            "OPEN with a generation to come",
            [.open(TunnelStreamID(openedByAgent: false, generation: 1, slot: 0), StreamOpening(kind: .http))]
        ),
        (
            "DATA after END",
            [
                .open(stream, StreamOpening(kind: .http)), .data(stream, ByteBuffer(string: "x"), isEnd: true),
                .data(stream, ByteBuffer(string: "y"), isEnd: false),
            ]
        ),
        (
            "DATA beyond credit",
            [.open(stream, StreamOpening(kind: .http))]
                + (0..<5).map { _ in .data(stream, ByteBuffer(repeating: 0, count: 16_384), isEnd: false) }
        ),
        (
            "too much credit",
            [.open(stream, StreamOpening(kind: .http)), .credit(stream, .max)]
        ),
        ("ACK of what was never sent", [.ack(1_000)]),
        ("HELLO within a lane", [.hello(ByteBuffer(string: "{}"))]),
        ("WELCOME within a lane", [.welcome(ByteBuffer(string: "{}"))]),
    ]

    @Test(arguments: cases.indices) func closesTheLane(_ index: Int) throws {
        let (name, frames) = Self.cases[index]
        let loop = EmbeddedEventLoop()
        let (mine, theirs) = PipeTransport.pair(loop)
        let delegate = LaneRecorder()
        delegate.onStream = { stream, _ in stream.setReading(false) }
        let lane = TunnelLane(transport: theirs, role: .agent, configuration: LaneConfiguration(), delegate: delegate)
        var bytes = ByteBuffer()
        for frame in frames { bytes.writeTunnelFrame(frame) }
        mine.write(bytes)
        mine.pump(.max)
        loop.run()
        #expect(lane.isClosed, "\(name)")
        #expect(delegate.closed.first??.code == .protocolViolation, "\(name)")
        #expect(delegate.suspensions.isEmpty)
    }

    @Test func aPeerThatNeverReadsIsNotReadFromAnyMore() throws {
        let loop = EmbeddedEventLoop()
        let (mine, theirs) = PipeTransport.pair(loop)
        let delegate = LaneRecorder()
        delegate.onStream = { stream, _ in stream.abort(TransportError(.refused, String(repeating: "n", count: 250))) }
        let lane = TunnelLane(transport: theirs, role: .agent, configuration: LaneConfiguration(), delegate: delegate)
        var generation: UInt16 = 0
        for _ in 0..<30_000 where theirs.isReading {
            var bytes = ByteBuffer()
            let id = TunnelStreamID(openedByAgent: false, generation: generation, slot: 0)
            bytes.writeTunnelFrame(.open(id, StreamOpening(kind: .http)))
            bytes.writeTunnelFrame(.reset(id, .cancelled, reason: ByteBuffer()))
            generation = (generation + 1) & 0x7FFF
            mine.write(bytes)
            mine.pump(.max)
            loop.run()
        }
        #expect(!theirs.isReading)
        #expect(theirs.queued < 1 << 20)
        #expect(!lane.isClosed)
    }

    /// Answers that are never acknowledged are kept for the case that the connection is lost.
    @Test(arguments: [0, 250]) func aPeerThatNeverAcknowledgesIsLeft(reason: Int) throws {
        let loop = EmbeddedEventLoop()
        let (mine, theirs) = PipeTransport.pair(loop)
        let peer = StreamRecorder()
        mine.delegate = peer
        let delegate = LaneRecorder()
        delegate.onStream = { stream, _ in
            stream.abort(TransportError(.refused, String(repeating: "n", count: reason)))
        }
        var configuration = LaneConfiguration()
        configuration.resumeLogLimit = 1 << 20
        let lane = TunnelLane(transport: theirs, role: .agent, configuration: configuration, delegate: delegate)
        var generation: UInt16 = 0
        var most = 0
        for _ in 0..<3_000 where !lane.isClosed {
            var bytes = ByteBuffer()
            for _ in 0..<100 {
                let id = TunnelStreamID(openedByAgent: false, generation: generation, slot: 0)
                bytes.writeTunnelFrame(.open(id, StreamOpening(kind: .http)))
                bytes.writeTunnelFrame(.reset(id, .cancelled, reason: ByteBuffer()))
                generation = (generation + 1) & 0x7FFF
            }
            mine.write(bytes)
            mine.pump(.max)
            loop.run()
            most = max(most, lane.unacknowledgedBytes)
            theirs.pump(.max)
        }
        #expect(lane.isClosed)
        #expect(most <= (2 << 20) + 100_000)
        #expect(delegate.closed.first??.code == .protocolViolation)
        #expect(delegate.suspensions.isEmpty, "there is nothing to resume")
        while theirs.pump(.max) {}
        var decoder = TunnelFrameDecoder()
        decoder.receive(peer.received)
        var last: TunnelFrame?
        while let frame = try decoder.next() { last = frame }
        guard case .goAway(let message)? = last else {
            Issue.record("\(String(describing: last)) instead of GOAWAY")
            return
        }
        #expect(message.code == .protocolViolation)
    }
}
