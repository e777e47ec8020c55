/// Joins two byte streams: an upgraded connection with its upstream, an agent's stream with its target.
public import KiteSupport
public import NIOCore

/// Copies bytes between two transports of one event loop, both ways, until both directions have ended or one side broke. A side that does
/// not take its bytes slows down the other. Ends of stream and breaks are passed on.
public final class TransportRelay {
    /// What passed, and how it ended.
    public struct Outcome: Sendable {
        /// Bytes from the first transport to the second.
        public var forward: Int
        /// Bytes from the second transport to the first.
        public var backward: Int
        /// Why it broke; nil after an orderly end.
        public var error: TransportError?
    }

    private let first: Side
    private let second: Side
    private var onEnd: ((Outcome) -> Void)?
    private var error: TransportError?
    private var idleTimer: WheelTimer?
    private let idleTimeout: TimeAmount?
    private var openSides = 2

    /// Becomes the delegate of both transports. Keeps itself alive until it has ended.
    /// - Parameters:
    ///   - idleTimeout: without a byte either way for so long, both sides are aborted; needs a wheel.
    ///   - onEnd: called once.
    @discardableResult
    public init(
        _ first: any ByteTransport, _ second: any ByteTransport, wheel: TimerWheel? = nil,
        idleTimeout: TimeAmount? = nil,
        onEnd: @escaping (Outcome) -> Void = { _ in }
    ) {
        self.first = Side(first, towards: second)
        self.second = Side(second, towards: first)
        self.onEnd = onEnd
        self.idleTimeout = idleTimeout
        self.first.relay = self
        self.second.relay = self
        if let wheel, let idleTimeout {
            let timer = WheelTimer(wheel: wheel) { [weak self] in
                self?.abort(TransportError(.idleTimeout, "Nothing was sent for too long"))
            }
            idleTimer = timer
            timer.start(after: idleTimeout)
        }
        first.delegate = self.first
        second.delegate = self.second
        if !second.isWritable { first.setReading(false) }
        if !first.isWritable { second.setReading(false) }
    }

    /// Breaks both sides off.
    public func abort(_ reason: TransportError) {
        if error == nil { error = reason }
        first.transport.abort(reason)
        second.transport.abort(reason)
    }

    fileprivate func moved() {
        if let idleTimer, let idleTimeout { idleTimer.start(after: idleTimeout) }
    }

    fileprivate func closed(_ side: Side, _ reason: TransportError?) {
        guard side.relay != nil else { return }
        side.relay = nil
        openSides -= 1
        if error == nil { error = reason }
        if openSides > 0 {
            // What a side brought before its end of stream is complete and goes on to the other, whatever becomes of that side then.
            if let reason, !side.hasEnded {
                guard reason.code == .truncated else { return side.peer.abort(reason) }
                side.peer.breakOutput(reason)
            }
            side.peer.close()
            return
        }
        idleTimer?.cancel()
        let onEnd = onEnd
        self.onEnd = nil
        onEnd?(Outcome(forward: first.count, backward: second.count, error: error))
    }

    /// What one transport brings goes to the other.
    fileprivate final class Side: ByteTransportDelegate {
        let transport: any ByteTransport
        let peer: any ByteTransport
        var relay: TransportRelay?
        var count = 0
        /// The end of its input has been passed on.
        var hasEnded = false

        init(_ transport: any ByteTransport, towards peer: any ByteTransport) {
            self.transport = transport
            self.peer = peer
        }

        func transportReceived(_ bytes: ByteBuffer) {
            count += bytes.readableBytes
            peer.write(bytes)
            if !peer.isWritable { transport.setReading(false) }
            relay?.moved()
        }

        func transportInputClosed() {
            hasEnded = true
            guard !transport.isInputTruncated else {
                // Whoever reads up to the end must not take what there is for all.
                return peer.breakOutput(TransportError(.truncated, "The TLS connection was cut without a farewell"))
            }
            peer.closeOutput()
        }

        func transportClosed(_ error: TransportError?) { relay?.closed(self, error) }
        func transportWritabilityChanged(_ isWritable: Bool) { peer.setReading(isWritable) }
    }
}
