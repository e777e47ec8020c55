/// The answers to HTTP-01 challenges that are under way: what a certificate authority is to find when it looks whether a name is ours.
import Synchronization

/// Key authorizations by token. Shared by all event loops, which ask only when a request has the look of a challenge.
package final class ChallengeTable: Sendable {
    /// Where tokens are asked for (RFC 8555 section 8.3).
    package static let path = "/.well-known/acme-challenge/"

    private let answers = Mutex<[String: String]>([:])

    package init() {}

    /// What to answer under ``path`` and the token; nil: no such challenge is under way.
    package func keyAuthorization(token: String) -> String? { answers.withLock { $0[token] } }

    func set(_ keyAuthorization: String?, token: String) { answers.withLock { $0[token] = keyAuthorization } }
}
