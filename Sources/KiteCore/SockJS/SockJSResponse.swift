/// The response heads of SockJS: content types, caching, CORS and the cookie, as sockjs-protocol wants them.
import KiteHTTP
import NIOCore

/// Makes heads and small answers.
enum SockJSResponse {
    enum Caching {
        case unspecified
        /// Responses that hold private data must not be kept by anyone.
        case never
        case year
    }

    /// Which origins may read the answer.
    enum CrossOrigin {
        case unspecified
        /// The request's origin with credentials, everybody without.
        case echo
        /// The same, but `null` (a page without an origin) counts as none: EventSource.
        case echoExceptNull
    }

    static let plainText = "text/plain; charset=UTF-8"
    static let script = "application/javascript; charset=UTF-8"

    static func head(
        _ status: UInt16, contentType: String? = nil, caching: Caching = .unspecified,
        crossOrigin: CrossOrigin = .unspecified, for request: RequestHead, setsCookie: Bool = false
    ) -> ResponseHead {
        var fields = HeaderBlock()
        if let contentType { fields.append("Content-Type", contentType) }
        switch caching {
        case .unspecified: break
        case .never:
            fields.append("Cache-Control", "no-store, no-cache, no-transform, must-revalidate, max-age=0")
        case .year:
            fields.append("Cache-Control", "public, max-age=31536000")
            fields.append("Expires", "Thu, 31 Dec 2037 23:55:55 GMT")
        }
        if crossOrigin != .unspecified {
            let origin = request.fields.text(.origin) ?? ""
            if origin.isEmpty || (crossOrigin == .echoExceptNull && origin == "null") {
                fields.append("Access-Control-Allow-Origin", "*")
            } else {
                fields.append("Access-Control-Allow-Origin", origin)
                fields.append("Access-Control-Allow-Credentials", "true")
            }
            fields.append("Vary", "Origin")
            if let wanted = request.fields.text("Access-Control-Request-Headers"), !wanted.isEmpty {
                fields.append("Access-Control-Allow-Headers", wanted)
            }
        }
        if setsCookie { fields.append("Set-Cookie", "JSESSIONID=\(sessionCookie(request) ?? "dummy"); path=/") }
        return ResponseHead(status: status, fields: fields)
    }

    /// The answer to a preflight request.
    static func options(_ methods: String, for request: RequestHead, setsCookie: Bool) -> ResponseHead {
        var head = head(204, caching: .year, crossOrigin: .echo, for: request, setsCookie: setsCookie)
        head.fields.append("Access-Control-Allow-Methods", methods)
        head.fields.append("Access-Control-Max-Age", "31536000")
        return head
    }

    static func notFound(_ exchange: any Exchange) {
        exchange.respond(
            head(404, contentType: plainText, for: exchange.request),
            body: ByteBuffer(string: "404 Error: Page not found\n"))
    }

    static func methodNotAllowed(_ exchange: any Exchange, allowed: String) {
        var head = head(405, for: exchange.request)
        head.fields.append("Allow", allowed)
        exchange.respond(head, body: ByteBuffer())
    }

    /// The JSESSIONID that the client sent; load balancers may have put their own mark into it.
    private static func sessionCookie(_ request: RequestHead) -> String? {
        for position in 0..<request.fields.count where request.fields.field(at: position) == .cookie {
            for pair in request.fields.value(at: position).split(separator: UInt8(ascii: ";")) {
                let text = String(decoding: pair.trimmingWhitespace(), as: UTF8.self)
                if text.hasPrefix("JSESSIONID="), text.utf8.count <= 256 { return String(text.dropFirst(11)) }
            }
        }
        return nil
    }
}
