/// From the fields of an HTTP/2 request to a head as HTTP/1.1 has it, strictly: what comes out of here can be read in one way only.
import KiteHTTP
import KiteWebSocket
import NIOCore
import NIOHPACK

/// Why a request is not passed on.
enum RequestFault: Error, Equatable {
    /// It breaks HTTP/2 (RFC 9113 section 8.1.1): the stream is reset. The sentence is for the operator.
    case malformed(String)
    /// It can be answered with a refusal.
    case refused(HTTPError)
}

/// Translates requests (RFC 9113 section 8.3.1) and their trailers.
///
/// Names and values are checked here, byte by byte; then the head is written out as HTTP/1.1 and read by the same scanner as every other
/// head, so that limits and rules are the same by construction.
struct RequestTranslator {
    /// A request, and the key of the WebSocket that it asks for (RFC 8441).
    struct Request {
        var head: RequestHead
        var webSocketKey: String?
    }

    private let limits: HTTPLimits

    init(limits: HTTPLimits) { self.limits = limits }

    /// - Parameters:
    ///   - isEnded: whether the stream ends with these fields.
    ///   - isSecure: whether the connection is encrypted.
    func translate(_ headers: HPACKHeaders, isEnded: Bool, isSecure: Bool) throws(RequestFault) -> Request {
        let parts = try Parts(headers)
        var buffer = ByteBufferAllocator().buffer(capacity: 512)
        let key = try writeStartLine(parts, isEnded: isEnded, into: &buffer)
        try writeAuthority(parts, isSecure: isSecure, into: &buffer)
        var cookieLength = 0
        for (name, value, _) in headers where name.utf8.first != UInt8(ascii: ":") {
            switch name {
            case "host": continue
            case "cookie":
                cookieLength += value.utf8.count + 2
                continue
            case "sec-websocket-key" where key != nil: continue
            default: break
            }
            buffer.writeString(name)
            buffer.writeStaticString(": ")
            buffer.writeString(value)
            buffer.writeStaticString("\r\n")
        }
        if cookieLength > 0 { writeCookies(headers, into: &buffer) }
        try writeFraming(parts, isEnded: isEnded, key: key, into: &buffer)
        buffer.writeStaticString("\r\n")
        var scanner = RequestScanner(limits: limits)
        do {
            // What was sent is complete, so the scanner has no reason to wait for more.
            guard let head = try scanner.feed(&buffer), buffer.readableBytes == 0 else {
                throw RequestFault.malformed("The fields do not make up a request.")
            }
            return Request(head: head, webSocketKey: key)
        } catch let error as HTTPError {
            throw .refused(error)
        } catch let error as RequestFault {
            throw error
        } catch {
            throw .malformed("The fields do not make up a request.")
        }
    }

    /// The fields after a body. Those that mean nothing there are dropped.
    func trailers(_ headers: HPACKHeaders) throws(RequestFault) -> HeaderBlock? {
        var block = HeaderBlock()
        var size = 0
        guard headers.count <= limits.fieldCount else { throw .refused(.manyFields) }
        for (name, value, _) in headers {
            guard name.utf8.first != UInt8(ascii: ":") else { throw .malformed("A pseudo-header field in trailers.") }
            try Self.check(name: name, value: value)
            size += name.utf8.count + value.utf8.count + 4
            let known = KnownField(ByteBuffer(string: name).readableBytesView)
            if known.isAllowedInTrailers { block.append(name, value) }
        }
        guard size <= limits.trailerBytes else { throw .refused(.largeHead) }
        return block.count > 0 ? block : nil
    }

    // MARK: What there is

    /// The pseudo-header fields, and of the others what decides about the framing.
    private struct Parts {
        var method: String?
        var scheme: String?
        var authority: String?
        var path: String?
        var requestedProtocol: String?
        var host: String?
        var contentLength: String?

        init(_ headers: HPACKHeaders) throws(RequestFault) {
            var hasFields = false
            for (name, value, _) in headers {
                if name.utf8.first == UInt8(ascii: ":") {
                    guard !hasFields else { throw .malformed("A pseudo-header field comes after another field.") }
                    guard value.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
                        throw .malformed("A pseudo-header field has a forbidden character.")
                    }
                    switch name {
                    case ":method": try Self.set(&method, value)
                    case ":scheme": try Self.set(&scheme, value)
                    case ":authority": try Self.set(&authority, value)
                    case ":path": try Self.set(&path, value)
                    case ":protocol": try Self.set(&requestedProtocol, value)
                    default: throw .malformed("An unknown pseudo-header field.")
                    }
                    continue
                }
                hasFields = true
                try RequestTranslator.check(name: name, value: value)
                switch name {
                case "host": try Self.set(&host, value)
                case "content-length": try Self.set(&contentLength, value)
                default: break
                }
            }
        }

