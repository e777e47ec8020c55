/// What a peer may send and how long it may take: every buffer and every wait of the HTTP engine has its bound here.
public import NIOCore

/// Limits of one HTTP/1.1 connection. What happens at each limit is said with it.
public struct HTTPLimits: Sendable, Hashable {
    /// Bytes of a whole head, start line and fields. Beyond: 431 and close.
    public var headBytes = 64 * 1024
    /// Bytes of the request target as received. Beyond: 414 and close.
    public var targetBytes = 16 * 1024
    /// Field lines in a head or in trailers. Beyond: 431 and close.
    public var fieldCount = 256
    /// Empty lines (CRLF) tolerated before a request line (RFC 9112 section 2.2). Beyond: 400 and close.
    public var leadingEmptyLines = 2
    /// Bytes of a request's body; nil is no limit. Beyond: 413 and close.
    public var bodyBytes: Int64?
    /// Bytes of chunk extensions in the whole of one body; they are skipped. Beyond: 400 and close.
    public var chunkExtensionBytes = 16 * 1024
    /// Bytes of a trailer section. Beyond: 431 and close.
    public var trailerBytes = 16 * 1024
    /// Bytes of further requests that are read while one is being answered. Beyond: reading stops until it is answered.
    public var pipelinedBytes = 64 * 1024
    /// Bytes of an upload that are read and dropped after it was answered early. Beyond: the connection closes.
    public var drainBytes = 256 * 1024
    /// From the first byte of a head to its last. Beyond: 408 and close.
    public var headTimeout = TimeAmount.seconds(10)
    /// Between two parts of a request's body, while the handler wants it. Beyond: 408, or the exchange breaks if its
    /// response has begun; close. At the client's end: how long an upstream may take none of a request's body. Beyond: the
    /// exchange fails.
    public var bodyIdleTimeout = TimeAmount.seconds(60)
    /// At the client's end: without a byte of the body either way once the response has begun, while its receiver wants to read. Does not
    /// apply to event streams, which are silent while nothing happens. Beyond: the exchange fails. Nil is no limit.
    public var responseIdleTimeout: TimeAmount?
    /// Between two requests, and before the first. Beyond: close.
    public var keepAliveTimeout = TimeAmount.seconds(75)
    /// How long a response may wait for a visitor that takes none of it, and after the visitor closed its sending side also how long the
    /// response may pause. Beyond: the exchange breaks.
    public var stalledWriteTimeout = TimeAmount.minutes(5)
    /// How long a response may take to begin after the visitor closed its sending side; most visitors that do are gone.
    public var halfClosedTimeout = TimeAmount.seconds(10)
    /// How long a closing connection waits for the visitor to have read the last response.
    public var lingerTimeout = TimeAmount.seconds(2)

    /// The defaults, as documented with each limit.
    public init() {}
}
