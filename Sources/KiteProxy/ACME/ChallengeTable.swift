/// The answers to challenges that are under way: what a certificate authority is to find when it looks whether a name is ours.
import Synchronization

/// Answers by token (HTTP-01) and by name (TLS-ALPN-01). Shared by all event loops, which ask only when a request or a handshake has the
/// look of a challenge.
package final class ChallengeTable: Sendable {
    /// A self-signed certificate that says it knows the key authorization (RFC 8737 section 3).
    package struct Certificate: Sendable, Hashable {
        /// PEM.
        package let certificate: String
        /// PEM.
        package let key: String

        package init(certificate: String, key: String) {
            self.certificate = certificate
            self.key = key
        }
    }

    /// The path under which tokens are asked for (RFC 8555 section 8.3).
    package static let path = "/.well-known/acme-challenge/"
    /// The protocol that a handshake for TLS-ALPN-01 asks for.
    package static let protocolName = "acme-tls/1"

    private struct Answers {
        var byToken: [String: String] = [:]
        var byName: [String: Certificate] = [:]
    }
    private let answers = Mutex(Answers())

    package init() {}

    /// The key authorization to answer with under ``path`` and the token; nil: no such challenge is under way.
    package func keyAuthorization(token: String) -> String? { answers.withLock { $0.byToken[token] } }

    /// What to show in a handshake that asks for ``protocolName`` and the name, in lower case; nil: no such challenge is under way.
    package func certificate(name: String) -> Certificate? { answers.withLock { $0.byName[name] } }

    /// Whether any challenge needs a handshake to be answered.
    package var hasCertificates: Bool { answers.withLock { !$0.byName.isEmpty } }

    func set(_ keyAuthorization: String?, token: String) { answers.withLock { $0.byToken[token] = keyAuthorization } }

    func set(_ certificate: Certificate?, name: String) { answers.withLock { $0.byName[name] = certificate } }
}
