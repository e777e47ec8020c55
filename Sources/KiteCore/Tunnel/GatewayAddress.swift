/// The URL of a gateway, taken apart.
import KiteDialing

/// Where a gateway accepts lanes.
struct GatewayAddress: Sendable, Hashable {
    /// The socket to connect to.
    var endpoint: Endpoint
    /// For the Host field.
    var authority: String
    /// The path of the tunnel door.
    var target: String
    /// As it was given.
    var url: String

    /// - Parameter url: `http://` or `https://`, a host, a port where it is not the scheme's, a path where the gateway is served under one.
    /// - Throws: ``TunnelRefusal`` (400) with what is wrong.
    init(url text: String) throws(TunnelRefusal) {
        guard let parts = URLParts(text), parts.scheme == "http" || parts.scheme == "https", parts.query == nil else {
            throw TunnelRefusal(
                status: 400, reason: "'\(cut(text, to: 200))' is no http:// or https:// URL of a gateway")
        }
        endpoint = parts.endpoint
        authority = parts.authority
        var path = parts.path
        while path.hasSuffix("/") { path.removeLast() }
        target = path + TunnelWire.path
        url = text
    }
}
