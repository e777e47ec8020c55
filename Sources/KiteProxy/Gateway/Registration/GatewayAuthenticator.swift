/// Who is at the tunnel door.

/// Decides which user a credential shown at the tunnel door belongs to.
package protocol GatewayAuthenticator: Sendable {
    /// Verifies a kite key or a token that was issued for the gateway. Called on event loops, so it must not block.
    /// - Throws: ``CredentialRefusal`` with the reason for the agent.
    func user(presenting credential: String) throws(CredentialRefusal) -> String
}

/// Why a credential was not accepted.
package struct CredentialRefusal: Error, Sendable, Hashable, CustomStringConvertible {
    /// A human sentence for the caller; never contains the credential.
    package let description: String

    package init(_ description: String) { self.description = description }
}
