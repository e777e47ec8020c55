/// What an agent's session needs to know, and what it hands over.
public import NIOCore

/// What an agent session needs to know.
public struct TunnelAgentConfiguration: Sendable {
    /// The gateway, `http://` or `https://`.
    public var gateway: String
    /// The tunnels wanted, 1 to 64.
    public var tunnels: [TunnelRequest]
    /// Gives the bearer credential (kite key or Kontrol token) for each connection.
    public var credential: @Sendable () async throws -> String
    /// Name and version for the gateway's operator.
    public var software: String
    /// Whether ``TunnelEvent/note(_:)`` is wanted.
    public var wantsNotes: Bool
    /// How long streams may finish when the agent stops.
    public var drainTime: Duration = .seconds(2)
    /// How long the gateway may take from the connection to its WELCOME; then the connection is given up.
    public var welcomeTimeout: Duration = .seconds(10)

    public init(
        gateway: String, tunnels: [TunnelRequest], software: String = "KiteCore", wantsNotes: Bool = false,
        credential: @escaping @Sendable () async throws -> String
    ) {
        self.gateway = gateway
        self.tunnels = tunnels
        self.software = software
        self.wantsNotes = wantsNotes
        self.credential = credential
    }
}

/// A stream that a visitor's connection arrives on.
public struct IncomingTunnelStream {
    /// The bytes. Set its delegate before the handler returns, or `abort` it with `.refused`.
    public let stream: TunnelStream
    /// Index of the tunnel in ``TunnelAgentConfiguration/tunnels``.
    public let tunnel: Int
    /// What the stream was opened with.
    package let opening: StreamOpening
    /// The visitor's address, where known.
    public var clientAddress: SocketAddress? { opening.clientAddress }
    /// Whether the visitor's connection is encrypted.
    public var isSecure: Bool { opening.isSecure }
}

extension TunnelAgentConfiguration {
    /// Whether a gateway would understand it.
    /// - Throws: ``TunnelRefusal`` (400) with what is wrong.
    func check() throws(TunnelRefusal) {
        func refuse(_ reason: String) -> TunnelRefusal { TunnelRefusal(status: 400, reason: reason) }
        guard !tunnels.isEmpty else { throw refuse("no tunnel is asked for") }
        guard tunnels.count <= AgentHello.mostTunnels else {
            throw refuse(
                "\(tunnels.count) tunnels are asked for; one agent serves at most \(AgentHello.mostTunnels): start another for the rest"
            )
        }
        for tunnel in tunnels { try tunnel.check() }
        let hello = AgentHello(
            agent: "0123456789abcdef0123456789abcdef", epoch: .max, software: cut(software, to: 128),
            purpose: .open(tunnels), wantsNotes: true)
        guard hello.json().readableBytes <= TunnelWire.maximumPayload else {
            throw refuse("the names and paths of the tunnels are too long together: use shorter ones or fewer tunnels")
        }
    }
}
