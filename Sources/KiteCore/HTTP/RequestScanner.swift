/// Scans request heads where they lie in the receive buffer; the first thing that happens to what a visitor sends.
public import NIOCore

/// An incremental, strict scanner of HTTP/1.1 request heads (RFC 9112 sections 2 to 6). What is ambiguous is refused, never
/// guessed.
///
/// The caller keeps received bytes in one buffer, appends to it and calls ``feed(_:)``; a complete head is taken off its
/// front. After an error the connection is of no more use.
public struct RequestScanner {
    private let limits: Limits
    private var fields = FieldScanner()
    private var line: Line?
    private var emptyLines = 0
    /// So many bytes of an incomplete head have been looked at, and since the last complete line they hold no LF.
    private var searched = 0

    /// What of ``HTTPLimits`` is needed here: every connection holds it.
    private struct Limits {
        var headBytes: Int
        var targetBytes: Int
        var fieldCount: Int
        var leadingEmptyLines: Int
        var bodyBytes: Int64?
    }

    /// The parts of a request line; positions count from the first byte of the head.
    private struct Line {
        var method: RequestMethod
        var targetStart: Int
        var targetLength: Int
        var form: Form
        var minorVersion: UInt8
    }

    private enum Form {
        case origin
        case asterisk
        /// The authority lies between these positions.
        case absolute(start: Int, end: Int, isSecure: Bool)
    }

    public init(limits: HTTPLimits = HTTPLimits()) {
        self.limits = Limits(
            headBytes: limits.headBytes, targetBytes: limits.targetBytes, fieldCount: limits.fieldCount,
            leadingEmptyLines: limits.leadingEmptyLines, bodyBytes: limits.bodyBytes)
    }

    /// Lets go of all memory; for a connection at rest.
    public mutating func release() { fields.release() }

    /// See ``FieldScanner/exchangeStorage(_:)``.
    mutating func exchangeStorage(_ storage: [HeaderBlock.Entry]) -> [HeaderBlock.Entry] {
        fields.exchangeStorage(storage)
    }

    /// Takes a complete head off the front of `buffer`.
    /// - Parameter buffer: what was received and is not yet consumed. What is left in it must be at its front again, with
    ///   more behind, in the next call.
    /// - Returns: the head, or nil when more bytes are needed.
    /// - Throws: why the request is refused.
    public mutating func feed(_ buffer: inout ByteBuffer) throws(HTTPError) -> RequestHead? {
        if searched == 0 {
            guard try skipEmptyLines(&buffer) else { return nil }
        }
        guard buffer.readableBytes > 0 else { return nil }
        let parsed = try buffer.withUnsafeReadableBytes { (bytes) throws(HTTPError) -> (Int, RequestHead)? in
            try self.scan(bytes)
        }
        guard case (let length, var head)? = parsed, let bytes = buffer.readSlice(length: length), let line else {
            return nil
        }
        head.fields = HeaderBlock(bytes: bytes, entries: fields.entries, present: fields.present)
        let host = head.fields.entries.first { $0.field == .host }
        switch line.form {
        case .origin, .asterisk:
            head.target = bytes.getSlice(at: line.targetStart, length: line.targetLength) ?? ByteBuffer()
            if let host {
                head.authority =
                    bytes.getSlice(at: Int(host.valueStart), length: Int(host.valueLength)) ?? ByteBuffer()
            }
        case .absolute(let start, let end, _):
            head.authority = bytes.getSlice(at: start, length: end - start) ?? ByteBuffer()
            head.target = originForm(
                in: bytes, from: end, to: line.targetStart + line.targetLength, method: head.method)
        }
        self.line = nil
        emptyLines = 0
        searched = 0
        if buffer.readableBytes == 0 { buffer = ByteBuffer() }
        return head
    }

    private func originForm(in bytes: ByteBuffer, from start: Int, to end: Int, method: RequestMethod) -> ByteBuffer {
        if let rest = bytes.getSlice(at: start, length: end - start), let first = rest.readableBytesView.first {
            if first == UInt8(ascii: "/") { return rest }
            var target = ByteBuffer(string: "/")
            target.writeImmutableBuffer(rest)
            return target
        }
        return ByteBuffer(string: method == .options ? "*" : "/")
    }

