/// Masking of client frames (RFC 6455 section 5.3), a word at a time.

/// A masking key.
struct WebSocketMask {
    /// The key's bytes as a big-endian number.
    private var key: UInt32

    init(key: UInt32) { self.key = key }

    /// Masks or unmasks in place.
    /// - Parameter offset: how many bytes of the payload come before `bytes`.
    func apply(to bytes: UnsafeMutableRawBufferPointer, offset: Int) {
        let turned = UInt32(truncatingIfNeeded: offset & 3) &* 8
        let rotated = turned == 0 ? key : key &<< turned | key &>> (32 &- turned)
        let half = UInt64(rotated)
        let word = (half &<< 32 | half).bigEndian
        var position = 0
        let count = bytes.count
        while position &+ 8 <= count {
            let masked = bytes.loadUnaligned(fromByteOffset: position, as: UInt64.self) ^ word
            bytes.storeBytes(of: masked, toByteOffset: position, as: UInt64.self)
            position &+= 8
        }
        // `position` is a multiple of 8 here, so the key starts over.
        var rest = rotated
        while position < count {
            bytes[position] ^= UInt8(truncatingIfNeeded: rest &>> 24)
            rest = rest &<< 8 | rest &>> 24
            position &+= 1
        }
    }
}