        private static func set(_ field: inout String?, _ value: String) throws(RequestFault) {
            guard field == nil else { throw .malformed("A field that may occur once is repeated.") }
            field = value
        }
    }

    /// RFC 9113 section 8.2.
    private static func check(name: String, value: String) throws(RequestFault) {
        guard !name.isEmpty, name.utf8.allSatisfy(isNameCharacter) else {
            throw .malformed("A field name is empty or has a forbidden character.")
        }
        guard value.utf8.allSatisfy({ $0 == 0x09 || ($0 >= 0x20 && $0 != 0x7F) }) else {
            throw .malformed("A field value has a control character.")
        }
        if let first = value.utf8.first, let last = value.utf8.last, isSpace(first) || isSpace(last) {
            throw .malformed("A field value begins or ends with white space.")
        }
        switch name {
        case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings":
            throw .malformed("A field that concerns the connection.")
        case "te":
            guard value == "trailers" else { throw .malformed("TE asks for something else than trailers.") }
        default: break
        }
    }

    private static func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }

    /// `tchar` without upper case.
    private static func isNameCharacter(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x21, 0x23...0x27, 0x2A, 0x2B, 0x2D, 0x2E, 0x30...0x39, 0x5E...0x7A, 0x7C, 0x7E: true
        default: false
        }
    }

    // MARK: What it becomes

    /// - Returns: the key, when the request is for a WebSocket.
    private func writeStartLine(_ parts: Parts, isEnded: Bool, into buffer: inout ByteBuffer) throws(RequestFault)
        -> String?
    {
        guard let method = parts.method else { throw .malformed("There is no :method.") }
        guard !method.isEmpty, method.utf8.allSatisfy({ Self.isNameCharacter($0) || ($0 >= 0x41 && $0 <= 0x5A) }) else {
            throw .malformed("The :method is no token.")
        }
        if method == "CONNECT", parts.requestedProtocol == nil {
            guard parts.scheme == nil, parts.path == nil, parts.authority != nil else {
                throw .malformed("CONNECT with :scheme or :path, or without :authority.")
            }
            throw .refused(.connect)
        }
        guard parts.requestedProtocol == nil || method == "CONNECT" else {
            throw .malformed(":protocol without CONNECT.")
        }
        guard let scheme = parts.scheme, scheme == "https" || scheme == "http" else {
            throw .malformed("The :scheme is missing or neither https nor http.")
        }
        guard let path = parts.path, !path.isEmpty else { throw .malformed("There is no :path.") }
        // Nothing but these two forms: an absolute target would say a second time for whom the request is.
        guard path.utf8.first == UInt8(ascii: "/") || (path == "*" && method == "OPTIONS") else {
            throw .malformed("The :path does not begin with a slash.")
        }
        var key: String?
        if let requested = parts.requestedProtocol {
            guard parts.authority != nil, parts.contentLength == nil else {
                throw .malformed("An extended CONNECT without :authority, or with a length.")
            }
            guard requested == "websocket" else {
                throw .refused(
                    HTTPError(501, .unsupportedMethod, "Of protocols over CONNECT only websocket is supported."))
            }
            guard !isEnded else { throw .malformed("A WebSocket that ends with its request.") }
            key = WebSocketHandshake.makeKey()
        }
        buffer.writeString(key == nil ? method : "GET")
        buffer.writeStaticString(" ")
        buffer.writeString(path)
        buffer.writeStaticString(" HTTP/1.1\r\n")
        return key
    }

    /// RFC 9113 section 8.3.1: `:authority` is what counts, and Host must not say anything else.
    private func writeAuthority(_ parts: Parts, isSecure: Bool, into buffer: inout ByteBuffer) throws(RequestFault) {
        if let authority = parts.authority, let host = parts.host,
            !Self.agree(authority, host, defaultPort: isSecure ? ":443" : ":80")
        {
            throw .malformed("Host and :authority do not agree.")
        }
        // Without either the scanner refuses the request.
        guard let authority = parts.authority ?? parts.host else { return }
        guard !authority.isEmpty else { throw .malformed("The :authority is empty.") }
        buffer.writeStaticString("host: ")
        buffer.writeString(authority)
        buffer.writeStaticString("\r\n")
    }

    private static func agree(_ one: String, _ other: String, defaultPort: String) -> Bool {
        func stripped(_ text: String) -> Substring {
            text.hasSuffix(defaultPort) ? text.dropLast(defaultPort.count) : text[...]
        }
        let mine = stripped(one).utf8
        let theirs = stripped(other).utf8
        return mine.count == theirs.count && zip(mine, theirs).allSatisfy { $0.lowercasedASCII == $1.lowercasedASCII }
    }

    /// RFC 9113 section 8.2.3: one field in HTTP/1.1.
    private func writeCookies(_ headers: HPACKHeaders, into buffer: inout ByteBuffer) {
        var isFirst = true
        buffer.writeStaticString("cookie: ")
        for (name, value, _) in headers where name == "cookie" {
            if !isFirst { buffer.writeStaticString("; ") }
            isFirst = false
            buffer.writeString(value)
        }
        buffer.writeStaticString("\r\n")
    }

    private func writeFraming(_ parts: Parts, isEnded: Bool, key: String?, into buffer: inout ByteBuffer)
        throws(RequestFault)
    {
        if let key {
            buffer.writeStaticString("connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: ")
            buffer.writeString(key)
            buffer.writeStaticString("\r\n")
        } else if let length = parts.contentLength {
            if isEnded, length.utf8.contains(where: { $0 != UInt8(ascii: "0") }) {
                throw .malformed("A length without a body.")
            }
        } else if !isEnded {
            buffer.writeStaticString("transfer-encoding: chunked\r\n")
        }
    }
}
