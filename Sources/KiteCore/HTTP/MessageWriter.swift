/// Puts heads on the wire: requests that are passed on to an upstream, and responses to visitors. What leaves is serialised anew
/// from validated parts; fields that stay as they are leave in runs, copied at once.
public import NIOCore

/// Serialises heads (RFC 9112 section 2.1) into a buffer.
public enum MessageWriter {
    // MARK: Requests

    /// Writes the head of a request that we make ourselves: Host, framing, and the fields given.
    public static func writeRequest(_ head: RequestHead, into buffer: inout ByteBuffer) {
        buffer.writeHead(estimate: size(of: head.fields) + head.target.readableBytes + 256) { sink in
            writeRequestLine(head, rewrite: RequestRewrite(), into: &sink)
            sink.writeField("Host: ", head.authority)
            writeFields(
                head.fields, dropping: [.host, .contentLength, .transferEncoding], alsoNamedInConnection: false,
                into: &sink)
            writeFraming(of: head, into: &sink)
            sink.write("\r\n")
        }
    }

    private static func size(of fields: HeaderBlock) -> Int { fields.bytes.readableBytes }

    /// Writes the head of a received request for the next hop (RFC 9110 section 7.6): without hop-by-hop fields, with the
    /// framing said anew, with `Max-Forwards` counted down, with `Via` and the fields that tell the upstream who asked.
    /// - Parameters:
    ///   - rewrite: what changes in target and Host.
    ///   - origin: who asked, prepared once per connection.
    ///   - isUpgrade: whether `Upgrade` is passed on (RFC 9110 section 7.8) when the request wants one.
    public static func writeForwardedRequest(
        _ head: RequestHead, rewrite: RequestRewrite = RequestRewrite(), origin: ForwardedOrigin, isUpgrade: Bool,
        into buffer: inout ByteBuffer
    ) {
        buffer.writeHead(estimate: size(of: head.fields) + head.target.readableBytes + 320) { sink in
            writeForwardedRequest(head, rewrite: rewrite, origin: origin, isUpgrade: isUpgrade, into: &sink)
        }
    }

    private static func writeForwardedRequest(
        _ head: RequestHead, rewrite: RequestRewrite, origin: ForwardedOrigin, isUpgrade: Bool,
        into sink: inout HeadSink
    ) {
        writeRequestLine(head, rewrite: rewrite, into: &sink)
        sink.writeField("Host: ", rewrite.host ?? head.authority)
        var dropped = hopByHop.union([.host, .contentLength, .expect])
        dropped.formUnion(ForwardedOrigin.fields)
        let maxForwards = MaxForwards(head)
        if case .remaining = maxForwards { dropped.insert(.maxForwards) }
        writeFields(head.fields, dropping: dropped, alsoNamedInConnection: true, into: &sink)
        origin.write(for: head, droppedPathBytes: rewrite.droppedPathBytes, into: &sink)
        if case .remaining(let number) = maxForwards {
            sink.write("Max-Forwards: ")
            sink.write(decimal: UInt64(number - 1))
            sink.write("\r\n")
        }
        writeFraming(of: head, into: &sink)
        if isUpgrade, head.wantsUpgrade, let upgrade = head.fields.first(.upgrade) {
            sink.write("Connection: Upgrade\r\n")
            if upgrade.contains(UInt8(ascii: ",")) {
                // Of several protocols this is the one for which the request was taken as an upgrade.
                sink.write("Upgrade: websocket\r\n")
            } else {
                writeField("Upgrade: ", upgrade, into: &sink)
            }
        } else if head.fields.contains(.te, token: "trailers") {
            sink.write("Connection: TE\r\nTE: trailers\r\n")
        }
        sink.write("\r\n")
    }

    private static func writeRequestLine(_ head: RequestHead, rewrite: RequestRewrite, into sink: inout HeadSink) {
        switch head.method {
        case .get: sink.write("GET ")
        case .post: sink.write("POST ")
        default:
            sink.write(text: head.method.name)
            sink.write(" ")
        }
        if let prefix = rewrite.pathPrefix { sink.write(prefix) }
        let target = head.target
        let dropped = min(max(rewrite.droppedPathBytes, 0), target.readableBytes)
        if let rest = target.viewBytes(at: target.readerIndex + dropped, length: target.readableBytes - dropped) {
            if rewrite.pathPrefix == nil, rest.first != UInt8(ascii: "/"), rest.first != UInt8(ascii: "*") {
                sink.write("/")
            }
            sink.write(rest)
        }
        sink.write(" HTTP/1.1\r\n")
    }

