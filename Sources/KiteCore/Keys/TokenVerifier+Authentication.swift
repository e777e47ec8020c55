/// Lets a kite judge its callers by tokens and kite keys.

extension TokenVerifier: KiteAuthenticator {
    /// Accepts the authentication types `token` and `kiteKey`. The messages are those of Go's kites.
    public func authenticate(
        _ authentication: Authentication?, for kite: KiteIdentity
    ) async throws(KiteError) -> String {
        try credential(authentication, for: kite).username
    }

    /// Everything that is proven about a caller.
    /// - Parameters:
    ///   - authentication: what the call carried.
    ///   - kite: the kite that is called; a token's audience must include it.
    /// - Throws: ``KiteError`` of type `authenticationError`.
    public func credential(
        _ authentication: Authentication?, for kite: KiteIdentity
    ) throws(KiteError) -> VerifiedCredential {
        guard let authentication, !authentication.type.isEmpty else {
            throw KiteError(.authentication, "No authentication information is provided")
        }
        do throws(TokenError) {
            switch authentication.type {
            case "token":
                return try verify(
                    token: authentication.key, username: kite.username, environment: kite.environment, name: kite.name)
            case "kiteKey": return try verify(kiteKey: authentication.key)
            default: break
            }
        } catch {
            throw KiteError(.authentication, "\(authentication.type): \(error.message)")
        }
        throw KiteError(.authentication, "Unknown authentication type: \(authentication.type.prefix(64))")
    }
}