    /// - Returns: false while there is half an empty line.
    private mutating func skipEmptyLines(_ buffer: inout ByteBuffer) throws(HTTPError) -> Bool {
        while let first: UInt8 = buffer.getInteger(at: buffer.readerIndex), first == 0x0D || first == 0x0A {
            guard first == 0x0D, emptyLines < limits.leadingEmptyLines else { throw .startLine }
            guard let second: UInt8 = buffer.getInteger(at: buffer.readerIndex + 1) else { return false }
            guard second == 0x0A else { throw .lineEnd }
            buffer.moveReaderIndex(forwardBy: 2)
            emptyLines += 1
        }
        return true
    }

    private mutating func scan(_ bytes: UnsafeRawBufferPointer) throws(HTTPError) -> (Int, RequestHead)? {
        if searched > 0, bytes.firstLineFeed(from: searched) == nil {
            try checkIncomplete(bytes)
            return nil
        }
        if line == nil {
            guard let (found, next) = try scanLine(bytes) else {
                try checkIncomplete(bytes)
                return nil
            }
            line = found
            fields.begin(at: next)
        }
        guard let length = try fields.scan(bytes, maximumFields: limits.fieldCount), let line else {
            try checkIncomplete(bytes)
            return nil
        }
        guard length <= limits.headBytes else { throw .largeHead }
        return (length, try interpret(bytes, line))
    }

    private mutating func checkIncomplete(_ bytes: UnsafeRawBufferPointer) throws(HTTPError) {
        searched = bytes.count
        if line == nil {
            guard let first = bytes.first, first.isTokenCharacter else { throw .startLine }
            // Method, two spaces and the version come on top of the target.
            if bytes.count > limits.targetBytes + 64 { throw .longTarget }
        }
        if bytes.count > limits.headBytes { throw .largeHead }
    }

    // MARK: The request line

    /// `method SP request-target SP HTTP-version CRLF`, with single spaces.
    private func scanLine(_ bytes: UnsafeRawBufferPointer) throws(HTTPError) -> (Line, Int)? {
        let end = bytes.count
        let methodEnd = bytes.firstNonToken(from: 0, to: min(end, 33))
        guard methodEnd < end else { return nil }
        guard methodEnd <= 32, bytes[methodEnd] == 0x20, methodEnd > 0 else {
            throw methodEnd == 0 ? .startLine : .method
        }
        let start = methodEnd &+ 1
        var stop = start
        while stop < end, bytes[stop].isTargetCharacter { stop &+= 1 }
        guard stop &- start <= limits.targetBytes else { throw .longTarget }
        guard stop < end else { return nil }
        guard bytes[stop] == 0x20, stop > start else { throw .target }
        let version = stop &+ 1
        guard let (major, minor, next) = try scanVersion(bytes, at: version, end: end) else { return nil }
        guard major == 1, minor <= 1 else { throw .otherVersion }
        let method = Self.method(bytes, methodEnd)
        let form = try Self.form(bytes, start, stop, method)
        return (
            Line(
                method: method, targetStart: start, targetLength: stop &- start, form: form, minorVersion: minor), next
        )
    }

    private func scanVersion(_ bytes: UnsafeRawBufferPointer, at start: Int, end: Int) throws(HTTPError)
        -> (UInt8, UInt8, Int)?
    {
        guard start &+ 10 <= end else {
            // What is there must be the beginning of it: nothing that is refused anyway is waited for.
            let prefix: StaticString = "HTTP/"
            for index in start..<min(end, start &+ 5) where bytes[index] != prefix.utf8Start[index &- start] {
                throw .version
            }
            for index in start..<end where bytes[index] == 0x0A {
                throw index == start &+ 8 ? .lineEnd : .version
            }
            return nil
        }
        guard bytes.equals(start, 5, "HTTP/"), bytes[start &+ 5].isDigit, bytes[start &+ 6] == 0x2E,
            bytes[start &+ 7].isDigit
        else { throw .version }
        guard bytes[start &+ 8] == 0x0D, bytes[start &+ 9] == 0x0A else {
            throw bytes[start &+ 8] == 0x0A || bytes[start &+ 8] == 0x0D ? .lineEnd : .version
        }
        let major = bytes[start &+ 5] &- 0x30
        let minor = bytes[start &+ 7] &- 0x30
        if major >= 2 { throw .otherVersion }
        guard major == 1, minor <= 1 else { throw .version }
        return (major, minor, start &+ 10)
    }

