/// Rules that set, add and remove fields of requests and responses, checked when they are read, so that none can change how a message
/// is framed, where it belongs or what the gateway itself vouches for.
import KiteHTTP
import NIOCore

/// The changes to one kind of head.
struct FieldRules: Sendable {
    /// Names in lower case; those of requests with `-` for `_`, as many services make the two the same (CGI).
    private let dropped: [[UInt8]]
    private let inRequest: Bool
    private let appended: [(name: ByteBuffer, value: ByteBuffer)]

    /// - Returns: nil where nothing is to be done.
    ///
    /// What no rule may say is left out here, whoever made it.
    init?(set: [String: String]?, added: [String: String]?, removed: [String]?, inRequest: Bool) {
        func allowed(_ fields: [String: String]?) -> [(key: String, value: String)] {
            (fields ?? [:]).filter { Self.allows(name: $0, inRequest: inRequest) && Self.allows(value: $1) }
                .sorted { $0.key < $1.key }
        }
        let (set, added) = (allowed(set), allowed(added))
        let removed = (removed ?? []).filter { Self.allows(name: $0, inRequest: inRequest) }
        dropped = (set.map(\.key) + removed).map { $0.utf8.map { Self.folded($0, inRequest: inRequest) } }
        self.inRequest = inRequest
        appended = (set + added).map { (ByteBuffer(string: $0.key), ByteBuffer(string: $0.value)) }
        if dropped.isEmpty && appended.isEmpty { return nil }
    }

    func apply(to fields: inout HeaderBlock) {
        fields = fields.copy(reserving: 256) { !drops(fields.name(at: $0)) }
        for (name, value) in appended { fields.append(name: name.readableBytesView, value: value.readableBytesView) }
    }

    /// Trailers without what the rules drop: what a field may not say, a trailer may not either.
    func filtered(trailers: HeaderBlock) -> HeaderBlock { trailers.copy { !drops(trailers.name(at: $0)) } }

    private func drops(_ name: ByteBufferView) -> Bool {
        dropped.contains { other in
            other.count == name.count
                && zip(name, other).allSatisfy { Self.folded($0, inRequest: inRequest) == $1 }
        }
    }

    private static func folded(_ byte: UInt8, inRequest: Bool) -> UInt8 {
        if byte >= 0x41 && byte <= 0x5A { return byte | 0x20 }
        return inRequest && byte == UInt8(ascii: "_") ? UInt8(ascii: "-") : byte
    }

    // MARK: What rules may name

    /// What the connection, the framing and the handshakes are made of: never to be touched (RFC 9110 section 7.6.1, RFC 9112 section 6).
    private static let untouchable: Set<String> = [
        "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
        "content-length", "expect", "http2-settings", "max-forwards", "via", "sec-websocket-accept",
        "sec-websocket-extensions", "sec-websocket-key", "sec-websocket-protocol", "sec-websocket-version",
    ]
    /// What the gateway tells the upstream about a visitor.
    private static let vouchedFor: Set<String> = [
        "host", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-prefix",
        "x-real-ip",
    ]

    /// Whether a name may stand in a rule.
    static func allows(name: String, inRequest: Bool) -> Bool {
        let lower = name.lowercased()
        return isToken(name) && !untouchable.contains(lower) && !(inRequest && isVouchedFor(lower))
    }

    /// Fields of client certificates are told by how they begin; an underscore counts as a hyphen there, as in ``KnownField``.
    private static func isVouchedFor(_ lower: String) -> Bool {
        let hyphened = String(lower.map { $0 == "_" ? "-" : $0 })
        return vouchedFor.contains(lower) || hyphened.hasPrefix("client-cert") || hyphened.hasPrefix("x-client-cert")
    }

    private static func isToken(_ name: String) -> Bool {
        (1...256).contains(name.utf8.count)
            && name.utf8.allSatisfy { byte in
                switch byte {
                case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
                default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
                }
            }
    }

    /// Whether a text may be a field's value: visible ASCII, spaces and tabs inside, and UTF-8.
    static func allows(value: String) -> Bool {
        value.utf8.count <= 8192 && value.utf8.allSatisfy { ($0 >= 0x20 && $0 != 0x7F) || $0 == 0x09 }
            && value.first != " " && value.first != "\t" && value.last != " " && value.last != "\t"
    }
}

package enum FieldRuleText {
    /// Whether a rule may name a field.
    package static func allows(name: String, inRequest: Bool) -> Bool {
        FieldRules.allows(name: name, inRequest: inRequest)
    }
    /// Whether a rule may give a field this value.
    package static func allows(value: String) -> Bool { FieldRules.allows(value: value) }
}
