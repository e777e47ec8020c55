/// What goes into the state machine of an order and comes out of it, and what bounds it.
import Foundation
import KiteDialing

extension IssuanceStateMachine {
    /// What the operator says.
    struct Terms: Sendable {
        var contacts: [String] = []
        /// Whether the server's terms of service are agreed to.
        var isAgreed = false
        var externalAccount: ExternalAccount?
        /// Usable challenges, the preferred one first.
        var kinds: [ChallengeKind] = ChallengeKind.allCases
    }

    struct Request: Sendable {
        enum Method: Sendable { case get, head, post }
        var method: Method
        var url: URLParts
        /// JWS; nil for GET and HEAD.
        var body: String?
    }

    struct Response: Sendable {
        var status: Int
        var nonce: String?
        var location: String?
        var retryAfter: String?
        var body: [UInt8] = []
    }

    /// What the server is to find at a name.
    struct Answer: Sendable, Hashable {
        var kind: ChallengeKind
        var name: String
        var token: String
        var keyAuthorization: String
    }

    enum Action: Sendable {
        case send(Request)
        /// Make the answers available, then call ``presented(at:)``.
        case present([Answer])
        /// Call ``woke(at:)`` then.
        case wait(until: Date)
        /// The chain in PEM, unchecked.
        case done(String)
        case failed(ACMEFailure)
    }

    /// Bounds on what a server may say.
    enum Limits {
        static let bodyBytes = 256 * 1024
        static let authorizations = 100
        static let challenges = 20
        static let nonceBytes = 512
        static let tokenBytes = 256
        static let nonceRetries = 8
        static let faultRetries = 3
        /// Answers to polls that leave the matter open.
        static let polls = 200
        /// The longest that is waited within an order.
        static let wait: TimeInterval = 60
    }
}
