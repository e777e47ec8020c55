/// The few URLs that the project deals with, taken apart strictly.

/// An `http`, `https`, `ws` or `wss` URL (RFC 3986). User information and fragments are refused, since neither belongs into what a kite registers
/// or an agent is given.
public struct URLParts: Sendable, Hashable, CustomStringConvertible {
    /// In lower case.
    public let scheme: String
    /// Without the brackets of an IPv6 literal, in lower case.
    public let host: String
    public let port: Int
    /// Begins with `/`; not decoded.
    public let path: String
    /// Without `?`; not decoded.
    public let query: String?
    /// Whether the port was given.
    let hasPort: Bool

    /// Nil when the text is no such URL, or is longer than 2,048 bytes.
    public init?(_ text: String) {
        guard text.utf8.count <= 2048, text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != 0x5C && $0 != 0x22 }),
            let mark = text.firstRange(of: "://")
        else { return nil }
        let scheme = text[..<mark.lowerBound].lowercased()
        guard ["http", "https", "ws", "wss"].contains(scheme) else { return nil }
        let rest = text[mark.upperBound...]
        let end = rest.firstIndex(where: { $0 == "/" || $0 == "?" || $0 == "#" }) ?? rest.endIndex
        let authority = rest[..<end]
        var remainder = rest[end...]
        guard !authority.isEmpty, !authority.contains("@"), !remainder.contains("#") else { return nil }

        var host = authority
        var portText: Substring?
        if authority.hasPrefix("[") {
            guard let close = authority.firstIndex(of: "]") else { return nil }
            host = authority[authority.index(after: authority.startIndex)..<close]
            let after = authority[authority.index(after: close)...]
            if !after.isEmpty {
                guard after.hasPrefix(":") else { return nil }
                portText = after.dropFirst()
            }
            guard host.contains(":"), host.utf8.allSatisfy(\.isAddressCharacter) else { return nil }
        } else {
            if let colon = authority.firstIndex(of: ":") {
                host = authority[..<colon]
                portText = authority[authority.index(after: colon)...]
            }
            guard host.utf8.allSatisfy(\.isHostCharacter) else { return nil }
        }
        guard !host.isEmpty, host.utf8.count <= 253 else { return nil }
        var port = scheme == "http" || scheme == "ws" ? 80 : 443
        if let portText {
            guard (1...5).contains(portText.utf8.count), portText.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }),
                let number = Int(portText), (1...65535).contains(number)
            else { return nil }
            port = number
        }
        var query: String?
        if let mark = remainder.firstIndex(of: "?") {
            query = String(remainder[remainder.index(after: mark)...])
            remainder = remainder[..<mark]
        }
        self.scheme = scheme
        self.host = host.lowercased()
        self.port = port
        hasPort = portText != nil
        path = remainder.isEmpty ? "/" : String(remainder)
        self.query = query
    }

    /// Whether TLS is spoken.
    public var isSecure: Bool { scheme == "https" || scheme == "wss" }

    /// Where to connect to.
    public var endpoint: Endpoint { Endpoint(.tcp(host: host, port: port), isSecure: isSecure) }

    /// Host and port as they stand in a Host field: without the scheme's own port.
    public var authority: String {
        let name = host.contains(":") ? "[\(host)]" : host
        return port == (isSecure ? 443 : 80) ? name : "\(name):\(port)"
    }

    /// Path and query.
    public var target: String { query.map { "\(path)?\($0)" } ?? path }

    public var description: String { "\(scheme)://\(authority)\(target)" }
}

extension UInt8 {
    /// Of a registered name or an IPv4 literal; `_` is tolerated.
    fileprivate var isHostCharacter: Bool {
        switch self {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F: true
        default: false
        }
    }

    /// Of an IPv6 literal.
    fileprivate var isAddressCharacter: Bool {
        switch self {
        case 0x30...0x3A, 0x41...0x46, 0x61...0x66, 0x2E: true
        default: false
        }
    }
}
