/// What a visitor's first TLS message says, as far as the choice of a certificate depends on it.

/// A ClientHello (RFC 8446 section 4.1.2).
package struct ClientHello: Sendable, Hashable {
    /// Kinds of keys whose signatures the client can verify in a version that it speaks.
    package struct Keys: OptionSet, Sendable, Hashable {
        package let rawValue: UInt8
        package init(rawValue: UInt8) { self.rawValue = rawValue }
        package static let rsa = Keys(rawValue: 1 << 0)
        package static let p256 = Keys(rawValue: 1 << 1)
        package static let p384 = Keys(rawValue: 1 << 2)
        package static let p521 = Keys(rawValue: 1 << 3)
        package static let ed25519 = Keys(rawValue: 1 << 4)
    }

    /// Cipher suites of TLS 1.2 that the gateway speaks as well.
    package struct Suites: OptionSet, Sendable, Hashable {
        package let rawValue: UInt8
        package init(rawValue: UInt8) { self.rawValue = rawValue }
        package static let ecdsaAES128 = Suites(rawValue: 1 << 0)
        package static let ecdsaAES256 = Suites(rawValue: 1 << 1)
        package static let ecdsaChaCha = Suites(rawValue: 1 << 2)
        package static let rsaAES128 = Suites(rawValue: 1 << 3)
        package static let rsaAES256 = Suites(rawValue: 1 << 4)
        package static let rsaChaCha = Suites(rawValue: 1 << 5)
        /// One with ChaCha20 is the client's first.
        package static let prefersChaCha = Suites(rawValue: 1 << 6)
    }

    /// Versions that are of interest here.
    package struct Versions: OptionSet, Sendable, Hashable {
        package let rawValue: UInt8
        package init(rawValue: UInt8) { self.rawValue = rawValue }
        package static let tls12 = Versions(rawValue: 1 << 0)
        package static let tls13 = Versions(rawValue: 1 << 1)
    }

    /// The host that the client wants (RFC 6066 section 3), in lower case and without a dot at its end; only letters, digits, `-`, `_`
    /// and `.` are in it.
    package var serverName: String?
    /// What ALPN offers (RFC 7301), in the client's order; those that are not UTF-8 are left out.
    package var applicationProtocols: [String] = []
    package var versions: Versions = []
    package var keys: Keys = []
    /// Empty where TLS 1.3 will be spoken.
    package var suites: Suites = []

    package init() {}
}

/// Why a handshake is refused before a TLS handler takes part; values are those of alerts (RFC 8446 section 6.2).
package enum TLSAlert: UInt8, Sendable, Hashable {
    case unexpectedMessage = 10
    case illegalParameter = 47
    case decodeError = 50
    case internalError = 80
    case unrecognizedName = 112
    case noApplicationProtocol = 120

    /// The fatal alert as a record, which every version of TLS understands before keys are agreed on.
    package var record: [UInt8] { [21, 3, 3, 0, 2, 2, rawValue] }
}

/// Why there is no ClientHello in what was received.
package enum ClientHelloError: Error, Sendable, Hashable, CustomStringConvertible {
    /// No TLS at all; `isHTTP` where it looks like a request in the clear.
    case notTLS(isHTTP: Bool)
    /// Longer than anybody needs.
    case tooLong
    /// Not as the RFC wants it.
    case malformed(TLSAlert, String)

    package var description: String {
        switch self {
        case .notTLS(true): "an HTTP request without TLS"
        case .notTLS(false): "no TLS"
        case .tooLong: "a ClientHello of more than \(ClientHelloParser.maximumBytes) bytes"
        case .malformed(_, let what): "a malformed ClientHello: \(what)"
        }
    }
}
