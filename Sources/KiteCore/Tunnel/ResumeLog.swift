/// What was sent and not yet acknowledged, for the case that the connection is lost.
package import KiteHTTP
package import NIOCore

/// Keeps sent frames as the slices they were written as, in order, until the peer has acknowledged them.
package struct ResumeLog {
    /// Whole frames: those in `head`, the last of which has its payload in `tail` (if there is one).
    private struct Entry {
        var head: ByteBuffer
        var tail: ByteBuffer?
        var frames: Int
        var bytes: Int { head.readableBytes + (tail?.readableBytes ?? 0) }
    }
    private var entries = CircularBuffer<Entry>()
    /// How many frames lie before the first entry.
    private var base: UInt64 = 0

    /// How many frames have been sent in all.
    package private(set) var sent: UInt64 = 0
    /// How many of them the peer has acknowledged.
    package private(set) var acknowledged: UInt64 = 0
    /// Bytes kept.
    package private(set) var bytes = 0

    package init() {}

    /// Whether the peer has acknowledged everything.
    package var isEmpty: Bool { acknowledged == sent }

    /// Frames have been sent: those in `head`, the last with its payload in `tail`.
    package mutating func append(_ head: ByteBuffer, tail: ByteBuffer?, frames: Int) {
        guard frames > 0 else { return }
        let entry = Entry(head: head, tail: tail, frames: frames)
        sent += UInt64(frames)
        bytes += entry.bytes
        entries.append(entry)
    }

    /// The peer has had so many frames in all.
    /// - Throws: `.protocolViolation` when that can't be.
    package mutating func acknowledge(_ count: UInt64) throws(TransportError) {
        guard count >= acknowledged, count <= sent else {
            throw TransportError(
                .protocolViolation, "tunnel: \(count) frames acknowledged, \(acknowledged) to \(sent) possible")
        }
        acknowledged = count
        while let first = entries.first, base + UInt64(first.frames) <= count {
            base += UInt64(first.frames)
            bytes -= first.bytes
            entries.removeFirst()
        }
    }

    /// Everything that has not been acknowledged, in order, as it is to be written again.
    package func replay() -> [ByteBuffer] {
        var result: [ByteBuffer] = []
        var skip = Int(acknowledged - base)
        for entry in entries {
            var head = entry.head
            var frames = entry.frames
            while skip > 0, frames > 1, let header: UInt64 = head.getInteger(at: head.readerIndex) {
                let length = TunnelWire.headerLength + Int(UInt16(truncatingIfNeeded: header >> 32))
                head.moveReaderIndex(forwardBy: min(length, head.readableBytes))
                skip -= 1
                frames -= 1
            }
            result.append(head)
            if let tail = entry.tail { result.append(tail) }
        }
        return result
    }

    /// Forgets what is kept; the counts stay.
    package mutating func clear() {
        entries.removeAll()
        base = sent
        bytes = 0
    }
}
