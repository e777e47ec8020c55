/// What a kite shows when it dials back for a visitor's session.

/// Good for one session of one gateway, once. Its text is a secret until it has been used.
struct TunnelToken: Sendable, Hashable {
    /// The gateway that made it, a new name with each start: what an earlier or another gateway has given out is of no use here.
    let instance: String
    /// The visitor's session; never the same number twice in the life of a gateway.
    let session: UInt64
    /// 128 random bits.
    let secret: String

    init(instance: String, session: UInt64) {
        self.instance = instance
        self.session = session
        secret = Self.randomText() + Self.randomText()
    }

    /// Reads what a kite shows; nil when it is no such token.
    init?(parsing text: String) {
        guard text.utf8.count <= 128 else { return nil }
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 3, let session = UInt64(parts[1]), parts.allSatisfy({ !$0.isEmpty }) else { return nil }
        instance = String(parts[0])
        self.session = session
        secret = String(parts[2])
    }

    /// Letters, digits and dots: it stands in a URL as it is.
    var text: String { "\(instance).\(session).\(secret)" }

    /// 64 random bits as 16 hexadecimal digits.
    static func randomText() -> String {
        var generator = SystemRandomNumberGenerator()
        let digits = String(generator.next() as UInt64, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}

extension TunnelToken: CustomStringConvertible {
    /// The session; the secret stays one.
    var description: String { "session \(session)" }
}
