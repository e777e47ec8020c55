/// Finds SockJS frames in the body of a response: lines (XHR) or server-sent events.
import NIOCore

/// Bytes in, frames' texts out. Holds at most one frame.
struct SockJSFrameScanner {
    enum Format {
        /// One frame per line.
        case lines
        /// One frame per `data:` line.
        case events
    }

    private let format: Format
    private let maxBytes: Int
    private var buffer = ByteBuffer()
    /// How far the buffer has been searched for a line's end.
    private var searched = 0

    init(_ format: Format, maxBytes: Int) {
        self.format = format
        self.maxBytes = maxBytes
    }

    mutating func append(_ bytes: ByteBuffer) {
        if buffer.readableBytes == 0 {
            buffer = bytes
            searched = 0
        } else {
            if buffer.readerIndex > buffer.readableBytes { buffer.discardReadBytes() }
            buffer.writeImmutableBuffer(bytes)
        }
    }

    /// The text of the next frame; nil when more bytes are needed.
    /// - Throws: ``SockJSFormatError`` when a frame is too long.
    mutating func next() throws(SockJSFormatError) -> ByteBuffer? {
        while true {
            let from = searched
            let end = buffer.withUnsafeReadableBytes { bytes -> Int? in
                bytes[min(from, bytes.count)...].firstIndex(of: 0x0A)
            }
            guard let end else {
                searched = buffer.readableBytes
                if searched > maxBytes { throw .tooManyMessages }
                return nil
            }
            searched = 0
            guard var line = buffer.readSlice(length: end) else { return nil }
            buffer.moveReaderIndex(forwardBy: 1)
            if buffer.readableBytes == 0 { buffer = ByteBuffer() }
            if line.readableBytes > maxBytes { throw .tooManyMessages }
            if let last: UInt8 = line.getInteger(at: line.writerIndex - 1), line.readableBytes > 0, last == 0x0D {
                line.moveWriterIndex(to: line.writerIndex - 1)
            }
            switch format {
            case .lines:
                // The prelude of a stream is a line of 2048 times `h`: it says no more than one of them.
                if line.readableBytes > 1, line.readableBytesView.allSatisfy({ $0 == UInt8(ascii: "h") }) {
                    line = ByteBuffer(string: "h")
                }
                if line.readableBytes > 0 { return line }
            case .events:
                guard line.readableBytesView.starts(with: "data:".utf8) else { continue }
                line.moveReaderIndex(forwardBy: 5)
                if let first: UInt8 = line.getInteger(at: line.readerIndex), line.readableBytes > 0, first == 0x20 {
                    line.moveReaderIndex(forwardBy: 1)
                }
                if line.readableBytes > 0 { return line }
            }
        }
    }
}
