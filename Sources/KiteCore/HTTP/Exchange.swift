/// One HTTP request and its response, seen from the side that answers. SockJS, the kite endpoint, the admin API,
/// the tunnel door and the proxy itself are written against this, whatever carries the exchange (HTTP/1.1 on a
/// socket, HTTP/1.1 in a tunnel stream, later HTTP/2).
public import NIOCore

/// The answering side's view of one request. Event-loop bound: every member must be used on ``eventLoop``.
///
/// Order of calls towards the peer: any number of ``sendInformational(_:)``, then either ``respond(_:)``, any number of
/// ``write(_:)`` and one ``finish(trailers:)``, or ``upgrade(_:)``. A call out of order is ignored after the
/// exchange has ended and otherwise ends it with ``abort(_:)``; it never traps.
public protocol Exchange: AnyObject {
    var eventLoop: any EventLoop { get }
    /// The request's head. Its bytes stay valid as long as the value is held; copy what must outlive the exchange cheaply
    /// by copying the value. Once the handler has had its last call it may be empty.
    var request: RequestHead { get }
    /// Whether content follows the head, whatever its length.
    var hasRequestBody: Bool { get }
    /// Who sent it.
    var peer: ExchangePeer { get }
    /// Receives the request's body and what happens to the exchange. Must be set before the call that delivered the
    /// exchange returns; held strongly until the exchange ends.
    var handler: (any ExchangeHandler)? { get set }
    /// False while more of the response waits than the transport wants to hold.
    var isWritable: Bool { get }
    /// Whether the exchange is over (finished, upgraded, or aborted by either side).
    var isEnded: Bool { get }

    /// Sends a 1xx response (never 101, see ``upgrade(_:)``). `100 Continue` is sent without being asked for when the
    /// handler first wants the body of a request that expects it.
    func sendInformational(_ head: ResponseHead)
    /// Starts the response. The framing (Content-Length from ``ResponseHead/bodyLength``, chunked, until close), `Connection`, `Date`
    /// are the exchange's business: hop-by-hop fields in `head` are left out.
    func respond(_ head: ResponseHead)
    /// Queues a part of the response's body. Ignored for responses that have none (HEAD, 204, 304).
    func write(_ bytes: ByteBuffer)
    /// Ends the response. Trailers are sent only where the framing has room for them (RFC 9112 section 7.1.2).
    func finish(trailers: HeaderBlock?)
    /// Answers `101 Switching Protocols` (RFC 9110 section 7.8) and hands over the connection. Bytes that the peer sent after its
    /// request are delivered by the transport. Returns nil when the connection is already gone.
    func upgrade(_ head: ResponseHead) -> (any ByteTransport)?
    /// Breaks the exchange off: the response, if it had begun, ends visibly incomplete.
    func abort(_ reason: TransportError)
    /// Back pressure on the request's body; initially `true`.
    func setReading(_ wanted: Bool)
}

/// What the peer of an exchange is known by.
public struct ExchangePeer: Sendable {
    /// The socket's peer address; nil where the exchange came over something without one.
    public var address: SocketAddress?
    /// The address the peer connected to.
    public var localAddress: SocketAddress?
    /// Whether the connection that brought the exchange here is encrypted.
    public var isSecure: Bool
    /// What the exchange came in.
    public var version: HTTPVersion
    /// Whether what it says in `Forwarded` and `X-Forwarded-*` is believed.
    public var isTrustedProxy: Bool
    /// Which addresses in `X-Forwarded-For` are those of proxies and not the visitor's. Counts where ``isTrustedProxy`` is true.
    package var trustedProxies: [AddressRange] = []
    /// Whether it is a gateway like this one, which lets no `X-Real-IP` pass but says itself who the visitor is: that comes first then.
    package var isGateway = false

    public init(
        address: SocketAddress? = nil, localAddress: SocketAddress? = nil, isSecure: Bool = false,
        isTrustedProxy: Bool = false, version: HTTPVersion = .http1
    ) {
        self.address = address
        self.localAddress = localAddress
        self.isSecure = isSecure
        self.isTrustedProxy = isTrustedProxy
        self.version = version
    }
}

/// The versions of HTTP that visitors can speak.
public enum HTTPVersion: Sendable, Hashable, CaseIterable {
    /// HTTP/1.1 and HTTP/1.0.
    case http1
    case http2

    /// As ALPN calls it (RFC 7301).
    public var name: String {
        switch self {
        case .http1: "http/1.1"
        case .http2: "h2"
        }
    }
}

/// Handles one exchange on the answering side. Called on the exchange's event loop.
public protocol ExchangeHandler: AnyObject {
    /// A part of the request's body, decoded from its framing.
    func exchangeReceived(_ exchange: any Exchange, body: ByteBuffer)
    /// The request is complete. Called once, also for a request without a body.
    func exchangeRequestEnded(_ exchange: any Exchange, trailers: HeaderBlock?)
    /// ``Exchange/isWritable`` changed.
    func exchangeWritabilityChanged(_ exchange: any Exchange, isWritable: Bool)
    /// The peer closed its side of the connection after its request. A peer that means to read the answer rarely does that; whether this
    /// one still reads can't be known before something is written to it. Called at most once; by default it means nothing.
    func exchangeInputClosed(_ exchange: any Exchange)
    /// The last call, unless the exchange was upgraded: finished (`error` is nil) or broken.
    func exchangeEnded(_ exchange: any Exchange, error: TransportError?)
}

extension ExchangeHandler {
    public func exchangeInputClosed(_ exchange: any Exchange) {}
}

/// Decides what answers an exchange. It sets ``Exchange/handler`` or answers at once. One per event loop.
public protocol ExchangeAcceptor: AnyObject {
    func accept(_ exchange: any Exchange)
}

extension Exchange {
    public var hasRequestBody: Bool { request.bodyLength != .none }

    /// Answers completely with a small body: refusals, greetings, health checks.
    public func respond(_ head: ResponseHead, body: ByteBuffer) {
        var head = head
        head.bodyLength = .known(Int64(body.readableBytes))
        respond(head)
        if body.readableBytes > 0 { write(body) }
        finish(trailers: nil)
    }
}
