/// One stream of an HTTP/2 connection: the exchange that others answer, and what is kept for it.
import KiteHTTP
import KiteSupport
import KiteWebSocket
import NIOCore
import NIOHPACK
import NIOHTTP2

/// A request on a ``HTTP2ServerConnection``. As an exchange it ends with its response; as a stream it lives until both sides have ended it
/// and what was written has left.
final class HTTP2Stream: Exchange {
    let id: HTTP2StreamID
    let eventLoop: any EventLoop
    let peer: ExchangePeer
    private(set) var request: RequestHead
    var handler: (any ExchangeHandler)?
    /// Nil once the stream is over.
    private(set) var connection: HTTP2ServerConnection?
    private(set) var machine: HTTP2StreamStateMachine
    private(set) var isEnded = false
    /// Once upgraded.
    private(set) var transport: HTTP2StreamTransport?
    private let webSocketKey: String?

    var window: ReceiveWindow
    private var held = CircularBuffer<ByteBuffer>(initialCapacity: 0)
    private var isReading = true
    private var isDelivering = false
    /// The end of the request has come and waits behind what is held.
    private var heldEnd: HeldEnd?
    /// Bytes that were written and are not in a frame yet.
    private(set) var pendingOutput = 0
    private var toldWritable = true
    /// END_STREAM has left.
    private var isOutputGone = false
    private var timer: WheelTimer?
    private var armed = Deadline.none
    /// The rest of the upload is not waited for once the response has left.
    private var stopsWhenGone = false
    /// This side has reset it.
    var isReset = false
    /// In the connection's list of those that have something to do when the turn ends.
    var isListed = false

    private struct HeldEnd {
        var trailers: HeaderBlock?
    }

    /// What the stream waits for, where the wait has an end.
    private enum Deadline {
        case none, body, output, linger
    }

    init(
        _ id: HTTP2StreamID, _ request: RequestTranslator.Request, isEnded: Bool, connection: HTTP2ServerConnection
    ) {
        self.id = id
        self.connection = connection
        eventLoop = connection.eventLoop
        peer = connection.peer
        self.request = request.head
        webSocketKey = request.webSocketKey
        machine = HTTP2StreamStateMachine(
            request.head, isEnded: isEnded, isTunnel: request.webSocketKey != nil, limits: connection.limits)
        window = ReceiveWindow(
            window: connection.http2.initialStreamWindow, target: connection.http2.initialStreamWindow,
            fullTarget: connection.http2.streamWindow)
        // A request for a WebSocket has no body; what comes on its stream is for whoever takes it over.
        if isEnded || request.webSocketKey != nil { heldEnd = HeldEnd(trailers: nil) }
    }

    // MARK: For the connection

    /// Delivers what came with the request's fields: at least its end, if that was all.
    func began() {
        deliver()
        updateDeadline()
    }

    /// DATA. `count` is what the frame costs of the windows, padding included.
    func received(_ bytes: ByteBuffer, endsStream: Bool) {
        perform(machine.received(bytes.readableBytes, endsStream: endsStream), bytes, endsStream: endsStream, nil)
    }

    /// The fields after the body.
    func received(trailers: HeaderBlock?) {
        perform(machine.ended(), ByteBuffer(), endsStream: true, trailers)
    }

    private func perform(
        _ action: HTTP2StreamStateMachine.InputAction, _ bytes: ByteBuffer, endsStream: Bool, _ trailers: HeaderBlock?
    ) {
        switch action {
        case .take:
            let count = bytes.readableBytes
            if count > 0 {
                hold(bytes)
                window.hold(count)
                connection?.window.hold(count)
            }
            if endsStream { heldEnd = HeldEnd(trailers: trailers) }
            deliver()
            hasProgress(.body)
        case .drop:
            if endsStream { settle() }
        case .stop: reset(.noError)
        case .malformed(let why):
            connection?.noteMalformed(why)
            end(TransportError(.protocolViolation, why))
            reset(.protocolError)
        case .refuse(let error): refuse(error)
        case .abort(let reason): abort(reason)
        }
    }

    /// Keeps what came until it is delivered. Bytes come as slices of what was read from the socket: few of them that have to wait would keep
    /// all of that in memory, so they are copied, and put together.
    private func hold(_ bytes: ByteBuffer) {
        let count = bytes.readableBytes
        if held.isEmpty, !isDelivering, isReading, !isUpgradable, transport?.isListening ?? true {
            held.append(bytes)
        } else if let last = held.indices.last, held[last].readableBytes + count <= Self.heldBytes {
            held[last].writeImmutableBuffer(bytes)
        } else {
            held.append(count < Self.heldBytes / 2 ? ByteBuffer(bytes: bytes.readableBytesView) : bytes)
        }
    }

    /// Up to how many bytes that wait are put together.
    private static let heldBytes = 16 << 10

