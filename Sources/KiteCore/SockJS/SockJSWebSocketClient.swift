/// The client over a WebSocket, with SockJS framing or raw.
import KiteHTTP
import KiteSupport
import KiteWebSocket
import NIOCore

/// Event-loop bound. Kept alive by its connection, and before that by who waits for it.
final class SockJSWebSocketClient: SockJSClientSession {
    private let context: SockJSClientContext
    private let isRaw: Bool
    private let key = WebSocketHandshake.makeKey()
    private let channel: QueuedMessageChannel
    private var connection: WebSocketConnection?
    private var handshake: HTTPClientConnection?
    private var completion: ((Result<any MessageChannel, any Error>) -> Void)?
    private var deadline: WheelTimer?
    private var silence: WheelTimer?
    /// Runs while the channel is closed and the server has not taken what was queued before.
    private var closing: WheelTimer?
    private var sentFrames = 0
    private var progress: WebSocketProgress?
    private var isOver = false

    init(_ context: SockJSClientContext, isRaw: Bool) {
        self.context = context
        self.isRaw = isRaw
        channel = context.makeChannel(isRaw ? "rawwebsocket" : "websocket")
    }

    func open(_ completion: @escaping (Result<any MessageChannel, any Error>) -> Void) {
        self.completion = completion
        deadline = WheelTimer(wheel: context.wheel) { [weak self] in
            self?.fail(TransportError(.idleTimeout, "The server did not open the WebSocket session in time."))
        }
        deadline?.start(after: context.options.openTimeout)
        let own = LoopReference(self, on: context.eventLoop)
        context.connector.connect(to: context.url.endpoint, on: context.eventLoop) { result in
            own.run { $0.connected(result) }
        }
    }

    func cancelOpening() { fail(CancellationError()) }

    private func connected(_ result: Result<NIOLoopBound<any ByteTransport>, TransportError>) {
        switch result {
        case .failure(let error): fail(error)
        case .success(let bound):
            let transport = bound.value
            guard !isOver else { return transport.close() }
            let head = WebSocketHandshake.request(
                target: context.url.target(isRaw ? "" : SockJSURL.sessionPath() + "/websocket"),
                authority: context.url.authority, fields: context.requestFields(), key: key)
            var bytes = ByteBuffer()
            MessageWriter.writeRequest(head, into: &bytes)
            let handshake = HTTPClientConnection(transport: transport, wheel: context.wheel)
            self.handshake = handshake
            handshake.send(head: bytes, method: .get, bodyLength: .none, wantsUpgrade: true, handler: self)
        }
    }

    private func succeed() {
        deadline?.cancel()
        let completion = completion
        self.completion = nil
        channel.setOwner(self)
        completion?(.success(channel))
    }

    private func fail(_ error: any Error) {
        guard !isOver else { return }
        isOver = true
        deadline?.cancel()
        silence?.cancel()
        closing?.cancel()
        let cause = error as? TransportError ?? TransportError(.cancelled, "Opening the session was cancelled.")
        handshake?.abort(cause)
        handshake = nil
        // Before the connection is told: its own report must not come first.
        let connection = connection
        self.connection = nil
        channel.finish(cause)
        let completion = completion
        self.completion = nil
        completion?(.failure(error))
        connection?.abort(cause)
    }

    private func finish(_ error: TransportError?) {
        guard !isOver else { return }
        if completion != nil {
            return fail(error ?? TransportError(.refused, "The server closed the session at once."))
        }
        isOver = true
        silence?.cancel()
        closing?.cancel()
        channel.finish(error)
        connection = nil
    }

    /// Puts off giving the server up. Until the session is open its deadline counts instead.
    private func heard() {
        if completion == nil { silence?.start(after: context.options.silence) }
    }
}

extension SockJSWebSocketClient: HTTPClientHandler {
    func clientInformational(_ head: ResponseHead) {}
    func clientResponded(_ head: ResponseHead) {
        fail(TransportError(.refused, "The server answered \(head.status) instead of opening a WebSocket."))
    }
    func clientReceived(_ body: ByteBuffer) {}
    func clientEnded(trailers: HeaderBlock?) {}
    func clientFailed(_ failure: HTTPClientFailure) {
        handshake = nil
        fail(failure.cause)
    }
    func clientWritabilityChanged(_ isWritable: Bool) {}

