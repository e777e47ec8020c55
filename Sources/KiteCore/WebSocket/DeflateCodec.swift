/// Compresses and decompresses whole messages (RFC 7692 section 7.2) with zlib streams that all WebSockets of an event loop share.
import CZlib
import NIOCore
import NIOPosix

/// One thread's zlib streams, made when first needed: about 44 KiB for decompression and 268 KiB for each window size of compression. A
/// message is done in one go, so that nobody waits for a stream and a WebSocket needs none of its own.
final class DeflateCodec {
    // Sound: a thread-specific variable shows each thread only the value that this thread has set.
    nonisolated(unsafe) private static let shared = ThreadSpecificVariable<DeflateCodec>()

    private let inflatingWindowBits: Int32
    private var inflater: ZlibStream?
    private var deflaters: [Int32: ZlibStream] = [:]

    /// - Parameter inflatingWindowBits: 15 reads whatever is sent.
    init(inflatingWindowBits: Int32 = 15) { self.inflatingWindowBits = inflatingWindowBits }

    /// That of the calling thread. Not to be given to another.
    static var current: DeflateCodec {
        if let codec = shared.currentValue { return codec }
        let codec = DeflateCodec()
        shared.currentValue = codec
        return codec
    }

    /// What ends a message on the wire's other side: the rest of an empty block (RFC 7692 section 7.2.1).
    private static let tail: [UInt8] = [0x00, 0x00, 0xFF, 0xFF]

    /// Decompresses a message.
    /// - Parameters:
    ///   - limit: the longest result; no more than that and one piece is ever held.
    ///   - isText: the result is to be valid UTF-8, which is checked as it comes.
    func inflate(_ message: ByteBuffer, limit: Int, isText: Bool) throws(WebSocketError) -> ByteBuffer {
        var output = ByteBuffer()
        // Some compress nothing to nothing.
        guard message.readableBytes > 0 else { return output }
        if inflater == nil { inflater = ZlibStream(inflatingWindowBits: inflatingWindowBits) }
        guard let stream = inflater, stream.resetInflater() else {
            throw WebSocketError(.internalError, "There is no memory to decompress with.")
        }
        output.reserveCapacity(min(limit, message.readableBytes * 4))
        var validator = UTF8Validator()
        var isWhole = false
        for isTail in [false, true] where !(isTail && isWhole) {
            let failure: WebSocketError? =
                isTail
                ? Self.tail.withUnsafeBytes {
                    stream.inflate($0, limit: limit, into: &output, isWhole: &isWhole) {
                        !isText || validator.validate($0)
                    }
                }
                : message.withUnsafeReadableBytes {
                    stream.inflate($0, limit: limit, into: &output, isWhole: &isWhole) {
                        !isText || validator.validate($0)
                    }
                }
            if let failure { throw failure }
        }
        guard isWhole || stream.isBetweenBlocks else {
            throw WebSocketError(.invalidPayload, "A compressed message is cut off.")
        }
        guard validator.isComplete else { throw .notUTF8 }
        return output
    }

    /// Compresses a message.
    /// - Parameter windowBits: 9 to 15.
    /// - Returns: nil when that does not make it shorter.
    func deflate(_ message: ByteBuffer, windowBits: Int32) -> ByteBuffer? {
        if deflaters[windowBits] == nil { deflaters[windowBits] = ZlibStream(deflatingWindowBits: windowBits) }
        guard let stream = deflaters[windowBits], stream.resetDeflater() else { return nil }
        return stream.deflate(message, tail: Self.tail)
    }
}

/// A `z_stream` of raw DEFLATE, at an address that never changes, as zlib wants it.
private final class ZlibStream {
    /// How much is decompressed at a time.
    private static let pieceBytes = 64 << 10

    private let stream: UnsafeMutablePointer<z_stream>
    private let end: (UnsafeMutablePointer<z_stream>) -> Void

