/// Cuts a message's body out of the bytes that follow its head, whatever its framing.
public import NIOCore

/// An incremental decoder of a request's or a response's body (RFC 9112 section 6.3): of known length, chunked, or until the
/// connection closes. Content comes out as slices of what goes in.
public struct BodyDecoder {
    private enum Framing {
        case known(remaining: Int64)
        case chunked(Chunks)
        case untilClose(room: Int64)
        case done
    }
    private var framing: Framing

    /// Most bodies are not chunked, and the state machines that a decoder is part of are moved about: they stay small this way. Decoders
    /// are handed on, never copied to be used twice.
    private final class Chunks {
        var decoder: ChunkDecoder
        init(_ decoder: ChunkDecoder) { self.decoder = decoder }
    }

    /// The body of a request that a ``RequestScanner`` returned. Bodies beyond ``HTTPLimits/bodyBytes`` are refused with 413.
    public init(request: RequestHead, limits: HTTPLimits = HTTPLimits()) {
        let limit = limits.bodyBytes ?? Int64.max
        framing =
            switch request.bodyLength {
            case .none: .known(remaining: 0)
            case .known(let length): .known(remaining: length)
            case .unknown: .chunked(Chunks(ChunkDecoder(limits: limits, bodyLimit: limit)))
            }
    }

    /// The body of a response that a ``ResponseScanner`` returned; its length is not limited.
    public init(response: ResponseHead, limits: HTTPLimits = HTTPLimits()) {
        framing =
            switch response.bodyLength {
            case .none: .known(remaining: 0)
            case .known(let length): .known(remaining: length)
            case .unknown:
                if response.isChunked {
                    .chunked(Chunks(ChunkDecoder(limits: limits, bodyLimit: Int64.max)))
                } else {
                    .untilClose(room: Int64.max)
                }
            }
    }

    /// Whether ``BodyPart/end(trailers:)`` has been returned.
    public var isComplete: Bool { if case .done = framing { true } else { false } }

    /// Whether nothing but the end of the connection marks the body's end.
    var lastsUntilClose: Bool { if case .untilClose = framing { true } else { false } }

    /// How many bytes are still to come, where that is known.
    public var remaining: Int64? {
        switch framing {
        case .known(let remaining): remaining
        case .done: 0
        case .chunked, .untilClose: nil
        }
    }

    /// Takes the next part off the front of `buffer`. Call it until it returns nil.
    /// - Parameter buffer: what was received and is not yet consumed. What is left in it when nil is returned must be at
    ///   its front again, with more behind, in the next call. After the end it is the next message.
    /// - Returns: nil when more bytes are needed, and after the end.
    /// - Throws: a body that breaks its framing or a limit.
    public mutating func next(from buffer: inout ByteBuffer) throws(HTTPError) -> BodyPart? {
        switch framing {
        case .known(0):
            framing = .done
            return .end(trailers: nil)
        case .known(let remaining):
            guard let bytes = Self.take(remaining, from: &buffer) else { return nil }
            framing = .known(remaining: remaining - Int64(bytes.readableBytes))
            return .bytes(bytes)
        case .untilClose(let room):
            guard let bytes = Self.take(room, from: &buffer) else { return nil }
            framing = .untilClose(room: room - Int64(bytes.readableBytes))
            return .bytes(bytes)
        case .chunked(let chunks):
            framing = .done
            let part = try chunks.decoder.next(from: &buffer)
            if case .end? = part { return part }
            framing = .chunked(chunks)
            return part
        case .done:
            return nil
        }
    }

    /// The sender has closed its side and everything that came before has been taken with ``next(from:)``.
    /// - Returns: the end of a body that lasts until the connection closes.
    /// - Throws: when the body is incomplete.
    public mutating func inputEnded() throws(HTTPError) -> BodyPart? {
        switch framing {
        case .untilClose, .known(0):
            framing = .done
            return .end(trailers: nil)
        case .done: return nil
        case .known, .chunked: throw .truncated
        }
    }

    private static func take(_ most: Int64, from buffer: inout ByteBuffer) -> ByteBuffer? {
        guard buffer.readableBytes > 0 else { return nil }
        if Int64(buffer.readableBytes) <= most {
            let bytes = buffer
            buffer = ByteBuffer()
            return bytes
        }
        return buffer.readSlice(length: Int(clamping: most))
    }
}
