/// Whose address the lists of addresses and the rate limits go by.
import KiteHTTP
import NIOCore

enum VisitorAddress {
    /// The address a request comes from: that of the connection; behind trusted proxies the last address in `X-Forwarded-For` that is none
    /// of theirs (what stands before it anybody can have written), else `X-Real-IP`. Nil where none is known.
    static func of(_ request: RequestHead, peer: ExchangePeer, trusted: [AddressRange]) -> AddressBytes? {
        guard peer.isTrustedProxy else { return peer.address.flatMap(AddressBytes.init) }
        let fields = request.fields
        guard fields.has(.xForwardedFor) else {
            guard let said = fields.first(.xRealIP) else { return nil }
            return AddressBytes(String(decoding: said, as: UTF8.self))
        }
        var last: AddressBytes?
        for position in (0..<fields.count).reversed() where fields.field(at: position) == .xForwardedFor {
            for member in fields.value(at: position).split(separator: UInt8(ascii: ",")).reversed() {
                let text = member.trimmingWhitespace()
                guard text.count <= 45, let address = AddressBytes(String(decoding: text, as: UTF8.self)) else {
                    // Whatever stands further left came through somebody unknown.
                    return nil
                }
                if !trusted.contains(where: { $0.contains(address) }) { return address }
                last = address
            }
        }
        return last
    }
}
