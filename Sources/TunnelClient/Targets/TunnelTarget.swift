/// What a tunnel leads to on the private side, read from what a person types.
import KiteDialing
import KiteTunnel

/// A private service.
struct TunnelTarget: Sendable, Hashable, CustomStringConvertible {
    let kind: TunnelKind
    /// Where to connect, tried in this order.
    let endpoints: [Endpoint]
    /// Of a kite: the path it is served at; otherwise empty.
    let path: String
    /// As it is shown.
    let description: String

    /// Reads a target: `8080`, `localhost:8080`, `http://…`, `https://…` or `unix:PATH` for `http` and `kite`, `5432` or `HOST:PORT` for
    /// `tcp`.
    /// - Throws: ``InvalidTarget`` saying what would be right.
    init(_ text: String, kind: TunnelKind) throws(InvalidTarget) {
        self.kind = kind
        guard !text.isEmpty, text.utf8.count <= 1024, text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
            throw InvalidTarget(text, kind)
        }
        if text.hasPrefix("unix:") {
            let path = String(text.dropFirst(5))
            // sun_path has room for 107 bytes and a zero.
            guard path.hasPrefix("/"), path.utf8.count <= 107 else {
                throw InvalidTarget("`\(text)`: a UNIX socket needs an absolute path of at most 107 bytes")
            }
            endpoints = [Endpoint(.unix(path: path))]
            self.path = ""
            description = text
            return
        }
        if let port = Self.port(text) {
            // A service that was told to listen on "localhost" has one of these, and rarely both.
            endpoints = ["127.0.0.1", "::1"].map { Endpoint(.tcp(host: $0, port: port)) }
            path = kind == .kite ? "/kite" : ""
            description = (kind == .tcp ? "" : "http://") + "localhost:\(port)"
            return
        }
        guard let mark = text.firstRange(of: "://") else {
            guard let (host, port) = Self.hostAndPort(text[...]), let port else { throw InvalidTarget(text, kind) }
            endpoints = [Endpoint(.tcp(host: host, port: port))]
            path = kind == .kite ? "/kite" : ""
            description = (kind == .tcp ? "" : "http://") + text
            return
        }
        let isSecure: Bool
        switch (text[..<mark.lowerBound].lowercased(), kind) {
        case ("http", .http), ("http", .kite), ("ws", .kite): isSecure = false
        case ("https", .http), ("https", .kite), ("wss", .kite): isSecure = true
        case ("tcp", .tcp): isSecure = false
        default: throw InvalidTarget(text, kind)
        }
        let rest = text[mark.upperBound...]
        let slash = rest.firstIndex(of: "/") ?? rest.endIndex
        guard let (host, port) = Self.hostAndPort(rest[..<slash]), kind != .tcp || port != nil else {
            throw InvalidTarget(text, kind)
        }
        var path = String(rest[slash...])
        guard !path.contains(where: { $0 == "?" || $0 == "#" }) else {
            throw InvalidTarget("`\(text)`: a target has no query and no fragment")
        }
        while path.hasSuffix("/") { path.removeLast() }
        guard kind == .kite || path.isEmpty else {
            throw InvalidTarget(
                "`\(text)`: a target has no path; what visitors ask for is passed on as it is. Leave `\(path)` out")
        }
        endpoints = [
            Endpoint(.tcp(host: host, port: port ?? (isSecure ? 443 : 80)), isSecure: isSecure)
        ]
        self.path = kind == .kite && path.isEmpty ? "/kite" : path
        description = text
    }

    private static func port(_ text: some StringProtocol) -> Int? {
        guard !text.isEmpty, text.utf8.count <= 5, text.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }),
            let port = Int(text), (1...65535).contains(port)
        else { return nil }
        return port
    }

    /// A host, without brackets, and a port where there is one.
    private static func hostAndPort(_ text: Substring) -> (String, Int?)? {
        var host = text
        var port: Int?
        if text.first == "[" {
            guard let end = text.firstIndex(of: "]") else { return nil }
            host = text[text.index(after: text.startIndex)..<end]
            guard host.contains(":") else { return nil }
            let rest = text[text.index(after: end)...]
            if !rest.isEmpty {
                guard rest.first == ":", let number = Self.port(rest.dropFirst()) else { return nil }
                port = number
            }
        } else if let colon = text.firstIndex(of: ":") {
            host = text[..<colon]
            guard let number = Self.port(text[text.index(after: colon)...]) else { return nil }
            port = number
        }
        let isName = host.utf8.allSatisfy { byte in
            switch byte {
            case 0x30...0x3A, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F, 0x25: true
            default: false
            }
        }
        guard !host.isEmpty, host.utf8.count <= 253, isName else { return nil }
        return (String(host), port)
    }
}

/// Why a text is no target, and what would be.
struct InvalidTarget: Error, Sendable, Hashable, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }

    init(_ text: String, _ kind: TunnelKind) {
        let forms =
            switch kind {
            case .http: "`8080`, `localhost:8080`, `http://host:port`, `https://host` or `unix:/path`"
            case .kite: "a URL such as `http://localhost:3636/kite`"
            case .tcp: "`5432` or `localhost:5432`"
            }
        description = "`\(text.prefix(100))` is no target: write \(forms)"
    }
}