    private static func writeFraming(of head: RequestHead, into sink: inout HeadSink) {
        switch head.bodyLength {
        case .none:
            switch head.method {
            // A request whose method has a meaning for content says that it has none (RFC 9110 section 8.6).
            case .post, .put, .patch: sink.write("Content-Length: 0\r\n")
            default: break
            }
        case .known(let length): writeContentLength(length, into: &sink)
        case .unknown: sink.write("Transfer-Encoding: chunked\r\n")
        }
    }

    // MARK: Responses

    /// What is said about the connection in a response's head.
    public enum ConnectionOption: Sendable, Hashable {
        /// Nothing: HTTP/1.1 goes on by itself.
        case persist
        /// `Connection: keep-alive`, for HTTP/1.0 visitors.
        case keepAlive
        case close
        /// `Connection: Upgrade`, with the head's `Upgrade` field.
        case upgrade
    }

    /// Writes the head of a response, whoever made it: hop-by-hop fields in it are left out, the framing is said anew.
    /// - Parameters:
    ///   - method: the request's; a response to HEAD says what the one to GET would.
    ///   - isChunked: whether the body leaves chunked.
    ///   - date: `Date: …` with its line end, written when the head has none (RFC 9110 section 6.6.1); empty for none.
    public static func writeResponse(
        _ head: ResponseHead, method: RequestMethod, isChunked: Bool, connection: ConnectionOption, date: ByteBuffer,
        into buffer: inout ByteBuffer
    ) {
        buffer.writeHead(estimate: size(of: head.fields) + 192) { sink in
            writeResponse(
                head, method: method, isChunked: isChunked, connection: connection, date: date, into: &sink)
        }
    }

    private static func writeResponse(
        _ head: ResponseHead, method: RequestMethod, isChunked: Bool, connection: ConnectionOption, date: ByteBuffer,
        into sink: inout HeadSink
    ) {
        writeStatusLine(head, into: &sink)
        var dropped = hopByHop
        var length: Int64?
        if isChunked || head.status < 200 || head.status == 204 {
            dropped.insert(.contentLength)
        } else if case .known(let known) = head.bodyLength {
            dropped.insert(.contentLength)
            length = known
        } else if head.bodyLength == .none, head.status != 304, method != .head {
            dropped.insert(.contentLength)
            length = 0
        } else if head.status != 304, method != .head {
            // Until the connection closes: a length in the fields would contradict that.
            dropped.insert(.contentLength)
        }
        writeFields(head.fields, dropping: dropped, alsoNamedInConnection: true, into: &sink)
        if head.status >= 200, !head.fields.has(.date) { sink.write(date) }
        if isChunked {
            sink.write("Transfer-Encoding: chunked\r\n")
        } else if let length {
            writeContentLength(length, into: &sink)
        }
        if head.status == 426, connection != .upgrade, let upgrade = head.fields.first(.upgrade) {
            // Says what to upgrade to (RFC 9110 section 15.5.22).
            sink.write(
                connection == .close ? "Connection: Upgrade, close\r\n" : "Connection: Upgrade\r\n")
            writeField("Upgrade: ", upgrade, into: &sink)
            sink.write("\r\n")
            return
        }
        switch connection {
        case .persist: break
        case .keepAlive: sink.write("Connection: keep-alive\r\n")
        case .close: sink.write("Connection: close\r\n")
        case .upgrade:
            sink.write("Connection: Upgrade\r\n")
            if let upgrade = head.fields.first(.upgrade) { writeField("Upgrade: ", upgrade, into: &sink) }
        }
        sink.write("\r\n")
    }

    private static func writeStatusLine(_ head: ResponseHead, into sink: inout HeadSink) {
        if head.status == 200, head.reason.readableBytes == 0 {
            return sink.write("HTTP/1.1 200 OK\r\n")
        }
        sink.write("HTTP/1.1 ")
        let status = head.status >= 100 && head.status <= 999 ? head.status : 500
        for digit in [status / 100, status / 10 % 10, status % 10] { sink.write(UInt8(digit) + 0x30) }
        sink.write(" ")
        if head.reason.readableBytes > 0, head.reason.readableBytesView.allSatisfy(\.isFieldValueCharacter) {
            sink.write(head.reason)
        } else {
            sink.write(ReasonPhrase.standard(for: status))
        }
        sink.write("\r\n")
    }

    // MARK: Fields

    /// What must not be passed on, whatever `Connection` says (RFC 9110 section 7.6.1).
    static let hopByHop: FieldSet = [
        .connection, .keepAlive, .proxyConnection, .te, .transferEncoding, .upgrade,
    ]

    /// What `Connection` cannot take out of a message: a visitor must not be able to hide from the upstream what the gateway or a proxy
    /// before it relies on.
    static let protected: FieldSet = [
        .host, .contentLength, .authorization, .cookie, .setCookie, .forwarded, .xForwardedFor, .xForwardedHost,
        .xForwardedProto, .xForwardedPrefix, .xRealIP, .clientCertificate, .via, .maxForwards, .origin, .date,
        .cacheControl, .contentType,
        .contentEncoding,
    ]

