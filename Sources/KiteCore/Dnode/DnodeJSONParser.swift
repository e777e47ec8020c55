/// Reads JSON (RFC 8259) from the bytes of a message: strict, bounded, without Foundation.
public import NIOCore

extension DnodeValue {
    /// Parses one JSON text that fills all readable bytes.
    ///
    /// Refused besides what RFC 8259 refuses: repeated names in an object (the same bytes, escapes undone), numbers beyond a `Double`,
    /// invalid UTF-8, a byte order mark, and what exceeds `limits`. Half a surrogate pair becomes U+FFFD.
    public init(parsing bytes: ByteBuffer, limits: DnodeLimits = DnodeLimits()) throws(DnodeError) {
        guard bytes.readableBytes <= limits.maximumMessageSize else {
            throw DnodeError(.limitExceeded, "message of more than \(limits.maximumMessageSize) bytes")
        }
        let outcome: Result<DnodeValue, DnodeError> = bytes.withUnsafeReadableBytes { bytes in
            var parser = DnodeJSONParser(bytes: bytes, limits: limits)
            do throws(DnodeError) { return .success(try parser.parseDocument()) } catch { return .failure(error) }
        }
        self = try outcome.get()
    }
}

/// The parser's state: a position in the bytes and what may still be spent. Used within one call only.
struct DnodeJSONParser {
    let bytes: UnsafeRawBufferPointer
    private let maximumDepth: Int
    private var nodesLeft: Int
    var position = 0

    init(bytes: UnsafeRawBufferPointer, limits: DnodeLimits) {
        self.bytes = bytes
        maximumDepth = limits.maximumDepth
        nodesLeft = limits.maximumNodes
    }

    mutating func parseDocument() throws(DnodeError) -> DnodeValue {
        skipWhitespace()
        let value = try parseValue(depth: 0)
        skipWhitespace()
        guard position == bytes.count else { throw malformed("something after the value") }
        return value
    }

    mutating func parseValue(depth: Int) throws(DnodeError) -> DnodeValue {
        try spendNode()
        guard let byte = peek() else { throw malformed("the text ends where a value was expected") }
        switch byte {
        case UInt8(ascii: "{"): return .object(try parseObject(depth: depth + 1))
        case UInt8(ascii: "["): return .array(try parseArray(depth: depth + 1))
        case UInt8(ascii: "\""): return .string(try parseString())
        case UInt8(ascii: "t"):
            try expect("true")
            return .bool(true)
        case UInt8(ascii: "f"):
            try expect("false")
            return .bool(false)
        case UInt8(ascii: "n"):
            try expect("null")
            return .null
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return try parseNumber()
        default: throw malformed("unexpected byte")
        }
    }

    private mutating func parseObject(depth: Int) throws(DnodeError) -> DnodeObject {
        try checkDepth(depth)
        position += 1
        var object = DnodeObject()
        skipWhitespace()
        if take(UInt8(ascii: "}")) { return object }
        while true {
            skipWhitespace()
            guard peek() == UInt8(ascii: "\"") else { throw malformed("expected a name") }
            try spendNode()
            let key = try parseString()
            skipWhitespace()
            guard take(UInt8(ascii: ":")) else { throw malformed("expected a colon") }
            skipWhitespace()
            let value = try parseValue(depth: depth)
            guard object.appendUnique(key, value) else { throw malformed("a name occurs twice in an object") }
            skipWhitespace()
            if take(UInt8(ascii: "}")) { return object }
            guard take(UInt8(ascii: ",")) else { throw malformed("expected a comma or the object's end") }
        }
    }

    private mutating func parseArray(depth: Int) throws(DnodeError) -> [DnodeValue] {
        try checkDepth(depth)
        position += 1
        var elements: [DnodeValue] = []
        skipWhitespace()
        if take(UInt8(ascii: "]")) { return elements }
        while true {
            skipWhitespace()
            elements.append(try parseValue(depth: depth))
            skipWhitespace()
            if take(UInt8(ascii: "]")) { return elements }
            guard take(UInt8(ascii: ",")) else { throw malformed("expected a comma or the array's end") }
        }
    }

    // MARK: strings

    mutating func parseString() throws(DnodeError) -> String {
        position += 1
        let start = position
        while position < bytes.count {
            switch bytes[position] {
            case UInt8(ascii: "\""):
                let text = try text(start..<position)
                position += 1
                return text
            case UInt8(ascii: "\\"): return try parseEscapedString(from: start)
            case 0..<0x20: throw malformed("a control character in a string")
            default: position += 1
            }
        }
        throw malformed("a string without end")
    }

    /// Goes on at the first backslash of a string that began at `start`.
    private mutating func parseEscapedString(from start: Int) throws(DnodeError) -> String {
        var unescaped: [UInt8] = []
        var plainStart = start
        while position < bytes.count {
            switch bytes[position] {
            case UInt8(ascii: "\""):
                unescaped.append(contentsOf: bytes[plainStart..<position])
                position += 1
                guard let text = String(validating: unescaped, as: UTF8.self) else { throw malformed("invalid UTF-8") }
                return text
            case UInt8(ascii: "\\"):
                unescaped.append(contentsOf: bytes[plainStart..<position])
                position += 1
                unescaped.append(contentsOf: UTF8.encode(try parseEscape()) ?? UTF8.encodedReplacementCharacter)
                plainStart = position
            case 0..<0x20: throw malformed("a control character in a string")
            default: position += 1
            }
        }
        throw malformed("a string without end")
    }

