/// Which proxy an outward connection goes through, by the conventions of the environment variables that other programs follow.
import NIOCore

/// A proxy that outward connections can go through.
public struct ProxyServer: Sendable, Hashable {
    /// How one speaks to it.
    public enum Kind: Sendable, Hashable {
        /// HTTP CONNECT (RFC 9110 section 9.3.6).
        case http
        /// SOCKS5 (RFC 1928); names are resolved by the proxy.
        case socks5
    }
    /// Name and password. Never shown.
    public struct Credentials: Sendable, Hashable, CustomStringConvertible, CustomDebugStringConvertible,
        CustomReflectable
    {
        var user: String
        var password: String
        public init(user: String, password: String) {
            self.user = user
            self.password = password
        }
        public var description: String { "(credentials)" }
        public var debugDescription: String { description }
        public var customMirror: Mirror { Mirror(self, children: []) }
    }
    /// What it speaks.
    public var kind: Kind
    /// Its name or IP address.
    public var host: String
    /// Its port.
    public var port: Int
    /// What it is shown; nil: nothing.
    public var credentials: Credentials?

    public init(kind: Kind, host: String, port: Int, credentials: Credentials? = nil) {
        self.kind = kind
        self.host = host
        self.port = port
        self.credentials = credentials
    }
}

/// What `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` (or their lower-case forms, which win) say.
///
/// Loopback addresses, `localhost` and UNIX sockets are never reached through a proxy. `NO_PROXY` lists, separated by commas: `*`,
/// names (which stand for their subdomains too), names with a leading dot or `*.` (subdomains only), IP addresses and CIDR
/// blocks, each but the blocks with an optional `:port`.
public struct ProxyEnvironment: Sendable, Hashable {
    /// A variable's value is no URL of a proxy. The value is not repeated, for it may hold a password.
    public struct Invalid: Error, Sendable, Hashable, CustomStringConvertible {
        /// The variable that cannot be read.
        public let variable: String
        public var description: String {
            "\(variable) is no URL of a proxy (http://host:port or socks5://host:port, with user:password@ before the host if need be)"
        }
    }

    /// For connections with TLS.
    public var secure: ProxyServer?
    /// For connections without.
    public var plain: ProxyServer?
    private var exceptions: [Exception] = []

    private enum Exception: Sendable, Hashable {
        case everything
        case name(String, subdomainsOnly: Bool, port: Int?)
        case network([UInt8], prefix: Int, port: Int?)
    }

    /// No proxy at all.
    public init() {}

    /// - Parameter environment: the process's environment.
    /// - Throws: ``Invalid`` naming the variable that holds no URL of a proxy.
    public init(environment: [String: String]) throws(Invalid) {
        func value(_ name: String) -> (name: String, text: String)? {
            for name in [name, name.uppercased()] {
                // In a CGI program HTTP_PROXY is what a visitor sent as a field named Proxy.
                if name == "HTTP_PROXY" && environment["REQUEST_METHOD"] != nil { continue }
                if let text = environment[name], !text.isEmpty { return (name, text) }
            }
            return nil
        }
        func server(_ name: String) throws(Invalid) -> ProxyServer? {
            guard let (name, text) = value(name) else { return nil }
            guard let server = Self.parse(text) else {
                throw Invalid(variable: name)
            }
            return server
        }
        let all = try server("all_proxy")
        secure = try server("https_proxy") ?? all
        plain = try server("http_proxy") ?? all
        if let (_, list) = value("no_proxy") {
            exceptions = list.split(separator: ",").compactMap {
                Self.exception(Self.trim($0).lowercased())
            }
        }
    }

    /// The proxy to reach an endpoint through; nil is direct.
    public func proxy(for endpoint: Endpoint) -> ProxyServer? {
        guard case .tcp(let host, let port) = endpoint.address, let server = endpoint.isSecure ? secure : plain else {
            return nil
        }
        var name = host.lowercased()
        if name.hasSuffix(".") { name.removeLast() }
        let bytes = Self.bytes(name)
        if name == "localhost" || name.hasSuffix(".localhost") || bytes.map(Self.isLoopback) == true { return nil }
        for exception in exceptions {
            switch exception {
            case .everything: return nil
            case .name(let suffix, let subdomainsOnly, let only):
                guard only == nil || only == port else { continue }
                if name.hasSuffix("." + suffix) || (!subdomainsOnly && name == suffix) { return nil }
            case .network(let network, let prefix, let only):
                guard only == nil || only == port, let bytes, bytes.count == network.count else { continue }
                if Self.shares(bytes, network, bits: prefix) { return nil }
            }
        }
        return server
    }

