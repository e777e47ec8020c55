/// Issues tokens and kite keys: the signing half of Kontrol.

#if canImport(FoundationEssentials)
internal import FoundationEssentials
#else
internal import Foundation
#endif

/// Signs on behalf of a Kontrol user with one key pair.
public struct TokenIssuer: Sendable {
    /// Seconds a token is valid from now on, without the leeway.
    public static let tokenLifetime: Int64 = 48 * 3600
    /// Seconds by which clocks may differ: a token is valid that much earlier and later.
    public static let leeway: Int64 = 300

    /// Kontrol's user, the `iss` of everything.
    public let issuer: String
    /// What it signs with.
    public let keyPair: KontrolKeyPair

    public init(issuer: String, keyPair: KontrolKeyPair) {
        self.issuer = issuer
        self.keyPair = keyPair
    }

    /// A token with which a user may call the kites of an audience.
    /// - Parameters:
    ///   - username: the caller.
    ///   - audience: never `/`.
    ///   - now: seconds since 1970.
    ///   - lifetime: seconds, without the leeway.
    public func token(
        for username: String, audience: Audience, now: Int64, lifetime: Int64 = tokenLifetime
    ) async throws(KeyError) -> String {
        guard !username.isEmpty, !audience.username.isEmpty else {
            throw KeyError(.malformed, "A token needs a user and an audience")
        }
        var claims = KiteClaims()
        claims.issuer = issuer
        claims.subject = username
        claims.audience = audience.description
        claims.expiresAt = now.addingClamped(lifetime).addingClamped(Self.leeway)
        claims.issuedAt = now.addingClamped(-Self.leeway)
        claims.notBefore = now.addingClamped(-Self.leeway)
        claims.id = randomIdentifier()
        return try await keyPair.sign(claims)
    }

    /// A kite key for a user. It never expires.
    /// - Parameters:
    ///   - kontrolURL: where kites with this key find Kontrol.
    ///   - now: seconds since 1970.
    public func kiteKey(for username: String, kontrolURL: String, now: Int64) async throws(KeyError) -> KiteKey {
        guard !username.isEmpty, !username.contains("/") else {
            throw KeyError(.malformed, "A username must not be empty or contain \"/\"")
        }
        var claims = KiteClaims()
        claims.issuer = issuer
        claims.subject = username
        claims.id = randomIdentifier()
        claims.issuedAt = now
        claims.kontrolKey = keyPair.publicKey.pem
        claims.kontrolURL = kontrolURL
        return try await KiteKey(parsing: keyPair.sign(claims))
    }
}

extension TokenIssuer {
    /// The same kite key, naming and signed with this issuer's key pair: for kites that come with a retired one.
    package func renewed(_ key: KiteKey) async throws(KeyError) -> KiteKey {
        var claims = KiteClaims()
        claims.issuer = issuer
        claims.subject = key.username
        claims.id = key.id.isEmpty ? randomIdentifier() : key.id
        claims.issuedAt = key.issuedAt
        claims.kontrolKey = keyPair.publicKey.pem
        claims.kontrolURL = key.kontrolURL
        return try await KiteKey(parsing: keyPair.sign(claims))
    }
}

/// A random UUID as lower-case text, as Go's kites write theirs.
package func randomIdentifier() -> String { UUID().uuidString.lowercased() }

extension Int64 {
    /// The sum, at the limits where it would overflow.
    func addingClamped(_ other: Int64) -> Int64 {
        let (sum, overflow) = addingReportingOverflow(other)
        return overflow ? (other > 0 ? .max : .min) : sum
    }
}
