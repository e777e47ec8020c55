/// Compresses a response's body as it comes.
import CZlib
import NIOCore
import NIOPosix

/// One gzip stream (RFC 1952) of zlib: about 128 KiB. Not to be shared between threads.
final class GzipStream {
    enum Flush {
        /// zlib may keep what does not fill a block.
        case none
        /// Everything so far can be decompressed by whoever gets the output.
        case sync
        /// The end.
        case finish
    }
    /// At an address that never changes, as zlib wants it.
    private let stream: UnsafeMutablePointer<z_stream>

    /// - Returns: nil where there is no memory for it.
    init?() {
        // Set last: where an object is complete and then given up, `deinit` runs as well and would free the stream again.
        let stream = UnsafeMutablePointer<z_stream>.allocate(capacity: 1)
        stream.initialize(to: z_stream())
        // A window of 16 KiB and a small table: half of the memory for a few percent; 16 more asks for gzip's head and check sum.
        guard
            deflateInit2_(
                stream, 4, Z_DEFLATED, 14 + 16, 7, Z_DEFAULT_STRATEGY, ZLIB_VERSION,
                Int32(MemoryLayout<z_stream>.size)) == Z_OK
        else {
            stream.deallocate()
            return nil
        }
        self.stream = stream
    }

    deinit {
        deflateEnd(stream)
        stream.deallocate()
    }

    func reset() -> Bool { deflateReset(stream) == Z_OK }

    /// Compresses a part.
    /// - Returns: what is there of the output, possibly nothing; nil when zlib fails.
    func compress(_ input: ByteBuffer, _ flush: Flush) -> ByteBuffer? {
        let mode =
            switch flush {
            case .none: Z_NO_FLUSH
            case .sync: Z_SYNC_FLUSH
            case .finish: Z_FINISH
            }
        var output = ByteBuffer()
        let isDone = input.withUnsafeReadableBytes { bytes in
            stream.pointee.next_in = UnsafeMutablePointer(
                mutating: bytes.baseAddress?.assumingMemoryBound(to: Bytef.self))
            stream.pointee.avail_in = UInt32(clamping: bytes.count)
            defer { stream.pointee.next_in = nil }
            while true {
                let room = 16 << 10
                var status = Z_OK
                output.writeWithUnsafeMutableBytes(minimumWritableBytes: room) { space in
                    stream.pointee.next_out = space.baseAddress?.assumingMemoryBound(to: Bytef.self)
                    stream.pointee.avail_out = UInt32(room)
                    status = deflate(stream, mode)
                    return room - Int(stream.pointee.avail_out)
                }
                guard status == Z_OK || status == Z_BUF_ERROR || status == Z_STREAM_END else { return false }
                if status == Z_STREAM_END { return true }
                if stream.pointee.avail_out > 0 { return flush != .finish && stream.pointee.avail_in == 0 }
            }
        }
        return isDone ? output : nil
    }
}

/// The gzip streams of one event loop: how many there may be at a time, and those that are used again.
final class GzipStreams {
    // Sound: a thread-specific variable shows each thread only the value that this thread has set.
    nonisolated(unsafe) private static let shared = ThreadSpecificVariable<GzipStreams>()
    /// Responses that are compressed at a time on one loop: 32 MiB. Others leave as they are.
    private static let most = 256
    private static let mostIdle = 8
    private var idle: [GzipStream] = []
    private var taken = 0

    /// Those of the calling thread.
    static var current: GzipStreams {
        if let streams = shared.currentValue { return streams }
        let streams = GzipStreams()
        shared.currentValue = streams
        return streams
    }

    func take() -> GzipStream? {
        guard taken < Self.most else { return nil }
        if let stream = idle.popLast(), stream.reset() {
            taken += 1
            return stream
        }
        guard let stream = GzipStream() else { return nil }
        taken += 1
        return stream
    }

    func give(_ stream: GzipStream) {
        taken -= 1
        if idle.count < Self.mostIdle { idle.append(stream) }
    }
}
