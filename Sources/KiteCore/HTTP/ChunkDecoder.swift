/// Takes the chunked framing off a body (RFC 9112 section 7.1).
public import NIOCore

/// What a body decoder yields.
public enum BodyPart: Sendable {
    /// Content, a slice of what was received; never empty.
    case bytes(ByteBuffer)
    /// The body is complete. Trailers there are only with the chunked framing, and only harmless ones.
    case end(trailers: HeaderBlock?)
}

/// An incremental, strict decoder. Extensions are bounded, checked and skipped; a lone CR or LF, a size that is no plain
/// hexadecimal number or too large, and white space around it or in extensions are refused.
struct ChunkDecoder {
    private enum State {
        case size(value: Int64, digits: Int)
        case extensions(size: Int64, Extension)
        case sizeLineFeed(size: Int64)
        case data(remaining: Int64)
        case dataReturn
        case dataLineFeed
        case trailers
        case done
    }
    /// Where in `;name=value` or `;name="value"` the decoder is.
    private enum Extension {
        case nameStart, name, valueStart, value, quoted, escaped, valueEnd
    }
    private let maximumExtensionBytes: Int
    private let maximumTrailerBytes: Int
    private let maximumFields: Int
    private let bodyLimit: Int64
    private var state = State.size(value: 0, digits: 0)
    private var received: Int64 = 0
    private var extensionBytes = 0
    private var trailers = FieldScanner()

    /// - Parameter bodyLimit: how many bytes of content are accepted.
    init(limits: HTTPLimits, bodyLimit: Int64) {
        maximumExtensionBytes = limits.chunkExtensionBytes
        maximumTrailerBytes = limits.trailerBytes
        maximumFields = limits.fieldCount
        self.bodyLimit = bodyLimit
    }

    /// Takes the next part off the front of `buffer`.
    /// - Returns: nil when more bytes are needed, which are to be appended to what is left in `buffer`.
    mutating func next(from buffer: inout ByteBuffer) throws(HTTPError) -> BodyPart? {
        while true {
            switch state {
            case .data(let remaining):
                guard buffer.readableBytes > 0 else { return nil }
                let length = Int(clamping: min(remaining, Int64(buffer.readableBytes)))
                guard let slice = buffer.readSlice(length: length) else { return nil }
                state = Int64(length) == remaining ? .dataReturn : .data(remaining: remaining - Int64(length))
                return .bytes(slice)
            case .trailers:
                return try scanTrailers(&buffer)
            case .done:
                return nil
            default:
                guard let byte: UInt8 = buffer.readInteger() else { return nil }
                try advance(byte)
            }
        }
    }

    private mutating func advance(_ byte: UInt8) throws(HTTPError) {
        switch state {
        case .size(let value, let digits):
            if let digit = byte.hexadecimalValue {
                // Sixteen digits, the first of them below 8, are what fits.
                guard digits < 16, value <= Int64.max >> 4 else { throw .chunk }
                state = .size(value: value << 4 | Int64(digit), digits: digits + 1)
            } else if digits > 0, byte == 0x0D {
                state = .sizeLineFeed(size: value)
            } else if digits > 0, byte == 0x3B {
                state = .extensions(size: value, .nameStart)
            } else {
                throw .chunk
            }
        case .extensions(let size, let part):
            extensionBytes += 1
            guard extensionBytes <= maximumExtensionBytes else { throw .chunk }
            state = try advance(byte, size: size, part)
        case .sizeLineFeed(let size):
            guard byte == 0x0A else { throw .chunk }
            if size == 0 {
                trailers.begin(at: 0)
                state = .trailers
            } else {
                guard size <= bodyLimit - received else { throw .largeBody }
                received += size
                state = .data(remaining: size)
            }
        case .dataReturn:
            guard byte == 0x0D else { throw .chunk }
            state = .dataLineFeed
        case .dataLineFeed:
            guard byte == 0x0A else { throw .chunk }
            state = .size(value: 0, digits: 0)
        case .data, .trailers, .done: break
        }
    }

    private func advance(_ byte: UInt8, size: Int64, _ part: Extension) throws(HTTPError) -> State {
        switch (part, byte) {
        case (.name, 0x3B), (.value, 0x3B), (.valueEnd, 0x3B): return .extensions(size: size, .nameStart)
        case (.name, 0x0D), (.value, 0x0D), (.valueEnd, 0x0D): return .sizeLineFeed(size: size)
        case (.name, 0x3D): return .extensions(size: size, .valueStart)
        case (.nameStart, _) where byte.isTokenCharacter, (.name, _) where byte.isTokenCharacter:
            return .extensions(size: size, .name)
        case (.valueStart, _) where byte.isTokenCharacter, (.value, _) where byte.isTokenCharacter:
            return .extensions(size: size, .value)
        case (.valueStart, 0x22): return .extensions(size: size, .quoted)
        case (.quoted, 0x22): return .extensions(size: size, .valueEnd)
        case (.quoted, 0x5C): return .extensions(size: size, .escaped)
        case (.quoted, 0x20...0x7E), (.escaped, 0x20...0x7E): return .extensions(size: size, .quoted)
        default: throw .chunk
        }
    }

    private mutating func scanTrailers(_ buffer: inout ByteBuffer) throws(HTTPError) -> BodyPart? {
        let end = try buffer.withUnsafeReadableBytes { (bytes) throws(HTTPError) -> Int? in
            try trailers.scan(bytes, maximumFields: maximumFields)
        }
        guard let end else {
            if buffer.readableBytes > maximumTrailerBytes { throw .largeHead }
            return nil
        }
        guard end <= maximumTrailerBytes, let bytes = buffer.readSlice(length: end) else { throw .largeHead }
        state = .done
        let entries = trailers.entries.filter { $0.field.isAllowedInTrailers }
        guard !entries.isEmpty else { return .end(trailers: nil) }
        let present = entries.reduce(0) { $0 | $1.field.bit }
        return .end(trailers: HeaderBlock(bytes: bytes, entries: entries, present: present))
    }
}

extension KnownField {
    /// RFC 9110 section 6.5.1: fields for framing, routing, authentication, request modifiers and content handling have no
    /// effect in trailers and are dropped there. Of the fields we know only these two are none of them.
    package var isAllowedInTrailers: Bool { self == .other || self == .etag }
}
