/// What a registration must look like.
import KiteCore

/// Checks on what kites register with.
enum RegistrationRules {
    /// Bytes in one field of an identity.
    static let maximumFieldLength = 256
    /// Bytes in a URL.
    static let maximumURLLength = 2048

    /// Every field is set, short, and without what would break the path form.
    /// - Throws: ``KontrolError`` with `invalidRegistration` and Go's wording.
    static func check(_ identity: KiteIdentity) throws(KontrolError) {
        let fields = [
            ("username", identity.username), ("environment", identity.environment), ("name", identity.name),
            ("version", identity.version), ("region", identity.region), ("hostname", identity.hostname),
            ("id", identity.id),
        ]
        for (name, value) in fields {
            guard !value.isEmpty else { throw KontrolError(.invalidRegistration, "Empty Kite field: \(name)") }
            guard !value.utf8.contains(UInt8(ascii: "/")) else {
                throw KontrolError(.invalidRegistration, "Field \"\(name)\" must not contain '/'")
            }
            guard value.utf8.count <= maximumFieldLength, !value.utf8.contains(where: { $0 < 0x20 || $0 == 0x7F })
            else {
                throw KontrolError(.invalidRegistration, "Field \"\(name)\" is too long or has control characters")
            }
        }
    }

    /// An absolute URL of a scheme that kites speak, with a host.
    /// - Throws: ``KontrolError`` with `invalidRegistration`.
    static func check(url: String) throws(KontrolError) {
        guard !url.isEmpty else { throw KontrolError(.invalidRegistration, "empty url") }
        guard url.utf8.count <= maximumURLLength, url.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7F }) else {
            throw KontrolError(.invalidRegistration, "invalid register URL: too long, or it has blanks")
        }
        let scheme = ["http://", "https://", "ws://", "wss://"].first { url.lowercased().hasPrefix($0) }
        guard let scheme, let next = url.dropFirst(scheme.count).first, !"/?#:".contains(next) else {
            throw KontrolError(.invalidRegistration, "invalid register URL: it needs http, https, ws or wss and a host")
        }
    }
}
