/// The TLS listeners' store takes what is obtained.
package import KiteTLS

extension CertificateStore: CertificateSink {
    package func install(_ certificate: IssuedCertificate, for name: String) throws {
        let served = try ServerCertificate(
            chainPEM: Array(certificate.chain.utf8), keyPEM: Array(certificate.key.utf8), names: [name])
        try replace([served], of: .automatic(name))
    }

    package func setChallenge(_ certificate: ChallengeCertificate?, for name: String) throws {
        guard let certificate else { return try setChallenge(nil as ServerCertificate?, for: name) }
        try setChallenge(
            try ServerCertificate(
                chainPEM: Array(certificate.certificate.utf8), keyPEM: Array(certificate.key.utf8), names: [name]),
            for: name)
    }

    package func remove(_ name: String) {
        // Taking away makes no new context, so nothing can be wrong with one.
        try? replace([], of: .automatic(name))
    }
}
