/// How a lane writes: once per turn of the event loop for all its streams.
import KiteHTTP
import NIOCore

extension TunnelLane: LoopFlushable {
    /// How many bytes of data are gathered before the transport is asked whether it takes more.
    private static let roundBytes = 64 << 10
    /// So many rounds, then other work of the loop has its turn.
    private static let roundsPerTurn = 4
    /// So much control that the peer does not read, and nothing more is read from it.
    private static let controlLimit = 1 << 20
    /// Control frames are sent even when the log is full. A peer that lets it grow by so many bytes beyond its limit does not acknowledge.
    private static let logExcess = 1 << 20

    /// Queues a sequenced frame that goes ahead of data.
    func sendControl(_ frame: TunnelFrame) {
        guard phase != .closed else { return }
        control.writeTunnelFrame(frame)
        controlFrames += 1
        if control.readableBytes > Self.controlLimit, !hasPausedReading {
            hasPausedReading = true
            transport?.setReading(false)
        }
        awaitTurnEnd()
    }

    func sendReset(_ id: TunnelStreamID, _ error: TransportError) {
        sendControl(
            .reset(id, error.code, reason: ByteBuffer(string: cut(error.message, to: TunnelWire.maximumReason))))
    }

    // MARK: turns

    /// A stream may have something to send.
    func markReady(_ stream: TunnelStream) {
        guard !stream.isReady, stream.canSendFrame, phase != .closed else { return }
        stream.isReady = true
        if let last = lastReady { last.nextReady = stream } else { firstReady = stream }
        lastReady = stream
        awaitTurnEnd()
    }

    func popReady() -> TunnelStream? {
        guard let stream = firstReady else { return nil }
        firstReady = stream.nextReady
        if firstReady == nil { lastReady = nil }
        stream.nextReady = nil
        stream.isReady = false
        return stream
    }

    /// The stream's delegate is to be told something, but not now.
    func deferDelivery(_ stream: TunnelStream) {
        guard !stream.isDeferred else { return }
        stream.isDeferred = true
        deferred.append(stream)
        awaitTurnEnd()
    }

    func awaitTurnEnd() {
        guard !isTurnEndAwaited else { return }
        isTurnEndAwaited = true
        flusher.add(self)
    }

    package func turnEnded() {
        isTurnEndAwaited = false
        if !deferred.isEmpty {
            let streams = deferred
            deferred = []
            for stream in streams {
                stream.isDeferred = false
                stream.deliver()
            }
        }
        guard phase != .closed else { return tellClosed() }
        flush()
    }

    // MARK: writing

    /// Writes what there is as far as the transport takes it.
    func flush() {
        var rounds = 0
        while let transport, transport.isWritable, flushRound(transport, isLast: false) {
            rounds += 1
            if rounds == Self.roundsPerTurn {
                awaitTurnEnd()
                break
            }
        }
        if hasPausedReading, control.readableBytes == 0 {
            hasPausedReading = false
            transport?.setReading(true)
        }
        // Who has sent GOAWAY ends the lane, once the peer has seen it: no OPEN can be under way any more.
        if sentGoAway, !staysUseful, streamCount == 0, machine.log.isEmpty, controlFrames == 0, phase != .closed {
            finish(nil)
        }
    }

    /// One round: signals, control, then data by turns.
    /// - Returns: Whether streams with data are left.
    @discardableResult
    func flushRound(_ transport: any ByteTransport, isLast: Bool) -> Bool {
        guard isLast || firstReady != nil || controlFrames > 0 || notes.readableBytes > 0 || machine.wantsToSend else {
            return false
        }
        var gathered = ByteBuffer()
        gathered.reserveCapacity(control.readableBytes + 1_000)
        machine.takeSignals(into: &gathered)
        if notes.readableBytes > 0 {
            gathered.writeBuffer(&notes)
            notes.clear()
        }
        let sequencedStart = gathered.writerIndex
        var frames = controlFrames
        if frames > 0 {
            gathered.writeBuffer(&control)
            if control.capacity > 65_536 { control = ByteBuffer() } else { control.clear() }
            controlFrames = 0
        }
        var budget = isLast ? 0 : min(Self.roundBytes, configuration.resumeLogLimit - machine.log.bytes)
        while budget > 0, let stream = popReady() {
            guard stream.canSendFrame else { continue }
            let (payload, length) = stream.takeFrame(into: &gathered)
            frames += 1
            budget -= length + TunnelWire.headerLength
            if let payload {
                splits.append(Split(end: gathered.writerIndex, payload: payload, frames: frames))
                frames = 0
            }
            if stream.machine.isClosed { release(stream) } else { markReady(stream) }
        }
        write(gathered, sequencedStart: sequencedStart, frames: frames, to: transport)
        if machine.log.bytes > configuration.resumeLogLimit + Self.logExcess {
            violated(TransportError(.protocolViolation, "tunnel: \(machine.log.bytes) bytes are not acknowledged"))
            return false
        }
        return firstReady != nil && machine.log.bytes < configuration.resumeLogLimit
    }

    private func write(_ gathered: ByteBuffer, sequencedStart: Int, frames: Int, to transport: any ByteTransport) {
        var start = gathered.readerIndex
        var logStart = sequencedStart
        for split in splits {
            guard let head = gathered.getSlice(at: start, length: split.end - start) else { continue }
            transport.write(head)
            transport.write(split.payload)
            counters.bytesSent += UInt64(head.readableBytes + split.payload.readableBytes)
            var sequenced = head
            sequenced.moveReaderIndex(forwardBy: logStart - start)
            machine.log.append(sequenced, tail: split.payload, frames: split.frames)
            start = split.end
            logStart = start
        }
        splits.removeAll(keepingCapacity: true)
        guard start < gathered.writerIndex,
            let rest = gathered.getSlice(at: start, length: gathered.writerIndex - start)
        else { return }
        transport.write(rest)
        counters.bytesSent += UInt64(rest.readableBytes)
        var sequenced = rest
        sequenced.moveReaderIndex(forwardBy: logStart - start)
        machine.log.append(sequenced, tail: nil, frames: frames)
    }

    // MARK: streams' book-keeping

    /// The stream has ended on both sides: its slot is free.
    func release(_ stream: TunnelStream) {
        let isOurs = stream.id.isOpenedByAgent == (role == .agent)
        let wasOpen = isOurs ? ours.remove(stream.id, isOurs: true) : theirs.remove(stream.id, isOurs: false)
        guard wasOpen else { return }
        windowGrowth -= Int(stream.credit.window) - TunnelWire.initialWindow
        if stream.bufferedBytes > 0 { ended.append(stream) }
    }

    /// The stream was closed here; the peer has a while to end it, too.
    func linger(_ stream: TunnelStream) { lingering.append(stream) }

    /// At every ping.
    func sweepLingering() {
        ended.removeAll { $0.bufferedBytes == 0 }
        guard !lingering.isEmpty else { return }
        lingering.removeAll { stream in
            stream.lingeredTicks += 1
            guard !stream.machine.isClosed, stream.lingeredTicks >= 3 else { return stream.machine.isClosed }
            if stream.machine.sendReset() {
                sendReset(stream.id, TransportError(.cancelled, "this side has closed the stream"))
            }
            return true
        }
    }
}
