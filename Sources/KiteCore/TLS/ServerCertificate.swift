/// A certificate with its chain and key, parsed once and then shared by all handshakes.
import Crypto
import KiteHTTP
import KiteSupport
package import NIOSSL

/// What a TLS listener can present. Immutable.
package struct ServerCertificate: Sendable {
    /// Kinds of keys; which one suits a client its ClientHello says.
    package enum KeyKind: String, Sendable, Hashable {
        case rsa, p256, p384, p521, ed25519
        case other

        var clientKeys: ClientHello.Keys {
            switch self {
            case .rsa: .rsa
            case .p256: .p256
            case .p384: .p384
            case .p521: .p521
            case .ed25519: .ed25519
            case .other: []
            }
        }
    }

    /// Host names in lower case, each perhaps with `*` as its first label.
    package let names: [String]
    package let keyKind: KeyKind
    /// Seconds since 1970.
    package let notBefore: Int64
    /// Seconds since 1970, from when on it is refused by clients.
    package let notAfter: Int64
    /// SHA-256 over the chain, in hexadecimal: two that are the same have the same.
    package let fingerprint: String
    package let chain: [NIOSSLCertificate]
    let key: NIOSSLPrivateKey

    /// - Parameters:
    ///   - chainPEM: the host's certificate, then those that lead to a root.
    ///   - keyPEM: without a passphrase.
    ///   - names: nil: those in the certificate.
    /// - Throws: ``CertificateError``.
    package init(chainPEM: [UInt8], keyPEM: [UInt8], names: [String]? = nil) throws(CertificateError) {
        let chain: [NIOSSLCertificate]
        do {
            chain = try NIOSSLCertificate.fromPEMBytes(chainPEM)
        } catch {
            throw CertificateError("there are no certificates in PEM: \(error)")
        }
        let key: NIOSSLPrivateKey
        do {
            key = try NIOSSLPrivateKey(bytes: keyPEM, format: .pem)
        } catch {
            throw CertificateError("there is no private key in PEM: \(error)")
        }
        try self.init(chain: chain, key: key, names: names)
    }

    /// - Throws: ``CertificateError`` where chain and key do not belong together.
    package init(chain: [NIOSSLCertificate], key: NIOSSLPrivateKey, names: [String]? = nil)
        throws(CertificateError)
    {
        guard let leaf = chain.first else { throw CertificateError("there is no certificate") }
        self.chain = chain
        self.key = key
        do {
            var hash = SHA256()
            for certificate in chain { hash.update(data: try certificate.toDERBytes()) }
            fingerprint = hexadecimal(hash.finalize())
            keyKind = Self.kind(try leaf.extractPublicKey().toSPKIBytes())
        } catch {
            throw CertificateError("the certificate cannot be read: \(error)")
        }
        self.names = (names ?? Self.names(of: leaf)).map { $0.lowercased() }
        notBefore = Int64(leaf.notValidBefore)
        notAfter = Int64(leaf.notValidAfter)
        do {
            _ = try NIOSSLContext(
                configuration: .makeServerConfiguration(
                    certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(key)))
        } catch {
            throw CertificateError("the key does not belong to the first certificate: \(error)")
        }
    }

    private static func names(of leaf: NIOSSLCertificate) -> [String] {
        let names = leaf._subjectAlternativeNames().filter { $0.nameType == .dnsName }
            .map { String(decoding: $0.contents, as: UTF8.self) }
        guard names.isEmpty else { return names }
        // Certificates without alternative names are made by hand; browsers refuse them, other clients may not.
        return leaf.subjectName.filter { $0.type == .commonName }.map(\.value)
    }

    /// By the object identifiers in a SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7, RFC 5480, RFC 8410).
    private static func kind(_ info: [UInt8]) -> KeyKind {
        let head = Array(info.prefix(40))
        func holds(_ identifier: [UInt8]) -> Bool {
            head.indices.contains { head[$0...].starts(with: identifier) }
        }
        if holds([0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01]) { return .rsa }
        if holds([0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07]) { return .p256 }
        if holds([0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x22]) { return .p384 }
        if holds([0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x23]) { return .p521 }
        if holds([0x06, 0x03, 0x2B, 0x65, 0x70]) { return .ed25519 }
        return .other
    }
}

/// Why a certificate or a rule about certificates cannot be used.
package struct CertificateError: Error, Sendable, Hashable, CustomStringConvertible {
    /// A human sentence without secrets.
    package let description: String
    package init(_ description: String) { self.description = description }
}
