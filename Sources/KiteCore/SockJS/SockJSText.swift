/// The JSON that SockJS frames are made of: strings, and arrays of strings. Nothing else of JSON occurs on this wire.
package import NIOCore

/// Why a client's payload holds no messages.
package enum SockJSFormatError: Error, Sendable, Hashable {
    /// Not JSON, or JSON with other things than strings.
    case brokenJSON
    /// Empty, or not an array where one is needed.
    case payloadExpected
    /// More messages than one payload may hold.
    case tooManyMessages
}

/// Reads and writes SockJS's JSON.
package enum SockJSText {
    /// What a payload may be.
    package enum Shape: Sendable {
        /// An array of strings only (xhr_send, jsonp_send).
        case array
        /// An array, or a string that is one message (websocket).
        case arrayOrString
    }

    // MARK: Reading

    /// The messages of a payload. Messages without escapes are slices of it.
    ///
    /// Where JSON has half a surrogate pair the message gets U+FFFD, as UTF-8 can't say it.
    /// - Parameter payload: strict UTF-8, which the caller has checked.
    package static func messages(
        in payload: ByteBuffer, shape: Shape, maxMessages: Int
    ) throws(SockJSFormatError) -> [ByteBuffer] {
        var reader = Reader(payload)
        reader.skipSpace()
        guard let first = reader.peek() else { throw .payloadExpected }
        var messages: [ByteBuffer] = []
        switch first {
        case UInt8(ascii: "["):
            reader.advance()
            reader.skipSpace()
            if reader.peek() == UInt8(ascii: "]") {
                reader.advance()
            } else {
                while true {
                    guard messages.count < maxMessages else { throw .tooManyMessages }
                    reader.skipSpace()
                    messages.append(try reader.string())
                    reader.skipSpace()
                    let separator = reader.peek()
                    reader.advance()
                    if separator == UInt8(ascii: "]") { break }
                    guard separator == UInt8(ascii: ",") else { throw .brokenJSON }
                }
            }
        case UInt8(ascii: "\"") where shape == .arrayOrString: messages.append(try reader.string())
        case UInt8(ascii: "\""), UInt8(ascii: "{"): throw .payloadExpected
        default: throw .brokenJSON
        }
        reader.skipSpace()
        guard reader.peek() == nil else { throw .brokenJSON }
        return messages
    }

    /// The code and reason of a close frame's array, `[3000,"Go away!"]`.
    static func closeFrame(in payload: ByteBuffer) throws(SockJSFormatError) -> (code: UInt16, reason: String) {
        var reader = Reader(payload)
        reader.skipSpace()
        guard reader.peek() == UInt8(ascii: "[") else { throw .brokenJSON }
        reader.advance()
        reader.skipSpace()
        var code: UInt32 = 0
        var digits = 0
        while let byte = reader.peek(), byte >= 0x30, byte <= 0x39, digits < 5 {
            code = code * 10 + UInt32(byte - 0x30)
            digits += 1
            reader.advance()
        }
        guard digits > 0, let short = UInt16(exactly: code) else { throw .brokenJSON }
        reader.skipSpace()
        guard reader.peek() == UInt8(ascii: ",") else { throw .brokenJSON }
        reader.advance()
        reader.skipSpace()
        let reason = try reader.string()
        reader.skipSpace()
        guard reader.peek() == UInt8(ascii: "]") else { throw .brokenJSON }
        return (short, String(buffer: reason))
    }

    /// A cursor over the payload. Every look is bounds-checked.
    private struct Reader {
        private let payload: ByteBuffer
        private let end: Int
        private var position: Int

        init(_ payload: ByteBuffer) {
            self.payload = payload
            position = payload.readerIndex
            end = payload.writerIndex
        }

        func peek() -> UInt8? { position < end ? payload.getInteger(at: position) : nil }
        mutating func advance() { position += 1 }

        mutating func skipSpace() {
            while let byte = peek(), byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { position += 1 }
        }

        /// A string, from its opening quote on.
        mutating func string() throws(SockJSFormatError) -> ByteBuffer {
            guard peek() == UInt8(ascii: "\"") else { throw .brokenJSON }
            position += 1
            let start = position
            // The closing quote first: then the result's size is known and a message without escapes is a slice.
            let offset = position - payload.readerIndex
            let (length, hasEscapes): (Int, Bool) = payload.withUnsafeReadableBytes { bytes in
                var index = offset
                var hasEscapes = false
                while index < bytes.count {
                    switch bytes[index] {
                    case UInt8(ascii: "\""): return (index &- offset, hasEscapes)
                    case UInt8(ascii: "\\"):
                        hasEscapes = true
                        index &+= 2
                    case 0x00...0x1F: return (-1, false)
                    default: index &+= 1
                    }
                }
                return (-1, false)
            }
            guard length >= 0, let raw = payload.getSlice(at: start, length: length) else { throw .brokenJSON }
            position = start + length + 1
            guard hasEscapes else { return raw }
            return try Self.unescape(raw)
        }

        private static func unescape(_ raw: ByteBuffer) throws(SockJSFormatError) -> ByteBuffer {
            var output = ByteBuffer()
            output.reserveCapacity(raw.readableBytes)
            let isSound = raw.withUnsafeReadableBytes { bytes in
                var index = 0
                var runStart = 0
                while index < bytes.count {
                    guard bytes[index] == UInt8(ascii: "\\") else {
                        index &+= 1
                        continue
                    }
                    output.writeBytes(UnsafeRawBufferPointer(rebasing: bytes[runStart..<index]))
                    guard index &+ 1 < bytes.count else { return false }
                    switch bytes[index &+ 1] {
                    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"):
                        output.writeInteger(bytes[index &+ 1])
                    case UInt8(ascii: "b"): output.writeInteger(0x08 as UInt8)
                    case UInt8(ascii: "f"): output.writeInteger(0x0C as UInt8)
                    case UInt8(ascii: "n"): output.writeInteger(0x0A as UInt8)
                    case UInt8(ascii: "r"): output.writeInteger(0x0D as UInt8)
                    case UInt8(ascii: "t"): output.writeInteger(0x09 as UInt8)
                    case UInt8(ascii: "u"):
                        guard let unit = hex4(bytes, at: index &+ 2) else { return false }
                        var scalar = UInt32(unit)
                        if unit & 0xFC00 == 0xD800, index &+ 7 < bytes.count, bytes[index &+ 6] == UInt8(ascii: "\\"),
                            bytes[index &+ 7] == UInt8(ascii: "u"), let low = hex4(bytes, at: index &+ 8),
                            low & 0xFC00 == 0xDC00
                        {
                            scalar = 0x10000 &+ (UInt32(unit & 0x3FF) &<< 10 | UInt32(low & 0x3FF))
                            index &+= 6
                        }
                        let character = Unicode.Scalar(scalar) ?? "\u{FFFD}"
                        if let encoded = UTF8.encode(character) { output.writeBytes(encoded) }
                        index &+= 4
                    default: return false
                    }
                    index &+= 2
                    runStart = index
                }
                output.writeBytes(UnsafeRawBufferPointer(rebasing: bytes[min(runStart, bytes.count)...]))
                return true
            }
            guard isSound else { throw .brokenJSON }
            return output
        }

        private static func hex4(_ bytes: UnsafeRawBufferPointer, at start: Int) -> UInt16? {
            guard start &+ 4 <= bytes.count else { return nil }
            var value: UInt16 = 0
            for index in start..<start &+ 4 {
                let digit: UInt8
                switch bytes[index] {
                case 0x30...0x39: digit = bytes[index] &- 0x30
                case 0x41...0x46: digit = bytes[index] &- 0x37
                case 0x61...0x66: digit = bytes[index] &- 0x57
                default: return nil
                }
                value = value &<< 4 | UInt16(digit)
            }
            return value
        }
    }

    // MARK: Writing

    /// Which characters beyond JSON's own are escaped.
    enum Escaping {
        /// Those that some browsers mangle: U+200C–200F, U+2028–202F, U+2060–206F, U+FFF0–FFFF and all above.
        case sockJS
        /// `<` as well as what JSON needs, so that text in a script element can't end the element.
        case script
        /// What JSON needs.
        case plain
    }

    /// Appends text as a JSON string.
    static func writeString(_ text: ByteBuffer, escaping: Escaping = .sockJS, into output: inout ByteBuffer) {
        output.reserveCapacity(minimumWritableBytes: text.readableBytes + text.readableBytes / 8 + 2)
        output.writeInteger(UInt8(ascii: "\""))
        text.withUnsafeReadableBytes { bytes in
            var runStart = 0
            var index = 0
            while index < bytes.count {
                let byte = bytes[index]
                var width = 1
                switch byte {
                case UInt8(ascii: "\""), UInt8(ascii: "\\"): break
                case 0x20..<0x80:
                    if byte == UInt8(ascii: "<"), case .script = escaping { break }
                    index &+= 1
                    continue
                case 0x00..<0x20: break
                default:
                    guard case .sockJS = escaping, let wide = mangledWidth(bytes, at: index) else {
                        index &+= 1
                        continue
                    }
                    width = wide
                }
                output.writeBytes(UnsafeRawBufferPointer(rebasing: bytes[runStart..<index]))
                writeEscaped(bytes, at: index, width: width, into: &output)
                index &+= width
                runStart = index
            }
            output.writeBytes(UnsafeRawBufferPointer(rebasing: bytes[runStart...]))
        }
        output.writeInteger(UInt8(ascii: "\""))
    }

    /// How many bytes the character has that begins here, if it is one that SockJS escapes.
    private static func mangledWidth(_ bytes: UnsafeRawBufferPointer, at index: Int) -> Int? {
        switch bytes[index] {
        case 0xE2:
            guard index &+ 2 < bytes.count else { return nil }
            switch (bytes[index &+ 1], bytes[index &+ 2]) {
            case (0x80, 0x8C...0x8F), (0x80, 0xA8...0xAF), (0x81, 0xA0...0xAF): return 3
            default: return nil
            }
        case 0xEF:
            guard index &+ 2 < bytes.count, bytes[index &+ 1] == 0xBF, bytes[index &+ 2] >= 0xB0 else { return nil }
            return 3
        case 0xF0...0xF4: return index &+ 3 < bytes.count ? 4 : nil
        default: return nil
        }
    }

    private static func writeEscaped(
        _ bytes: UnsafeRawBufferPointer, at index: Int, width: Int, into output: inout ByteBuffer
    ) {
        switch width {
        case 1:
            switch bytes[index] {
            case UInt8(ascii: "\""): output.writeStaticString("\\\"")
            case UInt8(ascii: "\\"): output.writeStaticString("\\\\")
            case 0x08: output.writeStaticString("\\b")
            case 0x09: output.writeStaticString("\\t")
            case 0x0A: output.writeStaticString("\\n")
            case 0x0C: output.writeStaticString("\\f")
            case 0x0D: output.writeStaticString("\\r")
            default: writeUnit(UInt16(bytes[index]), into: &output)
            }
        case 3:
            writeUnit(
                UInt16(bytes[index] & 0x0F) &<< 12 | UInt16(bytes[index &+ 1] & 0x3F) &<< 6
                    | UInt16(bytes[index &+ 2] & 0x3F), into: &output)
        default:
            var scalar: UInt32 = UInt32(bytes[index] & 0x07) &<< 18 | UInt32(bytes[index &+ 1] & 0x3F) &<< 12
            scalar |= UInt32(bytes[index &+ 2] & 0x3F) &<< 6 | UInt32(bytes[index &+ 3] & 0x3F)
            let above = scalar &- 0x10000
            writeUnit(0xD800 | UInt16(truncatingIfNeeded: above &>> 10) & 0x3FF, into: &output)
            writeUnit(0xDC00 | UInt16(truncatingIfNeeded: above) & 0x3FF, into: &output)
        }
    }

    private static func writeUnit(_ unit: UInt16, into output: inout ByteBuffer) {
        output.writeStaticString("\\u")
        for shift in [12, 8, 4, 0] as [UInt16] {
            let digit = UInt8(truncatingIfNeeded: unit &>> shift) & 0x0F
            output.writeInteger(digit < 10 ? 0x30 &+ digit : 0x57 &+ digit)
        }
    }
}
