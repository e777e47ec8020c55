/// Which bytes may stand where in a head, decided without tables in memory and, where text is long, eight bytes at a time.

extension UInt8 {
    /// The lower-case form of an ASCII letter, otherwise the byte itself.
    @inlinable public var lowercasedASCII: UInt8 { self >= 0x41 && self <= 0x5A ? self | 0x20 : self }

    /// `tchar` of RFC 9110 section 5.6.2.
    @inline(__always) var isTokenCharacter: Bool {
        // One bit per ASCII character: ! # $ % & ' * + - . 0-9, then A-Z ^ _ ` a-z | ~
        let word: UInt64 = self < 64 ? 0x03FF_6CFA_0000_0000 : 0x57FF_FFFF_C7FF_FFFE
        return self < 128 && word &>> UInt64(self & 63) & 1 == 1
    }

    /// What a field value may contain (RFC 9110 section 5.5): HTAB, SP, VCHAR and obs-text.
    @inline(__always) var isFieldValueCharacter: Bool { self == 0x09 || (self >= 0x20 && self != 0x7F) }

    /// What a request target may contain here: visible ASCII except `#`, which no client sends.
    @inline(__always) var isTargetCharacter: Bool { self > 0x20 && self < 0x7F && self != 0x23 }

    @inline(__always) var isDigit: Bool { self >= 0x30 && self <= 0x39 }

    /// The value of a hexadecimal digit.
    @inline(__always) var hexadecimalValue: UInt8? {
        switch self {
        case 0x30...0x39: self &- 0x30
        case 0x41...0x46: self &- 0x37
        case 0x61...0x66: self &- 0x57
        default: nil
        }
    }
}

extension UnsafeRawBufferPointer {
    /// The first index from `start` on of a byte that no field value contains, HTAB included; `end` if there is none.
    @inline(__always) func firstControl(from start: Int, to end: Int) -> Int {
        var index = start
        guard let baseAddress else { return end }
        while index &+ 8 <= end {
            let word = UInt64(littleEndian: baseAddress.loadUnaligned(fromByteOffset: index, as: UInt64.self))
            // The lowest marked byte is exact; borrows only disturb those above it.
            let low = (word &- 0x2020_2020_2020_2020) & ~word
            let delete = word ^ 0x7F7F_7F7F_7F7F_7F7F
            let found = (low | ((delete &- 0x0101_0101_0101_0101) & ~delete)) & 0x8080_8080_8080_8080
            if found != 0 { return index &+ found.trailingZeroBitCount &>> 3 }
            index &+= 8
        }
        while index < end {
            let byte = self[index]
            if byte < 0x20 || byte == 0x7F { return index }
            index &+= 1
        }
        return end
    }

    /// The first index from `start` on of a byte that is no token character; `end` if there is none.
    @inline(__always) func firstNonToken(from start: Int, to end: Int) -> Int {
        var index = start
        while index < end, self[index].isTokenCharacter { index &+= 1 }
        return index
    }

    /// The first index from `start` on of LF, or nil.
    func firstLineFeed(from start: Int) -> Int? {
        var index = start
        while index < count {
            if self[index] == 0x0A { return index }
            index &+= 1
        }
        return nil
    }

    /// Compares `length` bytes from `start` with lower-case text. Both must consist of characters of which OR-ing 0x20
    /// is the lower-case form, as of every letter, digit and hyphen.
    @inline(__always) func matches(_ start: Int, _ length: Int, _ text: StaticString) -> Bool {
        guard length == text.utf8CodeUnitCount, start >= 0, start &+ length <= count, let baseAddress else {
            return false
        }
        let other = UnsafeRawPointer(text.utf8Start)
        if length >= 8 {
            let mask: UInt64 = 0x2020_2020_2020_2020
            var index = 0
            while index &+ 8 < length {
                let mine = baseAddress.loadUnaligned(fromByteOffset: start &+ index, as: UInt64.self) | mask
                if mine != other.loadUnaligned(fromByteOffset: index, as: UInt64.self) { return false }
                index &+= 8
            }
            let last = length &- 8
            let mine = baseAddress.loadUnaligned(fromByteOffset: start &+ last, as: UInt64.self) | mask
            return mine == other.loadUnaligned(fromByteOffset: last, as: UInt64.self)
        }
        var index = 0
        while index < length {
            if self[start &+ index] | 0x20 != text.utf8Start[index] { return false }
            index &+= 1
        }
        return true
    }

    /// Compares `length` bytes from `start` with upper-case text, exactly.
    @inline(__always) func equals(_ start: Int, _ length: Int, _ text: StaticString) -> Bool {
        guard length == text.utf8CodeUnitCount, start >= 0, start &+ length <= count else { return false }
        var index = 0
        while index < length {
            if self[start &+ index] != text.utf8Start[index] { return false }
            index &+= 1
        }
        return true
    }
}
