/// Which addresses the gateway connects to on behalf of others: a kite that registers a URL must not make it a way into the machine the
/// gateway runs on, or to a cloud's metadata service.
package import KiteHTTP
package import NIOCore

/// Decides about resolved addresses, at the time of connecting, so that a name cannot change its mind after it was checked.
package struct DirectTargetPolicy: Sendable, Hashable {
    private enum Loopback: Sendable, Hashable { case always, never, whenListeningThere }
    private var loopback: Loopback
    /// Refused besides what is always refused.
    package var denied: [AddressRange] = []
    /// Allowed whatever else says no.
    package var allowed: [AddressRange] = []

    /// Loopback targets only where the gateway itself listens on loopback alone, which is a machine of one's own.
    package static let derived = DirectTargetPolicy(loopback: .whenListeningThere)
    /// Loopback targets are allowed.
    package static let allowingLoopback = DirectTargetPolicy(loopback: .always)
    /// Loopback targets are refused.
    package static let refusingLoopback = DirectTargetPolicy(loopback: .never)

    private init(loopback: Loopback) { self.loopback = loopback }

    /// With the question of loopback answered.
    func resolved(listeningOn addresses: [SocketAddress]) -> DirectTargetPolicy {
        guard loopback == .whenListeningThere else { return self }
        let isOwnMachine =
            !addresses.isEmpty && addresses.allSatisfy { address in Self.loopback.contains { $0.contains(address) } }
        var policy = self
        policy.loopback = isOwnMachine ? .always : .never
        return policy
    }

    /// Whether a connection to the address may be opened.
    package func allows(_ address: SocketAddress) -> Bool {
        guard let bytes = AddressBytes(address) else { return false }
        if allowed.contains(where: { $0.contains(bytes) }) { return true }
        if denied.contains(where: { $0.contains(bytes) }) { return false }
        if Self.loopback.contains(where: { $0.contains(bytes) }) { return loopback == .always }
        return !Self.neverTargets.contains { $0.contains(bytes) }
    }

    private static let loopback = ["127.0.0.0/8", "::1"].compactMap(AddressRange.init)
    /// Unspecified, link-local (metadata services among them), multicast, broadcast and reserved; the IPv6 address of AWS's
    /// metadata service; addresses that translate to IPv4 behind our back (RFC 6052, 3056, 4380, and IPv4-compatible).
    private static let neverTargets = [
        "0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4", "100.100.100.200", "168.63.129.16", "192.0.0.192",
        "::/96", "fe80::/10", "ff00::/8", "fec0::/10", "fd00:ec2::254", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16",
        "2001::/32",
    ].compactMap(AddressRange.init)
}