    private static func method(_ bytes: UnsafeRawBufferPointer, _ length: Int) -> RequestMethod {
        switch length {
        case 3:
            if bytes.equals(0, 3, "GET") { return .get }
            if bytes.equals(0, 3, "PUT") { return .put }
        case 4:
            if bytes.equals(0, 4, "POST") { return .post }
            if bytes.equals(0, 4, "HEAD") { return .head }
        case 5:
            if bytes.equals(0, 5, "PATCH") { return .patch }
            if bytes.equals(0, 5, "TRACE") { return .trace }
        case 6: if bytes.equals(0, 6, "DELETE") { return .delete }
        case 7:
            if bytes.equals(0, 7, "OPTIONS") { return .options }
            if bytes.equals(0, 7, "CONNECT") { return .connect }
        default: break
        }
        return .other(String(decoding: bytes[0..<length], as: UTF8.self))
    }

    /// RFC 9112 section 3.2: which of the four forms a target has.
    private static func form(_ bytes: UnsafeRawBufferPointer, _ start: Int, _ end: Int, _ method: RequestMethod)
        throws(HTTPError) -> Form
    {
        if method == .connect { throw .connect }
        if bytes[start] == 0x2F { return .origin }
        if end &- start == 1, bytes[start] == 0x2A {
            guard method == .options else { throw .target }
            return .asterisk
        }
        var authority = start
        var isSecure = false
        if end &- start > 7, bytes.matches(start, 4, "http"), bytes.equals(start &+ 4, 3, "://") {
            authority = start &+ 7
        } else if end &- start > 8, bytes.matches(start, 5, "https"), bytes.equals(start &+ 5, 3, "://") {
            authority = start &+ 8
            isSecure = true
        } else {
            throw .target
        }
        var stop = authority
        while stop < end, bytes[stop] != 0x2F, bytes[stop] != 0x3F { stop &+= 1 }
        guard Authority.isValid(bytes, authority, stop) else { throw .target }
        return .absolute(start: authority, end: stop, isSecure: isSecure)
    }

    // MARK: What the fields say

    private func interpret(_ bytes: UnsafeRawBufferPointer, _ line: Line) throws(HTTPError) -> RequestHead {
        let framing = try fields.framing(bytes, minorVersion: line.minorVersion)
        try checkHost(bytes, line)
        var expectsContinue = false
        if line.minorVersion > 0, fields.present & KnownField.expect.bit != 0 {
            for entry in fields.entries where entry.field == .expect {
                guard bytes.matches(Int(entry.valueStart), Int(entry.valueLength), "100-continue") else {
                    throw .expectation
                }
            }
            expectsContinue = true
        }
        let bodyLength: BodyLength =
            if framing.isChunked { .unknown } else if let length = framing.contentLength { .known(length) } else {
                .none
            }
        if let limit = limits.bodyBytes, case .known(let length) = bodyLength, length > limit { throw .largeBody }
        let hasBody = framing.isChunked || framing.contentLength ?? 0 > 0
        return RequestHead(
            method: line.method, bodyLength: bodyLength, minorVersion: line.minorVersion,
            isKeepAlive: !framing.isClose && (line.minorVersion > 0 || framing.isKeepAlive),
            expectsContinue: expectsContinue && hasBody,
            wantsUpgrade: line.minorVersion > 0 && framing.hasUpgradeOption && !hasBody && hasUsefulUpgrade(bytes),
            isChunked: framing.isChunked)
    }

    /// Whether there is one `Upgrade` to one protocol that is not HTTP/2: over that, requests would pass unseen to whoever
    /// the connection is relayed to. Ignoring an upgrade is always allowed (RFC 9110 section 7.8). Of a list of protocols only WebSocket
    /// is of use (RFC 6455 section 4.2.1).
    private func hasUsefulUpgrade(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard fields.present & ~fields.repeated & KnownField.upgrade.bit != 0,
            let entry = fields.entries.first(where: { $0.field == .upgrade }), entry.valueLength > 0
        else { return false }
        let start = Int(entry.valueStart)
        let length = Int(entry.valueLength)
        if bytes.matches(start, length, "h2c") || bytes.matches(start, length, "h2") { return false }
        if length >= 5, bytes.matches(start, 5, "http/") { return false }
        let value = bytes[start..<(start + length)]
        if value.contains(UInt8(ascii: ",")) { return namesWebSocket(bytes, value) }
        return value.allSatisfy { $0.isTokenCharacter || $0 == UInt8(ascii: "/") }
    }

