/// Whose address the lists of addresses and the rate limits go by.
import KiteHTTP
import NIOCore

enum VisitorAddress {
    /// The address a request comes from: that of the connection; behind trusted proxies the last address in `X-Forwarded-For` that is none
    /// of theirs (what stands before it anybody can have written), else `X-Real-IP`, else that of the connection. Nil where what the fields
    /// say is no address.
    static func of(_ request: RequestHead, peer: ExchangePeer, trusted: [AddressRange]) -> AddressBytes? {
        guard peer.isTrustedProxy else { return peer.address.flatMap(AddressBytes.init) }
        let fields = request.fields
        guard fields.has(.xForwardedFor) else {
            guard let said = fields.first(.xRealIP) else { return peer.address.flatMap(AddressBytes.init) }
            return address(said)
        }
        var last: AddressBytes?
        for position in (0..<fields.count).reversed() where fields.field(at: position) == .xForwardedFor {
            for member in fields.value(at: position).split(separator: UInt8(ascii: ",")).reversed() {
                guard let address = address(member.trimmingWhitespace()) else {
                    // Whatever stands further left came through somebody unknown.
                    return nil
                }
                if !trusted.contains(where: { $0.contains(address) }) { return address }
                last = address
            }
        }
        return last
    }

    /// An address as proxies write it: also in brackets, and with a port.
    private static func address(_ text: some Collection<UInt8>) -> AddressBytes? {
        guard text.count <= 56 else { return nil }
        var literal = Array(text)
        var port: ArraySlice<UInt8>?
        if literal.first == UInt8(ascii: "[") {
            guard let end = literal.firstIndex(of: UInt8(ascii: "]")) else { return nil }
            let rest = literal[(end + 1)...]
            guard rest.isEmpty || rest.first == UInt8(ascii: ":") else { return nil }
            port = rest.isEmpty ? nil : rest.dropFirst()
            literal = Array(literal[1..<end])
        } else if literal.contains(UInt8(ascii: ".")), let colon = literal.firstIndex(of: UInt8(ascii: ":")),
            colon == literal.lastIndex(of: UInt8(ascii: ":"))
        {
            port = literal[(colon + 1)...]
            literal = Array(literal[..<colon])
        }
        if let port { guard port.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) else { return nil } }
        return AddressBytes(String(decoding: literal, as: UTF8.self))
    }
}
