/// The gateway's own kite, under the name that kites look for: its method `register` gives a kite a public URL.
import KiteCore
import KiteGateway
import KiteSupport
import Logging
import ServiceLifecycle
import Synchronization

/// The kite `proxy` and its method. Run it beside the gateway.
final class GatewayKite: Service {
    let kite: Kite
    /// Serves the kite on the gateway's listeners.
    let endpoint: KiteEndpoint
    private let gateway = Mutex<Gateway?>(nil)
    private let registrations = TaskPool(limit: 4096)

    /// - Parameter verifier: whose word about users is taken.
    init(identity: KiteIdentity, key: KiteKey?, verifier: TokenVerifier, logger: Logger) {
        var configuration = KiteConfiguration()
        configuration.username = identity.username
        configuration.environment = identity.environment
        configuration.region = identity.region
        configuration.hostname = identity.hostname
        configuration.id = identity.id
        configuration.kiteKey = key
        kite = Kite(
            name: identity.name, version: identity.version, configuration: configuration, authenticator: verifier,
            logger: logger)
        endpoint = KiteEndpoint(kite: kite)
        kite.handle("register") { [weak self] request in
            guard let self else { throw KiteError(.generic, "The gateway is shutting down") }
            return try await self.register(request)
        }
    }

    /// Must be called before kites can register.
    func attach(_ gateway: Gateway) { self.gateway.withLock { $0 = gateway } }

    private func register(_ request: KiteRequest) async throws -> String {
        let url: String? = try? request.argument(0)
        guard let username = request.username, let gateway = gateway.withLock({ $0 }) else {
            throw KiteError(.authentication, "No authentication information is provided")
        }
        guard let url, !url.isEmpty else {
            throw KiteError(
                .argument,
                "This gateway opens no tunnels to kites that dial back (kite.tunnel): register with the kite's own URL, or run tunnelclient beside the kite"
            )
        }
        let id = request.caller.id
        do {
            let registered = try await gateway.register(kiteID: id, url: url, username: username)
            // The route lives as long as the connection; a newer registration of the kite is left alone.
            request.remote.onDisconnect { [registrations] in
                _ = registrations.spawn {
                    await gateway.unregister(kiteID: id, registration: registered.registration)
                }
            }
            return registered.url
        } catch {
            throw KiteError(.generic, "\(error)")
        }
    }

    func run() async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await self.registrations.run() }
            group.addTask { try await self.endpoint.run() }
            try await group.waitForAll()
        }
    }
}
