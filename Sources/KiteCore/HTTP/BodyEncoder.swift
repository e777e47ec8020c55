/// Puts the chunked framing around a body that is sent piece by piece.
import NIOCore

/// Writes chunks to a transport without copying their content (RFC 9112 section 7.1).
enum BodyEncoder {
    /// One chunk. Nothing is written for empty content, which would end the body.
    static func writeChunk(_ content: ByteBuffer, to transport: any ByteTransport) {
        let length = content.readableBytes
        guard length > 0 else { return }
        if length <= copyLimit {
            var chunk = ByteBufferAllocator().buffer(capacity: length + 20)
            writeSize(length, into: &chunk)
            chunk.writeImmutableBuffer(content)
            chunk.writeStaticString("\r\n")
            transport.write(chunk)
        } else {
            var size = ByteBufferAllocator().buffer(capacity: 18)
            writeSize(length, into: &size)
            transport.write(size)
            transport.write(content)
            transport.write(lineEnd)
        }
    }

    /// The end of the body, with its trailers.
    static func writeLastChunk(trailers: HeaderBlock?, to transport: any ByteTransport) {
        guard let trailers, trailers.count > 0 else { return transport.write(lastChunk) }
        var end = ByteBuffer()
        end.writeStaticString("0\r\n")
        for position in 0..<trailers.count where trailers.field(at: position).isAllowedInTrailers {
            end.writeBytes(trailers.name(at: position))
            end.writeStaticString(": ")
            end.writeBytes(trailers.value(at: position))
            end.writeStaticString("\r\n")
        }
        end.writeStaticString("\r\n")
        transport.write(end)
    }

    /// Content up to this length is copied behind its size: cheaper than three entries of a vectored write.
    private static let copyLimit = 1024
    private static let lineEnd = ByteBuffer(string: "\r\n")
    private static let lastChunk = ByteBuffer(string: "0\r\n\r\n")

    private static func writeSize(_ length: Int, into buffer: inout ByteBuffer) {
        var shift = (Int.bitWidth - length.leadingZeroBitCount + 3) / 4 * 4
        while shift > 0 {
            shift -= 4
            let digit = UInt8(truncatingIfNeeded: length >> shift) & 0xF
            buffer.writeInteger(digit < 10 ? digit + 0x30 : digit + 0x57)
        }
        buffer.writeStaticString("\r\n")
    }
}
