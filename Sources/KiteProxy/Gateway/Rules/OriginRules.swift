/// Which pages' scripts may talk to what is served: CORS (Fetch standard), and the same for WebSockets, which CORS does not cover.
import KiteHTTP
import NIOCore

/// A list of origins. Without one everything is as the services themselves say it.
struct OriginRules: Sendable {
    /// What the origin of a request may do.
    enum Permission: Sendable {
        /// The request names none, or its own host: CORS has nothing to do with it.
        case notNeeded
        /// Any origin may, without credentials.
        case anyone
        /// This one may, with credentials.
        case origin(ByteBuffer)
        case none
    }
    private let all: Bool
    private let origins: Set<ByteBuffer>

    /// - Returns: nil for an empty list: no rule.
    init?(_ texts: [String]) {
        guard !texts.isEmpty else { return nil }
        all = texts.contains("*")
        origins = Set(texts.map { ByteBuffer(string: $0.lowercased()) })
    }

    /// Whether a text can stand in the list: `*`, or an origin as browsers write it.
    static func isOrigin(_ text: String) -> Bool {
        guard text != "*" else { return true }
        guard case .url(let url, _, let authority) = RedirectTarget(text) else { return false }
        return url.lowercased().hasSuffix("://" + authority)
    }

    func permission(of request: RequestHead) -> Permission {
        let fields = request.fields
        guard fields.has(.origin) else { return .notNeeded }
        guard fields.occurrences(.origin) == 1, let view = fields.first(.origin), view.count <= 512 else {
            return .none
        }
        let origin = RouteKey(ByteBuffer(bytes: view)).bytes
        if isOwn(origin, request) { return .notNeeded }
        if origins.contains(origin) { return .origin(ByteBuffer(bytes: view)) }
        return all ? .anyone : .none
    }

    private func isOwn(_ origin: ByteBuffer, _ request: RequestHead) -> Bool {
        let text = origin.readableBytesView
        guard let colon = text.firstIndex(of: UInt8(ascii: ":")), text.count > colon - text.startIndex + 3 else {
            return false
        }
        return text[(colon + 3)...].elementsEqual(RouteKey(request.authority).bytes.readableBytesView)
    }

    /// Whether this is a browser's question before a request (preflight).
    static func isPreflight(_ request: RequestHead) -> Bool {
        request.method == .options && request.fields.text("Access-Control-Request-Method") != nil
    }

    /// The answer to such a question.
    func preflight(_ request: RequestHead, _ permission: Permission) -> ResponseHead {
        var head = ResponseHead(status: 204)
        apply(to: &head.fields, permission)
        head.fields.append(
            "Access-Control-Allow-Methods", request.fields.text("Access-Control-Request-Method") ?? "GET")
        if let wanted = request.fields.text("Access-Control-Request-Headers"), !wanted.isEmpty {
            head.fields.append("Access-Control-Allow-Headers", wanted)
        }
        head.fields.append("Access-Control-Max-Age", "600")
        return head
    }

    /// Puts our word in place of what a service says about origins.
    func apply(to fields: inout HeaderBlock, _ permission: Permission) {
        let old = fields
        fields = old.copy(reserving: 192) {
            let name = old.name(at: $0)
            return !name.equalsIgnoringCase("Access-Control-Allow-Origin")
                && !name.equalsIgnoringCase("Access-Control-Allow-Credentials")
        }
        switch permission {
        case .notNeeded, .none: break
        case .anyone: fields.append("Access-Control-Allow-Origin", "*")
        case .origin(let origin):
            fields.append(
                name: ByteBuffer(staticString: "Access-Control-Allow-Origin").readableBytesView,
                value: origin.readableBytesView)
            fields.append("Access-Control-Allow-Credentials", "true")
        }
        if !fields.contains(.vary, token: "Origin"), !fields.contains(.vary, token: "*") {
            fields.append("Vary", "Origin")
        }
    }
}

package enum OriginText {
    /// Whether a text can stand in a list of origins: `*`, or an origin as browsers write it, such as `https://app.example.com`.
    package static func isOrigin(_ text: String) -> Bool { OriginRules.isOrigin(text) }
}