    func clientUpgraded(_ head: ResponseHead, transport: any ByteTransport) {
        handshake = nil
        guard !isOver else { return transport.close() }
        do throws(TransportError) {
            try WebSocketHandshake.verify(head, key: key)
        } catch {
            transport.abort(error)
            return fail(error)
        }
        let connection = WebSocketConnection(
            transport: transport, role: .client,
            limits: WebSocketLimits(
                messageBytes: isRaw ? context.options.maxMessageBytes : context.options.maxFrameBytes,
                pingInterval: context.options.heartbeat),
            wheel: context.wheel)
        self.connection = connection
        if isRaw {
            succeed()
        } else {
            // A raw WebSocket has no heartbeats; there the pings tell whether the server lives.
            silence = WheelTimer(wheel: context.wheel) { [weak self] in
                self?.fail(TransportError(.idleTimeout, "The server has been silent for too long."))
            }
        }
        connection.delegate = self
    }
}

extension SockJSWebSocketClient: WebSocketConnectionDelegate {
    func webSocket(_ connection: WebSocketConnection, receivedText message: ByteBuffer) {
        guard !isOver else { return }
        if isRaw { return deliver([message]) }
        heard()
        guard message.readableBytes > 0 else { return }
        do throws(SockJSFormatError) {
            switch try SockJSFrame(message, maxMessages: context.options.maxMessagesPerFrame) {
            case .open:
                if completion != nil {
                    succeed()
                    heard()
                }
            case .heartbeat: break
            case .messages(let messages): deliver(messages)
            case .close(let code, let reason):
                finish(SockJSClientClosing.error(code: code, reason: reason))
                connection.close()
            }
        } catch {
            fail(TransportError(.protocolViolation, "The server sent a malformed SockJS frame."))
        }
    }

    private func deliver(_ messages: [ByteBuffer]) {
        guard messages.allSatisfy({ $0.readableBytes <= context.options.maxMessageBytes }) else {
            return fail(TransportError(.limitExceeded, "The server sent a message that is too long."))
        }
        var hasRoom = true
        for message in messages { hasRoom = channel.deliver(message) && hasRoom }
        if !hasRoom {
            // Nothing is heard while we don't listen.
            silence?.cancel()
            connection?.setReading(false)
        }
    }

    func webSocket(_ connection: WebSocketConnection, receivedBinary message: ByteBuffer) {
        fail(TransportError(.protocolViolation, "The server sent a binary message."))
    }

    func webSocket(_ connection: WebSocketConnection, writabilityChanged isWritable: Bool) {
        if isWritable { channelHasOutbound() }
    }

    func webSocket(_ connection: WebSocketConnection, closed closure: WebSocketClosure) {
        finish(
            closure.isClean
                ? nil : TransportError(closure.code == .abnormal ? .reset : .protocolViolation, closure.reason))
    }
}

extension SockJSWebSocketClient: MessageChannelOwner {
    func channelHasOutbound() {
        guard let connection, !isOver else { return }
        var pending = channel.pendingOutbound()
        while pending.hasMessages && connection.isWritable {
            let messages = channel.takeOutbound(maxBytes: SockJSFrame.batchBytes / 2)
            sentFrames &+= 1
            if isRaw {
                for message in messages { connection.sendText(message) }
            } else {
                var text = ByteBuffer()
                SockJSFrame.writeClientMessages(messages, into: &text)
                connection.sendText(text)
            }
            pending = channel.pendingOutbound()
        }
        guard let close = pending.close else { return }
        guard pending.hasMessages else {
            connection.close(WebSocketCloseCode(rawValue: close.code), reason: close.reason)
            return finish(nil)
        }
        guard closing == nil else { return }
        closing = WheelTimer(wheel: context.wheel) { [weak self] in self?.closeIsLate() }
        closing?.start(after: context.options.closeTimeout)
    }

    private func closeIsLate() {
        guard let connection, !isOver else { return }
        let now = WebSocketProgress(sentFrames: sentFrames, queuedBytes: connection.queuedBytes)
        guard progress != now else {
            return fail(TransportError(.idleTimeout, "The server did not take the rest of the messages."))
        }
        progress = now
        closing?.start(after: context.options.closeTimeout)
    }

    func channelHasInboundRoom() {
        guard !isOver, !channel.isInboundFull else { return }
        if !isRaw { heard() }
        connection?.setReading(true)
    }
}

/// What a server's close frame means to the user of the channel.
enum SockJSClientClosing {
    /// Nil where the server ended the session in good order.
    static func error(code: UInt16, reason: String) -> TransportError? {
        switch code {
        case 1002: TransportError(.reset, "The server lost the session: \(reason)")
        case 2010: TransportError(.refused, "The server refused the session: \(reason)")
        default: nil
        }
    }
}