    /// The engine's own refusal, for what came after the head.
    private func refuse(_ error: HTTPError) {
        guard !isEnded, let connection else { return }
        connection.resources.onRefusal?(error, peer, self)
        let refusal = Refusal(error.status, error.message).response(to: request)
        let last = handler
        handler = nil
        respond(refusal.head, body: refusal.body)
        let code: TransportError.Code =
            switch error.code {
            case .slowBody: .idleTimeout
            case .bodyTooLarge: .limitExceeded
            default: .protocolViolation
            }
        last?.exchangeEnded(self, error: TransportError(code, error.message))
    }

    /// A frame of this stream has been written.
    func wrote(_ count: Int, endsStream: Bool) {
        pendingOutput -= count
        if endsStream { isOutputGone = true }
        hasProgress(.output)
        connection?.list(self)
    }

    /// The stream is over for the framing layer.
    /// - Parameter error: nil when both sides have ended it. The response may not have been finished yet then.
    func closed(_ error: TransportError?) {
        guard connection != nil else { return }
        timer?.cancel()
        timer = nil
        pendingOutput = 0
        if let transport {
            self.transport = nil
            // What had come before is genuine.
            while let bytes = held.popFirst() {
                taken(bytes.readableBytes)
                transport.received(bytes)
            }
            if error == nil { transport.inputEnded() }
            transport.ended(error)
            connection = nil
        } else {
            discardHeld()
            connection = nil
            if let error { end(error) }
        }
    }

    /// At the end of a turn of the loop.
    func turnEnded() {
        deliver()
        guard connection != nil else { return }
        tellWritability()
        if isOutputGone, isEnded, machine.isInputOpen, transport == nil {
            if stopsWhenGone { reset(.noError) } else if armed != .linger { arm(.linger) }
        }
    }

    /// Whether another writer would only pile up bytes.
    private var isOutputFull: Bool {
        guard let connection else { return true }
        return pendingOutput > connection.outputMark
    }

    private func tellWritability() {
        let isWritable = pendingOutput <= (connection?.outputMark ?? 0) / 2
        if isWritable, !toldWritable {
            toldWritable = true
            if let transport {
                transport.writabilityChanged(true)
            } else if !isEnded {
                handler?.exchangeWritabilityChanged(self, isWritable: true)
            }
        }
    }

    /// Gives the handler what it wants.
    private func deliver() {
        guard !isDelivering, connection != nil else { return }
        isDelivering = true
        if let transport {
            while isReading, transport.isListening, let bytes = held.popFirst() {
                taken(bytes.readableBytes)
                transport.received(bytes)
            }
            if held.isEmpty, isReading, transport.isListening, !machine.isInputOpen { transport.inputEnded() }
        } else {
            while isReading, !isEnded, !isUpgradable, let bytes = held.popFirst() {
                taken(bytes.readableBytes)
                handler?.exchangeReceived(self, body: bytes)
            }
            if held.isEmpty || isUpgradable, !isEnded, let end = heldEnd {
                heldEnd = nil
                handler?.exchangeRequestEnded(self, trailers: end.trailers)
            }
            if isReading, !isEnded, machine.isBodyExpected, machine.takeContinue() {
                connection?.write([":status": "100"], endsStream: false, of: self)
            }
        }
        isDelivering = false
        connection?.openWindow(of: self)
    }

    /// A WebSocket that has not been answered yet: what comes on its stream waits for the answer.
    private var isUpgradable: Bool { webSocketKey != nil && transport == nil }

    private func taken(_ count: Int) {
        window.take(count)
        connection?.window.take(count)
    }

    private func discardHeld() {
        let count = window.held
        held.removeAll()
        if count > 0 { taken(count) }
    }

    /// Tells the handler that the exchange is over.
    private func end(_ error: TransportError?) {
        guard !isEnded else { return }
        isEnded = true
        let last = handler
        handler = nil
        last?.exchangeEnded(self, error: error)
        handler = nil
        discardHeld()
    }

    private func reset(_ code: HTTP2ErrorCode) { connection?.reset(self, code) }

    /// After something changed that may let go of the stream.
    private func settle() {
        updateDeadline()
        connection?.list(self)
    }

    // MARK: Deadlines

    private func hasProgress(_ deadline: Deadline) {
        if armed == deadline { armed = .none }
        updateDeadline()
    }

    private func updateDeadline() {
        let wanted: Deadline =
            if armed == .linger {
                .linger
            } else if transport == nil, !isEnded, isReading, machine.isBodyExpected {
                .body
            } else if pendingOutput > 0 || isEnded && transport == nil && machine.isOutputEnded && !isOutputGone {
                // An END_STREAM of its own waits for the connection's window, too.
                .output
            } else {
                .none
            }
        if wanted != armed { arm(wanted) }
    }

    private func arm(_ deadline: Deadline) {
        guard let connection else { return }
        armed = deadline
        let time: TimeAmount
        switch deadline {
        case .none: return timer?.cancel() ?? ()
        case .body: time = connection.limits.bodyIdleTimeout
        case .output: time = connection.limits.stalledWriteTimeout
        case .linger: time = connection.limits.lingerTimeout
        }
        let timer = timer ?? WheelTimer(wheel: connection.resources.wheel) { [weak self] in self?.deadlinePassed() }
        self.timer = timer
        timer.start(after: time)
    }

