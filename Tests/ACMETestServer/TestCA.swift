/// A certificate authority that lives as long as a test: root, intermediate, and what it issues.
import Crypto
package import Foundation
import SwiftASN1
package import X509

package struct TestCA: Sendable {
    /// PEM of the root, which clients are to trust.
    package let root: String
    private let intermediate: Certificate
    private let key: P256.Signing.PrivateKey

    package init(now: Date) throws {
        let rootKey = P256.Signing.PrivateKey()
        let rootName = try DistinguishedName { CommonName("ACME test root") }
        // Long before and after, whatever a test's clock does.
        let (from, to) = (now.addingTimeInterval(-10 * 365 * 86_400), now.addingTimeInterval(20 * 365 * 86_400))
        let root = try Certificate(
            version: .v3, serialNumber: .init(), publicKey: .init(rootKey.publicKey), notValidBefore: from,
            notValidAfter: to, issuer: rootName, subject: rootName, signatureAlgorithm: .ecdsaWithSHA256,
            extensions: try .init {
                Critical(BasicConstraints.isCertificateAuthority(maxPathLength: nil))
                Critical(KeyUsage(keyCertSign: true, cRLSign: true))
            }, issuerPrivateKey: .init(rootKey))
        key = P256.Signing.PrivateKey()
        intermediate = try Certificate(
            version: .v3, serialNumber: .init(), publicKey: .init(key.publicKey), notValidBefore: from,
            notValidAfter: to, issuer: rootName, subject: try DistinguishedName { CommonName("ACME test issuer") },
            signatureAlgorithm: .ecdsaWithSHA256,
            extensions: try .init {
                Critical(BasicConstraints.isCertificateAuthority(maxPathLength: 0))
                Critical(KeyUsage(keyCertSign: true, cRLSign: true))
            }, issuerPrivateKey: .init(rootKey))
        self.root = try root.serializeAsPEM().pemString
    }

    /// Issues for names.
    /// - Returns: the chain in PEM, without the root.
    package func issue(_ publicKey: Certificate.PublicKey, names: [String], from: Date, lifetime: TimeInterval) throws
        -> String
    {
        let leaf = try Certificate(
            version: .v3, serialNumber: .init(), publicKey: publicKey, notValidBefore: from,
            notValidAfter: from.addingTimeInterval(lifetime), issuer: intermediate.subject,
            subject: DistinguishedName(), signatureAlgorithm: .ecdsaWithSHA256,
            extensions: try .init {
                Critical(BasicConstraints.notCertificateAuthority)
                Critical(KeyUsage(digitalSignature: true))
                try ExtendedKeyUsage([.serverAuth])
                Critical(SubjectAlternativeNames(names.map { .dnsName($0) }))
            }, issuerPrivateKey: .init(key))
        return try [leaf, intermediate].map { try $0.serializeAsPEM().pemString + "\n" }.joined()
    }
}
