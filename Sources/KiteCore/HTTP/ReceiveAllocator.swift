/// How large the buffers are into which sockets are read.
import NIOCore

/// Sizes receive buffers by what arrives, from 2 KiB to 64 KiB, and has none kept while a connection is at rest.
struct ReceiveAllocator: RecvByteBufferAllocator {
    private static let smallest = 2048
    private static let largest = 65536
    /// The channel keeps the first buffer it is given for good, so that one is tiny, and a second read follows at once.
    private static let first = 16

    private var size = Self.first
    private var wasSmall = false

    func buffer(allocator: ByteBufferAllocator) -> ByteBuffer { allocator.buffer(capacity: size) }

    mutating func record(actualReadBytes: Int) -> Bool {
        if actualReadBytes >= size {
            size = min(max(size * 4, Self.smallest), Self.largest)
            wasSmall = false
        } else if size < Self.smallest {
            size = Self.smallest
        } else if actualReadBytes <= size / 2 {
            if wasSmall { size = max(size / 2, Self.smallest) }
            wasSmall.toggle()
        } else {
            wasSmall = false
        }
        // "May grow": the channel then asks for a fresh buffer instead of reusing one that it would have to keep.
        return true
    }
}
