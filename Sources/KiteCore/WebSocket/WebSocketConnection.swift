/// A WebSocket over any byte transport: a thin shell around ``WebSocketStateMachine`` that reads, writes and keeps the deadlines.
package import KiteHTTP
package import KiteSupport
package import NIOCore

/// Receives what a ``WebSocketConnection`` brings. Called on its event loop.
package protocol WebSocketConnectionDelegate: AnyObject {
    /// One text message, valid UTF-8.
    func webSocket(_ connection: WebSocketConnection, receivedText message: ByteBuffer)
    /// One binary message.
    func webSocket(_ connection: WebSocketConnection, receivedBinary message: ByteBuffer)
    /// ``WebSocketConnection/isWritable`` changed.
    func webSocket(_ connection: WebSocketConnection, writabilityChanged isWritable: Bool)
    /// The last call: nothing arrives any more and nothing can be sent.
    func webSocket(_ connection: WebSocketConnection, closed closure: WebSocketClosure)
}

/// One open WebSocket. Event-loop bound: every member must be used on ``eventLoop``.
///
/// The transport keeps it alive; its delegate is held until the WebSocket is closed.
package final class WebSocketConnection {
    /// Server payloads up to this many bytes are copied behind their header, longer ones are written as they are.
    private static let copiedPayloadBytes = 2048

    /// What was agreed upon, and what it is used for.
    struct Compression {
        var agreement: WebSocketDeflate
        var options: WebSocketCompression
    }

    package let role: WebSocketRole
    /// Who is told what arrives. Nothing is delivered while it is nil; one that comes when all is over is told of that.
    package var delegate: (any WebSocketConnectionDelegate)? {
        didSet { if delegate != nil { delegateCame() } }
    }
    private let transport: any ByteTransport
    private let limits: WebSocketLimits
    /// Nil where permessage-deflate was not agreed upon.
    private let compression: Compression?
    private let unfinished: UnfinishedMessages?
    /// What has been counted there.
    private var unfinishedBytes = 0
    private var machine: WebSocketStateMachine
    private var isReading = true
    private var isPumping = false
    private var isInputOver = false
    private var isReported = false
    /// How the WebSocket ended, where there was nobody to tell.
    private var unreported: WebSocketClosure?
    /// How the connection under an open WebSocket ended, while there is nobody to tell what came before.
    private var lost: WebSocketClosure?
    private var pendingPong: ByteBuffer?
    private var heardSincePing = true
    /// Built on the first close only.
    private var closeTimer: WheelTimer?
    /// What waited to be sent when the close timer was started.
    private var queuedAtClose = 0
    private var pingTimer: WheelTimer?
    private let wheel: TimerWheel?

    /// Takes over the transport.
    /// - Parameters:
    ///   - wheel: the loop's timer wheel; without one there are no deadlines and no pings.
    package convenience init(
        transport: any ByteTransport, role: WebSocketRole, limits: WebSocketLimits = WebSocketLimits(),
        wheel: TimerWheel?
    ) {
        self.init(
            transport: transport, role: role, limits: limits, compression: nil, unfinished: nil, wheel: wheel)
    }

    init(
        transport: any ByteTransport, role: WebSocketRole, limits: WebSocketLimits, compression: Compression?,
        unfinished: UnfinishedMessages?, wheel: TimerWheel?
    ) {
        self.transport = transport
        self.unfinished = unfinished
        self.role = role
        self.compression = compression
        self.limits = limits
        self.wheel = wheel
        machine = WebSocketStateMachine(role: role, limits: limits, allowsCompression: compression != nil)
        if let wheel, let interval = limits.pingInterval {
            let timer = WheelTimer(wheel: wheel) { [weak self] in self?.pingDue() }
            pingTimer = timer
            timer.start(after: interval)
        }
        transport.delegate = self
    }

    package var eventLoop: any EventLoop { transport.eventLoop }
    package var remoteAddress: SocketAddress? { transport.remoteAddress }
    /// False while more waits to be sent than the transport wants to hold.
    package var isWritable: Bool { transport.isWritable }
    /// How many bytes wait to be sent, as far as the transport knows.
    package var queuedBytes: Int { transport.queuedBytes }
    /// Whether messages can still be sent.
    package var isOpen: Bool { machine.isOpen }

    /// Sends one text message; `message` must be valid UTF-8. Dropped unless the WebSocket is open.
    package func sendText(_ message: ByteBuffer) { send(.text, message) }

    /// Sends one binary message. Dropped unless the WebSocket is open.
    package func sendBinary(_ message: ByteBuffer) { send(.binary, message) }

    /// Asks for a sign of life, or is one.
    package func ping(_ payload: ByteBuffer = ByteBuffer()) {
        var payload = payload
        send(.ping, payload.readSlice(length: min(payload.readableBytes, 125)) ?? ByteBuffer())
    }

    /// Begins the closing handshake. What was sent before leaves first, for which the peer has all the time it needs as long as it goes on
    /// taking it; what arrives after is dropped. The delegate hears of the end when the peer has answered, or when its time is up.
    package func close(_ code: WebSocketCloseCode = .normal, reason: String = "") {
        guard let frame = machine.close(code, reason: reason) else { return }
        transport.write(frame)
        pingTimer?.cancel()
        startCloseTimer()
        if !isReading {
            isReading = true
            transport.setReading(true)
        }
        pump()
    }

    /// Breaks the connection at once.
    package func abort(_ reason: TransportError) {
        guard !isReported else { return }
        machine.abandon()
        transport.abort(reason)
        report(WebSocketClosure(code: .abnormal, reason: reason.message, isClean: false))
    }

    /// Back pressure: with false nothing is delivered and the peer is slowed down. Not heeded once closing has begun.
    package func setReading(_ wanted: Bool) {
        guard machine.isOpen, wanted != isReading else { return }
        isReading = wanted
        transport.setReading(wanted)
        if wanted { pump() }
    }

    private func send(_ opcode: WebSocketOpcode, _ payload: ByteBuffer) {
        guard machine.isOpen else { return }
        var payload = payload
        var isCompressed = false
        if let compression, !opcode.isControl, compression.options.messageBytes.contains(payload.readableBytes),
            let shorter = DeflateCodec.current.deflate(payload, windowBits: compression.agreement.windowBits)
        {
            payload = shorter
            isCompressed = true
        }
        var output = ByteBuffer()
        if role == .server && payload.readableBytes > Self.copiedPayloadBytes {
            machine.encodeHeader(
                opcode, isCompressed: isCompressed, payloadLength: payload.readableBytes, into: &output)
            transport.write(output)
            transport.write(payload)
        } else {
            machine.encode(opcode, isCompressed: isCompressed, payload: payload, into: &output)
            transport.write(output)
        }
    }

    private func delegateCame() {
        if let unreported {
            self.unreported = nil
            return tell(unreported)
        }
        pump()
        if let lost, !isReported {
            machine.abandon()
            report(lost)
        }
    }

    /// Does what the machine says until it needs more bytes or the delegate wants no more.
    private func pump() {
        guard !isPumping, delegate != nil || !machine.isOpen else { return }
        isPumping = true
        drain()
        isPumping = false
        countUnfinished()
    }

    private func drain() {
        while isReading && (delegate != nil || !machine.isOpen) {
            switch inflated(machine.next()) {
            case .none:
                if isInputOver, let closure = machine.inputClosed() {
                    transport.close()
                    report(lost ?? closure)
                }
                return
            case .deliver(.text(let message)): delegate?.webSocket(self, receivedText: message)
            case .deliver(.binary(let message)): delegate?.webSocket(self, receivedBinary: message)
            case .inflate: return
            case .answerPing(let payload):
                // A peer that pings and does not read makes us hold one pong, not all of them.
                if transport.isWritable { send(.pong, payload) } else { pendingPong = payload }
            case .receivedPong: break
            case .answerClose(let closure, let frame):
                transport.write(frame)
                end(closure)
            case .finish(let closure): end(closure)
            case .fail(let error, let frame): fail(error, frame)
            }
        }
    }

    private func fail(_ error: WebSocketError, _ frame: ByteBuffer) {
        if frame.readableBytes > 0 { transport.write(frame) }
        end(WebSocketClosure(code: error.code, reason: error.message, isClean: false))
    }

    /// Gives up when all connections together hold too much.
    private func countUnfinished() {
        guard let unfinished else { return }
        let bytes = machine.unfinishedBytes
        guard bytes != unfinishedBytes else { return }
        if unfinished.change(from: unfinishedBytes, to: bytes) {
            unfinishedBytes = bytes
        } else if case .fail(let error, let frame) = machine.fail(Self.noRoom) {
            fail(error, frame)
        }
    }

    private static let noRoom = WebSocketError(
        .tryAgainLater, "Too many messages that have not arrived whole are held already.")

    /// Puts the message itself in the place of a compressed one.
    private func inflated(_ action: WebSocketStateMachine.Action) -> WebSocketStateMachine.Action {
        guard case .inflate(let compressed, let isText) = action else { return action }
        do throws(WebSocketError) {
            let message = try DeflateCodec.current.inflate(compressed, limit: limits.messageBytes, isText: isText)
            return .deliver(isText ? .text(message) : .binary(message))
        } catch {
            return machine.fail(error)
        }
    }

    private func end(_ closure: WebSocketClosure) {
        // Also bounds how long the peer may take to read what is still queued.
        startCloseTimer()
        if role == .client && closure.isClean {
            // The server closes the connection first, so that the client's port is not left waiting (RFC 6455 section 7.1.1).
            if isInputOver { transport.close() }
        } else {
            transport.close()
        }
        report(closure)
    }

    private func report(_ closure: WebSocketClosure) {
        guard !isReported else { return }
        isReported = true
        countUnfinished()
        pingTimer?.cancel()
        pendingPong = nil
        if delegate != nil { tell(closure) } else { unreported = closure }
    }

    private func tell(_ closure: WebSocketClosure) {
        let delegate = delegate
        self.delegate = nil
        delegate?.webSocket(self, closed: closure)
    }

    // MARK: Deadlines

    /// The time counts from when the close frame has left: what is queued before it may take long.
    private func startCloseTimer() {
        guard let wheel, closeTimer == nil else { return }
        queuedAtClose = transport.queuedBytes
        let timer = WheelTimer(wheel: wheel) { [weak self] in self?.closeIsLate() }
        closeTimer = timer
        timer.start(after: limits.closeTimeout)
    }

    private func closeIsLate() {
        let queued = transport.queuedBytes
        // It may also have grown, by what was still to be encrypted then.
        if queued != queuedAtClose {
            queuedAtClose = queued
            closeTimer?.start(after: limits.closeTimeout)
            return
        }
        machine.abandon()
        transport.abort(TransportError(.idleTimeout, "The peer did not finish closing the WebSocket in time."))
        report(.lost)
    }

    private func pingDue() {
        guard machine.isOpen, let interval = limits.pingInterval else { return }
        if heardSincePing {
            heardSincePing = false
            ping()
            pingTimer?.start(after: interval)
        } else if isReading {
            abort(TransportError(.idleTimeout, "The peer of the WebSocket is silent."))
        } else {
            // We are the ones who don't listen.
            pingTimer?.start(after: interval)
        }
    }
}

extension WebSocketConnection: ByteTransportDelegate {
    package func transportReceived(_ bytes: ByteBuffer) {
        heardSincePing = true
        machine.receive(bytes)
        pump()
    }

    package func transportInputClosed() {
        isInputOver = true
        if machine.isClosed { transport.close() } else { pump() }
    }

    package func transportClosed(_ error: TransportError?) {
        closeTimer?.cancel()
        pingTimer?.cancel()
        isInputOver = true
        let closure =
            error.map { WebSocketClosure(code: .abnormal, reason: $0.message, isClean: false) } ?? .lost
        if delegate == nil, machine.isOpen, !isReported {
            // What came before is told first, to whoever comes.
            lost = closure
            return
        }
        machine.abandon()
        report(closure)
    }

    package func transportWritabilityChanged(_ isWritable: Bool) {
        if isWritable, let payload = pendingPong {
            pendingPong = nil
            send(.pong, payload)
        }
        delegate?.webSocket(self, writabilityChanged: isWritable)
    }
}
