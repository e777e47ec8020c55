/// Who is at the tunnel door, as Kontrol's keys tell.
import KiteCore
import KiteGateway

/// Accepts kite keys, and tokens that were issued for the gateway's kite.
struct KontrolAuthenticator: GatewayAuthenticator {
    let verifier: TokenVerifier
    /// The gateway's kite, for which tokens must have been issued.
    let identity: KiteIdentity
    /// Is told whose credentials were good.
    var note: @Sendable (_ username: String) -> Void = { _ in }

    func user(presenting credential: String) throws(CredentialRefusal) -> String {
        let username = try verifiedUser(presenting: credential)
        note(username)
        return username
    }

    private func verifiedUser(presenting credential: String) throws(CredentialRefusal) -> String {
        let asKey: TokenError
        do throws(TokenError) {
            return try verifier.verify(kiteKey: credential).username
        } catch {
            asKey = error
        }
        do throws(TokenError) {
            return try verifier.verify(
                token: credential, username: identity.username, environment: identity.environment,
                name: identity.name
            ).username
        } catch {
            // A token names no key of Kontrol: then it is the token's fault that counts.
            throw CredentialRefusal(asKey == .noKontrolKey ? error.message : asKey.message)
        }
    }
}
