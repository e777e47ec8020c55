/// Where an outward connection goes.

/// A place one can connect to: a TCP or UNIX socket, with or without TLS.
public struct Endpoint: Sendable, Hashable, CustomStringConvertible {
    /// The socket to connect to.
    public enum Address: Sendable, Hashable {
        /// A host name or IP literal (without brackets) and a port.
        case tcp(host: String, port: Int)
        /// The path of a UNIX domain socket.
        case unix(path: String)
    }
    /// Where to connect.
    public var address: Address
    /// Whether TLS is spoken; the server's certificate is then verified against ``serverName``.
    public var isSecure: Bool
    /// The name for SNI and certificate verification; the host where nil.
    public var serverName: String?

    public init(_ address: Address, isSecure: Bool = false, serverName: String? = nil) {
        self.address = address
        self.isSecure = isSecure
        self.serverName = serverName
    }

    public var description: String {
        switch address {
        case .tcp(let host, let port): "\(isSecure ? "tls" : "tcp"):\(host.contains(":") ? "[\(host)]" : host):\(port)"
        case .unix(let path): "unix:\(path)"
        }
    }
}
