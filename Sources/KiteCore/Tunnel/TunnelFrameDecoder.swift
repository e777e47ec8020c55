/// Bytes to frames, strictly: what the specification does not allow is an error, as early as it can be seen.
package import KiteHTTP
package import NIOCore

/// Takes a connection apart into frames. Payloads are slices of what was received, save for a frame that arrived in pieces.
/// Holds at most one unfinished frame, and no received buffer once its frames have been taken.
package struct TunnelFrameDecoder {
    /// Of DATA: the sender's last.
    static let endFlag: UInt8 = 1

    private var current = ByteBuffer()
    /// The beginning of a frame whose rest has not arrived.
    private var partial = ByteBuffer()

    package init() {}

    /// What was received and not taken as frames.
    package var remaining: ByteBuffer {
        var all = partial
        all.writeImmutableBuffer(current)
        return all
    }

    /// Adds what has arrived. Take all frames with ``next()`` before adding more, otherwise bytes are copied.
    package mutating func receive(_ bytes: ByteBuffer) {
        if current.readableBytes == 0 { current = bytes } else { current.writeImmutableBuffer(bytes) }
    }

    /// The next frame, or nil when more bytes are needed.
    /// - Throws: `.protocolViolation`; the decoder must not be used after it.
    package mutating func next() throws(TransportError) -> TunnelFrame? {
        if partial.readableBytes > 0 { return try nextFromPartial() }
        guard let head: UInt64 = current.getInteger(at: current.readerIndex) else { return keepRest() }
        let header = try Header(head)
        guard current.readableBytes >= TunnelWire.headerLength + header.length else { return keepRest() }
        current.moveReaderIndex(forwardBy: TunnelWire.headerLength)
        guard let payload = current.readSlice(length: header.length) else { return nil }
        if current.readableBytes == 0 { current = ByteBuffer() }
        return try header.decode(payload)
    }

    private mutating func keepRest() -> TunnelFrame? {
        if current.readableBytes > 0 {
            partial = ByteBuffer()
            partial.writeBuffer(&current)
        }
        current = ByteBuffer()
        return nil
    }

    private mutating func nextFromPartial() throws(TransportError) -> TunnelFrame? {
        fillPartial(to: TunnelWire.headerLength)
        guard let head: UInt64 = partial.getInteger(at: partial.readerIndex) else { return nil }
        let header = try Header(head)
        fillPartial(to: TunnelWire.headerLength + header.length)
        guard partial.readableBytes == TunnelWire.headerLength + header.length else { return nil }
        var payload = partial
        partial = ByteBuffer()
        payload.moveReaderIndex(forwardBy: TunnelWire.headerLength)
        return try header.decode(payload)
    }

    private mutating func fillPartial(to length: Int) {
        let wanted = min(length - partial.readableBytes, current.readableBytes)
        guard wanted > 0, var piece = current.readSlice(length: wanted) else { return }
        partial.reserveCapacity(minimumWritableBytes: length - partial.readableBytes)
        partial.writeBuffer(&piece)
        if current.readableBytes == 0 { current = ByteBuffer() }
    }

    /// The first 8 bytes of a frame, checked.
    private struct Header {
        /// Nil: an extension.
        let type: TunnelFrameType?
        let number: UInt8
        let flags: UInt8
        let length: Int
        let stream: UInt32

        init(_ head: UInt64) throws(TransportError) {
            number = UInt8(truncatingIfNeeded: head >> 56)
            flags = UInt8(truncatingIfNeeded: head >> 48)
            length = Int(UInt16(truncatingIfNeeded: head >> 32))
            stream = UInt32(truncatingIfNeeded: head)
            type = TunnelFrameType(rawValue: number)
            guard length <= TunnelWire.maximumPayload else { throw Self.violation("a frame of \(length) bytes") }
            guard let type else {
                guard number >= 0x80 else { throw Self.violation("unknown frame type \(number)") }
                return
            }
            let allowedFlags: UInt8 = type == .data || type == .open ? 1 : 0
            guard flags & ~allowedFlags == 0 else { throw Self.violation("flags \(flags) on \(type)") }
            switch type {
            case .open, .data, .credit, .reset: break
            default: guard stream == 0 else { throw Self.violation("\(type) on a stream") }
            }
            let lengths: ClosedRange<Int> =
                switch type {
                case .hello, .welcome: 2...TunnelWire.maximumPayload
                case .ping, .pong, .ack: 8...8
                case .note: 9...(9 + 32 + 1_024)
                case .open: 4...(3 + 19 + 255)
                case .data: (flags == 0 ? 1 : 0)...TunnelWire.maximumPayload
                case .credit: 4...4
                case .reset: 1...(1 + TunnelWire.maximumReason)
                case .goAway: 3...(3 + TunnelWire.maximumReason + 2_048)
                }
            guard lengths.contains(length) else { throw Self.violation("\(type) of \(length) bytes") }
        }

        func decode(_ payload: consuming ByteBuffer) throws(TransportError) -> TunnelFrame {
            guard let type else { return .unknown(number) }
            switch type {
            case .data: return .data(TunnelStreamID(rawValue: stream), payload, isEnd: flags != 0)
            case .credit: return try decodeCredit(payload)
            case .hello: return .hello(payload)
            case .welcome: return .welcome(payload)
            case .ping: return .ping(payload.readInteger() ?? 0)
            case .pong: return .pong(payload.readInteger() ?? 0)
            case .ack: return .ack(payload.readInteger() ?? 0)
            case .open: return try decodeOpen(payload)
            case .note: return try decodeNote(payload)
            case .reset:
                let code = TransportError.Code(rawValue: payload.readInteger() ?? 0) ?? .reset
                return .reset(TunnelStreamID(rawValue: stream), code, reason: payload)
            case .goAway: return try decodeGoAway(payload)
            }
        }

        private func decodeCredit(_ payload: consuming ByteBuffer) throws(TransportError) -> TunnelFrame {
            guard let increment: UInt32 = payload.readInteger(), increment > 0 else {
                throw Self.violation("CREDIT of nothing")
            }
            return .credit(TunnelStreamID(rawValue: stream), increment)
        }

        private func decodeOpen(_ payload: consuming ByteBuffer) throws(TransportError) -> TunnelFrame {
            guard let kindNumber: UInt8 = payload.readInteger(), let kind = StreamKind(rawValue: kindNumber),
                let tunnel: UInt16 = payload.readInteger(), let family: UInt8 = payload.readInteger()
            else { throw Self.violation("malformed OPEN") }
            var address: SocketAddress?
            switch family {
            case 0: break
            case 4, 6:
                guard let port: UInt16 = payload.readInteger(),
                    let bytes = payload.readSlice(length: family == 4 ? 4 : 16)
                else { throw Self.violation("malformed address in OPEN") }
                address = try? SocketAddress(packedIPAddress: bytes, port: Int(port))
            default: throw Self.violation("unknown address family in OPEN")
            }
            guard payload.readableBytes <= 255 else { throw Self.violation("a host of more than 255 bytes in OPEN") }
            return .open(
                TunnelStreamID(rawValue: stream),
                StreamOpening(
                    kind: kind, tunnel: tunnel, clientAddress: address, host: payload, isSecure: flags != 0))
        }

        private func decodeNote(_ payload: consuming ByteBuffer) throws(TransportError) -> TunnelFrame {
            guard let tunnel: UInt16 = payload.readInteger(), let status: UInt16 = payload.readInteger(),
                let microseconds: UInt32 = payload.readInteger(), let methodLength: UInt8 = payload.readInteger(),
                methodLength <= 32, let method = payload.readString(length: Int(methodLength)),
                payload.readableBytes <= 1_024
            else { throw Self.violation("malformed NOTE") }
            return .note(
                TunnelNote(
                    tunnel: Int(tunnel), method: method, path: String(buffer: payload), status: status,
                    microseconds: microseconds))
        }

        private func decodeGoAway(_ payload: consuming ByteBuffer) throws(TransportError) -> TunnelFrame {
            guard let code: UInt8 = payload.readInteger(), let length: UInt16 = payload.readInteger(),
                length <= TunnelWire.maximumReason, let reason = payload.readString(length: Int(length)),
                payload.readableBytes <= 2_048
            else { throw Self.violation("malformed GOAWAY") }
            return .goAway(
                TunnelGoAway(
                    code: TransportError.Code(rawValue: code) ?? .goingAway, reason: reason,
                    next: String(buffer: payload)))
        }

        static func violation(_ what: String) -> TransportError {
            TransportError(.protocolViolation, "tunnel: \(what)")
        }
    }
}
