/// Reads lists with qualities, such as Accept-Encoding (RFC 9110 section 12.4.2).
import KiteHTTP
import NIOCore

/// The members of a list field's value, each with its weight from 0 to 1000. A malformed weight counts as 0: what is not understood is
/// not wanted. Quoted strings are not told apart, which these lists do not have where it matters.
struct WeightedList: Sequence, IteratorProtocol {
    struct Member {
        let value: ByteBufferView
        let weight: Int
    }
    private var rest: ByteBufferView

    init(_ value: ByteBufferView) { rest = value }

    mutating func next() -> Member? {
        while !rest.isEmpty {
            let end = rest.firstIndex(of: UInt8(ascii: ",")) ?? rest.endIndex
            var member = rest[rest.startIndex..<end]
            rest = end == rest.endIndex ? rest[end..<end] : rest[(end + 1)...]
            let value = Self.cut(&member)
            guard !value.isEmpty else { continue }
            var weight = 1000
            while !member.isEmpty {
                let parameter = Self.cut(&member)
                if parameter.count >= 2, parameter.first == UInt8(ascii: "q") || parameter.first == UInt8(ascii: "Q") {
                    guard parameter[parameter.startIndex + 1] == UInt8(ascii: "=") else { continue }
                    weight = Self.weight(parameter.dropFirst(2)) ?? 0
                }
            }
            return Member(value: value, weight: weight)
        }
        return nil
    }

    /// Takes what stands before the next semicolon.
    private static func cut(_ text: inout ByteBufferView) -> ByteBufferView {
        let end = text.firstIndex(of: UInt8(ascii: ";")) ?? text.endIndex
        let part = text[text.startIndex..<end].trimmingWhitespace()
        text = end == text.endIndex ? text[end..<end] : text[(end + 1)...]
        return part
    }

    /// `0`, `1`, `0.5`, at most three decimals.
    private static func weight(_ text: ByteBufferView) -> Int? {
        guard let first = text.first, first == 0x30 || first == 0x31, text.count <= 5 else { return nil }
        var result = first == 0x31 ? 1000 : 0
        let decimals = text.dropFirst()
        guard decimals.isEmpty || decimals.first == UInt8(ascii: ".") else { return nil }
        var unit = 100
        for digit in decimals.dropFirst() {
            guard (0x30...0x39).contains(digit) else { return nil }
            result += Int(digit - 0x30) * unit
            unit /= 10
        }
        return result <= 1000 ? result : nil
    }
}
