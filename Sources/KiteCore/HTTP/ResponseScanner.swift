/// Scans response heads where they lie in the receive buffer; the first thing that happens to what an upstream sends.
public import NIOCore

/// An incremental, strict scanner of HTTP/1.1 response heads (RFC 9112 sections 4 to 6). Informational responses (1xx) are
/// returned like any other; the caller goes on feeding for the final one.
///
/// The caller keeps received bytes in one buffer, appends to it and calls ``feed(_:requestMethod:)``; a complete head is
/// taken off its front. After an error the connection is of no more use. Every error has status 502.
public struct ResponseScanner {
    private let limits: HTTPLimits
    private var fields = FieldScanner()
    private var line: Line?
    /// So many bytes of an incomplete head have been looked at, and since the last complete line they hold no LF.
    private var searched = 0

    /// The parts of a status line; positions count from the first byte of the head.
    private struct Line {
        var status: UInt16
        var reasonStart: Int
        var reasonLength: Int
        var minorVersion: UInt8
    }

    public init(limits: HTTPLimits = HTTPLimits()) {
        self.limits = limits
    }

    /// Lets go of all memory; for a connection at rest.
    public mutating func release() { fields.release() }

    /// Takes a complete head off the front of `buffer`.
    /// - Parameters:
    ///   - buffer: what was received and is not yet consumed. What is left in it must be at its front again, with more
    ///     behind, in the next call.
    ///   - requestMethod: the method of the request that is answered; it decides whether a body follows
    ///     (RFC 9112 section 6.3).
    /// - Returns: the head, or nil when more bytes are needed. ``BodyDecoder/init(response:limits:)`` takes it from there.
    /// - Throws: why the response is refused; the status is 502.
    public mutating func feed(_ buffer: inout ByteBuffer, requestMethod: RequestMethod) throws(HTTPError)
        -> ResponseHead?
    {
        guard buffer.readableBytes > 0 else { return nil }
        let parsed: (Int, ResponseHead)?
        do {
            parsed = try buffer.withUnsafeReadableBytes { (bytes) throws(HTTPError) -> (Int, ResponseHead)? in
                try self.scan(bytes, requestMethod)
            }
        } catch {
            throw error.inResponse
        }
        guard case (let length, var head)? = parsed, let bytes = buffer.readSlice(length: length), let line else {
            return nil
        }
        head.reason = bytes.getSlice(at: line.reasonStart, length: line.reasonLength) ?? ByteBuffer()
        head.fields = HeaderBlock(bytes: bytes, entries: fields.entries, present: fields.present)
        self.line = nil
        searched = 0
        if buffer.readableBytes == 0 { buffer = ByteBuffer() }
        return head
    }

    private mutating func scan(_ bytes: UnsafeRawBufferPointer, _ method: RequestMethod) throws(HTTPError)
        -> (Int, ResponseHead)?
    {
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
        return (length, try interpret(bytes, line, method))
    }

    private mutating func checkIncomplete(_ bytes: UnsafeRawBufferPointer) throws(HTTPError) {
        searched = bytes.count
        if bytes.count > limits.headBytes { throw .largeHead }
    }

    /// `HTTP-version SP status-code SP [ reason-phrase ] CRLF`; the second space may be missing when there is no reason, as
    /// many servers have it.
    private func scanLine(_ bytes: UnsafeRawBufferPointer) throws(HTTPError) -> (Line, Int)? {
        let end = bytes.count
        let prefix: StaticString = "HTTP/"
        for index in 0..<min(end, 5) where bytes[index] != prefix.utf8Start[index] { throw .version }
        guard end >= 14 else {
            for index in 0..<end where bytes[index] == 0x0A { throw .startLine }
            return nil
        }
        guard bytes[5].isDigit, bytes[6] == 0x2E, bytes[7].isDigit, bytes[8] == 0x20 else { throw .version }
        if bytes[5] > 0x31 { throw .otherVersion }
        guard bytes[5] == 0x31, bytes[7] <= 0x31 else { throw .version }
        guard bytes[9].isDigit, bytes[10].isDigit, bytes[11].isDigit, bytes[9] > 0x30 else { throw .status }
        let status = UInt16(bytes[9] &- 0x30) &* 100 &+ UInt16(bytes[10] &- 0x30) &* 10 &+ UInt16(bytes[11] &- 0x30)
        var start = 12
        if bytes[12] == 0x20 { start = 13 } else if bytes[12] != 0x0D { throw .status }
        var stop = bytes.firstControl(from: start, to: end)
        while stop < end, bytes[stop] == 0x09 { stop = bytes.firstControl(from: stop &+ 1, to: end) }
        guard stop < end else { return nil }
        guard bytes[stop] == 0x0D else { throw bytes[stop] == 0x0A ? .lineEnd : .startLine }
        guard stop &+ 1 < end else { return nil }
        guard bytes[stop &+ 1] == 0x0A else { throw .lineEnd }
        return (
            Line(
                status: status, reasonStart: start, reasonLength: stop &- start, minorVersion: bytes[7] &- 0x30),
            stop &+ 2
        )
    }

    private func interpret(_ bytes: UnsafeRawBufferPointer, _ line: Line, _ method: RequestMethod) throws(HTTPError)
        -> ResponseHead
    {
        var head = ResponseHead(status: line.status)
        head.minorVersion = line.minorVersion
        // The connection is a tunnel from here on, whatever the framing fields say (RFC 9110 section 9.3.6).
        if method == .connect, 200..<300 ~= line.status { return head }
        let framing = try fields.framing(bytes, minorVersion: line.minorVersion)
        head.isKeepAlive = !framing.isClose && (line.minorVersion > 0 || framing.isKeepAlive)
        if ResponseHead.hasNoBody(status: line.status, method: method) {
            if framing.isChunked, line.status < 200 || line.status == 204 { throw .transferEncoding }
        } else if framing.isChunked {
            head.bodyLength = .unknown
            head.isChunked = true
        } else if let length = framing.contentLength {
            head.bodyLength = .known(length)
        } else {
            head.bodyLength = .unknown
            head.isKeepAlive = false
        }
        return head
    }
}

extension ResponseHead {
    /// Whether a response has no body, whatever its fields say (RFC 9112 section 6.3).
    static func hasNoBody(status: UInt16, method: RequestMethod) -> Bool {
        status < 200 || status == 204 || status == 304 || method == .head
    }
}