    init?(inflatingWindowBits bits: Int32) {
        stream = .allocate(capacity: 1)
        stream.initialize(to: z_stream())
        end = { inflateEnd($0) }
        guard inflateInit2_(stream, -bits, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else {
            return nil
        }
    }

    /// At the lowest level: the event loop does nothing else meanwhile, and most of the gain is in it.
    init?(deflatingWindowBits bits: Int32) {
        stream = .allocate(capacity: 1)
        stream.initialize(to: z_stream())
        end = { deflateEnd($0) }
        guard
            deflateInit2_(
                stream, Z_BEST_SPEED, Z_DEFLATED, -bits, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION,
                Int32(MemoryLayout<z_stream>.size)) == Z_OK
        else { return nil }
    }

    deinit {
        end(stream)
        stream.deallocate()
    }

    func resetInflater() -> Bool { inflateReset(stream) == Z_OK }
    func resetDeflater() -> Bool { deflateReset(stream) == Z_OK }

    /// Whether all blocks so far are complete; what follows would be the head of another.
    var isBetweenBlocks: Bool { stream.pointee.data_type & 128 != 0 }

    /// Decompresses a part of a message.
    /// - Parameters:
    ///   - isWhole: set when the part ends with the last block of a DEFLATE stream, after which no tail is missing.
    ///   - check: sees each piece of the result; false when it may not be so.
    func inflate(
        _ input: UnsafeRawBufferPointer, limit: Int, into output: inout ByteBuffer, isWhole: inout Bool,
        check: (UnsafeRawBufferPointer) -> Bool
    ) -> WebSocketError? {
        stream.pointee.next_in = UnsafeMutablePointer(
            mutating: input.baseAddress?.assumingMemoryBound(to: Bytef.self))
        stream.pointee.avail_in = UInt32(clamping: input.count)
        while true {
            var status = Z_OK
            var isSound = true
            // One byte more than allowed shows that there is more.
            let room = min(Self.pieceBytes, limit - output.readableBytes + 1)
            output.writeWithUnsafeMutableBytes(minimumWritableBytes: room) { space in
                stream.pointee.next_out = space.baseAddress?.assumingMemoryBound(to: Bytef.self)
                stream.pointee.avail_out = UInt32(room)
                status = CZlib.inflate(stream, Z_SYNC_FLUSH)
                let count = room - Int(stream.pointee.avail_out)
                isSound = check(UnsafeRawBufferPointer(rebasing: space[..<count]))
                return count
            }
            guard output.readableBytes <= limit else {
                return WebSocketError(.tooBig, "A message is longer than \(limit) bytes when decompressed.")
            }
            guard isSound else { return .notUTF8 }
            switch status {
            case Z_OK where stream.pointee.avail_out == 0: continue
            // All input is used and all output is there.
            case Z_OK, Z_BUF_ERROR: return nil
            case Z_STREAM_END:
                guard stream.pointee.avail_in > 0 else {
                    isWhole = true
                    return nil
                }
                // Another stream may follow the last block of one (RFC 7692 section 7.2.3.5).
                guard inflateReset(stream) == Z_OK else { return Self.broken }
            default: return Self.broken
            }
        }
    }

    private static let broken = WebSocketError(.invalidPayload, "A compressed message can't be decompressed.")

    func deflate(_ message: ByteBuffer, tail: [UInt8]) -> ByteBuffer? {
        // With the tail that is taken off again, the result must be shorter than this to be of use.
        let room = message.readableBytes + tail.count
        var output = ByteBuffer()
        var isComplete = false
        output.writeWithUnsafeMutableBytes(minimumWritableBytes: room) { space in
            message.withUnsafeReadableBytes { input in
                stream.pointee.next_in = UnsafeMutablePointer(
                    mutating: input.baseAddress?.assumingMemoryBound(to: Bytef.self))
                stream.pointee.avail_in = UInt32(clamping: input.count)
                stream.pointee.next_out = space.baseAddress?.assumingMemoryBound(to: Bytef.self)
                stream.pointee.avail_out = UInt32(clamping: room)
                isComplete = CZlib.deflate(stream, Z_SYNC_FLUSH) == Z_OK && stream.pointee.avail_out > 0
                return room - Int(stream.pointee.avail_out)
            }
        }
        guard isComplete, output.readableBytesView.suffix(tail.count).elementsEqual(tail) else { return nil }
        return output.readSlice(length: output.readableBytes - tail.count)
    }
}

extension WebSocketError {
    static let notUTF8 = WebSocketError(.invalidPayload, "A text message is not valid UTF-8.")
}
