/// Puts a head together in one piece of memory, part after part, where a buffer's own writing methods would check for room and ownership
/// each time: heads have many short parts.
import NIOCore

/// Takes parts of a head one after the other. What does not fit is counted and not written; ``NIOCore/ByteBuffer/writeHead(estimate:_:)``
/// then makes room and begins anew.
struct HeadSink {
    private let base: UnsafeMutableRawPointer?
    private let capacity: Int
    /// What has been written, or would have been with enough room.
    private(set) var count = 0

    init(_ memory: UnsafeMutableRawBufferPointer) {
        base = memory.baseAddress
        capacity = memory.count
    }

    @inline(__always)
    private mutating func write(_ start: UnsafeRawPointer, _ length: Int) {
        if let base, count &+ length <= capacity { base.advanced(by: count).copyMemory(from: start, byteCount: length) }
        count &+= length
    }

    @inline(__always)
    mutating func write(_ text: StaticString) { write(UnsafeRawPointer(text.utf8Start), text.utf8CodeUnitCount) }

    @inline(__always)
    mutating func write(_ bytes: UnsafeRawBufferPointer) {
        if let start = bytes.baseAddress { write(start, bytes.count) }
    }

    @inline(__always)
    mutating func write(_ buffer: ByteBuffer) { buffer.withUnsafeReadableBytes { write($0) } }

    mutating func write(_ view: ByteBufferView) { view.withUnsafeBytes { write($0) } }

    mutating func write(text: String) {
        var text = text
        text.withUTF8 { write(UnsafeRawBufferPointer($0)) }
    }

    @inline(__always)
    mutating func write(_ byte: UInt8) {
        if let base, count < capacity { base.storeBytes(of: byte, toByteOffset: count, as: UInt8.self) }
        count &+= 1
    }

    /// A number in decimal digits.
    mutating func write(decimal number: UInt64) {
        var divisor: UInt64 = 1
        while number / divisor >= 10 { divisor &*= 10 }
        while divisor > 0 {
            write(UInt8(truncatingIfNeeded: number / divisor % 10) &+ 0x30)
            divisor /= 10
        }
    }

    /// What lies between two positions, and the end of a line. Nothing where nothing lies there.
    @inline(__always)
    mutating func writeLines(_ bytes: UnsafeRawBufferPointer, _ start: Int, _ end: Int) {
        guard end > start, start >= 0, end <= bytes.count, let base = bytes.baseAddress else { return }
        write(base + start, end &- start)
        write("\r\n")
    }

    /// A field line. The name has its colon and space already.
    @inline(__always)
    mutating func writeField(_ nameAndColon: StaticString, _ value: ByteBuffer) {
        write(nameAndColon)
        write(value)
        write("\r\n")
    }
}

extension ByteBuffer {
    /// Appends what `body` writes. It may be called a second time, and must write the same then.
    /// - Parameter estimate: how many bytes that probably are.
    mutating func writeHead(estimate: Int, _ body: (inout HeadSink) -> Void) {
        var room = estimate
        var isWhole = false
        while !isWhole {
            writeWithUnsafeMutableBytes(minimumWritableBytes: room) { memory in
                var sink = HeadSink(memory)
                body(&sink)
                isWhole = sink.count <= memory.count
                room = sink.count
                return isWhole ? sink.count : 0
            }
        }
    }
}
