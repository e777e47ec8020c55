/// Kites that register an address of their own.
import KiteDialing
import KiteTunnel
import Logging
import NIOCore

extension RouteBoard {
    /// A kite registers the address it is reached at.
    /// - Returns: where visitors reach it, and what ``unregister(_:registration:)`` wants to know.
    func register(kiteID: String, url: String, username: String) async throws -> (url: String, registration: UInt64) {
        let key = RouteKey(kiteID)
        guard key.isKiteID else { throw RegistrationError("the kite's id is no UUID") }
        guard let parts = URLParts(url) else {
            throw RegistrationError("the URL is none that a kite can be reached at")
        }
        let target = DirectTarget(parts)
        if case .tcp(let host, let port) = target.endpoint.address,
            let address = try? SocketAddress(ipAddress: host, port: port), !policy.allows(address)
        {
            throw RegistrationError("this gateway connects to no address like \(host)")
        }
        do {
            try await claim([(key, .passing)], username)
        } catch let refusal as TunnelRefusal {
            throw RegistrationError(refusal.reason)
        }
        nextRegistration += 1
        direct[key] = DirectRoute(username: username, registration: nextRegistration, url: url)
        let spec = RouteSpec(key: key, kind: .direct, owner: username, path: target.path)
        for worker in workers { _ = await worker.ask { $0.install(spec, target: target) } }
        logger.info(
            "kite registered", metadata: ["kite": "\(key)", "user": "\(username)", "target": "\(target.endpoint)"])
        return (publicURL + "/proxy/\(key)", nextRegistration)
    }

    /// The connection that registered a kite is gone. A newer registration stays.
    func unregister(kiteID: String, registration: UInt64) async {
        let key = RouteKey(kiteID)
        guard let route = direct[key], route.registration == registration else { return }
        direct[key] = nil
        // The id stays the user's, so that nobody can take it while the kite is away.
        let remaining = isTunnelled(key) ? tunnelSpecs[key] : nil
        for worker in workers { _ = await worker.ask { $0.uninstallTarget(key, remaining: remaining) } }
        logger.info("kite unregistered", metadata: ["kite": "\(key)", "user": "\(route.username)"])
    }
}

/// Why a kite could not register an address.
struct RegistrationError: Error, Sendable, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
