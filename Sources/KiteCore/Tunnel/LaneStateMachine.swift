/// A lane without its connection, clock and streams: counting, acknowledging, liveness, round-trip time.
package import KiteHTTP
package import NIOCore

/// Decides when to acknowledge, when to ping and when a connection is dead; counts the frames both ways.
///
/// Sending: the caller writes what ``takeSignals(into:)`` gives first, then sequenced frames, and tells ``ResumeLog`` of them. Receiving:
/// bytes in, stream frames out; PING, PONG and ACK are dealt with inside.
package struct LaneStateMachine {
    /// Thresholds at which an acknowledgement is sent even though there is nothing else to write.
    static let acknowledgeFrames: UInt64 = 256
    static let acknowledgeBytes = 256 << 10

    private var decoder = TunnelFrameDecoder()
    /// What was sent and is not acknowledged.
    package var log = ResumeLog()
    /// How many sequenced frames have been received.
    package private(set) var received: UInt64 = 0
    private var acknowledged: UInt64 = 0
    private var unacknowledgedBytes = 0
    private var pendingPong: UInt64?
    private var pendingPing: UInt64?
    private var unansweredPings = 0
    private var acknowledgeNow = false
    private var acknowledgesAtOnce = false
    /// Smoothed as in RFC 6298.
    package private(set) var roundTripTime: TimeAmount?
    /// The shortest seen: what tuning windows goes by, since it is free of queues.
    package private(set) var shortestRoundTrip: TimeAmount?

    package init() {}

    // MARK: receiving

    /// Bytes of the connection have arrived.
    package mutating func receive(_ bytes: ByteBuffer) {
        unansweredPings = 0
        unacknowledgedBytes += bytes.readableBytes
        decoder.receive(bytes)
    }

    /// The next frame that concerns streams or the lane's owner; nil when all that has arrived has been dealt with.
    /// - Throws: `.protocolViolation`.
    package mutating func next(now: @autoclosure () -> NIODeadline) throws(TransportError) -> TunnelFrame? {
        while let frame = try decoder.next() {
            switch frame {
            case .data, .open, .credit, .reset:
                received += 1
                return frame
            case .goAway:
                received += 1
                // Who has sent GOAWAY waits for all to be acknowledged before it closes.
                acknowledgesAtOnce = true
                return frame
            case .note: return frame
            case .ping(let value): pendingPong = value
            case .pong(let value): measure(value, now: now())
            case .ack(let count): try log.acknowledge(count)
            case .unknown: break
            case .hello, .welcome: throw TransportError(.protocolViolation, "tunnel: HELLO or WELCOME within a lane")
            }
        }
        return nil
    }

    private mutating func measure(_ sentAt: UInt64, now: NIODeadline) {
        // The peer echoes what it likes; a time from the future or of long ago is no measurement.
        guard sentAt <= now.uptimeNanoseconds, now.uptimeNanoseconds - sentAt < 60_000_000_000 else { return }
        let sample = TimeAmount.nanoseconds(Int64(now.uptimeNanoseconds - sentAt))
        roundTripTime = roundTripTime.map { .nanoseconds(($0.nanoseconds * 7 + sample.nanoseconds) / 8) } ?? sample
        shortestRoundTrip = min(shortestRoundTrip ?? sample, sample)
    }

    // MARK: sending

    /// Whether signals wait that should leave without data to go with.
    package var wantsToSend: Bool {
        pendingPong != nil || pendingPing != nil || ((acknowledgeNow || acknowledgesAtOnce) && received != acknowledged)
            || received - acknowledged >= Self.acknowledgeFrames
            || (unacknowledgedBytes >= Self.acknowledgeBytes && received != acknowledged)
    }

    /// Writes what is not counted: PONG, PING, ACK.
    package mutating func takeSignals(into buffer: inout ByteBuffer) {
        if let value = pendingPong {
            buffer.writeTunnelFrame(.pong(value))
            pendingPong = nil
        }
        if let value = pendingPing {
            buffer.writeTunnelFrame(.ping(value))
            pendingPing = nil
        }
        if received != acknowledged {
            buffer.writeTunnelFrame(.ack(received))
            acknowledged = received
        }
        acknowledgeNow = false
        unacknowledgedBytes = 0
    }

    // MARK: time

    /// What a lane does when a ping interval has passed.
    package enum TickAction: Sendable, Hashable {
        /// Write what ``takeSignals(into:)`` gives.
        case send
        /// Nothing came for too long.
        case dead
    }

    /// A ping interval has passed.
    package mutating func tick(now: NIODeadline, misses: Int) -> TickAction {
        if unansweredPings >= misses { return .dead }
        unansweredPings += 1
        acknowledgeNow = true
        pendingPing = now.uptimeNanoseconds
        return .send
    }

    /// How long to wait for the next tick. Less once a ping has been missed: who died right after a ping's answer is to be noticed within
    /// three intervals, the coarseness of timers included.
    package func pause(interval: TimeAmount) -> TimeAmount {
        unansweredPings > 1 ? .nanoseconds(interval.nanoseconds / 5 * 4) : interval
    }

    // MARK: connections

    /// The connection is gone: what had arrived of an unfinished frame is of no use any more.
    package mutating func disconnect() {
        decoder = TunnelFrameDecoder()
        pendingPong = nil
        pendingPing = nil
        unansweredPings = 0
    }

    /// There is a new one; the peer has had so many frames.
    /// - Returns: What to write first.
    /// - Throws: `.protocolViolation` when `peerReceived` can't be.
    package mutating func reconnect(peerReceived: UInt64) throws(TransportError) -> [ByteBuffer] {
        disconnect()
        try log.acknowledge(peerReceived)
        // The count was said in HELLO or WELCOME.
        acknowledged = received
        return log.replay()
    }
}
