/// The one abstraction for "bytes both ways": a TCP or TLS channel, a tunnel stream, an upgraded HTTP
/// connection and a WebSocket that carries bytes all look like this to the protocol code above them.
public import NIOCore

/// A bidirectional byte stream with back pressure, bound to one event loop.
///
/// Every member must be used on ``eventLoop``. Implementations hold what is written until the end of the
/// current turn of the loop and write it at once, so callers never flush.
public protocol ByteTransport: AnyObject {
    /// The loop on which every member is called and on which ``delegate`` is called back.
    var eventLoop: any EventLoop { get }

    /// Who is told what arrives. Held strongly until the transport has closed; setting it hands over to the
    /// next consumer (after an upgrade, say). Nothing is delivered while it is `nil`.
    var delegate: (any ByteTransportDelegate)? { get set }

    /// False once more than the transport's high-water mark waits to be sent. Writing is still allowed, but a
    /// well-behaved writer stops its source until ``ByteTransportDelegate/transportWritabilityChanged(_:)``.
    var isWritable: Bool { get }

    /// How many bytes wait to be sent, as far as that is known; 0 where it is not. That it shrinks shows that the peer takes what it is
    /// sent.
    var queuedBytes: Int { get }

    /// The address of the other end, where there is one to speak of.
    var remoteAddress: SocketAddress? { get }

    /// Whether the input ended without the peer having said so: a TLS connection that was closed underneath without a farewell
    /// (RFC 8446 section 6.1). Of account once ``ByteTransportDelegate/transportInputClosed()`` was called, for messages whose end is
    /// marked by nothing else (RFC 9112 section 9.8). By default false.
    var isInputTruncated: Bool { get }

    /// Queues bytes; they leave together at the end of this turn of the event loop. After ``closeOutput()`` or
    /// after the transport has closed the bytes are dropped.
    func write(_ bytes: ByteBuffer)

    /// Half-closes: everything queued is sent, then the peer reads end of stream. Input stays open.
    func closeOutput()

    /// Closes both directions after what is queued has been sent; the peer may see what is left unread as lost.
    func close()

    /// Drops what is queued and tells the peer that the stream broke (TCP RST, tunnel RESET).
    func abort(_ reason: TransportError)

    /// What is queued is sent, and then the peer is told, where the transport can tell, that there may have been more: for output whose
    /// source was cut (``isInputTruncated``). By default the same as ``closeOutput()``; sockets know no such end.
    func breakOutput(_ reason: TransportError)

    /// Back pressure towards the sender: with `false` the transport stops delivering (at most what it had
    /// already read still arrives) and its sender is slowed down; with `true` it goes on. Initially `true`.
    func setReading(_ wanted: Bool)
}

extension ByteTransport {
    public var isInputTruncated: Bool { false }
    public var queuedBytes: Int { 0 }
    public func breakOutput(_ reason: TransportError) { closeOutput() }
}

/// Consumes what a ``ByteTransport`` brings. Called on the transport's event loop, never re-entrantly from
/// within `write`.
public protocol ByteTransportDelegate: AnyObject {
    /// Bytes in the order in which they were sent.
    func transportReceived(_ bytes: ByteBuffer)
    /// The peer will send no more; what we write still reaches it.
    func transportInputClosed()
    /// The last call: both directions are over. `error` is nil after an orderly close. What had arrived before a break was delivered,
    /// also to a delegate that did not want to read.
    func transportClosed(_ error: TransportError?)
    /// ``ByteTransport/isWritable`` changed.
    func transportWritabilityChanged(_ isWritable: Bool)
}

/// Why a transport ended before both sides had finished. Mapped to an HTTP status, a tunnel reset code and a log line in
/// one place each.
public struct TransportError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What happened, stable for programs.
    public enum Code: UInt8, Sendable, CaseIterable {
        /// The peer reset the connection, or it broke.
        case reset = 1
        /// The target could not be reached (refused, unreachable, name not resolved).
        case connectFailed = 2
        /// The target did not accept the connection in time.
        case connectTimeout = 3
        /// Nothing moved for longer than allowed.
        case idleTimeout = 4
        /// The peer broke the protocol.
        case protocolViolation = 5
        /// A limit was reached.
        case limitExceeded = 6
        /// This side no longer wants the stream (visitor went away, exchange was aborted).
        case cancelled = 7
        /// This side or the peer is shutting down.
        case goingAway = 8
        /// TLS could not be set up with the peer.
        case tlsFailed = 9
        /// The lane under a tunnel stream was lost.
        case laneLost = 10
        /// The other side has no such target, or will not serve it.
        case refused = 11
        /// The input's source was cut underneath TLS: what came is genuine and may be incomplete (see
        /// ``ByteTransport/isInputTruncated``).
        case truncated = 12
    }
    /// What kind of error it is; decides what a visitor is told.
    public let code: Code
    /// A human sentence with the cause; never contains secrets.
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { "\(message) (\(code))" }
}