    private func namesWebSocket(_ bytes: UnsafeRawBufferPointer, _ list: Slice<UnsafeRawBufferPointer>) -> Bool {
        var isNamed = false
        for member in list.split(separator: UInt8(ascii: ",")) {
            var name = member
            while let first = name.first, first == 0x20 || first == 0x09 { name = name.dropFirst() }
            while let last = name.last, last == 0x20 || last == 0x09 { name = name.dropLast() }
            guard name.allSatisfy({ $0.isTokenCharacter || $0 == UInt8(ascii: "/") }) else { return false }
            if bytes.matches(name.startIndex, name.count, "websocket") { isNamed = true }
        }
        return isNamed
    }

    private func checkHost(_ bytes: UnsafeRawBufferPointer, _ line: Line) throws(HTTPError) {
        guard fields.present & KnownField.host.bit != 0 else {
            if line.minorVersion > 0 { throw .noHost }
            return
        }
        guard fields.repeated & KnownField.host.bit == 0,
            let host = fields.entries.first(where: { $0.field == .host })
        else { throw .manyHosts }
        let start = Int(host.valueStart)
        let end = start + Int(host.valueLength)
        guard Authority.isValid(bytes, start, end) else { throw .host }
        if case .absolute(let from, let to, let isSecure) = line.form,
            !Authority.agree(bytes, (start, end), (from, to), isSecure: isSecure)
        {
            throw .otherHost
        }
    }
}

/// `uri-host [ ":" port ]` of RFC 9110 section 7.2, narrowed to what names a host on the Internet: letters, digits, hyphen, dot,
/// underscore and tilde, or an IPv6 literal; no user information, no percent-encoding, no empty port.
enum Authority {
    static func isValid(_ bytes: UnsafeRawBufferPointer, _ start: Int, _ end: Int) -> Bool {
        guard start < end, end &- start <= 261 else { return false }
        var index = start
        if bytes[index] == 0x5B {
            index &+= 1
            let literal = index
            while index < end, bytes[index].hexadecimalValue != nil || bytes[index] == 0x3A || bytes[index] == 0x2E {
                index &+= 1
            }
            guard index > literal &+ 1, index < end, bytes[index] == 0x5D else { return false }
            index &+= 1
        } else {
            while index < end, isNameCharacter(bytes[index]) { index &+= 1 }
            guard index > start else { return false }
        }
        if index == end { return true }
        guard bytes[index] == 0x3A else { return false }
        let port = index &+ 1
        guard port < end, end &- port <= 5 else { return false }
        var number = 0
        for position in port..<end {
            guard bytes[position].isDigit else { return false }
            number = number &* 10 &+ Int(bytes[position] &- 0x30)
        }
        return number <= 65535
    }

    /// Whether two valid authorities are the same, the default port of the scheme counting as absent.
    static func agree(
        _ bytes: UnsafeRawBufferPointer, _ one: (Int, Int), _ other: (Int, Int), isSecure: Bool
    ) -> Bool {
        let port: StaticString = isSecure ? ":443" : ":80"
        func stripped(_ range: (Int, Int)) -> Range<Int> {
            let length = port.utf8CodeUnitCount
            let hasPort = range.1 - range.0 > length && bytes.equals(range.1 - length, length, port)
            return range.0..<(hasPort ? range.1 - length : range.1)
        }
        let mine = stripped(one)
        let theirs = stripped(other)
        return mine.count == theirs.count
            && zip(mine, theirs).allSatisfy { bytes[$0].lowercasedASCII == bytes[$1].lowercasedASCII }
    }

    private static func isNameCharacter(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F, 0x7E: true
        default: false
        }
    }
}

extension RequestHead {
    /// A received request; target, authority and fields are put in once the head has been cut off the buffer.
    fileprivate init(
        method: RequestMethod, bodyLength: BodyLength, minorVersion: UInt8, isKeepAlive: Bool, expectsContinue: Bool,
        wantsUpgrade: Bool, isChunked: Bool
    ) {
        self.method = method
        target = ByteBuffer()
        authority = ByteBuffer()
        fields = HeaderBlock()
        self.bodyLength = bodyLength
        self.minorVersion = minorVersion
        self.isKeepAlive = isKeepAlive
        self.expectsContinue = expectsContinue
        self.wantsUpgrade = wantsUpgrade
        self.isChunked = isChunked
    }

    /// A head without anything in it, for an exchange at rest.
    static var empty: RequestHead {
        RequestHead(
            method: .get, bodyLength: .none, minorVersion: 1, isKeepAlive: true, expectsContinue: false,
            wantsUpgrade: false, isChunked: false)
    }
}
