/// The client over plain HTTP: one request after another brings frames, another connection takes messages.
import KiteHTTP
import KiteSupport
import KiteWebSocket
import NIOCore

/// Event-loop bound.
///
/// Nothing tells the server that a client goes: the session ends when the connection of its waiting request is closed.
final class SockJSHTTPClient: SockJSClientSession {
    enum Kind: String {
        case xhrPolling = "xhr"
        case xhrStreaming = "xhr_streaming"
        case eventSource = "eventsource"
    }

    /// How many bytes of messages go into one request.
    private static let batchBytes = 64 << 10
    /// A connection that has rested longer may be about to be closed by the server; a request that takes messages must not meet that, because it
    /// can't be repeated.
    private static let maxRest = TimeAmount.seconds(3)

    private let context: SockJSClientContext
    private let kind: Kind
    private let path: String
    private let channel: QueuedMessageChannel
    private var completion: ((Result<any MessageChannel, any Error>) -> Void)?
    private var deadline: WheelTimer?
    private var silence: WheelTimer?
    /// Runs while the channel is closed and the server has not taken what was queued before.
    private var closing: WheelTimer?
    private var receiver: SockJSRequest?
    private var sender: SockJSRequest?
    private var idle: (connection: HTTPClientConnection, since: NIODeadline)?
    private var scanner: SockJSFrameScanner
    private var isPaused = false
    private var wantsPoll = false
    private var isDispatching = false
    private var isOver = false

    init(_ context: SockJSClientContext, kind: Kind) {
        self.context = context
        self.kind = kind
        path = SockJSURL.sessionPath()
        channel = context.makeChannel(kind.rawValue)
        scanner = Self.makeScanner(kind, context.options)
    }

    private static func makeScanner(_ kind: Kind, _ options: SockJSClientOptions) -> SockJSFrameScanner {
        SockJSFrameScanner(kind == .eventSource ? .events : .lines, maxBytes: options.maxFrameBytes)
    }

    func open(_ completion: @escaping (Result<any MessageChannel, any Error>) -> Void) {
        self.completion = completion
        deadline = WheelTimer(wheel: context.wheel) { [weak self] in
            self?.end(TransportError(.idleTimeout, "The server did not open the session in time."))
        }
        deadline?.start(after: context.options.openTimeout)
        silence = WheelTimer(wheel: context.wheel) { [weak self] in
            self?.end(TransportError(.idleTimeout, "The server has been silent for too long."))
        }
        closing = WheelTimer(wheel: context.wheel) { [weak self] in
            self?.end(TransportError(.idleTimeout, "The server did not take the rest of the messages."))
        }
        poll()
    }

    func cancelOpening() { end(CancellationError()) }

    // MARK: Frames

    private func poll() {
        guard !isOver, receiver == nil else { return }
        guard !isPaused else {
            wantsPoll = true
            return
        }
        wantsPoll = false
        scanner = Self.makeScanner(kind, context.options)
        heard()
        let request = SockJSRequest(
            context, method: kind == .eventSource ? .get : .post,
            target: context.url.target(path + "/" + kind.rawValue),
            contentType: kind == .eventSource ? nil : "text/plain", body: nil)
        request.onBody = { [weak self] in self?.received($0) }
        request.onEnd = { [weak self] in self?.pollEnded($0) }
        receiver = request
        request.start(on: takeIdle())
    }

    private func received(_ bytes: ByteBuffer) {
        heard()
        scanner.append(bytes)
        dispatch()
    }

    /// Puts off giving the server up. Until the session is open its deadline counts instead.
    private func heard() {
        if completion == nil { silence?.start(after: context.options.silence) }
    }

