/// A byte stream inside a WebSocket, for networks where only WebSockets pass.
package import KiteHTTP
package import NIOCore

/// Presents a WebSocket that carries binary messages as a ``ByteTransport``.
///
/// The bytes are those of the messages in order; where a message ends means nothing, except that an empty message is the end of the
/// sender's bytes (half-close). Closing sends code 1000, aborting sends 4000 plus the number of the ``TransportError/Code``.
package final class WebSocketByteTransport: ByteTransport {
    /// The longest message sent, in bytes.
    private static let messageBytes = 64 << 10
    private static let abortCodes: UInt16 = 4000

    private let connection: WebSocketConnection
    /// What was written in this turn of the loop.
    private var pending: [ByteBuffer] = []
    private var pendingBytes = 0
    private var isFlushScheduled = false
    private var outputIsClosed = false
    private var inputIsClosed = false
    private var isOver = false
    private var isReading = true
    private var wasWritable = true
    /// What had been read when the delegate was taken away; bounded, since reading stops then.
    private var held: [ByteBuffer] = []
    private var toldInputClosed = false
    /// An end that came before there was anybody to tell, or before it had all that came before.
    private var unreported: (error: TransportError?, Void)?

    package var delegate: (any ByteTransportDelegate)? {
        didSet {
            guard delegate != nil else {
                if !isOver { connection.setReading(false) }
                return
            }
            // Not from within the setter: who hands over may have bytes to pass on that came before.
            eventLoop.assumeIsolated().execute { self.resume() }
        }
    }

    /// Takes over an open WebSocket.
    package init(_ connection: WebSocketConnection) {
        self.connection = connection
    }

    package var eventLoop: any EventLoop { connection.eventLoop }
    package var remoteAddress: SocketAddress? { connection.remoteAddress }
    package var queuedBytes: Int { connection.queuedBytes + pendingBytes }
    package var isWritable: Bool { connection.isWritable && pendingBytes < Self.messageBytes }

    package func write(_ bytes: ByteBuffer) {
        guard !outputIsClosed, !isOver, bytes.readableBytes > 0 else { return }
        pending.append(bytes)
        pendingBytes += bytes.readableBytes
        wasWritable = wasWritable && isWritable
        guard !isFlushScheduled else { return }
        isFlushScheduled = true
        eventLoop.assumeIsolated().execute { [self] in
            isFlushScheduled = false
            flush()
            tellWritability()
        }
    }

    package func closeOutput() {
        guard !outputIsClosed, !isOver else { return }
        flush()
        outputIsClosed = true
        connection.sendBinary(ByteBuffer())
        if inputIsClosed { connection.close() }
    }

    package func close() {
        guard !isOver else { return }
        flush()
        outputIsClosed = true
        connection.close()
    }

    package func abort(_ reason: TransportError) {
        guard !isOver else { return }
        pending = []
        pendingBytes = 0
        outputIsClosed = true
        connection.close(
            WebSocketCloseCode(rawValue: Self.abortCodes + UInt16(reason.code.rawValue)), reason: reason.message)
        isOver = true
        held = []
        toldInputClosed = true
        report(reason)
    }

    package func setReading(_ wanted: Bool) {
        isReading = wanted
        guard delegate != nil else { return }
        if !isOver { connection.setReading(wanted) }
        if wanted, !held.isEmpty { eventLoop.assumeIsolated().execute { self.deliver() } }
    }

    private func resume() {
        guard delegate != nil else { return }
        deliver()
        guard !isOver, delegate != nil else { return }
        connection.setReading(isReading)
        // Reading begins only once somebody listens.
        if connection.delegate == nil { connection.delegate = self }
    }

    /// Tells the delegate what it has not been told yet, in order.
    private func deliver() {
        while isReading, !held.isEmpty, let delegate { delegate.transportReceived(held.removeFirst()) }
        guard held.isEmpty else { return }
        if inputIsClosed, !toldInputClosed, let delegate {
            toldInputClosed = true
            delegate.transportInputClosed()
        }
        guard let unreported, let delegate else { return }
        self.unreported = nil
        self.delegate = nil
        delegate.transportClosed(unreported.error)
    }

    private func flush() {
        guard pendingBytes > 0, !isOver else { return }
        var message = ByteBuffer()
        for bytes in pending {
            var rest = bytes
            while rest.readableBytes > 0 {
                let room = Self.messageBytes - message.readableBytes
                guard let piece = rest.readSlice(length: min(room, rest.readableBytes)) else { break }
                if message.readableBytes == 0 { message = piece } else { message.writeImmutableBuffer(piece) }
                if message.readableBytes == Self.messageBytes {
                    connection.sendBinary(message)
                    message = ByteBuffer()
                }
            }
        }
        if message.readableBytes > 0 { connection.sendBinary(message) }
        pending.removeAll(keepingCapacity: true)
        pendingBytes = 0
    }

    private func tellWritability() {
        let isWritable = isWritable
        guard isWritable != wasWritable else { return }
        wasWritable = isWritable
        delegate?.transportWritabilityChanged(isWritable)
    }

    private func report(_ error: TransportError?) {
        unreported = (error, ())
        deliver()
    }
}

extension WebSocketByteTransport: WebSocketConnectionDelegate {
    package func webSocket(_ connection: WebSocketConnection, receivedText message: ByteBuffer) {
        abort(TransportError(.protocolViolation, "A text message came where only bytes are carried."))
    }

    package func webSocket(_ connection: WebSocketConnection, receivedBinary message: ByteBuffer) {
        guard !isOver else { return }
        if inputIsClosed {
            abort(TransportError(.protocolViolation, "Bytes came after the end of the stream."))
        } else if message.readableBytes > 0 {
            if let delegate, held.isEmpty { delegate.transportReceived(message) } else { held.append(message) }
        } else {
            inputIsClosed = true
            deliver()
            if outputIsClosed { connection.close() }
        }
    }

    package func webSocket(_ connection: WebSocketConnection, writabilityChanged isWritable: Bool) {
        tellWritability()
    }

    package func webSocket(_ connection: WebSocketConnection, closed closure: WebSocketClosure) {
        guard !isOver else { return }
        isOver = true
        pending = []
        pendingBytes = 0
        let code = closure.code.rawValue
        if closure.isClean, closure.code == .normal || closure.code == .goingAway || closure.code == .none {
            report(nil)
        } else if code > Self.abortCodes, code <= Self.abortCodes + UInt16(UInt8.max),
            let reason = TransportError.Code(rawValue: UInt8(code - Self.abortCodes))
        {
            report(TransportError(reason, closure.reason))
        } else {
            report(TransportError(.reset, "The WebSocket that carried the bytes broke: \(closure.reason)"))
        }
    }
}
