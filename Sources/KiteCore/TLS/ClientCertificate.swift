/// The certificate that a visitor has shown, in the forms in which upstreams are told of it.
import Crypto
package import KiteHTTP
import KiteSupport
package import NIOSSL

extension ClientCertificate {
    /// - Returns: nil where the certificate cannot be written down.
    package init?(_ certificate: NIOSSLCertificate) {
        guard let der = try? certificate.toDERBytes() else { return nil }
        self.init(
            subject: Self.text(certificate.subjectName), fingerprint: hexadecimal(SHA256.hash(data: der)), der: der)
    }

    /// The most specific part first (RFC 4514 section 2.1); only visible ASCII, so that it can stand in a header field.
    static func text(_ names: [SSLCertificateName]) -> String {
        names.reversed().map { name in "\(key(name.type))=\(escaped(name.value))" }.joined(separator: ",")
    }

    private static func key(_ type: SSLCertificateNameType) -> String {
        switch type {
        case .commonName: "CN"
        case .organization: "O"
        case .organizationalUnit: "OU"
        case .state: "ST"
        case .country: "C"
        case .city: "L"
        case .emailAddress: "1.2.840.113549.1.9.1"
        case .userId: "UID"
        default: "other"
        }
    }

    private static func escaped(_ value: String) -> String {
        var text = ""
        let last = value.utf8.count - 1
        for (index, byte) in value.utf8.enumerated() {
            switch byte {
            case UInt8(ascii: " ") where index != 0 && index != last: text.append(" ")
            case UInt8(ascii: "#") where index != 0: text.append("#")
            case UInt8(ascii: ","), UInt8(ascii: "+"), UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "<"),
                UInt8(ascii: ">"), UInt8(ascii: ";"), UInt8(ascii: "="), UInt8(ascii: " "), UInt8(ascii: "#"):
                text.append("\\")
                text.unicodeScalars.append(UnicodeScalar(byte))
            case 0x21...0x7E: text.unicodeScalars.append(UnicodeScalar(byte))
            default:
                text.append("\\")
                text.append(hexadecimal([byte]).uppercased())
            }
        }
        return text
    }
}

/// Which client certificates a host takes.
package struct ClientCertificateRule: Sendable {
    /// Those that issue them.
    package let authorities: [NIOSSLCertificate]
    /// Whether a visitor without one is refused in the handshake; otherwise upstreams are told of it where there is one. One that does
    /// not lead to the authorities is always refused.
    package let isRequired: Bool
    /// Rules that are the same have the same.
    let fingerprint: String

    /// - Throws: ``CertificateError``.
    package init(authoritiesPEM: [UInt8], isRequired: Bool) throws(CertificateError) {
        do {
            authorities = try NIOSSLCertificate.fromPEMBytes(authoritiesPEM)
            var hash = SHA256()
            hash.update(data: [isRequired ? 1 : 0])
            for authority in authorities { hash.update(data: try authority.toDERBytes()) }
            fingerprint = hexadecimal(hash.finalize())
        } catch {
            throw CertificateError("there are no certificates in PEM: \(error)")
        }
        guard !authorities.isEmpty else { throw CertificateError("there is no certificate") }
        self.isRequired = isRequired
    }
}
