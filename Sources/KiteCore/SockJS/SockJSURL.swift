/// The address of a SockJS service, as a client is given it.
import KiteDialing

/// `<scheme>://<host>[:port]<path>[?query]`, taken apart.
struct SockJSURL: Sendable, Hashable {
    var endpoint: Endpoint
    /// What goes into Host.
    var authority: String
    /// What goes into Origin: the scheme as it was given, and the authority.
    var origin: String
    /// Without a slash at the end; may be empty.
    var path: String
    /// Without the question mark.
    var query: String?

    /// Why a text is no such address.
    struct Malformed: Error, Sendable, Hashable {
        var message: String
    }

    init(_ text: String) throws(Malformed) {
        guard let mark = text.firstRange(of: "://") else { throw Malformed(message: "The URL has no scheme.") }
        let scheme = text[..<mark.lowerBound].lowercased()
        let isSecure: Bool
        switch scheme {
        case "http", "ws": isSecure = false
        case "https", "wss": isSecure = true
        default: throw Malformed(message: "The URL's scheme must be http, https, ws or wss.")
        }
        var rest = text[mark.upperBound...].prefix { $0 != "#" }
        guard rest.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7F }) else {
            throw Malformed(message: "The URL has spaces or control characters in it.")
        }
        if let question = rest.firstIndex(of: "?") {
            query = String(rest[rest.index(after: question)...])
            rest = rest[..<question]
        }
        let slash = rest.firstIndex(of: "/") ?? rest.endIndex
        let authority = rest[..<slash]
        var path = rest[slash...]
        while path.last == "/" { path.removeLast() }
        self.path = String(path)
        guard !authority.contains("@") else { throw Malformed(message: "The URL must not hold a user or password.") }

        var host = authority
        var port = isSecure ? 443 : 80
        let colon = authority.lastIndex(of: ":")
        if let colon, authority[colon...].firstIndex(of: "]") == nil {
            let digits = authority[authority.index(after: colon)...]
            guard let number = UInt16(digits), number > 0 else {
                throw Malformed(message: "The URL's port is no port.")
            }
            port = Int(number)
            host = authority[..<colon]
        }
        if host.first == "[" {
            guard host.last == "]", host.count > 2 else { throw Malformed(message: "The URL's host is malformed.") }
            host = host.dropFirst().dropLast()
        } else if host.contains(":") {
            throw Malformed(message: "An IPv6 address in a URL stands in brackets.")
        }
        guard !host.isEmpty else { throw Malformed(message: "The URL has no host.") }
        endpoint = Endpoint(.tcp(host: String(host), port: port), isSecure: isSecure)
        self.authority = String(authority)
        origin = "\(scheme)://\(authority)"
    }

    /// The request target of a path below the service.
    func target(_ suffix: String) -> String {
        let whole = path + suffix
        return (whole.isEmpty ? "/" : whole) + (query.map { "?" + $0 } ?? "")
    }

    /// A fresh session's path, as Go clients choose it: three digits and twenty hexadecimal ones.
    static func sessionPath() -> String {
        let server = String(Int.random(in: 0...999))
        let session = (0..<20).map { _ in String(Int.random(in: 0...15), radix: 16) }.joined()
        return "/" + String(repeating: "0", count: 3 - server.count) + server + "/" + session
    }
}
