/// Passes over JSON without building values: what is left to do with a message that costs too much or holds what no value can, so that
/// its sender can be told.

extension DnodeJSONParser {
    /// The members of a message that say whom it concerns.
    struct Envelope {
        /// The number under `method`; nil where something else stands there.
        var method: DnodeValue?
        var callbacks: DnodeValue?
    }

    /// Finds `method` and `callbacks` in an object that fills all bytes. Everything else has to be JSON, but is not looked at: it may
    /// nest as deep as it likes, and repeat names. The work is proportional to the bytes; `callbacks` keeps to the limits.
    mutating func parseEnvelope() throws(DnodeError) -> Envelope {
        var envelope = Envelope()
        skipWhitespace()
        guard take(UInt8(ascii: "{")) else { throw malformed("expected an object") }
        skipWhitespace()
        if !take(UInt8(ascii: "}")) {
            repeat {
                switch try parseName() {
                case "callbacks":
                    guard envelope.callbacks == nil else { throw malformed("callbacks occurs twice") }
                    envelope.callbacks = try parseValue(depth: 1)
                case "method":
                    guard envelope.method == nil else { throw malformed("method occurs twice") }
                    let start = position
                    try skipValue()
                    envelope.method = number(at: start) ?? .null
                default: try skipValue()
                }
                skipWhitespace()
            } while take(UInt8(ascii: ","))
            guard take(UInt8(ascii: "}")) else { throw malformed("expected a comma or the object's end") }
        }
        skipWhitespace()
        guard position == bytes.count else { throw malformed("something after the value") }
        return envelope
    }

    /// The number that was passed over at a position.
    private func number(at start: Int) -> DnodeValue? {
        var parser = self
        parser.position = start
        return try? parser.parseNumber()
    }

    /// A member's name and the colon after it.
    private mutating func parseName() throws(DnodeError) -> String {
        skipWhitespace()
        guard peek() == UInt8(ascii: "\"") else { throw malformed("expected a name") }
        let name = try parseString()
        try skipColon()
        return name
    }

    /// Does not recurse, since a sender chooses the depth: what is open is kept in an array, which is never longer than the message.
    private mutating func skipValue() throws(DnodeError) {
        /// For each open array or object whether it is an object.
        var open: [Bool] = []
        repeat {
            skipWhitespace()
            switch peek() {
            case UInt8(ascii: "{"):
                position += 1
                skipWhitespace()
                if !take(UInt8(ascii: "}")) {
                    open.append(true)
                    try skipName()
                    continue
                }
            case UInt8(ascii: "["):
                position += 1
                skipWhitespace()
                if !take(UInt8(ascii: "]")) {
                    open.append(false)
                    continue
                }
            case UInt8(ascii: "\""): try skipString()
            case UInt8(ascii: "t"): try expect("true")
            case UInt8(ascii: "f"): try expect("false")
            case UInt8(ascii: "n"): try expect("null")
            default: _ = try skipNumber()
            }
            try skipEnds(of: &open)
        } while !open.isEmpty
    }

    /// After a value: goes on to the next one in the innermost array or object that has more of them.
    private mutating func skipEnds(of open: inout [Bool]) throws(DnodeError) {
        while let isObject = open.last {
            skipWhitespace()
            if take(UInt8(ascii: ",")) {
                if isObject { try skipName() }
                return
            }
            guard take(UInt8(ascii: isObject ? "}" : "]")) else { throw malformed("expected a comma or an end") }
            open.removeLast()
        }
    }

    private mutating func skipName() throws(DnodeError) {
        skipWhitespace()
        guard peek() == UInt8(ascii: "\"") else { throw malformed("expected a name") }
        try skipString()
        try skipColon()
    }

    private mutating func skipColon() throws(DnodeError) {
        skipWhitespace()
        guard take(UInt8(ascii: ":")) else { throw malformed("expected a colon") }
        skipWhitespace()
    }

    private mutating func skipString() throws(DnodeError) {
        position += 1
        while let byte = peek() {
            position += 1
            switch byte {
            case UInt8(ascii: "\""): return
            case UInt8(ascii: "\\"): _ = try parseEscape()
            case 0..<0x20: throw malformed("a control character in a string")
            default: break
            }
        }
        throw malformed("a string without end")
    }
}
