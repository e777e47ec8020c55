/// Where obtained certificates go: the interface between automatic certificates and whoever serves TLS.
package import Foundation

/// A certificate with its key, ready to be served.
package struct IssuedCertificate: Sendable, Hashable, CustomStringConvertible, CustomReflectable {
    /// The DNS names that it is for, in lower case; may begin with `*.`.
    package let names: [String]
    /// PEM, the leaf first, then what leads to the root.
    package let chain: String
    /// PEM of the private key. Never to be logged.
    package let key: String
    package let notBefore: Date
    package let notAfter: Date

    package init(names: [String], chain: String, key: String, notBefore: Date, notAfter: Date) {
        self.names = names
        self.chain = chain
        self.key = key
        self.notBefore = notBefore
        self.notAfter = notAfter
    }

    /// Without the key.
    package var description: String { "\(names.joined(separator: ", ")) until \(notAfter)" }
    package var customMirror: Mirror { Mirror(self, children: ["names": names]) }
}

/// A self-signed certificate that shows who validates a name that the account's key is known there (RFC 8737 section 3).
package struct ChallengeCertificate: Sendable, Hashable, CustomStringConvertible, CustomReflectable {
    /// PEM.
    package let certificate: String
    /// PEM.
    package let key: String

    /// Without the key.
    package var description: String { "a challenge's certificate" }
    package var customMirror: Mirror { Mirror(self, children: [:]) }
}

/// Serves certificates. Its functions are called from any thread.
package protocol CertificateSink: Sendable {
    /// Serves a certificate for a name from the next handshake on, in place of the one that was installed for the name before.
    /// - Throws: when chain and key cannot be used; what was installed before stays then.
    func install(_ certificate: IssuedCertificate, for name: String) throws

    /// Shows a certificate in handshakes that ask for the name and for `acme-tls/1`; nil: no longer.
    /// - Throws: when it cannot be used.
    func setChallenge(_ certificate: ChallengeCertificate?, for name: String) throws

    /// Serves nothing for a name any more.
    func remove(_ name: String)
}