    private static func parse(_ text: String) -> ProxyServer? {
        guard text.utf8.count <= 2048, text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else { return nil }
        var rest = text[...]
        var kind = ProxyServer.Kind.http
        var defaultPort = 80
        let lowercased = text.lowercased()
        for (prefix, meaning, port) in [
            ("http://", ProxyServer.Kind.http, 80), ("socks5://", .socks5, 1080), ("socks5h://", .socks5, 1080),
        ] where lowercased.hasPrefix(prefix) {
            rest = rest.dropFirst(prefix.count)
            (kind, defaultPort) = (meaning, port)
        }
        if rest.last == "/" { rest = rest.dropLast() }
        guard !rest.contains("/"), !rest.contains("?"), !rest.contains("#") else { return nil }
        var credentials: ProxyServer.Credentials?
        if let at = rest.lastIndex(of: "@") {
            let parts = rest[..<at].split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            guard let user = parts.first.flatMap(decode), let password = decode(parts.count > 1 ? parts[1] : "") else {
                return nil
            }
            credentials = ProxyServer.Credentials(user: user, password: password)
            rest = rest[rest.index(after: at)...]
        }
        guard let (host, port) = split(rest, defaultPort: defaultPort) else { return nil }
        return ProxyServer(kind: kind, host: host, port: port, credentials: credentials)
    }

    private static func exception(_ text: String) -> Exception? {
        if text == "*" { return .everything }
        if let slash = text.firstIndex(of: "/") {
            guard let network = bytes(String(text[..<slash])), let prefix = Int(text[text.index(after: slash)...]),
                (0...network.count * 8).contains(prefix)
            else { return nil }
            return .network(network, prefix: prefix, port: nil)
        }
        if let address = bytes(text) { return .network(address, prefix: address.count * 8, port: nil) }
        // `*.name` is how many write `.name`.
        let text = text.hasPrefix("*.") ? text.dropFirst() : text[...]
        let isSuffix = text.first == "."
        guard let (host, number) = split(isSuffix ? text.dropFirst() : text, defaultPort: 0) else { return nil }
        let port = number == 0 ? nil : number
        if !isSuffix, let address = bytes(host) {
            return .network(address, prefix: address.count * 8, port: port)
        }
        let name = host.hasSuffix(".") ? String(host.dropLast()) : host
        return name.isEmpty ? nil : .name(name, subdomainsOnly: isSuffix, port: port)
    }

    /// Splits `host`, `host:port` or `[address]:port`, by the rules for URLs.
    private static func split(_ text: Substring, defaultPort: Int) -> (host: String, port: Int)? {
        guard let parts = URLParts("http://\(text)"), parts.path == "/", parts.query == nil else { return nil }
        return (parts.host, parts.hasPort ? parts.port : defaultPort)
    }

    private static func trim(_ text: Substring) -> Substring {
        var text = text
        while text.first == " " || text.first == "\t" { text = text.dropFirst() }
        while text.last == " " || text.last == "\t" { text = text.dropLast() }
        return text
    }

    /// Undoes percent-encoding.
    private static func decode(_ text: Substring) -> String? {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard let high = rest.popFirst(), let low = rest.popFirst(),
                let value = UInt8(String(decoding: [high, low], as: UTF8.self), radix: 16), high != UInt8(ascii: "+")
            else { return nil }
            bytes.append(value)
        }
        return String(validating: bytes, as: UTF8.self)
    }

    /// The bytes of an IP address.
    private static func bytes(_ text: String) -> [UInt8]? {
        // Where the address lies in sockaddr_in and sockaddr_in6 is the same on every system.
        switch try? SocketAddress(ipAddress: text, port: 0) {
        case .v4(let address)?: withUnsafeBytes(of: address.address) { Array($0[4..<8]) }
        case .v6(let address)?: withUnsafeBytes(of: address.address) { Array($0[8..<24]) }
        case .unixDomainSocket?, nil: nil
        }
    }

    private static func isLoopback(_ bytes: [UInt8]) -> Bool {
        bytes.count == 4 ? bytes.first == 127 : bytes == Array(repeating: 0, count: 15) + [1]
    }

    private static func shares(_ one: [UInt8], _ other: [UInt8], bits: Int) -> Bool {
        for (position, (mine, theirs)) in zip(one, other).enumerated() {
            let left = bits - position * 8
            guard left > 0 else { return true }
            let mask: UInt8 = left >= 8 ? 0xFF : ~(0xFF >> UInt8(left))
            if (mine ^ theirs) & mask != 0 { return false }
        }
        return true
    }
}
