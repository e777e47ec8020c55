/// Frames to bytes.
import KiteHTTP
package import NIOCore

extension ByteBuffer {
    /// Writes the 8 bytes in front of a payload.
    mutating func writeTunnelHeader(_ type: TunnelFrameType, flags: UInt8 = 0, length: Int, stream: UInt32 = 0) {
        let head =
            UInt64(type.rawValue) << 56 | UInt64(flags) << 48 | UInt64(UInt16(truncatingIfNeeded: length)) << 32
            | UInt64(stream)
        writeInteger(head)
    }

    /// Appends a frame. Texts beyond their limit are cut; a payload beyond ``TunnelWire/maximumPayload`` is not for this call
    /// and is cut, too.
    package mutating func writeTunnelFrame(_ frame: TunnelFrame) {
        switch frame {
        case .hello(let json): writeTunnelPayload(.hello, json)
        case .welcome(let json): writeTunnelPayload(.welcome, json)
        case .ping(let value): writeTunnelNumber(.ping, value)
        case .pong(let value): writeTunnelNumber(.pong, value)
        case .ack(let count): writeTunnelNumber(.ack, count)
        case .note(let note): writeTunnelNote(note)
        case .open(let id, let opening): writeTunnelOpen(id, opening)
        case .data(let id, let bytes, let isEnd):
            writeTunnelPayload(.data, flags: isEnd ? TunnelFrameDecoder.endFlag : 0, stream: id.rawValue, bytes)
        case .credit(let id, let increment):
            writeTunnelHeader(.credit, length: 4, stream: id.rawValue)
            writeInteger(increment)
        case .reset(let id, let code, let reason):
            let length = min(reason.readableBytes, TunnelWire.maximumReason)
            writeTunnelHeader(.reset, length: 1 + length, stream: id.rawValue)
            writeInteger(code.rawValue)
            writeImmutableBuffer(reason.getSlice(at: reason.readerIndex, length: length) ?? ByteBuffer())
        case .goAway(let message):
            let reason = cut(message.reason, to: TunnelWire.maximumReason)
            let next = cut(message.next, to: 2_048)
            writeTunnelHeader(.goAway, length: 3 + reason.utf8.count + next.utf8.count)
            writeInteger(message.code.rawValue)
            writeInteger(UInt16(truncatingIfNeeded: reason.utf8.count))
            writeString(reason)
            writeString(next)
        case .unknown(let type): writeInteger(UInt64(type) << 56)
        }
    }

    private mutating func writeTunnelNumber(_ type: TunnelFrameType, _ value: UInt64) {
        writeTunnelHeader(type, length: 8)
        writeInteger(value)
    }

    private mutating func writeTunnelPayload(
        _ type: TunnelFrameType, flags: UInt8 = 0, stream: UInt32 = 0, _ payload: ByteBuffer
    ) {
        let length = min(payload.readableBytes, TunnelWire.maximumPayload)
        writeTunnelHeader(type, flags: flags, length: length, stream: stream)
        writeImmutableBuffer(payload.getSlice(at: payload.readerIndex, length: length) ?? ByteBuffer())
    }

    private mutating func writeTunnelNote(_ note: TunnelNote) {
        let method = cut(note.method, to: 32)
        let path = cut(note.path, to: 1_024)
        writeTunnelHeader(.note, length: 9 + method.utf8.count + path.utf8.count)
        writeInteger(UInt16(clamping: note.tunnel))
        writeInteger(note.status)
        writeInteger(note.microseconds)
        writeInteger(UInt8(truncatingIfNeeded: method.utf8.count))
        writeString(method)
        writeString(path)
    }

    private mutating func writeTunnelOpen(_ id: TunnelStreamID, _ opening: StreamOpening) {
        let hostLength = min(opening.host.readableBytes, 255)
        let start = writerIndex
        writeTunnelHeader(.open, flags: opening.isSecure ? 1 : 0, length: 0, stream: id.rawValue)
        writeInteger(opening.kind.rawValue)
        writeInteger(opening.tunnel)
        writeTunnelAddress(opening.clientAddress)
        writeImmutableBuffer(opening.host.getSlice(at: opening.host.readerIndex, length: hostLength) ?? ByteBuffer())
        let length = writerIndex - start - TunnelWire.headerLength
        setInteger(UInt16(truncatingIfNeeded: length), at: start + 2)
    }

    /// One byte of family (0 unknown, 4, 6), then port and address, which lie at the same places in every system's `sockaddr_in`
    /// (port at 2, address at 4) and `sockaddr_in6` (port at 2, address at 8), in network byte order.
    private mutating func writeTunnelAddress(_ address: SocketAddress?) {
        let family: UInt8
        let addressBytes: Range<Int>
        switch address {
        case .v4: (family, addressBytes) = (4, 4..<8)
        case .v6: (family, addressBytes) = (6, 8..<24)
        case .unixDomainSocket, nil: (family, addressBytes) = (0, 0..<0)
        }
        writeInteger(family)
        guard family != 0, let address else { return }
        address.withSockAddr { pointer, size in
            let bytes = UnsafeRawBufferPointer(start: pointer, count: size)
            _ = writeBytes(bytes[2..<4])
            _ = writeBytes(bytes[addressBytes])
        }
    }
}

/// The longest beginning that has at most `limit` bytes and ends with a whole character.
func cut(_ text: String, to limit: Int) -> String {
    guard text.utf8.count > limit else { return text }
    var length = 0
    var result = String.UnicodeScalarView()
    for scalar in text.unicodeScalars {
        length += UTF8.width(scalar)
        guard length <= limit else { break }
        result.append(scalar)
    }
    return String(result)
}
