/// What a kite sees of a connection: messages both ways, whatever transport carries them (SockJS over WebSocket, XHR or
/// EventSource, or a raw WebSocket), on the accepting and on the dialling side alike.
import KiteWebSocket
public import NIOCore

/// A bidirectional, ordered, bounded channel of text messages. Safe to use from any task.
public protocol MessageChannel: AnyObject, Sendable {
    /// What is known of the other side.
    var peer: MessagePeer { get }
    /// The next message, in order; nil after an orderly close. One consumer at a time. While nobody asks, at most
    /// a bounded number of bytes is held and the sender is slowed down.
    /// - Throws: ``TransportError`` when the channel broke, `CancellationError` when the task was cancelled.
    func receive() async throws -> ByteBuffer?
    /// Sends one message of UTF-8 text. Returns once it is queued and waits while too much is queued already.
    /// - Throws: ``TransportError`` when the channel is closed, `CancellationError` when the task was cancelled.
    func send(_ message: ByteBuffer) async throws
    /// Closes; messages queued before still leave. Code and reason go into the SockJS close frame and the WebSocket close.
    func close(code: UInt16, reason: String)
    /// Why the other side closed, where it has and said so. Known from when ``receive()`` has told of the end.
    var closing: MessageClosing? { get }
}

extension MessageChannel {
    public var closing: MessageClosing? { nil }
}

/// A close code and its reason, as they came.
public struct MessageClosing: Sendable, Hashable {
    public var code: UInt16
    public var reason: String

    public init(code: UInt16, reason: String) {
        self.code = code
        self.reason = reason
    }

    /// Whether the code may be sent to somebody (RFC 6455 section 7.4): those that stand for "none" and "no close frame" may not.
    public var mayBePassedOn: Bool { WebSocketCloseCode(rawValue: code).mayBeSent }
}

/// What is known of the other side of a ``MessageChannel``.
public struct MessagePeer: Sendable {
    /// `websocket`, `rawwebsocket`, `xhr`, `xhr_streaming`, `eventsource`, `htmlfile` or `jsonp`.
    public var transport: String
    /// Printable address of the other side, without secrets; empty where unknown.
    public var address: String
    /// The request target (path and query) the session was opened with.
    public var target: String
    /// The value of the `Authorization` field of the opening request.
    public var authorization: String?
    /// The value of the `Origin` field of the opening request.
    public var origin: String?

    public init(transport: String, address: String, target: String, authorization: String? = nil, origin: String? = nil)
    {
        self.transport = transport
        self.address = address
        self.target = target
        self.authorization = authorization
        self.origin = origin
    }
}
