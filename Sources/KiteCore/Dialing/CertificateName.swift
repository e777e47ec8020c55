/// Whether a server's certificate was made for the name that we wanted to reach.
import NIOSSL

/// Compares names by RFC 9525 section 6.
///
/// The TLS library checks names too, but is content with a certificate for the IP address that was connected to, even when a name was asked
/// for. Whoever can forge an answer of the DNS could then use a certificate for an address of his own.
enum CertificateName {
    /// Whether the certificate bears the name. One without any alternative name has passed the library's check, which compares the
    /// common name with ours.
    static func bears(_ certificate: NIOSSLCertificate, name: String) -> Bool {
        let alternatives = certificate._subjectAlternativeNames()
        return alternatives.isEmpty
            || alternatives.contains {
                $0.nameType == .dnsName && matches(String(decoding: $0.contents, as: UTF8.self), name)
            }
    }

    /// - Parameters:
    ///   - presented: the name in the certificate; its whole first label may be `*`.
    ///   - wanted: a DNS name.
    static func matches(_ presented: String, _ wanted: String) -> Bool {
        let presented = normalized(presented)
        let wanted = normalized(wanted)
        if presented == wanted { return !wanted.isEmpty }
        guard presented.hasPrefix("*."), let dot = wanted.firstIndex(of: "."), dot != wanted.startIndex else {
            return false
        }
        let parent = wanted[wanted.index(after: dot)...]
        // A wildcard stands for one label of a name that has at least two more.
        return parent.contains(".") && presented.dropFirst(2) == parent
    }

    private static func normalized(_ name: String) -> Substring {
        let name = name.lowercased()
        return name.hasSuffix(".") ? name.dropLast() : name[...]
    }
}
