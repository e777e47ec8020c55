/// Hexadecimal digits without Foundation.

/// Bytes as lower-case hex digits.
package func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
    var text: [UInt8] = []
    text.reserveCapacity(bytes.underestimatedCount * 2)
    for byte in bytes {
        for digit in [byte >> 4, byte & 0xF] {
            text.append(digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") + digit - 10)
        }
    }
    return String(decoding: text, as: UTF8.self)
}
