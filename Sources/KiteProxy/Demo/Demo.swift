/// The demo kite's tunnel, and what is printed once it serves.
import KiteCore
import KiteDialing
import KiteGateway
import KiteTunnel
import Logging
import NIOCore
import ServiceLifecycle

/// Exposes the demo kite through the gateway in the same process, and tells how to reach it.
struct Demo: Service {
    let gateway: Gateway
    let endpoint: KiteEndpoint
    let key: KiteKey
    let admin: SocketAddress
    let logger: Logger
    let write: @Sendable (String) -> Void

    func run() async throws {
        // Where binding fails, the gateway itself says why.
        guard let url = try? await gateway.publicURL() else { return try await gracefulShutdown() }
        let key = key.text
        let endpoint = endpoint
        let tunnel = EmbeddedTunnel(
            configuration: TunnelAgentConfiguration(
                gateway: url, tunnels: [TunnelRequest(name: "demo", kind: .http)], software: "kiteproxy demo",
                credential: { key }),
            dialer: try Dialer(), logger: logger
        ) { endpoint.acceptor(on: $0) }
        let (write, admin) = (write, admin)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                var isTold = false
                for await event in tunnel.events {
                    guard case .connected(let grants) = event, let url = grants.first?.url, !isTold else { continue }
                    isTold = true
                    write(Self.text(url: url, admin: admin))
                }
            }
            group.addTask { try await tunnel.run() }
            try await group.waitForAll()
        }
    }

    /// What the demo prints.
    static func text(url: String, admin: SocketAddress) -> String {
        """
        A kite that listens nowhere is on a public URL now:

          public URL  \(url)kite
          call it     curl \(url)square/4
          browser     \(url)
          dashboard   http://127.0.0.1:\(admin.port ?? 0)/

        On the page a browser calls the kite over SockJS, and the kite calls the page. Ctrl-C ends the demo; nothing stays behind.

        """
    }
}
