/// Where obtained certificates go: the interface between automatic certificates and whoever serves TLS.
package import Foundation

/// A certificate with its key, ready to be served.
package struct IssuedCertificate: Sendable, Hashable {
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
}

/// Serves certificates. Certificates of files that an operator named come first where both have one for a name.
package protocol CertificateSink: Sendable {
    /// Serves a certificate for its names from the next handshake on, in place of one that was installed for the same names. Called from any
    /// thread.
    /// - Throws: when chain and key cannot be used; what was installed before stays then.
    func install(_ certificate: IssuedCertificate) throws
}
