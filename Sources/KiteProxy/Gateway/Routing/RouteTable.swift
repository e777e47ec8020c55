/// Finds the route of a request; each event loop has its own table, so that nothing is shared on the way.
import NIOCore

/// What a route is found by: a name (the label under the gateway's domain, or the segment after `/proxy/`) or a kite id. All are in lower
/// case but the names of kites that Kontrol is asked for, whose case counts.
struct RouteKey: Hashable, Sendable, CustomStringConvertible {
    let bytes: ByteBuffer

    /// A name in lower case.
    init(_ name: String) { bytes = ByteBuffer(string: name.lowercased()) }

    /// A part of a request whose case does not count. Copies only where a letter is in upper case.
    init(_ part: ByteBuffer) {
        if part.readableBytesView.contains(where: { $0 >= 0x41 && $0 <= 0x5A }) {
            bytes = ByteBuffer(bytes: part.readableBytesView.lazy.map { $0 >= 0x41 && $0 <= 0x5A ? $0 | 0x20 : $0 })
        } else {
            bytes = part
        }
    }

    /// A part of a request whose case counts, unless it is a kite's id.
    init(asWritten part: ByteBuffer) {
        let inLowerCase = RouteKey(part)
        bytes = inLowerCase.isKiteID ? inLowerCase.bytes : part
    }

    /// The same whatever the case.
    var inLowerCase: RouteKey { RouteKey(bytes) }
    var hasCapitals: Bool { bytes.readableBytesView.contains { $0 >= 0x41 && $0 <= 0x5A } }

    /// Of no route.
    static let none = RouteKey("")

    /// With bytes of its own. What is kept beyond a request must not keep the whole of what was received with it.
    var detached: RouteKey { RouteKey(asWritten: ByteBuffer(bytes: bytes.readableBytesView)) }

    var description: String { String(buffer: bytes) }

    /// Whether it could be the name of a kite or of a route: 1 to 128 of letters, digits, `-`, `_` and `.`.
    var isName: Bool {
        (1...128).contains(bytes.readableBytes)
            && bytes.readableBytesView.allSatisfy { byte in
                switch byte {
                case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F: true
                default: false
                }
            }
    }

    /// Whether it looks like a kite's id: a UUID.
    var isKiteID: Bool {
        guard bytes.readableBytes == 36 else { return false }
        for (position, byte) in bytes.readableBytesView.enumerated() {
            switch position {
            case 8, 13, 18, 23: if byte != UInt8(ascii: "-") { return false }
            default:
                let isDigit = byte >= 0x30 && byte <= 0x39
                let isLetter = byte >= 0x61 && byte <= 0x66
                if !isDigit && !isLetter { return false }
            }
        }
        return true
    }
}

/// The routes one event loop knows.
struct RouteTable {
    private var routes: [RouteKey: Route] = [:]

    var count: Int { routes.count }
    var all: some Collection<Route> { routes.values }

    func find(_ key: RouteKey) -> Route? { routes[key] }

    /// The route that a request names. What agents and registrations have brought is found whatever the case; Kontrol's kites are told
    /// apart by it.
    func find(asWritten key: RouteKey) -> Route? {
        if key.hasCapitals, let route = routes[key.inLowerCase], route.spec.kind != .kontrol { return route }
        return routes[key]
    }
    mutating func insert(_ route: Route) { routes[route.key] = route }
    mutating func remove(_ key: RouteKey) { routes[key] = nil }
}

/// Where in the gateway a request belongs, by its host and path alone.
enum Destination {
    /// A route, and how many bytes of the target name it.
    case route(RouteKey, droppedPathBytes: Int, byHost: Bool)
    /// The tunnel door.
    case door
    /// The gateway's own kite.
    case kite
    /// A visitor's session with a kite that dials back.
    case kiteSession(KiteSessionTarget)
    /// A kite that dials back; how many bytes of the target say so.
    case kiteTunnel(droppedPathBytes: Int)
    /// The browser's kite client.
    case browserModule(BrowserModule)
    case nowhere

    /// The route that is named, if one is.
    var route: RouteKey? {
        if case .route(let key, _, _) = self { key } else { nil }
    }
}

/// Reads hosts and paths. One per gateway.
struct Directory: Sendable {
    /// In lower case.
    let domain: String?
    /// `.gateway.example`, in lower case; nil without a domain.
    private let suffix: [UInt8]?

    init(domain: String?) {
        self.domain = domain?.lowercased()
        suffix = domain.map { Array(".\($0.lowercased())".utf8) }
    }

    func destination(authority: ByteBuffer, target: ByteBuffer) -> Destination {
        if let label = label(of: authority) { return .route(RouteKey(label), droppedPathBytes: 0, byHost: true) }
        if let session = KiteSessionTarget(target) { return .kiteSession(session) }
        let path = target.readableBytesView
        if path.starts(with: Self.proxy) {
            var end = path.startIndex + Self.proxy.count
            let start = end
            while end < path.endIndex, path[end] != UInt8(ascii: "/"), path[end] != UInt8(ascii: "?") { end += 1 }
            guard end > start, let segment = target.getSlice(at: start, length: end - start) else { return .nowhere }
            return .route(RouteKey(asWritten: segment), droppedPathBytes: end - path.startIndex, byHost: false)
        }
        if Self.isAtOrBelow(path, Self.kite) { return .kite }
        if Self.isAtOrBelow(path, Self.door) { return .door }
        if Self.isAtOrBelow(path, Self.kiteTunnel) { return .kiteTunnel(droppedPathBytes: Self.kiteTunnel.count) }
        if path.starts(with: Self.own), let module = BrowserModule.at(path) { return .browserModule(module) }
        return .nowhere
    }

    /// The host of a route's own, in lower case, where a route is reached by its path; nil for other destinations and without a domain.
    func ownHost(of destination: Destination) -> ByteBuffer? {
        guard let suffix, case .route(let key, _, byHost: false) = destination else { return nil }
        var host = ByteBuffer()
        host.writeImmutableBuffer(key.inLowerCase.bytes)
        host.writeBytes(suffix)
        return host
    }

    /// The label in front of the domain, without the port; nil for any other host.
    private func label(of authority: ByteBuffer) -> ByteBuffer? {
        guard let suffix else { return nil }
        let host = authority.readableBytesView
        var end = host.endIndex
        if let colon = host.lastIndex(of: UInt8(ascii: ":")), !host.contains(UInt8(ascii: "]")) { end = colon }
        let length = end - host.startIndex - suffix.count
        guard length > 0 else { return nil }
        for (offset, byte) in suffix.enumerated() {
            let other = host[host.startIndex + length + offset]
            if (other >= 0x41 && other <= 0x5A ? other | 0x20 : other) != byte { return nil }
        }
        return authority.getSlice(at: host.startIndex, length: length)
    }

    private static func isAtOrBelow(_ path: ByteBufferView, _ prefix: [UInt8]) -> Bool {
        guard path.starts(with: prefix) else { return false }
        let next = path.startIndex + prefix.count
        return next == path.endIndex || path[next] == UInt8(ascii: "/") || path[next] == UInt8(ascii: "?")
    }

    private static let proxy = Array("/proxy/".utf8)
    private static let kite = Array("/kite".utf8)
    private static let own = Array("/-/".utf8)
    private static let door = Array("/-/tunnel".utf8)
    private static let kiteTunnel = Array("/tunnel".utf8)
}
