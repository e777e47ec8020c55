/// Flow control of one stream: how much may be sent, and how much the peer is allowed to send.
package import NIOCore

/// Counts credit both ways. The receive window starts at 64 KiB and doubles while the consumer takes half of it within two
/// round trips, which leads it to between two and four times the bandwidth-delay product.
package struct StreamCredit: Sendable {
    /// How much may be sent, in bytes.
    package private(set) var sendable: Int32
    /// How much the peer may have under way or unconsumed here, in bytes.
    package private(set) var window: Int32
    /// How much of the window the peer has not used.
    private var receivable: Int32
    /// Consumed and not yet given back.
    private var unreturned: Int32 = 0
    private var lastGrant: NIODeadline

    package init(now: NIODeadline) {
        sendable = Int32(TunnelWire.initialWindow)
        window = Int32(TunnelWire.initialWindow)
        receivable = Int32(TunnelWire.initialWindow)
        lastGrant = now
    }

    /// Bytes are sent; at most ``sendable``.
    package mutating func spend(_ bytes: Int) { sendable &-= Int32(truncatingIfNeeded: bytes) }

    /// CREDIT arrived.
    /// - Returns: false when the peer gives more than ``TunnelWire/maximumWindow``.
    package mutating func receiveCredit(_ increment: UInt32) -> Bool {
        guard UInt64(max(sendable, 0)) + UInt64(increment) <= UInt64(TunnelWire.maximumWindow) else { return false }
        sendable += Int32(increment)
        return true
    }

    /// DATA arrived.
    /// - Returns: false when the peer had no credit for it.
    package mutating func receiveData(_ bytes: Int) -> Bool {
        guard bytes <= Int(receivable) else { return false }
        receivable &-= Int32(truncatingIfNeeded: bytes)
        return true
    }

    /// The consumer took bytes.
    /// - Returns: Whether it is time for ``grant(now:roundTripTime:limit:spare:)``.
    package mutating func consume(_ bytes: Int) -> Bool {
        unreturned &+= Int32(truncatingIfNeeded: bytes)
        return unreturned >= window / 2
    }

    /// How much to give back, and by how much the window grew.
    /// - Parameters:
    ///   - limit: The largest window, in bytes.
    ///   - spare: By how much the lane's budget lets the window grow, in bytes.
    package mutating func grant(
        now: NIODeadline, roundTripTime: TimeAmount, limit: Int, spare: Int
    ) -> (increment: UInt32, growth: Int) {
        var growth: Int32 = 0
        // On a loopback the time between two turns of the event loop counts, not the round trip.
        let patience = max(roundTripTime, .milliseconds(1)) * 2
        if now - lastGrant < patience {
            growth = Int32(clamping: min(Int(window), limit - Int(window), spare))
            growth = max(growth, 0)
        }
        lastGrant = now
        window += growth
        let increment = unreturned + growth
        receivable += increment
        unreturned = 0
        return (UInt32(max(increment, 0)), Int(growth))
    }
}