    /// Copies the fields that are not dropped, neighbours together.
    private static func writeFields(
        _ fields: HeaderBlock, dropping dropped: FieldSet, alsoNamedInConnection: Bool, into sink: inout HeadSink
    ) {
        let connectionNamesFields = alsoNamedInConnection && fields.connectionNamesFields
        fields.bytes.withVeryUnsafeBytes { bytes in
            var start = 0
            var end = 0
            for (position, entry) in fields.entries.enumerated() {
                let isDropped =
                    dropped.contains(entry.field)
                    || (connectionNamesFields && !protected.contains(entry.field)
                        && fields.connectionNames(fields.name(at: position)))
                if isDropped { continue }
                // What lies between two lines of a run must be the end of a line and nothing else.
                if end == 0 || Int(entry.nameStart) - end != 2 {
                    sink.writeLines(bytes, start, end)
                    start = Int(entry.nameStart)
                }
                end = Int(entry.valueStart) + Int(entry.valueLength)
            }
            sink.writeLines(bytes, start, end)
        }
    }

    private static func writeField(
        _ nameAndColon: StaticString, _ value: ByteBufferView, into sink: inout HeadSink
    ) {
        sink.write(nameAndColon)
        sink.write(value)
        sink.write("\r\n")
    }

    private static func writeContentLength(_ length: Int64, into sink: inout HeadSink) {
        sink.write("Content-Length: ")
        sink.write(decimal: UInt64(max(length, 0)))
        sink.write("\r\n")
    }
}

/// What of a request's target and Host changes on its way to the upstream.
public struct RequestRewrite: Sendable, Hashable {
    /// Replaces Host; nil keeps what the visitor sent.
    public var host: ByteBuffer?
    /// How many bytes are cut off the front of the target.
    public var droppedPathBytes = 0
    /// Put before what is left of the target. Either it ends so, or the rest begins so, that a valid path results.
    public var pathPrefix: ByteBuffer?

    public init(host: ByteBuffer? = nil, droppedPathBytes: Int = 0, pathPrefix: ByteBuffer? = nil) {
        self.host = host
        self.droppedPathBytes = droppedPathBytes
        self.pathPrefix = pathPrefix
    }
}

/// A set of known fields in one word.
struct FieldSet: Sendable, ExpressibleByArrayLiteral {
    private var bits: UInt64 = 0

    init(arrayLiteral elements: KnownField...) {
        for element in elements { bits |= element.bit }
    }

    func contains(_ field: KnownField) -> Bool { bits & field.bit != 0 }
    mutating func insert(_ field: KnownField) { bits |= field.bit }
    mutating func formUnion(_ other: FieldSet) { bits |= other.bits }

    func union(_ other: FieldSet) -> FieldSet {
        var result = self
        result.formUnion(other)
        return result
    }
}

extension HeaderBlock {
    /// Whether `Connection` names anything besides the options that every message may have.
    fileprivate var connectionNamesFields: Bool {
        guard has(.connection) else { return false }
        return bytes.withVeryUnsafeBytes { bytes in
            for entry in entries where entry.field == .connection {
                let end = min(Int(entry.valueStart) + Int(entry.valueLength), bytes.count)
                var position = Int(entry.valueStart)
                while position < end {
                    let comma = bytes[position..<end].firstIndex(of: UInt8(ascii: ",")) ?? end
                    if !bytes.isCommonConnectionOption(position..<comma) { return true }
                    position = comma + 1
                }
            }
            return false
        }
    }

    /// Whether `Connection` names a field.
    func connectionNames(_ name: ByteBufferView) -> Bool {
        for entry in entries where entry.field == .connection {
            var rest = view(entry.valueStart, entry.valueLength)
            while let option = rest.nextListMember() {
                if option.count == name.count,
                    zip(option, name).allSatisfy({ $0.lowercasedASCII == $1.lowercasedASCII })
                {
                    return true
                }
            }
        }
        return false
    }
}

extension UnsafeRawBufferPointer {
    /// Whether a member of `Connection`, with white space around it, is one that every message may have, or empty.
    fileprivate func isCommonConnectionOption(_ range: Range<Int>) -> Bool {
        var start = range.lowerBound
        var end = range.upperBound
        while start < end, self[start] == 0x20 || self[start] == 0x09 { start &+= 1 }
        while start < end, self[end &- 1] == 0x20 || self[end &- 1] == 0x09 { end &-= 1 }
        let length = end &- start
        return length == 0 || matches(start, length, "keep-alive") || matches(start, length, "close")
            || matches(start, length, "upgrade") || matches(start, length, "te")
    }
}
