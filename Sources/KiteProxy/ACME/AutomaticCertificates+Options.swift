/// What can be set on automatic certificates, and what can be asked of them.
package import Foundation
package import KiteDialing

extension AutomaticCertificates {
    /// What the operator wants.
    package struct Options: Sendable {
        /// Directory URLs of servers, tried in turn.
        package var servers: [URLParts]
        /// The names to have certificates for, in lower case.
        package var names: [String] = []
        /// Mail addresses.
        package var contacts: [String] = []
        /// Whether the terms of service of the servers are agreed to.
        package var isAgreed = false
        package var externalAccount: ExternalAccount?
        /// Usable challenges, the preferred one first.
        package var kinds = ChallengeKind.allCases
        package var onDemand: OnDemand?
        /// Where accounts and certificates are kept.
        package var dataDirectory: String
        /// For one order.
        package var orderTime: TimeInterval = 300
        /// Orders under way at a time.
        package var orders = 4
        package var userAgent = "kiteproxy"

        package init(servers: [URLParts], dataDirectory: String) {
            self.servers = servers
            self.dataDirectory = dataDirectory
        }
    }

    /// Names that are not configured.
    package struct OnDemand: Sendable {
        /// New names within an hour; visitors of further ones go without.
        package var namesPerHour: Int
        /// Names in all.
        package var names = 10_000
        /// Whether a name, in lower case, may have a certificate.
        package var isAllowed: @Sendable (String) async -> Bool

        /// Whether `isAllowed` is to be asked about a name at all. Called with a lock held, for each handshake without a certificate.
        package var isConceivable: @Sendable (String) -> Bool

        package init(
            namesPerHour: Int, isConceivable: @escaping @Sendable (String) -> Bool = { _ in true },
            isAllowed: @escaping @Sendable (String) async -> Bool
        ) {
            self.namesPerHour = namesPerHour
            self.isConceivable = isConceivable
            self.isAllowed = isAllowed
        }
    }

    /// What an operator may want to know of one name.
    package struct Status: Sendable, Hashable {
        package var name: String
        /// Nil where there is no certificate.
        package var notAfter: Date?
        /// When it is obtained or renewed.
        package var due: Date
        /// In a row.
        package var failures: Int
        package var lastFailure: Date?
    }
}
