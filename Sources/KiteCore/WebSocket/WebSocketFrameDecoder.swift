/// Cuts received bytes into WebSocket frames, without copying what can be sliced, and refuses what RFC 6455 section 5 does not
/// allow.
package import NIOCore

/// Bytes in, frames out. Holds at most one frame's limit and one read.
package struct WebSocketFrameDecoder: Sendable {
    private let role: WebSocketRole
    private let maxFrameBytes: Int
    private let allowsCompression: Bool
    private var buffer = ByteBuffer()
    /// Where, counted from the reader index, the first frame begins that is not wholly unmasked. Everything that arrives is unmasked in
    /// place before the first slice of it is handed out, because writing to a buffer that has slices copies it.
    private var scanned = 0
    /// How much of that frame's payload is unmasked.
    private var unmasked = 0

    /// - Parameters:
    ///   - role: which end this is; a server takes masked frames only, a client unmasked ones only.
    ///   - maxFrameBytes: the longest payload of a data frame.
    ///   - allowsCompression: permessage-deflate was agreed upon.
    package init(role: WebSocketRole, maxFrameBytes: Int, allowsCompression: Bool = false) {
        self.role = role
        self.allowsCompression = allowsCompression
        self.maxFrameBytes = max(maxFrameBytes, 0)
    }

    /// How many received bytes wait for ``next()``.
    package var bufferedBytes: Int { buffer.readableBytes }

    /// Takes bytes as they arrive.
    package mutating func append(_ bytes: ByteBuffer) {
        if buffer.readableBytes == 0 {
            buffer = bytes
        } else {
            if buffer.readerIndex > buffer.readableBytes { buffer.discardReadBytes() }
            buffer.writeImmutableBuffer(bytes)
        }
        if role == .server { unmask() }
    }

    /// The next complete frame, nil when more bytes are needed.
    /// - Parameter room: how long a data frame may be now.
    /// - Throws: what the peer did wrong; the decoder is of no use after that.
    package mutating func next(room: Int = .max) throws(WebSocketError) -> WebSocketFrame? {
        guard let header = try header(at: 0) else { return nil }
        guard header.opcode.isControl || header.payloadLength <= room else {
            throw WebSocketError(.tooBig, "A message is longer than \(maxFrameBytes) bytes.")
        }
        let total = header.length + header.payloadLength
        guard buffer.readableBytes >= total else { return nil }
        buffer.moveReaderIndex(forwardBy: header.length)
        let payload = buffer.readSlice(length: header.payloadLength) ?? ByteBuffer()
        scanned = max(scanned - total, 0)
        if buffer.readableBytes == 0 { buffer = ByteBuffer() }
        return WebSocketFrame(
            isFinal: header.isFinal, opcode: header.opcode, payload: payload, isCompressed: header.isCompressed)
    }

    /// Shows what has arrived of a data frame that is not complete. Call it when ``next(room:)`` has no frame.
    package func withPartialFrame(
        _ body: (WebSocketOpcode, _ isCompressed: Bool, UnsafeRawBufferPointer) -> Void
    ) {
        guard let header = try? header(at: 0), !header.opcode.isControl else { return }
        let arrived =
            role == .server
            ? (scanned == 0 ? unmasked : 0) : min(header.payloadLength, buffer.readableBytes - header.length)
        guard arrived > 0 else { return }
        buffer.withUnsafeReadableBytes { bytes in
            let payload = bytes[header.length..<header.length + arrived]
            body(header.opcode, header.isCompressed, UnsafeRawBufferPointer(rebasing: payload))
        }
    }

    /// Drops what is buffered.
    package mutating func clear() {
        buffer = ByteBuffer()
        scanned = 0
        unmasked = 0
    }

    private struct Header {
        var isFinal: Bool
        var isCompressed: Bool
        var opcode: WebSocketOpcode
        var length: Int
        var payloadLength: Int
        var key: UInt32
    }

    private func header(at offset: Int) throws(WebSocketError) -> Header? {
        let start = buffer.readerIndex + offset
        let available = buffer.readableBytes - offset
        guard available >= 1, let first: UInt8 = buffer.getInteger(at: start) else { return nil }
        guard first & (allowsCompression ? 0x30 : 0x70) == 0 else {
            throw WebSocketError(.protocolError, "Reserved bits are set but no extension was agreed upon.")
        }
        let isCompressed = first & 0x40 != 0
        guard let opcode = WebSocketOpcode(rawValue: first & 0x0F) else {
            throw WebSocketError(.protocolError, "The opcode \(first & 0x0F) is reserved.")
        }
        if isCompressed && opcode != .text && opcode != .binary {
            throw WebSocketError(.protocolError, "Only the first frame of a message says that it is compressed.")
        }
        let isFinal = first & 0x80 != 0
        if opcode.isControl && !isFinal { throw WebSocketError(.protocolError, "A control frame is fragmented.") }
        guard available >= 2, let second: UInt8 = buffer.getInteger(at: start + 1) else { return nil }
        let isMasked = second & 0x80 != 0
        guard isMasked == (role == .server) else {
            throw WebSocketError(
                .protocolError, isMasked ? "A frame of the server is masked." : "A frame of the client is not masked.")
        }
        let short = second & 0x7F
        if opcode.isControl && short > 125 {
            throw WebSocketError(.protocolError, "A control frame is longer than 125 bytes.")
        }
        var length = 2
        let payload: UInt64
        switch short {
        case 126:
            guard available >= 4, let value: UInt16 = buffer.getInteger(at: start + 2) else { return nil }
            guard value > 125 else {
                throw WebSocketError(.protocolError, "The length is not encoded in the shortest way.")
            }
            payload = UInt64(value)
            length = 4
        case 127:
            guard available >= 10, let value: UInt64 = buffer.getInteger(at: start + 2) else { return nil }
            guard value >> 63 == 0 else { throw WebSocketError(.protocolError, "The length has more than 63 bits.") }
            guard value > 0xFFFF else {
                throw WebSocketError(.protocolError, "The length is not encoded in the shortest way.")
            }
            payload = value
            length = 10
        default: payload = UInt64(short)
        }
        guard opcode.isControl || payload <= UInt64(maxFrameBytes) else {
            throw WebSocketError(.tooBig, "A frame is longer than \(maxFrameBytes) bytes.")
        }
        var key: UInt32 = 0
        if isMasked {
            guard available >= length + 4, let value: UInt32 = buffer.getInteger(at: start + length) else { return nil }
            key = value
            length += 4
        }
        return Header(
            isFinal: isFinal, isCompressed: isCompressed, opcode: opcode, length: length, payloadLength: Int(payload),
            key: key)
    }

    /// Unmasks what has arrived. What is malformed stops it here and is reported by ``next()``.
    private mutating func unmask() {
        while scanned < buffer.readableBytes, let header = try? header(at: scanned) {
            let arrived = min(header.payloadLength, buffer.readableBytes - scanned - header.length)
            if arrived > unmasked {
                let range = (scanned + header.length + unmasked)..<(scanned + header.length + arrived)
                let offset = unmasked
                buffer.withUnsafeMutableReadableBytes { bytes in
                    WebSocketMask(key: header.key).apply(
                        to: UnsafeMutableRawBufferPointer(rebasing: bytes[range]), offset: offset)
                }
                unmasked = arrived
            }
            guard arrived == header.payloadLength else { return }
            scanned += header.length + header.payloadLength
            unmasked = 0
        }
    }
}
