/// Tells a visitor's request for a kite that dials back from one for a route: by `kiteID=` in the query, below `/proxy`, or by the kite's
/// id or name in the path, as for every other kite.
import NIOCore

/// `/proxy?kiteID=ID`, `/proxy/info?kiteID=ID`, `/proxy/<server>/<session>/<transport>?kiteID=ID`; and what Go's XHR client makes of the
/// first, to which it appends its path: `/proxy?kiteID=ID/<server>/<session>/xhr`. Or `/proxy/<id or name>/<server>/<session>/<transport>`.
struct KiteSessionTarget: Sendable, Hashable {
    /// The kite's id, or a name.
    let kite: RouteKey
    /// The path below the SockJS service; empty, or beginning with a slash.
    let path: String

    /// Nil for every other target. Costs a look for a question mark where there is none.
    init?(_ target: ByteBuffer) {
        let view = target.readableBytesView
        guard view.starts(with: Self.prefix), let mark = view.firstIndex(of: UInt8(ascii: "?")) else { return nil }
        var path = view[(view.startIndex + Self.prefix.count)..<mark]
        guard path.isEmpty || path.first == UInt8(ascii: "/") else { return nil }
        var query = view[(mark + 1)...]
        while !query.isEmpty {
            let end = query.firstIndex(of: UInt8(ascii: "&")) ?? query.endIndex
            let pair = query[query.startIndex..<end]
            query = end == query.endIndex ? query[end...] : query[(end + 1)...]
            guard pair.starts(with: Self.parameter) else { continue }
            let value = pair[(pair.startIndex + Self.parameter.count)...]
            let id = value.prefix { $0 != UInt8(ascii: "/") }
            if id.endIndex < value.endIndex {
                guard path.isEmpty || path.count == 1 else { return nil }
                path = value[id.endIndex...]
            }
            guard id.count == 36, Self.isSockJS(path) else { return nil }
            let key = RouteKey(ByteBuffer(bytes: id))
            guard key.isKiteID else { return nil }
            kite = key
            self.path = String(decoding: path, as: UTF8.self)
            return
        }
        return nil
    }

    /// A request whose path names a kite.
    /// - Parameter droppedPathBytes: of the target, those in front of what is below the service.
    init(_ kite: RouteKey, in target: ByteBuffer, droppedPathBytes: Int) {
        self.kite = kite.detached
        let rest = target.readableBytesView.dropFirst(droppedPathBytes)
        path = String(decoding: rest.prefix { $0 != UInt8(ascii: "?") }, as: UTF8.self)
    }

    /// What a session was opened with: a target that has been served before.
    init?(opening target: String) {
        let target = ByteBuffer(string: target)
        if let asked = KiteSessionTarget(target) {
            self = asked
        } else if case .route(let key, let dropped, byHost: false) = Directory(domain: nil).destination(
            authority: ByteBuffer(), target: target)
        {
            self.init(key, in: target, droppedPathBytes: dropped)
        } else {
            return nil
        }
    }

    /// A route called by a name may have a query like ours: only the shapes of SockJS are meant, whose server is a number.
    private static func isSockJS(_ path: ByteBufferView) -> Bool {
        let parts = path.split(separator: UInt8(ascii: "/"))
        switch parts.count {
        case 0: return true
        case 1:
            let name = String(decoding: parts[0], as: UTF8.self)
            return name == "info" || name == "websocket" || (name.hasPrefix("iframe") && name.hasSuffix(".html"))
        case 3: return parts[0].count <= 4 && parts[0].allSatisfy { (0x30...0x39).contains($0) }
        default: return false
        }
    }

    /// What stands in a query under a name, as it is; nil when it is not there or empty.
    static func parameter(_ name: String, in target: String) -> String? {
        guard let mark = target.firstIndex(of: "?") else { return nil }
        for pair in target[target.index(after: mark)...].split(separator: "&") {
            let parts = pair.split(separator: "=", maxSplits: 1)
            if parts.count == 2, parts[0] == name { return String(parts[1]) }
        }
        return nil
    }

    private static let prefix = Array("/proxy".utf8)
    private static let parameter = Array("kiteID=".utf8)
}
