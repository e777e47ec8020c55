/// The header fields that the code refers to by name, so that the scanner classifies each name once and everything after compares a
/// byte.
public import NIOCore

/// A field name the code knows; ``other`` is every other name.
public enum KnownField: UInt8, Sendable, CaseIterable {
    case other
    // Framing and connection (RFC 9112)
    case host, connection, contentLength, transferEncoding, trailer, te, upgrade, expect, keepAlive, proxyConnection
    // Routing and provenance
    case forwarded, xForwardedFor, xForwardedHost, xForwardedProto, xForwardedPrefix, xRealIP, via, maxForwards
    /// All that tell upstreams about the client's certificate.
    case clientCertificate
    // Content and semantics
    case accept, acceptEncoding, allow, cacheControl, contentEncoding, contentType, cookie, date, etag, location,
        origin, range, referer, retryAfter, server, setCookie, userAgent, vary
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
        case .xForwardedPrefix: "X-Forwarded-Prefix"
        case .xRealIP: "X-Real-IP"
        case .via: "Via"
        case .clientCertificate: "Client-Cert"
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
        self = name.withUnsafeBytes { KnownField(in: $0, at: 0, length: $0.count) }
    }

    /// Classifies the `length` bytes from `start`, which are token characters.
    init(in bytes: UnsafeRawBufferPointer, at start: Int, length: Int) {
        var found = KnownField.other
        @inline(__always) func test(_ text: StaticString, _ field: KnownField) -> Bool {
            guard bytes.matches(start, length, text) else { return false }
            found = field
            return true
        }
        switch length {
        case 2: _ = test("te", .te)
        case 3: _ = test("via", .via)
        case 4: _ = test("host", .host) || test("date", .date) || test("vary", .vary) || test("etag", .etag)
        case 5: _ = test("range", .range) || test("allow", .allow)
        case 6:
            _ =
                test("accept", .accept) || test("cookie", .cookie) || test("origin", .origin)
                || test("server", .server) || test("expect", .expect)
        case 7: _ = test("referer", .referer) || test("upgrade", .upgrade) || test("trailer", .trailer)
        case 8: _ = test("location", .location)
        case 9: _ = test("forwarded", .forwarded) || test("x-real-ip", .xRealIP)
        case 10:
            _ =
                test("connection", .connection) || test("user-agent", .userAgent) || test("set-cookie", .setCookie)
                || test("keep-alive", .keepAlive)
        case 11: _ = test("retry-after", .retryAfter)
        case 12: _ = test("content-type", .contentType) || test("max-forwards", .maxForwards)
        case 13: _ = test("cache-control", .cacheControl) || test("authorization", .authorization)
        case 14: _ = test("content-length", .contentLength)
        case 15: _ = test("accept-encoding", .acceptEncoding) || test("x-forwarded-for", .xForwardedFor)
        case 16:
            _ =
                test("content-encoding", .contentEncoding) || test("x-forwarded-host", .xForwardedHost)
                || test("proxy-connection", .proxyConnection) || test("www-authenticate", .wwwAuthenticate)
        case 17:
            _ =
                test("transfer-encoding", .transferEncoding) || test("x-forwarded-proto", .xForwardedProto)
                || test("sec-websocket-key", .secWebSocketKey)
        case 18: _ = test("proxy-authenticate", .proxyAuthenticate) || test("x-forwarded-prefix", .xForwardedPrefix)
        case 19: _ = test("proxy-authorization", .proxyAuthorization)
        case 20: _ = test("sec-websocket-accept", .secWebSocketAccept)
        case 21: _ = test("sec-websocket-version", .secWebSocketVersion)
        case 22: _ = test("sec-websocket-protocol", .secWebSocketProtocol)
        case 24: _ = test("sec-websocket-extensions", .secWebSocketExtensions)
        default: break
        }
        if found == .other, length >= 11, Self.isClientCertificate(bytes, start, length) { found = .clientCertificate }
        self = found
    }

    /// Whether a name begins with `Client-Cert` or `X-Client-Cert`. An underscore counts as a hyphen, as it does to programs that get fields
    /// as variables: no visitor may pass for somebody else by it.
    private static func isClientCertificate(_ bytes: UnsafeRawBufferPointer, _ start: Int, _ length: Int) -> Bool {
        guard start >= 0, start &+ length <= bytes.count else { return false }
        let first = bytes[start] | 0x20
        guard first == UInt8(ascii: "c") || first == UInt8(ascii: "x") else { return false }
        let prefix: StaticString = first == UInt8(ascii: "c") ? "client-cert" : "x-client-cert"
        guard length >= prefix.utf8CodeUnitCount else { return false }
        for index in 0..<prefix.utf8CodeUnitCount {
            var byte = bytes[start &+ index]
            if byte == UInt8(ascii: "_") { byte = UInt8(ascii: "-") } else if byte & 0x40 != 0 { byte |= 0x20 }
            if byte != prefix.utf8Start[index] { return false }
        }
        return true
    }

    /// The bit that stands for the field in sets of fields; there are fewer than 64.
    @inlinable var bit: UInt64 { 1 &<< UInt64(rawValue) }
}
