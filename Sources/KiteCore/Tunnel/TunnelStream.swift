/// One of a lane's streams, as bytes both ways.
public import KiteHTTP
public import NIOCore

/// A ``ByteTransport`` with flow control of its own: a slow reader slows down its own writer only. `abort` sends a RESET
/// with the reason, which the peer's delegate gets as its error.
public final class TunnelStream: ByteTransport {
    public let eventLoop: any EventLoop
    /// Names the stream within its lane.
    package let id: TunnelStreamID
    /// The visitor's address, on the side that accepted the stream.
    public let remoteAddress: SocketAddress?
    public var delegate: (any ByteTransportDelegate)? {
        didSet { if delegate != nil, hasNews { lane?.deferDelivery(self) } }
    }

    /// Nil once the stream is over.
    private var lane: TunnelLane?
    var machine = StreamStateMachine()
    var credit: StreamCredit
    private var output = ByteQueue()
    private var input = ByteQueue()
    private var closeError: TransportError?
    /// Sent as RESET after the queue, in place of END.
    private var breakReason: TransportError?
    private var flags: Flags = [.reading, .toldWritable]

    /// The next in the lane's list of streams with something to send.
    var nextReady: TunnelStream?
    /// How many ticks it has waited for the peer's END after ``close()``.
    var lingeredTicks: UInt8 = 0

    private struct Flags: OptionSet {
        let rawValue: UInt16
        /// The consumer wants data.
        static let reading = Flags(rawValue: 1)
        /// END is to be sent after the queue.
        static let outputEnding = Flags(rawValue: 2)
        /// END has arrived.
        static let inputEnded = Flags(rawValue: 4)
        /// The delegate knows of END.
        static let toldInputEnded = Flags(rawValue: 8)
        /// The delegate has had or is to have its last call.
        static let closing = Flags(rawValue: 16)
        /// ``close()`` was called: what arrives is dropped.
        static let discarding = Flags(rawValue: 32)
        /// What the delegate knows of ``isWritable``.
        static let toldWritable = Flags(rawValue: 64)
        /// The queue passed the high-water mark and has not fallen under half of it since.
        static let overHighWater = Flags(rawValue: 128)
        /// The lane's list of ready streams has it.
        static let isReady = Flags(rawValue: 256)
        /// The lane's list of deferred deliveries has it.
        static let isDeferred = Flags(rawValue: 512)
        /// ``isWritable`` has been false, which a writer may have seen before the delegate was told: it must hear of the end.
        static let owesWritable = Flags(rawValue: 1024)
    }

    init(lane: TunnelLane, id: TunnelStreamID, remoteAddress: SocketAddress?) {
        self.lane = lane
        eventLoop = lane.eventLoop
        self.id = id
        self.remoteAddress = remoteAddress
        credit = StreamCredit(now: lane.eventLoop.now)
    }

    // MARK: ByteTransport

    public var isWritable: Bool { !flags.contains(.overHighWater) && acceptsOutput }

    public func write(_ bytes: ByteBuffer) {
        guard acceptsOutput, let lane else { return }
        output.append(bytes)
        if output.bytes >= lane.configuration.streamHighWater, !flags.contains(.overHighWater) {
            flags.formUnion([.overHighWater, .owesWritable])
            lane.deferDelivery(self)
        }
        lane.markReady(self)
    }

    public func closeOutput() {
        guard acceptsOutput, let lane else { return }
        flags.insert(.outputEnding)
        lane.markReady(self)
    }

    public func close() {
        guard !flags.contains(.discarding), let lane else { return }
        if flags.contains(.closing) { return dropRest(lane) }
        flags.insert(.discarding)
        lane.unbuffer(input.bytes)
        input.removeAll()
        closeOutput()
        if !machine.canSend { closedAfterOutput() }
    }

    public func abort(_ reason: TransportError) {
        guard let lane else { return }
        if flags.contains(.closing), machine.isClosed { return dropRest(lane) }
        if machine.sendReset() { lane.sendReset(id, reason) }
        end(with: reason)
    }

    /// Both sides have ended, and nobody wants what is left: the delegate hears of the end.
    private func dropRest(_ lane: TunnelLane) {
        flags.insert(.discarding)
        lane.unbuffer(input.bytes)
        input.removeAll()
        lane.deferDelivery(self)
    }

    public func breakOutput(_ reason: TransportError) {
        guard breakReason == nil else { return }
        guard acceptsOutput, !output.isEmpty else { return abort(reason) }
        breakReason = reason
        flags.formUnion([.outputEnding, .discarding])
        lane?.unbuffer(input.bytes)
        input.removeAll()
    }

    public func setReading(_ wanted: Bool) {
        guard wanted != flags.contains(.reading) else { return }
        if wanted {
            flags.insert(.reading)
            if hasNews { lane?.deferDelivery(self) }
        } else {
            flags.remove(.reading)
        }
    }

    /// Bytes that have arrived and that nobody has taken.
    var bufferedBytes: Int { input.bytes }

    /// Drops what nobody takes: the lane needs the memory. Whoever would have read it gets `reason` in place of the end, also where
    /// the peer has ended in good order.
    func overflow(_ reason: TransportError) {
        guard let lane else { return }
        if machine.sendReset() { lane.sendReset(id, reason) }
        flags.remove(.closing)
        end(with: reason)
    }

    /// Bytes that wait to be sent.
    public var queuedBytes: Int { output.bytes }

    // MARK: sending, called by the lane

    private var acceptsOutput: Bool {
        machine.canSend && !flags.contains(.outputEnding) && !flags.contains(.closing)
    }