    /// What follows a backslash.
    mutating func parseEscape() throws(DnodeError) -> Unicode.Scalar {
        guard let byte = peek() else { throw malformed("a string without end") }
        position += 1
        switch byte {
        case UInt8(ascii: "\""): return "\""
        case UInt8(ascii: "\\"): return "\\"
        case UInt8(ascii: "/"): return "/"
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{C}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"): return try parseUnicodeEscape()
        default: throw malformed("an unknown escape")
        }
    }

    private mutating func parseUnicodeEscape() throws(DnodeError) -> Unicode.Scalar {
        let unit = try parseHexDigits()
        if let scalar = Unicode.Scalar(unit) { return scalar }
        let replacement: Unicode.Scalar = "\u{FFFD}"
        guard unit < 0xDC00, position + 1 < bytes.count, bytes[position] == UInt8(ascii: "\\"),
            bytes[position + 1] == UInt8(ascii: "u")
        else { return replacement }
        let afterFirst = position
        position += 2
        let second = try parseHexDigits()
        guard (0xDC00..<0xE000).contains(second) else {
            // The second escape is a character of its own.
            position = afterFirst
            return replacement
        }
        return Unicode.Scalar(0x10000 + ((unit - 0xD800) << 10) + (second - 0xDC00)) ?? replacement
    }

    private mutating func parseHexDigits() throws(DnodeError) -> UInt32 {
        guard bytes.count - position >= 4 else { throw malformed("a string without end") }
        var value: UInt32 = 0
        for _ in 0..<4 {
            let byte = bytes[position]
            let digit: UInt8
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = byte - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = byte - UInt8(ascii: "a") + 10
            case UInt8(ascii: "A")...UInt8(ascii: "F"): digit = byte - UInt8(ascii: "A") + 10
            default: throw malformed("an escape without four hexadecimal digits")
            }
            value = value << 4 | UInt32(digit)
            position += 1
        }
        return value
    }

    private func text(_ range: Range<Int>) throws(DnodeError) -> String {
        guard let text = String(validating: bytes[range], as: UTF8.self) else { throw malformed("invalid UTF-8") }
        return text
    }

    // MARK: numbers

    mutating func parseNumber() throws(DnodeError) -> DnodeValue {
        let start = position
        let mayBeInteger = try skipNumber()
        guard position - start <= 1024 else { throw DnodeError(.limitExceeded, "a number of more than 1024 digits") }
        let literal = try text(start..<position)
        if mayBeInteger, let value = Int64(literal) { return .int(value) }
        guard let value = Double(literal), value.isFinite else {
            throw DnodeError(.unrepresentable, "a number out of range at byte \(start)")
        }
        return .double(value)
    }

    /// Passes over a number.
    /// - Returns: whether it is written as an integer. JSON's -0 is not the integer 0.
    mutating func skipNumber() throws(DnodeError) -> Bool {
        let isNegative = take(UInt8(ascii: "-"))
        guard let first = peek(), isDigit(first) else { throw malformed("a number without digits") }
        position += 1
        if first != UInt8(ascii: "0") { skipDigits() }
        if let next = peek(), isDigit(next) { throw malformed("a number with a leading zero") }
        var isInteger = true
        if take(UInt8(ascii: ".")) {
            isInteger = false
            try requireDigits()
        }
        if take(UInt8(ascii: "e")) || take(UInt8(ascii: "E")) {
            isInteger = false
            _ = take(UInt8(ascii: "+")) || take(UInt8(ascii: "-"))
            try requireDigits()
        }
        return isInteger && !(isNegative && first == UInt8(ascii: "0"))
    }

    private mutating func requireDigits() throws(DnodeError) {
        guard let byte = peek(), isDigit(byte) else { throw malformed("a number without digits") }
        skipDigits()
    }

    private mutating func skipDigits() {
        while position < bytes.count, isDigit(bytes[position]) { position += 1 }
    }

    private func isDigit(_ byte: UInt8) -> Bool { byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") }

    // MARK: bytes

    func peek() -> UInt8? { position < bytes.count ? bytes[position] : nil }

    mutating func take(_ byte: UInt8) -> Bool {
        guard peek() == byte else { return false }
        position += 1
        return true
    }

    mutating func expect(_ word: StaticString) throws(DnodeError) {
        for offset in 0..<word.utf8CodeUnitCount {
            guard take(word.utf8Start[offset]) else { throw malformed("unexpected byte") }
        }
    }

    mutating func skipWhitespace() {
        while position < bytes.count {
            switch bytes[position] {
            case 0x20, 0x09, 0x0A, 0x0D: position += 1
            default: return
            }
        }
    }

    private func checkDepth(_ depth: Int) throws(DnodeError) {
        guard depth <= maximumDepth else {
            throw DnodeError(.limitExceeded, "nested deeper than \(maximumDepth)")
        }
    }

    private mutating func spendNode() throws(DnodeError) {
        guard nodesLeft > 0 else { throw DnodeError(.limitExceeded, "too many values in one message") }
        nodesLeft -= 1
    }

    func malformed(_ what: String) -> DnodeError {
        DnodeError(.malformed, "not JSON at byte \(position): \(what)")
    }
}
