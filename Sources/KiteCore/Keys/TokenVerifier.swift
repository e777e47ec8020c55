/// Decides whether a token or a kite key that a caller shows is genuine and still good.
internal import Synchronization

#if canImport(FoundationEssentials)
internal import FoundationEssentials
#else
internal import Foundation
#endif

/// A Kontrol whose signatures are believed.
public struct TrustedIssuer: Sendable, Hashable {
    /// Kontrol's user, as in `iss`.
    public let name: String
    /// Its public keys; more than one while keys are being rotated.
    public let keys: [KontrolPublicKey]

    public init(name: String, keys: [KontrolPublicKey]) {
        self.name = name
        self.keys = keys
    }
}

/// The time, in whole seconds since 1970.
public func secondsSince1970() -> Int64 { Int64(Date().timeIntervalSince1970) }

/// What is proven about a caller.
public struct VerifiedCredential: Sendable, Hashable {
    /// The user it was issued to, never empty.
    public let username: String
    /// Who issued it; may be empty for a kite key.
    public let issuer: String
    /// Which kites a token opens; nil for a kite key.
    public let audience: Audience?
    /// Seconds since 1970; nil when it does not expire.
    public let expiresAt: Int64?
    /// The `jti` claim; may be empty.
    public let id: String
    /// The key that verified it.
    public let key: KontrolPublicKey
    /// When it was issued, seconds since 1970, where it says so.
    public let issuedAt: Int64?
}

/// Verifies tokens and kite keys. RS256 alone is accepted; what asks for anything else is refused before any cryptography. Safe to use from
/// anywhere, event loops included: a verification costs some 30 µs, a repeated one a hash of the text.
public final class TokenVerifier: Sendable {
    private struct State {
        var issuers: [TrustedIssuer]
        var cache: VerificationCache
    }
    private let state: Mutex<State>
    private let now: @Sendable () -> Int64
    private let learns: Bool
    /// The most keys of one issuer, and the most issuers, that are learnt; the one learnt longest ago goes.
    private static let maximumLearnt = 4

    /// - Parameters:
    ///   - issuers: whose signatures are believed.
    ///   - cacheCapacity: how many verified credentials are remembered.
    ///   - lifetime: how long they are remembered, unless they expire before; at most a day.
    ///   - now: seconds since 1970.
    public convenience init(
        trusting issuers: [TrustedIssuer], cacheCapacity: Int = 1024,
        rememberingFor lifetime: Duration = .seconds(3600),
        now: @escaping @Sendable () -> Int64 = secondsSince1970
    ) {
        self.init(trusting: issuers, cacheCapacity: cacheCapacity, rememberingFor: lifetime, learns: true, now: now)
    }

    /// - Parameter learns: false for whom ``learn(_:of:)`` is to do nothing: the verifier of a Kontrol in this process, which is the
    ///   source of all keys.
    package init(
        trusting issuers: [TrustedIssuer], cacheCapacity: Int = 1024,
        rememberingFor lifetime: Duration = .seconds(3600), learns: Bool,
        now: @escaping @Sendable () -> Int64 = secondsSince1970
    ) {
        state = Mutex(State(issuers: issuers, cache: VerificationCache(capacity: cacheCapacity, lifetime: lifetime)))
        self.learns = learns
        self.now = now
    }

    /// Replaces the trusted issuers and their keys; from now on nothing that was verified with others is accepted.
    public func trust(_ issuers: [TrustedIssuer]) {
        state.withLock {
            guard $0.issuers != issuers else { return }
            $0.issuers = issuers
            $0.cache.removeAll()
        }
    }

    /// Trusts a further key of an issuer, which Kontrol signs with from now on. What the keys before have signed stays good: others
    /// come with it for a while yet.
    public func learn(_ key: KontrolPublicKey, of issuer: String) {
        guard learns else { return }
        state.withLock { state in
            let known = state.issuers.first { $0.name == issuer }?.keys ?? []
            guard known.first != key else { return }
            let keys = [key] + known.filter { $0 != key }.prefix(Self.maximumLearnt - 1)
            let others = state.issuers.filter { $0.name != issuer }.prefix(Self.maximumLearnt - 1)
            state.issuers = [TrustedIssuer(name: issuer, keys: keys)] + others
            state.cache.removeAll()
        }
    }

