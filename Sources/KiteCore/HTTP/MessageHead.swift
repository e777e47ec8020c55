/// Request and response heads: the start line and a block of fields, indexed in the bytes they arrived in or were built in.
public import NIOCore

/// How long a message's body is (RFC 9112 section 6.3).
public enum BodyLength: Sendable, Hashable {
    /// There is no body, and none may follow.
    case none
    /// Exactly this many bytes, from Content-Length.
    case known(Int64)
    /// Of unknown length: chunked in HTTP/1.1, or until the connection closes.
    case unknown
}

/// A request method (RFC 9110 section 9).
public enum RequestMethod: Sendable, Hashable {
    case get, head, post, put, delete, options, patch, trace, connect
    /// Any other token, at most 32 bytes.
    case other(String)

    /// As it stands on the wire.
    public var name: String {
        switch self {
        case .get: "GET"
        case .head: "HEAD"
        case .post: "POST"
        case .put: "PUT"
        case .delete: "DELETE"
        case .options: "OPTIONS"
        case .patch: "PATCH"
        case .trace: "TRACE"
        case .connect: "CONNECT"
        case .other(let name): name
        }
    }

    /// Whether sending the request twice is the same as once (RFC 9110 section 9.2.2).
    public var isIdempotent: Bool {
        switch self {
        case .get, .head, .put, .delete, .options, .trace: true
        case .post, .patch, .connect, .other: false
        }
    }
}

/// The head of a request.
public struct RequestHead: Sendable {
    public var method: RequestMethod
    /// The request target in origin form (`/path?query`), or `*` for OPTIONS; an absolute form has been taken apart, its
    /// authority stands in ``authority``. Bytes as received: nothing is decoded.
    public var target: ByteBuffer
    /// Host and port the request is for, from Host or the absolute target (RFC 9112 section 3.2), as received.
    public var authority: ByteBuffer
    public var fields: HeaderBlock
    public var bodyLength: BodyLength
    /// HTTP/1.x minor version: 0 or 1.
    public var minorVersion: UInt8
    /// Whether the connection may carry another request after this one.
    public var isKeepAlive: Bool
    /// The request asks for `100 Continue` before it sends its body (RFC 9110 section 10.1.1).
    public var expectsContinue: Bool
    /// The request has `Upgrade` and names it in `Connection` (RFC 9110 section 7.8), on HTTP/1.1.
    public var wantsUpgrade: Bool
    /// Whether the body of a received request is chunked; ``bodyLength`` is then unknown.
    var isChunked = false

    /// A request that we make ourselves.
    public init(
        method: RequestMethod, target: String, authority: String, fields: HeaderBlock = HeaderBlock(),
        bodyLength: BodyLength = .none
    ) {
        self.method = method
        self.target = ByteBuffer(string: target)
        self.authority = ByteBuffer(string: authority)
        self.fields = fields
        self.bodyLength = bodyLength
        minorVersion = 1
        isKeepAlive = true
        expectsContinue = false
        wantsUpgrade = false
    }

    /// The part of ``target`` before `?`, as text, not decoded. Not for the hot path.
    public var path: String {
        let view = target.readableBytesView
        return String(decoding: view[..<(view.firstIndex(of: UInt8(ascii: "?")) ?? view.endIndex)], as: UTF8.self)
    }

    /// The part of ``target`` after `?`, if any, not decoded. Not for the hot path.
    public var query: String? {
        let view = target.readableBytesView
        guard let mark = view.firstIndex(of: UInt8(ascii: "?")) else { return nil }
        return String(decoding: view[view.index(after: mark)...], as: UTF8.self)
    }
}

/// The head of a response.
public struct ResponseHead: Sendable {
    /// 100 to 999.
    public var status: UInt16
    /// The reason phrase as received; empty means the standard one.
    public var reason: ByteBuffer
    public var fields: HeaderBlock
    public var bodyLength: BodyLength
    /// HTTP/1.x minor version of a received response: 0 or 1.
    public var minorVersion: UInt8
    /// Whether the connection it came on can be used again after it.
    public var isKeepAlive: Bool
    /// Whether the visitor's connection is to end with it, whatever else is said.
    public var endsConnection = false
    /// Whether the body of a received response is chunked. With ``bodyLength`` unknown and this false it lasts until the
    /// connection closes.
    public internal(set) var isChunked = false

    /// A response that we make ourselves.
    public init(status: UInt16, fields: HeaderBlock = HeaderBlock(), bodyLength: BodyLength = .none) {
        self.status = status
        reason = ByteBuffer()
        self.fields = fields
        self.bodyLength = bodyLength
        minorVersion = 1
        isKeepAlive = true
    }
}
