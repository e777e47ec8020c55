/// What the gateway's kite asks of the gateway for kites that dial back.
package import KiteCore
import KiteTunnel
import Logging

extension Gateway {
    /// A kite registers that cannot be reached and dials back for each visitor (`kite.tunnel`). It is served until
    /// ``unregisterTunnelled(kiteID:registration:)``; a newer registration of the same user replaces it.
    /// - Parameters:
    ///   - kite: its user must be proven.
    ///   - isPublic: whether its owner lets everybody in; else visitors must show a token or kite key for it, unless
    ///     ``GatewayOptions/KiteTunnels/publicKites`` names it.
    ///   - caller: its connection.
    /// - Returns: where visitors reach it, and the registration's number.
    /// - Throws: a sentence for the caller.
    package func registerTunnelled(
        _ kite: KiteIdentity, isPublic: Bool, caller: any KiteCaller
    ) async throws -> (url: String, registration: UInt64) {
        let key = RouteKey(kite.id)
        guard options.kiteTunnels.isEnabled else {
            throw RegistrationError("This gateway opens no tunnels to kites: register with the kite's own URL")
        }
        guard key.isKiteID else { throw RegistrationError("the kite's id is no UUID") }
        try await board.claim(kiteID: key, username: kite.username)
        let isOpen = isPublic || options.kiteTunnels.publicKites.contains { $0.matches(kite) }
        let number = kiteTunnels.book.enter(
            TunnelledKite(identity: kite, isPublic: isOpen, caller: caller), as: key)
        logger.info(
            "kite registered",
            metadata: [
                "kite": "\(key)", "name": "\(kite.name)", "user": "\(kite.username)", "target": "kite.tunnel",
                "public": "\(isOpen)",
            ])
        return (kiteTunnels.url(of: key), number)
    }

    /// The connection that registered a kite is gone. A newer registration stays, and so do sessions that the kite serves.
    package func unregisterTunnelled(kiteID: String, registration: UInt64) {
        let key = RouteKey(kiteID)
        if kiteTunnels.book.remove(key, registration: registration) {
            logger.info("kite unregistered", metadata: ["kite": "\(key)"])
        }
    }

    /// The kites that dial back, for operators.
    var kiteRoutes: [RouteStatus] {
        kiteTunnels.book.kites.map { kite in
            RouteStatus(
                name: kite.identity.id, kind: "kite", owner: kite.identity.username,
                publicURL: kiteTunnels.url(of: RouteKey(kite.identity.id)), targets: ["kite.tunnel"], lanes: 1,
                isServing: true)
        }
    }
}

extension RouteBoard {
    /// Takes a kite's id for a user, as a registration with a URL does.
    func claim(kiteID key: RouteKey, username: String) async throws {
        do {
            try await claim([(key, .passing)], username)
        } catch let refusal as TunnelRefusal {
            throw RegistrationError(refusal.reason)
        }
    }
}