    var isReady: Bool {
        get { flags.contains(.isReady) }
        set { if newValue { flags.insert(.isReady) } else { flags.remove(.isReady) } }
    }

    /// Whether there is a frame to send now.
    var canSendFrame: Bool {
        guard machine.canSend else { return false }
        return output.isEmpty ? flags.contains(.outputEnding) : credit.sendable > 0
    }

    /// Below this many bytes a copy is cheaper than an element of the vectored write.
    static let copyThreshold = 2_048

    /// Writes one DATA frame; a large payload is returned instead of written. Only while ``canSendFrame``.
    func takeFrame(into buffer: inout ByteBuffer) -> (payload: ByteBuffer?, length: Int) {
        let limit = min(TunnelWire.maximumPayload, Int(credit.sendable), output.bytes)
        let start = buffer.writerIndex
        var payload: ByteBuffer?
        var length = 0
        if output.firstLength > Self.copyThreshold, limit > Self.copyThreshold {
            payload = output.take(limit)
            length = payload?.readableBytes ?? 0
            buffer.writeTunnelHeader(.data, length: length, stream: id.rawValue)
        } else {
            buffer.writeTunnelHeader(.data, length: 0, stream: id.rawValue)
            while length < limit, length == 0 || output.firstLength <= Self.copyThreshold,
                var piece = output.take(limit - length)
            {
                length += piece.readableBytes
                buffer.writeBuffer(&piece)
            }
            buffer.setInteger(UInt16(truncatingIfNeeded: length), at: start + 2)
        }
        credit.spend(length)
        if output.isEmpty, let breakReason {
            abort(breakReason)
        } else if output.isEmpty, flags.contains(.outputEnding) {
            buffer.setInteger(TunnelFrameDecoder.endFlag, at: start + 1)
            machine.sendEnd()
            if flags.contains(.discarding) { closedAfterOutput() } else { finishIfBothEnded() }
        }
        if flags.contains(.overHighWater), output.bytes * 2 <= lane?.configuration.streamHighWater ?? 0 {
            flags.remove(.overHighWater)
        }
        if owesNotification { lane?.deferDelivery(self) }
        return (payload, length)
    }

    // MARK: receiving, called by the lane

    /// DATA that the machine wants delivered.
    func receive(_ bytes: ByteBuffer, isEnd: Bool) {
        let length = bytes.readableBytes
        if length > 0, !flags.contains(.discarding) {
            if let delegate, input.isEmpty, flags.contains(.reading), !flags.contains(.closing) {
                delegate.transportReceived(bytes)
                consumed(length)
            } else {
                input.append(bytes, compact: true)
                lane?.buffer(length, of: self)
            }
        }
        if isEnd {
            flags.insert(.inputEnded)
            tellInputEnded()
            finishIfBothEnded()
        }
    }

    /// The peer's RESET, or the lane's end.
    func fail(_ error: TransportError) {
        end(with: error)
        deliver()
    }

    var isDeferred: Bool {
        get { flags.contains(.isDeferred) }
        set { if newValue { flags.insert(.isDeferred) } else { flags.remove(.isDeferred) } }
    }

    /// Tells the delegate what it does not know yet. Never called from within the delegate's own calls.
    func deliver() {
        while flags.contains(.reading), let delegate, !input.isEmpty, let bytes = input.take(.max) {
            let length = bytes.readableBytes
            lane?.unbuffer(length)
            delegate.transportReceived(bytes)
            consumed(length)
        }
        tellInputEnded()
        if flags.contains(.closing) {
            guard let delegate, input.isEmpty else { return }
            self.delegate = nil
            lane = nil
            delegate.transportClosed(closeError)
        } else if let delegate, owesNotification {
            if flags.contains(.overHighWater) {
                flags.remove(.toldWritable)
            } else {
                flags.insert(.toldWritable)
                flags.remove(.owesWritable)
            }
            delegate.transportWritabilityChanged(flags.contains(.toldWritable))
        }
    }

    /// The lane is over: fails without a RESET.
    func laneEnded(_ error: TransportError) {
        machine = StreamStateMachine(state: .closed)
        end(with: error)
    }

    // MARK: private

    /// Whether the delegate is to be told of ``isWritable``.
    private var owesNotification: Bool {
        flags.contains(.overHighWater)
            ? flags.contains(.toldWritable) : !flags.contains(.toldWritable) || flags.contains(.owesWritable)
    }

    private var hasNews: Bool {
        (flags.contains(.reading) && !input.isEmpty) || flags.contains(.closing)
            || (flags.contains(.inputEnded) && !flags.contains(.toldInputEnded))
    }

    private func consumed(_ length: Int) {
        guard machine.canReceive, credit.consume(length) else { return }
        lane?.returnCredit(self)
    }

    private func tellInputEnded() {
        guard flags.contains(.inputEnded), !flags.contains(.toldInputEnded), input.isEmpty,
            !flags.contains(.closing) || closeError == nil, let delegate
        else { return }
        flags.insert(.toldInputEnded)
        if !flags.contains(.discarding) { delegate.transportInputClosed() }
    }

    private func finishIfBothEnded() {
        guard machine.isClosed else { return }
        flags.insert(.closing)
        lane?.deferDelivery(self)
    }

    private func closedAfterOutput() {
        guard let lane else { return }
        if !machine.isClosed { lane.linger(self) }
        flags.insert(.closing)
        lane.deferDelivery(self)
    }

    private func end(with error: TransportError) {
        guard let lane else { return }
        output.removeAll()
        lane.unbuffer(input.bytes)
        input.removeAll()
        if !flags.contains(.closing) {
            closeError = error
            flags.insert(.closing)
        }
        lane.deferDelivery(self)
    }
}
