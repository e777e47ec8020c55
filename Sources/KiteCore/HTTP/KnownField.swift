/// The header fields that the code refers to by name, so that the scanner classifies each name once and everything after compares a
/// byte.
public import NIOCore

/// A field name the code knows; ``other`` is every other name.
public enum KnownField: UInt8, Sendable, CaseIterable {
    case other
    // Framing and connection (RFC 9112)
    case host, connection, contentLength, transferEncoding, trailer, te, upgrade, expect, keepAlive, proxyConnection
    // Routing and provenance
    case forwarded, xForwardedFor, xForwardedHost, xForwardedProto, xRealIP, via, maxForwards
    // Content and semantics
    case accept, acceptEncoding, allow, cacheControl, contentEncoding, contentType, cookie, date, etag, location,
        origin, range,
        referer, retryAfter, server, setCookie, userAgent, vary
    // Authentication
    case authorization, proxyAuthenticate, proxyAuthorization, wwwAuthenticate
    // WebSocket (RFC 6455)
    case secWebSocketAccept, secWebSocketExtensions, secWebSocketKey, secWebSocketProtocol, secWebSocketVersion

    /// The name as we spell it.
    public var name: String {
        switch self {
        case .other: ""
        case .host: "Host"
        case .connection: "Connection"
        case .contentLength: "Content-Length"
        case .transferEncoding: "Transfer-Encoding"
        case .trailer: "Trailer"
        case .te: "TE"
        case .upgrade: "Upgrade"
        case .expect: "Expect"
        case .keepAlive: "Keep-Alive"
        case .proxyConnection: "Proxy-Connection"
        case .forwarded: "Forwarded"
        case .xForwardedFor: "X-Forwarded-For"
        case .xForwardedHost: "X-Forwarded-Host"
        case .xForwardedProto: "X-Forwarded-Proto"
        case .xRealIP: "X-Real-IP"
        case .via: "Via"
        case .maxForwards: "Max-Forwards"
        case .accept: "Accept"
        case .acceptEncoding: "Accept-Encoding"
        case .allow: "Allow"
        case .cacheControl: "Cache-Control"
        case .contentEncoding: "Content-Encoding"
        case .contentType: "Content-Type"
        case .cookie: "Cookie"
        case .date: "Date"
        case .etag: "ETag"
        case .location: "Location"
        case .origin: "Origin"
        case .range: "Range"
        case .referer: "Referer"
        case .retryAfter: "Retry-After"
        case .server: "Server"
        case .setCookie: "Set-Cookie"
        case .userAgent: "User-Agent"
        case .vary: "Vary"
        case .authorization: "Authorization"
        case .proxyAuthenticate: "Proxy-Authenticate"
        case .proxyAuthorization: "Proxy-Authorization"
        case .wwwAuthenticate: "WWW-Authenticate"
        case .secWebSocketAccept: "Sec-WebSocket-Accept"
        case .secWebSocketExtensions: "Sec-WebSocket-Extensions"
        case .secWebSocketKey: "Sec-WebSocket-Key"
        case .secWebSocketProtocol: "Sec-WebSocket-Protocol"
        case .secWebSocketVersion: "Sec-WebSocket-Version"
        }
    }

    /// Classifies a name, case-insensitively.
    public init(_ name: ByteBufferView) {
        for candidate in Self.allCases where candidate != .other && name.equalsIgnoringCase(candidate.name) {
            self = candidate
            return
        }
        self = .other
    }
}
