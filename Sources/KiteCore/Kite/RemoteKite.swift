/// The kite at the other end of a connection.
public import KiteDnode
public import KiteSockJS

/// A connected kite. Two values are equal when they stand for the same connection.
public struct RemoteKite: KiteCaller, Hashable {
    let connection: KiteConnection

    /// A number for this connection, unique in the process.
    public var connectionID: UInt64 { connection.id }
    /// Who it said it is in its latest call; nil before it called. Its word, not proven.
    public var identity: KiteIdentity? { connection.peerIdentity }
    /// What is known of the connection.
    public var peer: MessagePeer { connection.channel.peer }
    /// Whether the connection has ended.
    public var isClosed: Bool { connection.isClosed }

    /// How long calls may take that do not say it themselves.
    public var callTimeout: Duration { connection.kite.configuration.timeout }

    public func call(_ method: String, arguments: [DnodeValue], timeout: Duration?) async throws -> DnodeValue {
        try await connection.call(method, arguments: arguments, authentication: nil, timeout: timeout)
    }

    /// Ends the connection.
    public func close() { connection.close(code: 3000, reason: "Go away!") }

    /// Calls `body` once, when the connection has ended; at once when it has already.
    public func onDisconnect(_ body: @escaping @Sendable () -> Void) { connection.onClose(body) }

    /// Forgets a function that was handed to the other side; it can no longer be called from there.
    public func release(_ function: DnodeFunction) { connection.release(function) }

    public static func == (left: Self, right: Self) -> Bool { left.connection === right.connection }
    public func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(connection)) }
}
