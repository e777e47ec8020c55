/// Writes WebSocket frames (RFC 6455 section 5.2).
package import NIOCore

/// Frames in, bytes out; a client's are masked with fresh random keys.
package struct WebSocketFrameEncoder: Sendable {
    private let role: WebSocketRole
    private var random = SystemRandomNumberGenerator()
    /// Two keys are drawn at once.
    private var spareKey: UInt32?

    package init(role: WebSocketRole) { self.role = role }

    /// Appends one frame.
    package mutating func encode(
        _ opcode: WebSocketOpcode, isFinal: Bool = true, isCompressed: Bool = false, payload: ByteBuffer,
        into output: inout ByteBuffer
    ) {
        let count = payload.readableBytes
        output.reserveCapacity(minimumWritableBytes: count + 14)
        let key = writeHeader(
            opcode, isFinal: isFinal, isCompressed: isCompressed, payloadLength: count, into: &output)
        output.writeImmutableBuffer(payload)
        if let key {
            let start = output.writerIndex - count - output.readerIndex
            output.withUnsafeMutableReadableBytes { bytes in
                WebSocketMask(key: key).apply(to: UnsafeMutableRawBufferPointer(rebasing: bytes[start...]), offset: 0)
            }
        }
    }

    /// Appends a frame's header only, for a server that sends a long payload without copying it.
    /// - Returns: the masking key that the payload needs; nil for a server.
    @discardableResult
    package mutating func writeHeader(
        _ opcode: WebSocketOpcode, isFinal: Bool, isCompressed: Bool = false, payloadLength: Int,
        into output: inout ByteBuffer
    ) -> UInt32? {
        output.writeInteger((isFinal ? 0x80 : 0) | (isCompressed ? 0x40 : 0) | opcode.rawValue)
        let maskBit: UInt8 = role == .client ? 0x80 : 0
        switch payloadLength {
        case ...125: output.writeInteger(maskBit | UInt8(truncatingIfNeeded: payloadLength))
        case ...0xFFFF:
            output.writeInteger(maskBit | 126)
            output.writeInteger(UInt16(truncatingIfNeeded: payloadLength))
        default:
            output.writeInteger(maskBit | 127)
            output.writeInteger(UInt64(payloadLength))
        }
        guard role == .client else { return nil }
        let key = nextKey()
        output.writeInteger(key)
        return key
    }

    /// A close frame. A code that may not be sent is left out when it stands for none and replaced by 1000 otherwise; the reason is cut
    /// at a character so that the frame fits.
    package mutating func encodeClose(
        _ code: WebSocketCloseCode, reason: String, into output: inout ByteBuffer
    ) {
        var payload = ByteBuffer()
        if code != .none {
            payload.writeInteger(code.mayBeSent ? code.rawValue : WebSocketCloseCode.normal.rawValue)
            var room = 123
            for scalar in reason.unicodeScalars {
                let encoded = UTF8.encode(scalar)
                let width = encoded?.count ?? 0
                guard width <= room else { break }
                room -= width
                if let encoded { payload.writeBytes(encoded) }
            }
        }
        encode(.close, payload: payload, into: &output)
    }

    private mutating func nextKey() -> UInt32 {
        if let key = spareKey {
            spareKey = nil
            return key
        }
        let drawn: UInt64 = random.next()
        spareKey = UInt32(truncatingIfNeeded: drawn >> 32)
        return UInt32(truncatingIfNeeded: drawn)
    }
}
