/// What was sent and not yet acknowledged, for the case that the connection is lost.
package import KiteHTTP
package import NIOCore

/// Keeps sent frames, in order, until the peer has acknowledged them: large ones as the slices they were written as, small ones copied
/// together, so that a few bytes do not keep the whole buffer they were written in.
package struct ResumeLog {
    /// Whole frames: those in `head`, the last of which has its payload in `tail` (if there is one).
    private struct Entry {
        var head: ByteBuffer
        var tail: ByteBuffer?
        var frames: Int
        var bytes: Int { head.readableBytes + (tail?.readableBytes ?? 0) }
    }
    private var entries = CircularBuffer<Entry>()
    /// The last entry while small frames are still copied into it. Apart from the others, so that appending is in place.
    private var open = Entry(head: ByteBuffer(), tail: nil, frames: 0)
    /// How many frames lie before the first entry.
    private var base: UInt64 = 0

    /// So many bytes of small frames are copied together.
    private static let copyLimit = 4_096

    /// How many frames have been sent in all.
    package private(set) var sent: UInt64 = 0
    /// How many of them the peer has acknowledged.
    package private(set) var acknowledged: UInt64 = 0
    /// Bytes kept.
    package private(set) var bytes = 0

    package init() {}

    /// What ``bytes`` take in memory, buffers of payloads counted as far as they are used.
    var storageBytes: Int {
        entries.reduce(open.head.storageCapacity) { sum, entry in
            sum + entry.head.storageCapacity + (entry.tail?.readableBytes ?? 0) + MemoryLayout<Entry>.stride
        }
    }

    /// Whether the peer has acknowledged everything.
    package var isEmpty: Bool { acknowledged == sent }

    /// Frames have been sent: those in `head`, the last with its payload in `tail`.
    package mutating func append(_ head: ByteBuffer, tail: ByteBuffer?, frames: Int) {
        guard frames > 0 else { return }
        sent += UInt64(frames)
        bytes += head.readableBytes + (tail?.readableBytes ?? 0)
        guard tail == nil, head.readableBytes * 2 <= head.storageCapacity, head.readableBytes <= Self.copyLimit else {
            close()
            return entries.append(Entry(head: head, tail: tail, frames: frames))
        }
        if open.head.readableBytes + head.readableBytes > Self.copyLimit { close() }
        if open.frames == 0 { open.head.reserveCapacity(max(512, head.readableBytes)) }
        open.head.writeImmutableBuffer(head)
        open.frames += frames
    }

    /// The open entry gets no more frames.
    private mutating func close() {
        guard open.frames > 0 else { return }
        entries.append(open)
        open = Entry(head: ByteBuffer(), tail: nil, frames: 0)
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
        if open.frames > 0, acknowledged == sent {
            base += UInt64(open.frames)
            bytes -= open.bytes
            open.frames = 0
            open.head.clear()
        }
    }

    /// Everything that has not been acknowledged, in order, as it is to be written again.
    package func replay() -> [ByteBuffer] {
        var result: [ByteBuffer] = []
        var skip = Int(acknowledged - base)
        func add(_ entry: Entry) {
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
        for entry in entries { add(entry) }
        if open.frames > 0 { add(open) }
        return result
    }

    /// Forgets what is kept; the counts stay.
    package mutating func clear() {
        entries.removeAll()
        open = Entry(head: ByteBuffer(), tail: nil, frames: 0)
        base = sent
        bytes = 0
    }
}