    /// The issuers trusted at present.
    public var trustedIssuers: [TrustedIssuer] { state.withLock { $0.issuers } }

    /// Verifies a token, except for whom it is meant: signature, issuer, time, user, and that it has an audience.
    /// - Throws: ``TokenError`` with the message that belongs to the caller.
    public func verify(token text: String) throws(TokenError) -> VerifiedCredential {
        try verify(text, as: .token, Self.check(token:issuers:))
    }

    /// Verifies a token for calls to a kite of this user, environment and name.
    /// - Throws: ``TokenError`` with the message that belongs to the caller.
    public func verify(
        token text: String, username: String, environment: String, name: String
    ) throws(TokenError) -> VerifiedCredential {
        let credential = try verify(token: text)
        try credential.audience?.check(username: username, environment: environment, name: name)
        return credential
    }

    /// Verifies a kite key: it names a trusted key of Kontrol, is signed with it, and names a user.
    /// - Throws: ``TokenError`` with the message that belongs to the caller.
    public func verify(kiteKey text: String) throws(TokenError) -> VerifiedCredential {
        try verify(text, as: .kiteKey, Self.check(kiteKey:issuers:))
    }

    // MARK: -

    private func verify(
        _ text: String, as kind: VerificationCache.Kind,
        _ check: (SignedToken, [TrustedIssuer]) throws(TokenError) -> (VerifiedCredential, notBefore: Int64?)
    ) throws(TokenError) -> VerifiedCredential {
        guard text.utf8.count <= SignedToken.maximumLength else { throw .tooLong }
        let time = now()
        let digest = VerificationCache.Key(kind: kind, text: text)
        let (known, issuers) = state.withLock { ($0.cache[digest, time], $0.issuers) }
        if let known { return known }

        let token = try SignedToken(parsing: text)
        let (credential, notBefore) = try check(token, issuers)
        if let expiry = credential.expiresAt, time >= expiry {
            throw .expired(seconds: max(0, time.subtractingReportingOverflow(expiry).partialValue))
        }
        if let notBefore, time < notBefore { throw .notYetValid }
        state.withLock {
            // Keys may have been exchanged while we verified with the old ones.
            if $0.issuers == issuers { $0.cache.insert(credential, for: digest, now: time) }
        }
        return credential
    }

    /// The order is that of Go's kites: issuer, signature, then (in the caller) time.
    private static func check(
        token: SignedToken, issuers: [TrustedIssuer]
    ) throws(TokenError) -> (VerifiedCredential, notBefore: Int64?) {
        let claims = token.claims
        let issuer = claims.issuer ?? ""
        guard let trusted = issuers.first(where: { $0.name == issuer }) else { throw .untrustedIssuer(issuer) }
        guard let key = trusted.keys.first(where: { $0.isValid(signature: token.signature, over: token.signedBytes) })
        else { throw .tokenSignature }
        guard let audience = claims.audience, !audience.isEmpty else { throw .noAudience }
        guard let username = claims.subject, !username.isEmpty else { throw .noUsername }
        let credential = VerifiedCredential(
            username: username, issuer: issuer, audience: try Audience(parsing: audience),
            expiresAt: claims.expiresAt, id: claims.id ?? "", key: key, issuedAt: claims.issuedAt)
        return (credential, claims.notBefore)
    }

    /// A kite key is believed for the key it names, whoever its issuer is, as Go's kites do.
    private static func check(
        kiteKey: SignedToken, issuers: [TrustedIssuer]
    ) throws(TokenError) -> (VerifiedCredential, notBefore: Int64?) {
        let claims = kiteKey.claims
        guard let pem = claims.kontrolKey, !pem.isEmpty else { throw .noKontrolKey }
        guard let key = issuers.lazy.flatMap(\.keys).first(where: { $0.matches(pem: pem) }) else {
            throw .untrustedKontrolKey
        }
        guard key.isValid(signature: kiteKey.signature, over: kiteKey.signedBytes) else { throw .kiteKeySignature }
        guard let username = claims.subject, !username.isEmpty else { throw .noUsername }
        let credential = VerifiedCredential(
            username: username, issuer: claims.issuer ?? "", audience: nil, expiresAt: claims.expiresAt,
            id: claims.id ?? "", key: key, issuedAt: claims.issuedAt)
        return (credential, claims.notBefore)
    }
}
