/// The URL of a gateway, taken apart.
import Foundation
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
        guard let parts = URLComponents(string: text), let scheme = parts.scheme?.lowercased(),
            scheme == "http" || scheme == "https", var host = parts.host, !host.isEmpty, parts.user == nil,
            parts.query == nil, (1...65_535).contains(parts.port ?? 80)
        else {
            throw TunnelRefusal(
                status: 400, reason: "'\(cut(text, to: 200))' is no http:// or https:// URL of a gateway")
        }
        let isSecure = scheme == "https"
        if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
        endpoint = Endpoint(.tcp(host: host, port: parts.port ?? (isSecure ? 443 : 80)), isSecure: isSecure)
        let shown = host.contains(":") ? "[\(host)]" : host
        authority = parts.port.map { "\(shown):\($0)" } ?? shown
        var path = parts.percentEncodedPath
        while path.hasSuffix("/") { path.removeLast() }
        target = path + TunnelWire.path
        url = text
    }
}
