/// A stream of HTTP/2 as a pipe: what a WebSocket over HTTP/2 is to everybody else (RFC 8441).
import KiteHTTP
import NIOCore

/// The bytes of DATA frames in both directions. Flow control of the stream is its back pressure, END_STREAM its half-close, RST_STREAM its
/// break.
final class HTTP2StreamTransport: ByteTransport, LoopFlushable {
    let eventLoop: any EventLoop
    let remoteAddress: SocketAddress?
    /// Nil once the stream is over, or let go of.
    private var stream: HTTP2Stream?
    private var hasInputEnded = false
    private var toldInputEnded = false
    private var isClosing = false
    /// The last call to the delegate is due, or done.
    private var isOver = false
    private var toldClosed = false
    private var failure: TransportError?
    private var isListed = false
    /// What had come when nobody listened yet and the stream ended.
    private var late = CircularBuffer<ByteBuffer>(initialCapacity: 0)

    var delegate: (any ByteTransportDelegate)? {
        didSet {
            guard delegate != nil else { return }
            stream?.transportResume()
            if isOver || hasInputEnded { enlist() }
        }
    }

    init(_ stream: HTTP2Stream) {
        self.stream = stream
        eventLoop = stream.eventLoop
        remoteAddress = stream.peer.address
    }

    /// Nothing is delivered before somebody listens.
    var isListening: Bool { delegate != nil }

    // MARK: From the stream

    func received(_ bytes: ByteBuffer) {
        guard !isClosing else { return }
        if let delegate { delegate.transportReceived(bytes) } else { late.append(bytes) }
    }

    func inputEnded() {
        guard !hasInputEnded, !isClosing else { return }
        hasInputEnded = true
        enlist()
    }

    func writabilityChanged(_ isWritable: Bool) { if !isClosing { delegate?.transportWritabilityChanged(isWritable) } }

    /// Something of what was written has left.
    func outputMoved(isGone: Bool) {
        // Both directions are through; the stream ends by itself.
        if isGone, hasInputEnded { ended(nil) }
    }

    func ended(_ error: TransportError?) {
        guard !isOver else { return }
        isOver = true
        failure = error
        stream = nil
        enlist()
    }

    // MARK: ByteTransport

    var isWritable: Bool { !isClosing && !isOver && stream?.isTransportWritable ?? false }
    var queuedBytes: Int { stream?.pendingOutput ?? 0 }

    func write(_ bytes: ByteBuffer) {
        guard bytes.readableBytes > 0, !isClosing else { return }
        stream?.transportWrite(bytes)
    }

    func closeOutput() { stream?.transportCloseOutput() }

    func close() {
        guard !isClosing, !isOver else { return }
        isClosing = true
        let stream = stream
        ended(nil)
        stream?.transportClose()
    }

    func abort(_ reason: TransportError) {
        guard !isOver else { return }
        isClosing = true
        let stream = stream
        ended(reason)
        stream?.transportAbort()
    }

    func setReading(_ wanted: Bool) { stream?.setReading(wanted) }

    // MARK: End of turn

    private func enlist() {
        guard !isListed else { return }
        isListed = true
        LoopFlusher.on(eventLoop).add(self)
    }

    func turnEnded() {
        isListed = false
        guard let delegate else { return }
        while !isClosing, let bytes = late.popFirst() { delegate.transportReceived(bytes) }
        if hasInputEnded, !toldInputEnded, !isClosing {
            toldInputEnded = true
            delegate.transportInputClosed()
        }
        if isOver, !toldClosed {
            toldClosed = true
            let last = self.delegate
            self.delegate = nil
            last?.transportClosed(failure)
        }
    }
}