    private func dispatch() {
        guard !isDispatching else { return }
        isDispatching = true
        defer { isDispatching = false }
        do throws(SockJSFormatError) {
            while !isOver, !isPaused, let text = try scanner.next() {
                var validator = UTF8Validator()
                guard text.withUnsafeReadableBytes({ validator.validate($0) }), validator.isComplete else {
                    throw .brokenJSON
                }
                switch try SockJSFrame(text, maxMessages: context.options.maxMessagesPerFrame) {
                case .open:
                    if let completion {
                        deadline?.cancel()
                        self.completion = nil
                        heard()
                        channel.setOwner(self)
                        completion(.success(channel))
                    }
                case .heartbeat: break
                case .messages(let messages):
                    guard messages.allSatisfy({ $0.readableBytes <= context.options.maxMessageBytes }) else {
                        return end(TransportError(.limitExceeded, "The server sent a message that is too long."))
                    }
                    var hasRoom = true
                    for message in messages { hasRoom = channel.deliver(message) && hasRoom }
                    if !hasRoom {
                        isPaused = true
                        silence?.cancel()
                        receiver?.setReading(false)
                    }
                case .close(let code, let reason):
                    end(SockJSClientClosing.error(code: code, reason: reason))
                }
            }
        } catch {
            end(TransportError(.protocolViolation, "The server sent a malformed SockJS frame."))
        }
    }

    private func pollEnded(_ result: Result<(status: UInt16, connection: HTTPClientConnection?), TransportError>) {
        receiver = nil
        guard !isOver else { return }
        switch result {
        case .failure(let error): end(error)
        case .success(let (status, connection)):
            keep(connection)
            guard status == 200 else {
                return end(TransportError(.refused, "The server answered \(status) to a request for frames."))
            }
            dispatch()
            // What is paused is dispatched first, then the next request begins.
            if isPaused { wantsPoll = true } else { poll() }
        }
    }

    // MARK: Messages

    private func sendNext() {
        guard !isOver, completion == nil else { return }
        let pending = channel.pendingOutbound()
        // Each request gets this time.
        if pending.close != nil, sender == nil || closing?.isArmed == false {
            closing?.start(after: context.options.closeTimeout * 2)
        }
        guard sender == nil else { return }
        guard pending.hasMessages else {
            if pending.close != nil { end(nil) }
            return
        }
        var body = ByteBuffer()
        SockJSFrame.writeClientMessages(channel.takeOutbound(maxBytes: Self.batchBytes), into: &body)
        let request = SockJSRequest(
            context, method: .post, target: context.url.target(path + "/xhr_send"), contentType: "text/plain",
            body: body)
        request.onEnd = { [weak self] in self?.sendEnded($0) }
        sender = request
        request.start(on: takeIdle())
    }

    private func sendEnded(_ result: Result<(status: UInt16, connection: HTTPClientConnection?), TransportError>) {
        sender = nil
        guard !isOver else { return }
        switch result {
        case .failure(let error): end(error)
        case .success(let (status, connection)):
            keep(connection)
            switch status {
            case 200, 204: sendNext()
            case 404: end(TransportError(.reset, "The server no longer knows the session."))
            default: end(TransportError(.refused, "The server answered \(status) to messages."))
            }
        }
    }

    // MARK: Connections

    private func keep(_ connection: HTTPClientConnection?) {
        guard let connection, connection.isIdle else { return }
        idle?.connection.close()
        idle = (connection, context.eventLoop.now)
    }

    private func takeIdle() -> HTTPClientConnection? {
        guard let (connection, since) = idle else { return nil }
        idle = nil
        guard connection.isIdle, context.eventLoop.now - since < Self.maxRest else {
            connection.close()
            return nil
        }
        return connection
    }

    /// The end: nil is an orderly one.
    private func end(_ error: (any Error)?) {
        guard !isOver else { return }
        isOver = true
        deadline?.cancel()
        silence?.cancel()
        closing?.cancel()
        receiver?.cancel()
        sender?.cancel()
        receiver = nil
        sender = nil
        idle?.connection.close()
        idle = nil
        channel.finish(error.map { $0 as? TransportError ?? TransportError(.cancelled, "Opening was cancelled.") })
        let completion = completion
        self.completion = nil
        completion?(.failure(error ?? TransportError(.refused, "The server closed the session at once.")))
    }
}

extension SockJSHTTPClient: MessageChannelOwner {
    func channelHasOutbound() { sendNext() }

    func channelHasInboundRoom() {
        guard isPaused, !channel.isInboundFull else { return }
        isPaused = false
        silence?.start(after: context.options.silence)
        dispatch()
        guard !isPaused else { return }
        receiver?.setReading(true)
        if wantsPoll { poll() }
    }
}
