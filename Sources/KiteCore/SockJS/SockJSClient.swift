/// The dialling side of SockJS: opens a session with a server and presents it as a ``MessageChannel``.
package import KiteDialing
package import KiteHTTP
import KiteSupport
public import NIOCore

/// How a client speaks to a SockJS server.
public enum SockJSTransport: String, Sendable, CaseIterable {
    case webSocket
    /// A WebSocket on the URL itself, without SockJS framing.
    case rawWebSocket
    case xhrPolling
    case xhrStreaming
    case eventSource
    /// WebSocket, where that fails XHR streaming, where that fails XHR polling.
    case auto
}

/// What a client waits for and holds.
public struct SockJSClientOptions: Sendable {
    /// Until the session is open: connecting, handshake and the server's first frame, for each transport tried.
    public var openTimeout: TimeAmount = .seconds(15)
    /// How often the server is expected to say something at least.
    public var heartbeat: TimeAmount = .seconds(25)
    /// After how many silent heartbeats the server is given up.
    public var missedHeartbeats = 2
    /// How long the server may take nothing of what was queued when the channel was closed. Looked at once in this time, so that a
    /// server that stops is given up after at most twice as long.
    public var closeTimeout: TimeAmount = .seconds(15)
    /// The longest message, in bytes, each way. What carries messages may be twice as long and 256 KiB on top, for escapes and for messages
    /// that come together.
    public var maxMessageBytes = 16 << 20
    /// How many messages one frame may hold.
    public var maxMessagesPerFrame = 10_000
    /// How many bytes of messages may wait, each way, before their sender is slowed down.
    public var queuedBytes = 256 << 10

    public init() {}

    var maxFrameBytes: Int { SockJSFrame.maxBytes(messageBytes: maxMessageBytes) }
    var silence: TimeAmount { heartbeat * max(missedHeartbeats, 1) + heartbeat / 2 }
}

private func / (amount: TimeAmount, divisor: Int64) -> TimeAmount { .nanoseconds(amount.nanoseconds / divisor) }

/// Opens byte streams for a client. ``Dialer`` is one.
package protocol SockJSConnector: Sendable {
    /// Connects; calls back on `eventLoop`. A transport that comes too late is closed by the caller.
    func connect(
        to endpoint: Endpoint, on eventLoop: any EventLoop,
        completion: @escaping @Sendable (Result<NIOLoopBound<any ByteTransport>, TransportError>) -> Void)
}

/// Opens sessions.
public enum SockJSClient {
    /// Opens a session.
    /// - Parameters:
    ///   - url: the service's URL (`http`, `https`, `ws`, `wss`); its query goes along with every request.
    ///   - fields: sent with every request, `Authorization` for example.
    ///   - eventLoop: where the session's connections live.
    /// - Returns: the channel, once the server has said that the session is open.
    /// - Throws: ``TransportError``, `CancellationError`.
    package static func connect(
        url: String, transport: SockJSTransport = .auto, fields: HeaderBlock = HeaderBlock(),
        on eventLoop: any EventLoop, connector: some SockJSConnector,
        options: SockJSClientOptions = SockJSClientOptions()
    ) async throws -> any MessageChannel {
        let address: SockJSURL
        do throws(SockJSURL.Malformed) {
            address = try SockJSURL(url)
        } catch {
            throw TransportError(.refused, error.message)
        }
        let candidates: [SockJSTransport] =
            transport == .auto ? [.webSocket, .xhrStreaming, .xhrPolling] : [transport]
        var failure = TransportError(.connectFailed, "No transport was tried.")
        for candidate in candidates {
            do {
                return try await open(address, candidate, fields, eventLoop, connector, options)
            } catch let error as TransportError {
                failure = error
                // Another transport would meet the same.
                switch error.code {
                case .connectFailed, .connectTimeout, .tlsFailed, .cancelled: throw error
                default: continue
                }
            }
        }
        throw failure
    }

    private static func open(
        _ url: SockJSURL, _ transport: SockJSTransport, _ fields: HeaderBlock, _ eventLoop: any EventLoop,
        _ connector: some SockJSConnector, _ options: SockJSClientOptions
    ) async throws -> any MessageChannel {
        let opening = SockJSClientOpening(eventLoop)
        return try await withTaskCancellationHandler {
            try Task.checkCancellation()
            return try await withCheckedThrowingContinuation { continuation in
                eventLoop.execute {
                    let context = SockJSClientContext(
                        url: url, fields: fields, eventLoop: eventLoop, wheel: LoopFlusher.on(eventLoop).wheel,
                        connector: connector, options: options)
                    let session: any SockJSClientSession
                    switch transport {
                    case .webSocket, .rawWebSocket, .auto:
                        session = SockJSWebSocketClient(context, isRaw: transport == .rawWebSocket)
                    case .xhrPolling: session = SockJSHTTPClient(context, kind: .xhrPolling)
                    case .xhrStreaming: session = SockJSHTTPClient(context, kind: .xhrStreaming)
                    case .eventSource: session = SockJSHTTPClient(context, kind: .eventSource)
                    }
                    opening.begin(session) { continuation.resume(with: $0) }
                }
            }
        } onCancel: {
            opening.cancel()
        }
    }
}

/// What a client session is made with. On its event loop only.
struct SockJSClientContext {
    let url: SockJSURL
    let fields: HeaderBlock
    let eventLoop: any EventLoop
    let wheel: TimerWheel
    let connector: any SockJSConnector
    let options: SockJSClientOptions

    func makeChannel(_ transport: String) -> QueuedMessageChannel {
        QueuedMessageChannel(
            peer: MessagePeer(
                transport: transport, address: url.endpoint.description, target: url.target(""),
                authorization: nil, origin: nil), eventLoop: eventLoop,
            limits: QueuedMessageChannel.Limits(
                inboundBytes: options.queuedBytes, outboundBytes: options.queuedBytes,
                messageBytes: options.maxMessageBytes))
    }

    /// The caller's fields and Origin, which Go clients send and some servers check.
    func requestFields(contentType: String? = nil) -> HeaderBlock {
        var result = fields
        if result.occurrences(.origin) == 0 { result.append("Origin", url.origin) }
        if let contentType, result.occurrences(.contentType) == 0 { result.append("Content-Type", contentType) }
        return result
    }
}

/// One attempt to open a session, and then the session. Event-loop bound.
protocol SockJSClientSession: AnyObject {
    /// Begins; calls back once, when the session is open or can't be opened.
    func open(_ completion: @escaping (Result<any MessageChannel, any Error>) -> Void)
    /// Gives up opening.
    func cancelOpening()
}

/// Lets a task that was cancelled give up what it had begun on the loop.
private final class SockJSClientOpening: Sendable {
    private let eventLoop: any EventLoop
    private let session: NIOLoopBoundBox<(any SockJSClientSession)?>
    private let isCancelled: NIOLoopBoundBox<Bool>

    init(_ eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
        session = NIOLoopBoundBox.makeEmptyBox(valueType: (any SockJSClientSession).self, eventLoop: eventLoop)
        isCancelled = NIOLoopBoundBox.makeBoxSendingValue(false, eventLoop: eventLoop)
    }

    /// On the loop.
    func begin(
        _ session: any SockJSClientSession, _ completion: @escaping (Result<any MessageChannel, any Error>) -> Void
    ) {
        if isCancelled.value { return completion(.failure(CancellationError())) }
        self.session.value = session
        session.open { [self] result in
            self.session.value = nil
            completion(result)
        }
    }

    func cancel() {
        eventLoop.execute { [self] in
            isCancelled.value = true
            session.value?.cancelOpening()
        }
    }
}
