/// A kite reached through a gateway, without an agent and without listening anywhere.
public import KiteDialing
import KiteSupport
public import KiteTunnel
import Logging
public import ServiceLifecycle

/// A kite and the tunnel that leads to it. Give it to the service group, or call ``Kite/expose(through:as:isPublic:onURL:)``.
public final class ExposedKite: Service {
    /// There is nothing to prove to the gateway whose kite this is.
    public struct NoCredential: Error, CustomStringConvertible {
        public let description =
            "The kite has no kite key to show to the gateway: set KiteConfiguration.kiteKey, or give a credential."
    }

    /// It is not said through which gateway.
    public struct NoGateway: Error, CustomStringConvertible {
        public let description =
            "No gateway to expose the kite through: set KITE_PROXY_URL or KiteConfiguration.proxyURL, or give one."
    }

    private let tunnel: EmbeddedTunnel
    private let endpoint: KiteEndpoint

    /// - Parameters:
    ///   - gateway: the gateway's URL, `http` or `https`; a path in it is ignored. ``KiteConfiguration/proxyURL`` where nil.
    ///   - name: the name to be reachable by, a DNS label; the gateway gives one where nil.
    ///   - isPublic: whether visitors may come without signing in at the gateway; its policy where nil. The kite's own methods demand
    ///     what they demand in any case.
    ///   - credential: gives a kite key or a token for each connection to the gateway; the configuration's kite key where nil.
    /// - Throws: ``NoCredential``, ``NoGateway``.
    public init(
        _ kite: Kite, gateway: String? = nil, name: String? = nil, isPublic: Bool? = nil, dialer: Dialer,
        credential: (@Sendable () async throws -> String)? = nil
    ) throws {
        let key = kite.configuration.kiteKey?.text
        guard let gateway = gateway ?? kite.configuration.proxyURL else { throw NoGateway() }
        guard credential != nil || key != nil else { throw NoCredential() }
        let endpoint = KiteEndpoint(kite: kite)
        self.endpoint = endpoint
        let identity = kite.identity
        let request = TunnelRequest(
            name: name, kind: .kite, kiteID: identity.id, kiteName: identity.name, kiteVersion: identity.version,
            path: endpoint.path, isPublic: isPublic)
        tunnel = EmbeddedTunnel(
            configuration: TunnelAgentConfiguration(
                gateway: gateway, tunnels: [request], software: "\(identity.name)/\(identity.version)",
                credential: { if let credential { try await credential() } else { key ?? "" } }),
            dialer: dialer, logger: kite.logger
        ) { endpoint.acceptor(on: $0) }
    }

    /// What happens to the tunnel; ``TunnelEvent/connected(_:)`` brings the URL. For one consumer.
    public var events: AsyncStream<TunnelEvent> { tunnel.events }

    /// Keeps the tunnel and serves the kite until the task is cancelled or the service group shuts down.
    /// - Throws: ``TunnelRefusal`` when the gateway refuses for good.
    public func run() async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await self.endpoint.run() }
            group.addTask { try await self.tunnel.run() }
            // Whichever ends first ends the other.
            defer { group.cancelAll() }
            try await group.next()
        }
    }
}

extension Kite {
    /// Makes the kite reachable through a gateway until the task is cancelled or the service group shuts down. The gateway is dialled
    /// through the proxy that the process's environment names, if it does.
    /// - Parameters:
    ///   - gateway: the gateway's URL, `http` or `https`; a path in it is ignored. ``KiteConfiguration/proxyURL`` where nil.
    ///   - name: the name to be reachable by, a DNS label; the gateway gives one where nil.
    ///   - isPublic: whether visitors may come without signing in at the gateway; its policy where nil.
    ///   - onURL: called with the public URL, each time the gateway (newly) serves it.
    /// - Throws: ``ExposedKite/NoCredential`` without a kite key in the configuration, ``ExposedKite/NoGateway``, ``TunnelRefusal`` when
    ///   the gateway refuses for good.
    public func expose(
        through gateway: String? = nil, as name: String? = nil, isPublic: Bool? = nil,
        onURL: @escaping @Sendable (String) -> Void = { _ in }
    ) async throws {
        let exposed = try ExposedKite(self, gateway: gateway, name: name, isPublic: isPublic, dialer: .ofProcess())
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { [logger] in
                for await event in exposed.events {
                    guard case .connected(let grants) = event, let url = grants.first?.url else { continue }
                    logger.info("The kite is reachable", metadata: ["url": "\(url)"])
                    onURL(url)
                }
            }
            defer { group.cancelAll() }
            try await exposed.run()
        }
    }
}
