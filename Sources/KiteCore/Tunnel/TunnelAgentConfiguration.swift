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
