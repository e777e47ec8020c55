/// The contexts for handshakes with one certificate by one rule for client certificates.
import NIOSSL
import Synchronization

/// The library goes by the client's order of cipher suites and cannot be told otherwise. In TLS 1.2, where old clients have odd ones, the
/// gateway's order is brought about by a context that has the chosen suite alone. Few clients speak 1.2, so such contexts are made when they
/// are needed first.
final class HandshakeContexts: Sendable {
    let all: NIOSSLContext
    private let single = Mutex<[String: NIOSSLContext]>([:])
    private let certificate: ServerCertificate
    private let rule: ClientCertificateRule?
    private let options: CertificateStore.Options

    init(_ certificate: ServerCertificate, rule: ClientCertificateRule?, options: CertificateStore.Options)
        throws(CertificateError)
    {
        self.certificate = certificate
        self.rule = rule
        self.options = options
        all = try Self.make(certificate, rule: rule, options: options, suites: Self.suites)
    }

    /// - Parameter offered: what the client has for TLS 1.2; none where it speaks 1.3.
    func context(for offered: ClientHello.Suites) -> NIOSSLContext {
        guard let suite = Self.choose(offered, isRSA: certificate.keyKind == .rsa) else { return all }
        return single.withLock { single in
            if let known = single[suite] { return known }
            guard let made = try? Self.make(certificate, rule: rule, options: options, suites: suite) else {
                return all
            }
            single[suite] = made
            return made
        }
    }

    /// AES-128 first, which is strong and the cheapest; ChaCha20 for clients that have it first, since they have no AES in hardware.
    static func choose(_ offered: ClientHello.Suites, isRSA: Bool) -> String? {
        let (aes128, aes256, chaCha): (ClientHello.Suites, ClientHello.Suites, ClientHello.Suites) =
            isRSA ? (.rsaAES128, .rsaAES256, .rsaChaCha) : (.ecdsaAES128, .ecdsaAES256, .ecdsaChaCha)
        let kind = isRSA ? "ECDHE-RSA-" : "ECDHE-ECDSA-"
        if offered.contains(chaCha), offered.contains(.prefersChaCha) { return kind + "CHACHA20-POLY1305" }
        if offered.contains(aes128) { return kind + "AES128-GCM-SHA256" }
        if offered.contains(aes256) { return kind + "AES256-GCM-SHA384" }
        return offered.contains(chaCha) ? kind + "CHACHA20-POLY1305" : nil
    }

    /// Suites of TLS 1.2 with forward secrecy and authenticated encryption, as Mozilla's intermediate profile has them. Those of 1.3 are the
    /// library's.
    private static let suites = [
        "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305",
    ].joined(separator: ":")

    private static func make(
        _ certificate: ServerCertificate, rule: ClientCertificateRule?, options: CertificateStore.Options,
        suites: String
    ) throws(CertificateError) -> NIOSSLContext {
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: certificate.chain.map { .certificate($0) }, privateKey: .privateKey(certificate.key))
        configuration.minimumTLSVersion = options.minimumVersion == .tlsv13 ? .tlsv13 : .tlsv12
        configuration.cipherSuites = suites
        configuration.curves = [.x25519_MLKEM768, .x25519, .secp256r1, .secp384r1]
        configuration.applicationProtocols = options.applicationProtocols
        configuration.renegotiationSupport = .none
        if let rule {
            configuration.certificateVerification = rule.isRequired ? .noHostnameVerification : .optionalVerification
            configuration.trustRoots = .certificates(rule.authorities)
            configuration.sendCANameList = true
        }
        do {
            return try NIOSSLContext(configuration: configuration)
        } catch {
            throw CertificateError("no TLS context can be made: \(error)")
        }
    }
}
