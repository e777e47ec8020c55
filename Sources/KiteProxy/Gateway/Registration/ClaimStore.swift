/// Who owns which name, kept beyond the life of the gateway where a store can.

/// What a user has claimed: a name under the gateway's domain, or a kite id.
package struct Claim: Sendable, Hashable, Codable {
    /// In lower case.
    package var name: String
    package var username: String
    /// Seconds since 1970 when an agent of the owner last began or ended a session with it, a minute more or less: names that nobody has
    /// used for long can be told from those in use.
    package var lastUsed: Int64

    package init(name: String, username: String, lastUsed: Int64) {
        self.name = name
        self.username = username
        self.lastUsed = lastUsed
    }
}

/// Remembers claims.
package protocol ClaimStore: Sendable {
    /// All claims, asked for once at start.
    func claims() async throws -> [Claim]
    /// Records a claim, replacing an earlier one of the same name.
    func save(_ claim: Claim) async throws
    /// Forgets a claim.
    func remove(name: String) async throws
}

/// Remembers claims as long as the process lives.
package actor MemoryClaimStore: ClaimStore {
    private var stored: [String: Claim] = [:]

    package init() {}
    package func claims() -> [Claim] { Array(stored.values) }
    package func save(_ claim: Claim) { stored[claim.name] = claim }
    package func remove(name: String) { stored[name] = nil }
}
