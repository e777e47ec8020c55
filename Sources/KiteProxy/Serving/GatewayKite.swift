/// The gateway's own kite, under the names that kites look for: its method `register` gives a kite a public URL.
import Foundation
import KiteCore
import KiteGateway
import KiteSupport
import Logging
import ServiceLifecycle
import Synchronization

/// The kite `proxy`, which is `tunnelproxy` too, and its method. Run it beside the gateway.
final class GatewayKite: Service {
    let kite: Kite
    /// Serves the kite on the gateway's listeners.
    let endpoint: KiteEndpoint
    private let gateway = Mutex<Gateway?>(nil)
    private let registrations = Mutex(RegistrationLedger())
    /// Registrations whose connection has ended. There are never more than have been made, so nothing is dropped.
    private let endings: AsyncStream<RegistrationLedger.Entry>
    private let ended: AsyncStream<RegistrationLedger.Entry>.Continuation

    /// - Parameter verifier: whose word about users is taken.
    init(identity: KiteIdentity, key: KiteKey?, verifier: TokenVerifier, logger: Logger) {
        var configuration = KiteConfiguration()
        configuration.username = identity.username
        configuration.environment = identity.environment
        configuration.region = identity.region
        configuration.hostname = identity.hostname
        configuration.id = identity.id
        configuration.kiteKey = key
        // Callers only register; what Kontrol answers may be longer.
        configuration.limits.maximumServedMessageSize = 256 << 10
        kite = Kite(
            name: identity.name, version: identity.version, configuration: configuration,
            authenticator: EitherNameAuthenticator(verifier: verifier), logger: logger)
        endpoint = KiteEndpoint(kite: kite)
        (endings, ended) = AsyncStream.makeStream()
        kite.handle("register") { [weak self] request in
            guard let self else { throw KiteError(.generic, "The gateway is shutting down") }
            return try await self.register(request)
        }
    }

    /// The kite under whose name Go's kites look for a gateway that opens tunnels to them; for Kontrol only, which calls it over the
    /// connection by which it registers. Visitors of either name are served by ``kite``.
    func makeNamesake(logger: Logger) -> Kite {
        var configuration = kite.configuration
        configuration.id = UUID().uuidString.lowercased()
        return Kite(
            name: EitherNameAuthenticator.tunnelName, version: kite.identity.version, configuration: configuration,
            logger: logger)
    }

    /// Must be called before kites can register.
    func attach(_ gateway: Gateway) { self.gateway.withLock { $0 = gateway } }

    private func register(_ request: KiteRequest) async throws -> String {
        let wanted = try RegistrationArguments(request)
        guard let username = request.username, let gateway = gateway.withLock({ $0 }) else {
            throw KiteError(.authentication, "No authentication information is provided")
        }
        let id = request.caller.id
        do {
            guard let url = wanted.url else {
                var identity = request.caller
                identity.username = username
                let registered = try await gateway.registerTunnelled(
                    identity, isPublic: wanted.isPublic, caller: request.remote)
                keep(.init(kiteID: id, dialsBack: true), registered.registration, of: request.remote)
                return registered.url
            }
            let registered = try await gateway.register(kiteID: id, url: url, username: username)
            keep(.init(kiteID: id, dialsBack: false), registered.registration, of: request.remote)
            return registered.url
        } catch {
            throw KiteError(.generic, "\(error)")
        }
    }

    /// The route lives as long as the connection; a newer registration of the kite is left alone.
    private func keep(_ route: RegistrationLedger.Route, _ registration: UInt64, of remote: RemoteKite) {
        let entry = RegistrationLedger.Entry(route: route, registration: registration)
        let connection = remote.connectionID
        if registrations.withLock({ $0.add(entry, of: connection) }) {
            remote.onDisconnect { [weak self] in self?.end(connection) }
        }
    }

    private func end(_ connection: UInt64) {
        for entry in registrations.withLock({ $0.end(of: connection) }) { ended.yield(entry) }
    }

    private func unregister() async {
        for await entry in endings {
            guard let gateway = gateway.withLock({ $0 }) else { continue }
            if entry.route.dialsBack {
                gateway.unregisterTunnelled(kiteID: entry.route.kiteID, registration: entry.registration)
            } else {
                await gateway.unregister(kiteID: entry.route.kiteID, registration: entry.registration)
            }
        }
    }

    func run() async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { await cancelWhenGracefulShutdown { await self.unregister() } }
            group.addTask { try await self.endpoint.run() }
            try await group.waitForAll()
        }
    }
}

/// What a kite says when it registers: `[url]` as Go's kites, or `[url, {public: …}]`, or `[{url: …, public: …}]`.
struct RegistrationArguments: Sendable, Hashable {
    /// Where the kite is reached; nil when it is not and dials back.
    var url: String?
    /// Whether its owner lets everybody in.
    var isPublic = false

    private struct Options: Decodable {
        var url: String?
        var `public`: Bool?
    }

    /// - Throws: ``KiteError`` of type `argumentError`.
    init(_ request: KiteRequest) throws(KiteError) {
        var options: Options?
        switch request.arguments.first {
        case .object: options = try request.argument(0)
        default:
            url = try request.argument(0)
            options = try request.argument(1)
        }
        url = options?.url ?? url
        if url?.isEmpty == true { url = nil }
        isPublic = options?.public ?? false
    }
}

/// Lets callers in whose token is for either name of the gateway's kite: they found it under one of them.
struct EitherNameAuthenticator: KiteAuthenticator {
    let verifier: TokenVerifier
    /// The name under which Go's kites look for a gateway that opens tunnels to them.
    static let tunnelName = "tunnelproxy"

    func authenticate(_ authentication: Authentication?, for kite: KiteIdentity) async throws(KiteError) -> String {
        let asProxy: KiteError
        do throws(KiteError) {
            return try verifier.credential(authentication, for: kite).username
        } catch {
            asProxy = error
        }
        var other = kite
        other.name = Self.tunnelName
        do throws(KiteError) {
            return try verifier.credential(authentication, for: other).username
        } catch {
            throw asProxy
        }
    }
}
