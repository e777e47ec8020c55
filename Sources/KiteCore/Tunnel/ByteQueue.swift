/// Bytes that wait, as the slices they came in.
import NIOCore

/// A first-in-first-out queue of buffers. Empty or with one buffer it allocates nothing.
struct ByteQueue {
    private var head: ByteBuffer?
    private var rest: [ByteBuffer] = []
    private var next = 0

    /// Bytes in all buffers.
    private(set) var bytes = 0

    var isEmpty: Bool { head == nil }

    /// Bytes in the first buffer; 0 when there is none.
    var firstLength: Int { head?.readableBytes ?? 0 }

    /// Adds a buffer; an empty one is left out. Small buffers are copied together once many wait, or with `compact` always, so that
    /// a few bytes do not keep large buffers in memory.
    mutating func append(_ buffer: ByteBuffer, compact: Bool = false) {
        let length = buffer.readableBytes
        guard length > 0 else { return }
        bytes += length
        guard let first = head else {
            head = compact && length < 2_048 ? ByteBuffer(bytes: buffer.readableBytesView) : buffer
            return
        }
        let waiting = rest.count - next
        if length < 2_048, compact || waiting >= 8 {
            if waiting > 0, let last = rest.last, last.readableBytes + length <= 4_096 {
                rest[rest.count - 1].writeImmutableBuffer(buffer)
                return
            }
            if waiting == 0, first.readableBytes + length <= 4_096 {
                head?.writeImmutableBuffer(buffer)
                return
            }
            rest.append(compact ? ByteBuffer(bytes: buffer.readableBytesView) : buffer)
            return
        }
        rest.append(buffer)
    }

    /// Takes at most `limit` bytes from the first buffer.
    mutating func take(_ limit: Int) -> ByteBuffer? {
        guard let length = head?.readableBytes else { return nil }
        if length > limit {
            guard let piece = head?.readSlice(length: limit) else { return nil }
            bytes -= limit
            return piece
        }
        let piece = head
        bytes -= length
        if next < rest.count {
            head = rest[next]
            rest[next] = ByteBuffer()
            next += 1
            if next == rest.count {
                rest = rest.count > 64 ? [] : rest
                rest.removeAll(keepingCapacity: true)
                next = 0
            } else if next >= 32, next * 2 >= rest.count {
                rest.removeFirst(next)
                next = 0
            }
        } else {
            head = nil
        }
        return piece
    }

    mutating func removeAll() { self = ByteQueue() }
}
