/// Puts heads on the wire: requests that are passed on to an upstream, and responses to visitors. What leaves is serialised anew
/// from validated parts; fields that stay as they are leave in runs, copied at once.
public import NIOCore

/// Serialises heads (RFC 9112 section 2.1) into a buffer.
public enum MessageWriter {
    // MARK: Requests

    /// Writes the head of a request that we make ourselves: Host, framing, and the fields given.
    public static func writeRequest(_ head: RequestHead, into buffer: inout ByteBuffer) {
        writeRequestLine(head, rewrite: RequestRewrite(), into: &buffer)
        writeField("Host: ", head.authority.readableBytesView, into: &buffer)
        writeFields(
            head.fields, dropping: [.host, .contentLength, .transferEncoding], alsoNamedInConnection: false,
            into: &buffer)
        writeFraming(of: head, into: &buffer)
        buffer.writeStaticString("\r\n")
    }

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
        writeRequestLine(head, rewrite: rewrite, into: &buffer)
        writeField("Host: ", (rewrite.host ?? head.authority).readableBytesView, into: &buffer)
        var dropped = hopByHop.union([.host, .contentLength, .expect])
        dropped.formUnion(ForwardedOrigin.fields)
        let maxForwards = MaxForwards(head)
        if case .remaining = maxForwards { dropped.insert(.maxForwards) }
        writeFields(head.fields, dropping: dropped, alsoNamedInConnection: true, into: &buffer)
        origin.write(for: head, droppedPathBytes: rewrite.droppedPathBytes, into: &buffer)
        if case .remaining(let number) = maxForwards {
            buffer.writeStaticString("Max-Forwards: ")
            writeDecimal(UInt64(number - 1), into: &buffer)
            buffer.writeStaticString("\r\n")
        }
        writeFraming(of: head, into: &buffer)
        if isUpgrade, head.wantsUpgrade, let upgrade = head.fields.first(.upgrade) {
            buffer.writeStaticString("Connection: Upgrade\r\n")
            if upgrade.contains(UInt8(ascii: ",")) {
                // Of several protocols this is the one for which the request was taken as an upgrade.
                buffer.writeStaticString("Upgrade: websocket\r\n")
            } else {
                writeField("Upgrade: ", upgrade, into: &buffer)
            }
        } else if head.fields.contains(.te, token: "trailers") {
            buffer.writeStaticString("Connection: TE\r\nTE: trailers\r\n")
        }
        buffer.writeStaticString("\r\n")
    }

    private static func writeRequestLine(_ head: RequestHead, rewrite: RequestRewrite, into buffer: inout ByteBuffer) {
        switch head.method {
        case .get: buffer.writeStaticString("GET ")
        case .post: buffer.writeStaticString("POST ")
        default:
            buffer.writeString(head.method.name)
            buffer.writeStaticString(" ")
        }
        if let prefix = rewrite.pathPrefix { buffer.writeImmutableBuffer(prefix) }
        let target = head.target
        let dropped = min(max(rewrite.droppedPathBytes, 0), target.readableBytes)
        if let rest = target.viewBytes(at: target.readerIndex + dropped, length: target.readableBytes - dropped) {
            if rewrite.pathPrefix == nil, rest.first != UInt8(ascii: "/"), rest.first != UInt8(ascii: "*") {
                buffer.writeStaticString("/")
            }
            buffer.writeBytes(rest)
        }
        buffer.writeStaticString(" HTTP/1.1\r\n")
    }

    private static func writeFraming(of head: RequestHead, into buffer: inout ByteBuffer) {
        switch head.bodyLength {
        case .none:
            switch head.method {
            // A request whose method has a meaning for content says that it has none (RFC 9110 section 8.6).
            case .post, .put, .patch: buffer.writeStaticString("Content-Length: 0\r\n")
            default: break
            }
        case .known(let length): writeContentLength(length, into: &buffer)
        case .unknown: buffer.writeStaticString("Transfer-Encoding: chunked\r\n")
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
        writeStatusLine(head, into: &buffer)
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
        writeFields(head.fields, dropping: dropped, alsoNamedInConnection: true, into: &buffer)
        if head.status >= 200, !head.fields.has(.date) { buffer.writeImmutableBuffer(date) }
        if isChunked {
            buffer.writeStaticString("Transfer-Encoding: chunked\r\n")
        } else if let length {
            writeContentLength(length, into: &buffer)
        }
        if head.status == 426, connection != .upgrade, let upgrade = head.fields.first(.upgrade) {
            // Says what to upgrade to (RFC 9110 section 15.5.22).
            buffer.writeStaticString(
                connection == .close ? "Connection: Upgrade, close\r\n" : "Connection: Upgrade\r\n")
            writeField("Upgrade: ", upgrade, into: &buffer)
            buffer.writeStaticString("\r\n")
            return
        }
        switch connection {
        case .persist: break
        case .keepAlive: buffer.writeStaticString("Connection: keep-alive\r\n")
        case .close: buffer.writeStaticString("Connection: close\r\n")
        case .upgrade:
            buffer.writeStaticString("Connection: Upgrade\r\n")
            if let upgrade = head.fields.first(.upgrade) { writeField("Upgrade: ", upgrade, into: &buffer) }
        }
        buffer.writeStaticString("\r\n")
    }

    private static func writeStatusLine(_ head: ResponseHead, into buffer: inout ByteBuffer) {
        if head.status == 200, head.reason.readableBytes == 0 {
            return _ = buffer.writeStaticString("HTTP/1.1 200 OK\r\n")
        }
        buffer.writeStaticString("HTTP/1.1 ")
        let status = head.status >= 100 && head.status <= 999 ? head.status : 500
        for digit in [status / 100, status / 10 % 10, status % 10] { buffer.writeInteger(UInt8(digit) + 0x30) }
        buffer.writeStaticString(" ")
        if head.reason.readableBytes > 0, head.reason.readableBytesView.allSatisfy(\.isFieldValueCharacter) {
            buffer.writeImmutableBuffer(head.reason)
        } else {
            buffer.writeStaticString(ReasonPhrase.standard(for: status))
        }
        buffer.writeStaticString("\r\n")
    }

    // MARK: Fields

    /// What must not be passed on, whatever `Connection` says (RFC 9110 section 7.6.1).
    static let hopByHop: FieldSet = [
        .connection, .keepAlive, .proxyConnection, .te, .transferEncoding, .upgrade,
    ]

    /// What `Connection` cannot take out of a message: a visitor must not be able to hide from the upstream what the gateway or a proxy
    /// before it relies on.
    private static let protected: FieldSet = [
        .host, .contentLength, .authorization, .cookie, .setCookie, .forwarded, .xForwardedFor, .xForwardedHost,
        .xForwardedProto, .xForwardedPrefix, .xRealIP, .via, .maxForwards, .origin, .date, .cacheControl, .contentType,
        .contentEncoding,
    ]

    /// Copies the fields that are not dropped, neighbours together.
    private static func writeFields(
        _ fields: HeaderBlock, dropping dropped: FieldSet, alsoNamedInConnection: Bool, into buffer: inout ByteBuffer
    ) {
        let connectionNamesFields = alsoNamedInConnection && fields.connectionNamesFields
        var runStart: Int?
        var runEnd = 0
        func endRun() {
            guard let start = runStart else { return }
            if let run = fields.bytes.viewBytes(at: start, length: runEnd - start) {
                buffer.writeBytes(run)
                buffer.writeStaticString("\r\n")
            }
            runStart = nil
        }
        for (position, entry) in fields.entries.enumerated() {
            let isDropped =
                dropped.contains(entry.field)
                || (connectionNamesFields && !protected.contains(entry.field)
                    && fields.connectionNames(fields.name(at: position)))
            if isDropped {
                endRun()
                continue
            }
            let start = Int(entry.nameStart)
            // What lies between two lines must be the end of a line and nothing else.
            if runStart != nil, start - runEnd != 2 { endRun() }
            if runStart == nil { runStart = start }
            runEnd = Int(entry.valueStart) + Int(entry.valueLength)
        }
        endRun()
    }

    static func writeField(_ nameAndColon: StaticString, _ value: ByteBufferView, into buffer: inout ByteBuffer) {
        buffer.writeStaticString(nameAndColon)
        buffer.writeBytes(value)
        buffer.writeStaticString("\r\n")
    }

    private static func writeContentLength(_ length: Int64, into buffer: inout ByteBuffer) {
        buffer.writeStaticString("Content-Length: ")
        writeDecimal(UInt64(max(length, 0)), into: &buffer)
        buffer.writeStaticString("\r\n")
    }

    /// A number in decimal digits, without a String.
    static func writeDecimal(_ number: UInt64, into buffer: inout ByteBuffer) {
        var divisor: UInt64 = 1
        while number / divisor >= 10 { divisor *= 10 }
        while divisor > 0 {
            buffer.writeInteger(UInt8(truncatingIfNeeded: number / divisor % 10) + 0x30)
            divisor /= 10
        }
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
        for entry in entries where entry.field == .connection {
            var rest = view(entry.valueStart, entry.valueLength)
            while let option = rest.nextListMember() {
                let isCommon =
                    option.isEmpty || option.equalsIgnoringCase("keep-alive") || option.equalsIgnoringCase("close")
                    || option.equalsIgnoringCase("upgrade") || option.equalsIgnoringCase("te")
                if !isCommon { return true }
            }
        }
        return false
    }

    /// Whether `Connection` names a field.
    fileprivate func connectionNames(_ name: ByteBufferView) -> Bool {
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
