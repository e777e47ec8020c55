/// What is made and checked of certificates: signing requests, answers to TLS-ALPN-01, chains that come back.
import Crypto
import Foundation
import SwiftASN1
import X509

/// The key of a certificate, new for each.
struct CertificateKey: Sendable {
    private let key = P256.Signing.PrivateKey()

    /// Never to be logged.
    var pem: String { key.pemRepresentation + "\n" }

    /// A signing request for names, in DER (RFC 2986).
    func signingRequest(_ names: [String]) throws -> [UInt8] {
        let names = try Certificate.Extension(SubjectAlternativeNames(names.map { .dnsName($0) }), critical: false)
        let request = try CertificateSigningRequest(
            version: .v1, subject: DistinguishedName(), privateKey: Certificate.PrivateKey(key),
            attributes: CertificateSigningRequest.Attributes([
                .init(ExtensionRequest(extensions: Certificate.Extensions([names])))
            ]), signatureAlgorithm: .ecdsaWithSHA256)
        var serializer = DER.Serializer()
        try serializer.serialize(request)
        return serializer.serializedBytes
    }

    /// Checks that a chain is what was asked for.
    /// - Throws: ``ACMEFailure``.
    func certificate(_ chain: String, names: [String], now: Date) throws(ACMEFailure) -> IssuedCertificate {
        let certificates = try CertificateChain.parse(chain)
        guard let leaf = certificates.first, chain.utf8.count <= CertificateFiles.maximumChain else {
            throw ACMEFailure(.badCertificate, "the chain is empty, or too long")
        }
        guard leaf.publicKey == Certificate.PublicKey(key.publicKey) else {
            throw ACMEFailure(.badCertificate, "the certificate is for another key than the one that was sent")
        }
        let issued = try CertificateChain.issued(chain, leaf, key: pem)
        guard Set(names).isSubset(of: issued.names) else {
            throw ACMEFailure(
                .badCertificate,
                "the certificate is for \(issued.names.joined(separator: ", ")) and not for \(names.joined(separator: ", "))"
            )
        }
        // Clocks differ; a certificate of the future is used as soon as visitors take it.
        guard issued.notAfter > now, issued.notBefore < now.addingTimeInterval(24 * 3600) else {
            throw ACMEFailure(.badCertificate, "the certificate is not valid now")
        }
        return issued
    }
}

/// Chains of certificates in PEM.
enum CertificateChain {
    /// More than anybody's chain has.
    static let maximumCount = 10

    /// - Throws: ``ACMEFailure`` with `badCertificate`.
    static func parse(_ chain: String) throws(ACMEFailure) -> [Certificate] {
        do {
            let documents = try PEMDocument.parseMultiple(pemString: chain)
            let blocks = documents.filter { $0.discriminator == "CERTIFICATE" }
            guard (1...maximumCount).contains(blocks.count), blocks.count == documents.count else {
                throw ACMEFailure(.badCertificate, "the chain is not of 1 to \(maximumCount) certificates")
            }
            return try blocks.map { try Certificate(pemDocument: $0) }
        } catch let failure as ACMEFailure {
            throw failure
        } catch {
            throw ACMEFailure(.badCertificate, "the chain cannot be read: \(error)")
        }
    }

    /// A certificate with its names and times.
    static func issued(_ chain: String, _ leaf: Certificate, key: String) throws(ACMEFailure) -> IssuedCertificate {
        let names: SubjectAlternativeNames?
        do { names = try leaf.extensions.subjectAlternativeNames } catch {
            throw ACMEFailure(.badCertificate, "the certificate's names cannot be read: \(error)")
        }
        let hosts = (names.map(Array.init) ?? []).compactMap { name -> String? in
            if case .dnsName(let host) = name { host.lowercased() } else { nil }
        }
        guard leaf.notValidBefore < leaf.notValidAfter else {
            throw ACMEFailure(.badCertificate, "the certificate ends before it begins")
        }
        return IssuedCertificate(
            names: hosts, chain: chain, key: key, notBefore: leaf.notValidBefore, notAfter: leaf.notValidAfter)
    }

    /// Reads a chain and the key that belongs to it.
    static func read(chain: String, key: String) throws(ACMEFailure) -> IssuedCertificate {
        guard let leaf = try parse(chain).first, let own = try? Certificate.PrivateKey(pemEncoded: key),
            own.publicKey == leaf.publicKey
        else { throw ACMEFailure(.storage, "certificate and key do not belong together") }
        return try issued(chain, leaf, key: key)
    }
}

extension ChallengeCertificate {
    /// id-pe-acmeIdentifier (RFC 8737 section 6.1).
    static let identifier: ASN1ObjectIdentifier = [1, 3, 6, 1, 5, 5, 7, 1, 31]

    /// The answer to a TLS-ALPN-01 challenge (RFC 8737 section 3).
    init(name: String, keyAuthorization: String, now: Date) throws {
        let key = P256.Signing.PrivateKey()
        let digest = SHA256.hash(data: Data(keyAuthorization.utf8))
        let subject = try DistinguishedName { CommonName("acme challenge") }
        let certificate = try X509.Certificate(
            version: .v3, serialNumber: .init(), publicKey: .init(key.publicKey),
            notValidBefore: now.addingTimeInterval(-3600), notValidAfter: now.addingTimeInterval(7 * 24 * 3600),
            issuer: subject, subject: subject, signatureAlgorithm: .ecdsaWithSHA256,
            extensions: try .init([
                // An OCTET STRING within the extension's own.
                .init(
                    oid: Self.identifier, critical: true, value: ArraySlice([0x04, 0x20] + digest.map { $0 as UInt8 })),
                .init(SubjectAlternativeNames([.dnsName(name)]), critical: false),
            ]), issuerPrivateKey: .init(key))
        self.init(certificate: try certificate.serializeAsPEM().pemString, key: key.pemRepresentation)
    }
}
