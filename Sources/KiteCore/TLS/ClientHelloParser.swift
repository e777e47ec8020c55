/// Reads the ClientHello at the beginning of a connection without consuming it: the TLS handler that is chosen by it gets all bytes.
package import NIOCore

/// Sans-I/O. What arrives in one piece, as nearly all do, is read in place; nothing is copied but what is kept.
package struct ClientHelloParser {
    /// What has been found so far.
    package enum Outcome: Sendable, Hashable {
        /// More bytes are needed.
        case incomplete
        case hello(ClientHello)
        case failed(ClientHelloError)
    }

    /// Bytes of a ClientHello, the headers of its records included. BoringSSL takes messages of up to 16 KiB.
    package static let maximumBytes = 20 * 1024
    private static let maximumMessage = 16 * 1024
    private static let maximumFragment = 16 * 1024

    /// All that was received.
    private var received = ByteBuffer()
    /// Where the next record begins, from the reader index.
    private var nextRecord = 0
    /// Fragments of the message in the records before ``nextRecord``.
    private var fragments: [Range<Int>] = []
    private var collected = 0
    /// The message's length, once its header is there.
    private var wanted: Int?

    package init() {}

    /// Gives back all bytes that were received, for the TLS handler.
    package mutating func takeBytes() -> ByteBuffer {
        defer { received = ByteBuffer() }
        return received
    }

    /// Keeps bytes that arrive after the hello, for the TLS handler.
    /// - Returns: whether there is room for them.
    package mutating func keep(_ bytes: ByteBuffer) -> Bool {
        guard received.readableBytes + bytes.readableBytes <= Self.maximumBytes else { return false }
        received.writeImmutableBuffer(bytes)
        return true
    }

    /// Takes bytes as they arrive; not to be called again after another outcome than `incomplete`.
    package mutating func receive(_ bytes: ByteBuffer) -> Outcome {
        if received.readableBytes == 0 { received = bytes } else { received.writeImmutableBuffer(bytes) }
        let bytes = received
        return bytes.withUnsafeReadableBytes { pointer in
            do throws(ClientHelloError) {
                guard try isComplete(pointer) else {
                    guard pointer.count <= Self.maximumBytes else { throw .tooLong }
                    return .incomplete
                }
                return .hello(try read(pointer))
            } catch {
                return .failed(error)
            }
        }
    }

    /// Goes through the records until the message is complete.
    private mutating func isComplete(_ bytes: UnsafeRawBufferPointer) throws(ClientHelloError) -> Bool {
        guard let first = bytes.first else { return false }
        guard first == 22 else { throw .notTLS(isHTTP: Self.looksLikeHTTP(bytes)) }
        while true {
            var record = WireReader(bytes, from: nextRecord, to: bytes.count)
            guard let type = record.uint8() else { return false }
            guard type == 22 else { throw .malformed(.unexpectedMessage, "another record within the message") }
            guard let major = record.uint8() else { return false }
            guard major == 3 else { throw .notTLS(isHTTP: false) }
            guard record.uint8() != nil, let length = record.uint16() else { return false }
            guard length > 0 else { throw .malformed(.decodeError, "an empty record") }
            guard length <= Self.maximumFragment else { throw .malformed(.decodeError, "a record that is too long") }
            let start = record.position
            let available = min(Int(length), bytes.count - start)
            if fragments.isEmpty && available > 0 && bytes[start] != 1 {
                throw .malformed(.unexpectedMessage, "another message")
            }
            // A length that is too long is refused before anybody waits for it.
            if fragments.isEmpty && available >= 4 { _ = try messageLength(bytes, [start..<start + available]) }
            guard available == Int(length) else { return false }
            fragments.append(start..<start + available)
            collected += available
            nextRecord = start + available
            guard nextRecord <= Self.maximumBytes else { throw .tooLong }
            guard collected >= 4 else { continue }
            let wanted: Int
            if let known = self.wanted { wanted = known } else { wanted = try messageLength(bytes, fragments) }
            self.wanted = wanted
            guard collected >= wanted + 4 else { continue }
            // What follows the hello in its last record would be a second message, which no client sends before the answer.
            guard collected == wanted + 4 else { throw .malformed(.unexpectedMessage, "bytes behind the message") }
            return true
        }
    }

    /// The length in the message's header, whose four bytes have arrived.
    private func messageLength(_ bytes: UnsafeRawBufferPointer, _ fragments: [Range<Int>])
        throws(ClientHelloError) -> Int
    {
        var header: [UInt8] = []
        for fragment in fragments where header.count < 4 {
            header.append(contentsOf: bytes[fragment].prefix(4 - header.count))
        }
        guard header.count == 4, header[0] == 1 else { throw .malformed(.unexpectedMessage, "another message") }
        let length = Int(header[1]) << 16 | Int(header[2]) << 8 | Int(header[3])
        guard length <= Self.maximumMessage else { throw .tooLong }
        return length
    }

    private func read(_ bytes: UnsafeRawBufferPointer) throws(ClientHelloError) -> ClientHello {
        if fragments.count == 1, let whole = fragments.first {
            return try ClientHelloBody.read(WireReader(bytes, from: whole.lowerBound + 4, to: whole.upperBound))
        }
        var joined: [UInt8] = []
        joined.reserveCapacity(collected)
        for fragment in fragments { joined.append(contentsOf: bytes[fragment]) }
        let result = joined.withUnsafeBytes { joined in
            Result { () throws(ClientHelloError) in
                try ClientHelloBody.read(WireReader(joined, from: 4, to: joined.count))
            }
        }
        return try result.get()
    }

    /// Whether somebody speaks HTTP where TLS is spoken: a method's first letters.
    private static func looksLikeHTTP(_ bytes: UnsafeRawBufferPointer) -> Bool {
        let methods: [StaticString] = ["GET ", "HEAD", "POST", "PUT ", "DELE", "OPTI", "PATC", "CONN", "TRAC", "PRI "]
        guard bytes.count >= 4 else { return false }
        return methods.contains { method in (0..<4).allSatisfy { method.utf8Start[$0] == bytes[$0] } }
    }
}

/// Reads numbers in network order within bounds; nil beyond them.
struct WireReader {
    private let bytes: UnsafeRawBufferPointer
    private(set) var position: Int
    private let end: Int

    init(_ bytes: UnsafeRawBufferPointer, from start: Int, to end: Int) {
        self.bytes = bytes
        self.end = min(max(end, 0), bytes.count)
        position = min(max(start, 0), self.end)
    }

    var isAtEnd: Bool { position == end }
    var remaining: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: bytes[position..<end]) }

    mutating func uint8() -> UInt8? {
        guard position < end else { return nil }
        defer { position += 1 }
        return bytes[position]
    }

    mutating func uint16() -> UInt16? {
        guard end - position >= 2 else { return nil }
        defer { position += 2 }
        return UInt16(bytes[position]) << 8 | UInt16(bytes[position + 1])
    }

    /// The next bytes as a reader of their own.
    mutating func part(_ count: Int) -> WireReader? {
        guard count >= 0, end - position >= count else { return nil }
        defer { position += count }
        return WireReader(bytes, from: position, to: position + count)
    }

    mutating func vector8() -> WireReader? {
        guard let count = uint8() else { return nil }
        return part(Int(count))
    }

    mutating func vector16() -> WireReader? {
        guard let count = uint16() else { return nil }
        return part(Int(count))
    }
}
