/// Checks UTF-8 that arrives in pieces, so that a broken text message is refused at its first wrong byte.

/// Strict UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF.
package struct UTF8Validator: Sendable {
    /// How many bytes of the current character are missing.
    private var missing: UInt8 = 0
    /// What the next of them must lie in.
    private var lower: UInt8 = 0x80
    private var upper: UInt8 = 0xBF

    package init() {}

    /// Whether what was seen ends with a whole character.
    package var isComplete: Bool { missing == 0 }

    /// Takes the next piece.
    /// - Returns: false when it can't be part of valid UTF-8.
    package mutating func validate(_ bytes: UnsafeRawBufferPointer) -> Bool {
        var position = 0
        let count = bytes.count
        while position < count {
            if missing == 0 {
                while position &+ 8 <= count,
                    bytes.loadUnaligned(fromByteOffset: position, as: UInt64.self) & 0x8080_8080_8080_8080 == 0
                {
                    position &+= 8
                }
                guard position < count else { break }
            }
            let byte = bytes[position]
            position &+= 1
            if missing > 0 {
                guard byte >= lower && byte <= upper else { return false }
                lower = 0x80
                upper = 0xBF
                missing -= 1
                continue
            }
            switch byte {
            case 0x00...0x7F: break
            case 0xC2...0xDF: missing = 1
            case 0xE0: (missing, lower) = (2, 0xA0)
            case 0xED: (missing, upper) = (2, 0x9F)
            case 0xE1...0xEF: missing = 2
            case 0xF0: (missing, lower) = (3, 0x90)
            case 0xF4: (missing, upper) = (3, 0x8F)
            case 0xF1...0xF3: missing = 3
            default: return false
            }
        }
        return true
    }
}
