/// Writes values as JSON, the way Go does: compact, whole numbers without fraction.
public import NIOCore

extension DnodeValue {
    /// The value as a JSON text.
    /// - Throws: ``DnodeError`` when it holds a number that is not finite, nests too deep or becomes too long. A function that has not
    ///   been taken out by ``DnodeSession`` is written as the placeholder `"[Function]"`.
    public func serialized(limits: DnodeLimits = DnodeLimits()) throws(DnodeError) -> ByteBuffer {
        var writer = DnodeJSONWriter(limits: limits)
        try writer.write(self, depth: 0)
        return writer.bytes
    }
}

extension DnodeValue: CustomStringConvertible {
    /// The JSON text, for people.
    public var description: String { (try? serialized()).map { String(buffer: $0) } ?? kind }
}

/// Appends JSON to a buffer.
struct DnodeJSONWriter {
    /// What stands in the text where a function was.
    static let functionPlaceholder = "[Function]"

    private(set) var bytes = ByteBuffer()
    private let limits: DnodeLimits

    init(limits: DnodeLimits) { self.limits = limits }

    mutating func write(_ value: DnodeValue, depth: Int) throws(DnodeError) {
        switch value {
        case .null: bytes.writeStaticString("null")
        case .bool(let value): bytes.writeStaticString(value ? "true" : "false")
        case .int(let value): bytes.writeString(String(value))
        case .double(let value): bytes.writeString(try number(value))
        case .string(let value): write(string: value)
        case .function: write(string: Self.functionPlaceholder)
        case .array(let elements):
            try checkDepth(depth + 1)
            bytes.writeInteger(UInt8(ascii: "["))
            for (position, element) in elements.enumerated() {
                if position > 0 { bytes.writeInteger(UInt8(ascii: ",")) }
                try write(element, depth: depth + 1)
            }
            bytes.writeInteger(UInt8(ascii: "]"))
        case .object(let object):
            try checkDepth(depth + 1)
            bytes.writeInteger(UInt8(ascii: "{"))
            for (position, member) in object.enumerated() {
                if position > 0 { bytes.writeInteger(UInt8(ascii: ",")) }
                write(string: member.key)
                bytes.writeInteger(UInt8(ascii: ":"))
                try write(member.value, depth: depth + 1)
            }
            bytes.writeInteger(UInt8(ascii: "}"))
        }
        guard bytes.readableBytes <= limits.maximumMessageSize else {
            throw DnodeError(.limitExceeded, "message of more than \(limits.maximumMessageSize) bytes")
        }
    }

    private func checkDepth(_ depth: Int) throws(DnodeError) {
        guard depth <= limits.maximumDepth else {
            throw DnodeError(.limitExceeded, "nested deeper than \(limits.maximumDepth) levels")
        }
    }

    // MARK: strings

    private mutating func write(string: String) {
        bytes.writeInteger(UInt8(ascii: "\""))
        var string = string
        string.withUTF8 { text in
            var plainStart = 0
            for position in text.indices {
                guard let escape = Self.escape(at: position, in: text) else { continue }
                bytes.writeBytes(UnsafeBufferPointer(rebasing: text[plainStart..<position]))
                bytes.writeString(escape.text)
                plainStart = position + escape.length
            }
            bytes.writeBytes(UnsafeBufferPointer(rebasing: text[plainStart...]))
        }
        bytes.writeInteger(UInt8(ascii: "\""))
    }

    /// What to write in place of the character at a position, and how many bytes that takes the place of.
    private static func escape(
        at position: Int, in text: UnsafeBufferPointer<UInt8>
    ) -> (text: String, length: Int)? {
        let byte = text[position]
        switch byte {
        case UInt8(ascii: "\""): return ("\\\"", 1)
        case UInt8(ascii: "\\"): return ("\\\\", 1)
        case 0x0A: return ("\\n", 1)
        case 0x0D: return ("\\r", 1)
        case 0x09: return ("\\t", 1)
        case 0..<0x20: return ("\\u00" + (byte < 0x10 ? "0" : "") + String(byte, radix: 16), 1)
        case 0xE2:
            // U+2028 and U+2029 end a line in JavaScript, which reads these texts through JSONP.
            guard position + 2 < text.count, text[position + 1] == 0x80 else { return nil }
            switch text[position + 2] {
            case 0xA8: return ("\\u2028", 3)
            case 0xA9: return ("\\u2029", 3)
            default: return nil
            }
        default: return nil
        }
    }

    // MARK: numbers

    /// The shortest text that reads back as the same number, with an exponent only below 1e-6 and from 1e21 on.
    private func number(_ value: Double) throws(DnodeError) -> String {
        guard value.isFinite else { throw DnodeError(.unrepresentable, "a number that is not finite") }
        guard value.magnitude != 0 else { return value.sign == .minus ? "-0" : "0" }
        // Swift's text has the shortest digits, but puts the point and the exponent by rules of its own.
        var digits: [UInt8] = []
        var exponent = 0
        var fraction: Int?
        let parts = value.magnitude.description.utf8.split(separator: UInt8(ascii: "e"))
        for byte in parts.first ?? Substring("").utf8 {
            if byte == UInt8(ascii: ".") { fraction = 0 } else { digits.append(byte) }
            if byte != UInt8(ascii: "."), let places = fraction { fraction = places + 1 }
        }
        if parts.count > 1, let power = Int(String(decoding: parts[1], as: UTF8.self)) { exponent = power }
        // value = 0.digits × 10^point
        var point = digits.count - (fraction ?? 0) + exponent
        while digits.first == UInt8(ascii: "0") {
            digits.removeFirst()
            point -= 1
        }
        while digits.last == UInt8(ascii: "0") { digits.removeLast() }
        let text = String(decoding: digits, as: UTF8.self)
        let sign = value < 0 ? "-" : ""
        let zeros = { (count: Int) in String(repeating: "0", count: count) }
        switch point {
        case 22..., ..<(-5):
            let mantissa = text.count > 1 ? "\(text.prefix(1)).\(text.dropFirst())" : text
            return "\(sign)\(mantissa)e\(point > 0 ? "+" : "-")\((point - 1).magnitude)"
        case text.count...: return sign + text + zeros(point - text.count)
        case 1...: return "\(sign)\(text.prefix(point)).\(text.dropFirst(point))"
        default: return "\(sign)0.\(zeros(-point))\(text)"
        }
    }
}
