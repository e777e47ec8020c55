/// What an operator or a kite can decide about a SockJS service.
public import NIOCore

/// Options of a SockJS service. The defaults are those of the SockJS protocol.
public struct SockJSOptions: Sendable {
    /// The longest message, in bytes, each way. What carries messages (a WebSocket's frame, the body of a sender) may be twice as long and
    /// 256 KiB on top, for escapes and for messages that come together.
    public var maxMessageBytes = 16 << 20
    /// How many messages one payload may hold.
    public var maxMessagesPerPayload = 10_000
    /// How many sessions may live at the same time; more are answered 503.
    public var maxSessions = 100_000
    /// How many sessions without a WebSocket may live at the same time for one address (IPv6: one /64); more are answered 503. Nil for an
    /// eighth of ``maxSessions``, but at least 16. What a trusted proxy brings counts for the visitor that it names. A WebSocket's session lasts as long as its
    /// connection, and those are counted by whoever accepts them.
    public var maxSessionsPerAddress: Int?
    /// How often an idle receiver hears a heartbeat. Go kites use 10 seconds.
    public var heartbeat: TimeAmount = .seconds(25)
    /// How long a session waits for its next receiver. Once three quarters of the places are taken, a session in which the client has
    /// not sent anything yet waits for a fifth of it.
    public var disconnectDelay: TimeAmount = .seconds(5)
    /// How long the body of a sender may take; each 64 KiB that have arrived give it as long again. Beyond: 408.
    public var bodyTimeout: TimeAmount = .seconds(30)
    /// How long a WebSocket client may take nothing of what was queued when its session was closed. Looked at once in this time, so that
    /// one that stops is cut off after at most twice as long.
    public var closeTimeout: TimeAmount = .seconds(15)
    /// After how many bytes a streaming response ends, so that browsers can forget it.
    public var responseLimit = 128 << 10
    /// How many bytes of messages may wait in a session, each way, before their sender is slowed down.
    public var queuedBytes = 256 << 10
    /// How many bytes of messages that have not arrived whole all sessions together may hold, on top of 16 KiB for each. What would be more is
    /// refused: a WebSocket with close code 1013, a request of a sender with 503.
    public var unfinishedBytes = 256 << 20
    /// Whether the JSESSIONID cookie is set, by which load balancers keep a session on one server.
    public var setsCookie = false
    /// Whether WebSockets are served.
    public var allowsWebSocket = true
    /// From how many bytes on a WebSocket message is compressed for clients that offer permessage-deflate (RFC 7692), as browsers do; nil where
    /// the offer is not taken. No memory is held for it between messages.
    public var compressionThreshold: Int? = 1024
    /// The script that the iframe page loads.
    public var clientScriptURL = "https://cdn.jsdelivr.net/npm/sockjs-client@1/dist/sockjs.min.js"

    public init() {}

    var maxFrameBytes: Int { SockJSFrame.maxBytes(messageBytes: maxMessageBytes) }
    var sessionsPerAddress: Int { maxSessionsPerAddress ?? max(maxSessions / 8, 16) }
    /// How long a session may wait for its next receiver when space is short.
    var shortDisconnectDelay: TimeAmount { .nanoseconds(disconnectDelay.nanoseconds / 5) }
}