    private func deadlinePassed() {
        let passed = armed
        armed = .none
        switch passed {
        case .none: break
        case .body: perform(machine.bodyTimedOut(), ByteBuffer(), endsStream: false, nil)
        case .output:
            let reason = TransportError(.idleTimeout, "The visitor took nothing of its response for too long.")
            if isEnded || transport != nil { reset(.cancel) } else { abort(reason) }
        case .linger: reset(.noError)
        }
    }

    // MARK: Exchange

    var isWritable: Bool {
        guard !isEnded, !isOutputFull else {
            toldWritable = false
            return false
        }
        return true
    }

    func sendInformational(_ head: ResponseHead) {
        guard !isEnded, machine.mayInform(head.status) else { return }
        connection?.write(
            ResponseTranslator.translate(head, method: request.method, date: nil), endsStream: false, of: self)
    }

    func respond(_ head: ResponseHead) {
        guard !isEnded, let connection else { return }
        switch machine.respond(head) {
        case .write(let endsStream):
            let headers = ResponseTranslator.translate(
                head, method: request.method, date: connection.resources.currentDate)
            connection.write(headers, endsStream: endsStream, of: self)
        case .ignore: break
        case .abort(let reason): abort(reason)
        }
    }

    func write(_ bytes: ByteBuffer) {
        guard bytes.readableBytes > 0, !isEnded else { return }
        switch machine.write(bytes.readableBytes) {
        case .write(let endsStream): send(bytes, endsStream: endsStream)
        case .ignore: break
        case .abort(let reason): abort(reason)
        }
    }

    private func send(_ bytes: ByteBuffer, endsStream: Bool) {
        guard let connection else { return }
        pendingOutput += bytes.readableBytes
        connection.write(bytes, endsStream: endsStream, of: self)
        hasProgress(.body)
    }

    func finish(trailers: HeaderBlock?) {
        guard !isEnded else { return }
        switch machine.finish() {
        case .end(let mustEndStream, let stopsUpload):
            if mustEndStream {
                if let trailers, let headers = ResponseTranslator.trailers(trailers) {
                    connection?.write(headers, endsStream: true, of: self)
                } else {
                    connection?.write(ByteBuffer(), endsStream: true, of: self)
                }
            }
            end(nil)
            stopsWhenGone = stopsUpload
            settle()
        case .ignore: break
        case .abort(let reason): abort(reason)
        }
    }

    func upgrade(_ head: ResponseHead) -> (any ByteTransport)? {
        guard !isEnded, let connection else { return nil }
        guard let webSocketKey else {
            abort(TransportError(.protocolViolation, "The request cannot be upgraded."))
            return nil
        }
        guard head.fields.occurrences(.secWebSocketAccept) == 1,
            head.fields.text(.secWebSocketAccept) == WebSocketHandshake.acceptValue(for: webSocketKey.utf8)
        else {
            // The visitor cannot check this itself: its key was made here.
            refuse(status: 502, reason: "The service behind this address does not open this WebSocket.")
            return nil
        }
        guard machine.upgrade() else {
            abort(TransportError(.protocolViolation, "The request cannot be upgraded."))
            return nil
        }
        isEnded = true
        handler = nil
        let transport = HTTP2StreamTransport(self)
        self.transport = transport
        isReading = true
        connection.write(
            ResponseTranslator.translateUpgrade(head, date: connection.resources.currentDate), endsStream: false,
            of: self)
        settle()
        return transport
    }

    func abort(_ reason: TransportError) {
        guard !isEnded else { return }
        end(reason)
        reset(reason.code == .cancelled || reason.code == .goingAway ? .cancel : .internalError)
    }

    func setReading(_ wanted: Bool) {
        guard wanted != isReading else { return }
        isReading = wanted
        // Not from here: the handler is in the middle of something.
        if wanted { connection?.list(self) }
        hasProgress(.body)
    }

    // MARK: For the transport

    func transportWrite(_ bytes: ByteBuffer) {
        guard case .write = machine.write(bytes.readableBytes) else { return }
        send(bytes, endsStream: false)
    }

    var isTransportWritable: Bool {
        guard !isOutputFull, !machine.isOutputEnded else {
            toldWritable = false
            return false
        }
        return true
    }

    func transportCloseOutput() {
        guard machine.closeTunnelOutput() else { return }
        connection?.write(ByteBuffer(), endsStream: true, of: self)
    }

    /// What still comes is dropped, for a while.
    func transportClose() {
        transportCloseOutput()
        machine.closeTunnelInput()
        discardHeld()
        transport = nil
        settle()
    }

    func transportAbort() {
        discardHeld()
        transport = nil
        reset(.cancel)
    }

    func transportResume() { connection?.list(self) }
}
