/// Serves the browser's kite client, an ES module and its types, to pages of any origin.
import KiteHTTP
import NIOCore

/// A file of the module, as it is served. The files are compiled into the program, which needs nothing beside itself.
struct BrowserModule: Sendable {
    /// Where it is, below the gateway's address. Pages import it by this path: it stays.
    let path: String
    let type: String
    let body: ByteBuffer
    /// Strong; it changes with the content.
    let tag: String

    static let all = [
        BrowserModule(path: "/-/kite.js", type: "text/javascript; charset=utf-8", PackageResources.kite_js),
        BrowserModule(path: "/-/kite.d.ts", type: "application/typescript; charset=utf-8", PackageResources.kite_d_ts),
    ]

    init(path: String, type: String, _ content: [UInt8]) {
        self.path = path
        self.type = type
        body = ByteBuffer(bytes: content)
        // FNV-1a: it tells versions apart, and protects nothing.
        let hash = content.reduce(0xCBF2_9CE4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
        tag = "\"\(String(hash, radix: 16))\""
    }

    /// The file that a request's target names, whatever its query.
    static func at(_ target: ByteBufferView) -> BrowserModule? {
        let path = target.prefix { $0 != UInt8(ascii: "?") }
        return all.first { path.elementsEqual($0.path.utf8) }
    }

    /// Whether the visitor has this very file (RFC 9110 section 13.1.2).
    private func isKnown(to request: RequestHead) -> Bool {
        for position in 0..<request.fields.count where request.fields.field(at: position) == .other {
            guard request.fields.name(at: position).equalsIgnoringCase("If-None-Match") else { continue }
            for part in request.fields.value(at: position).split(separator: UInt8(ascii: ",")) {
                let member = part.trimmingWhitespace()
                let weak = member.starts(with: "W/".utf8) ? member.dropFirst(2) : member
                if weak.elementsEqual(tag.utf8) || member.elementsEqual("*".utf8) { return true }
            }
        }
        return false
    }

    /// Answers GET and HEAD. Anybody may read it: it is the same for all, and holds nothing of the visitor.
    /// - Returns: the status; nil where the method is another.
    func answer(_ exchange: any Exchange) -> UInt16? {
        guard exchange.request.method == .get || exchange.request.method == .head else { return nil }
        var fields = HeaderBlock([
            "ETag": tag, "Cache-Control": "public, max-age=300", "Access-Control-Allow-Origin": "*",
            "Cross-Origin-Resource-Policy": "cross-origin",
        ])
        if isKnown(to: exchange.request) {
            exchange.respond(ResponseHead(status: 304, fields: fields))
            exchange.finish(trailers: nil)
            return 304
        }
        fields.append("Content-Type", type)
        fields.append("X-Content-Type-Options", "nosniff")
        // Where tools that read modules by URL look for the types.
        if path == "/-/kite.js" { fields.append("X-TypeScript-Types", "./kite.d.ts") }
        exchange.respond(ResponseHead(status: 200, fields: fields), body: body)
        return 200
    }
}
