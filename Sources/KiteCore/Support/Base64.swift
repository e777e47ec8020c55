/// Base64 (RFC 4648 section 4) without Foundation.

/// Base64 (RFC 4648 section 4) of the few bytes a handshake carries.
package enum Base64 {
    private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

    package static func encode(_ bytes: [UInt8]) -> String {
        var text: [UInt8] = []
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let group = bytes[start..<min(start + 3, bytes.count)]
            let bits = group.reduce(UInt32(0)) { $0 << 8 | UInt32($1) } << UInt32((3 - group.count) * 8)
            for position in 0..<4 {
                text.append(
                    position <= group.count
                        ? alphabet[Int(bits >> UInt32(18 - position * 6)) & 63] : UInt8(ascii: "="))
            }
        }
        return String(decoding: text, as: UTF8.self)
    }

    /// Whether the text encodes exactly 16 bytes, as a handshake's key must.
    package static func isSixteenBytes(_ text: some Collection<UInt8>) -> Bool {
        guard text.count == 24, text.suffix(2).allSatisfy({ $0 == UInt8(ascii: "=") }) else { return false }
        return text.prefix(22).allSatisfy { alphabet.contains($0) }
    }
}
