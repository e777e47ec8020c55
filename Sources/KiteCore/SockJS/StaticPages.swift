/// What a SockJS service says without a session: the greeting, `/info` and the iframe page.
import KiteHTTP
import NIOCore

extension SockJSService {
    func serveGreeting(_ exchange: any Exchange) {
        exchange.respond(
            SockJSResponse.head(200, contentType: SockJSResponse.plainText, for: exchange.request),
            body: ByteBuffer(string: "Welcome to SockJS!\n"))
    }

    /// Tells clients what to use; they also measure the round trip by it.
    func serveInfo(_ exchange: any Exchange) {
        let entropy = UInt32.random(in: .min ... .max)
        let body =
            "{\"websocket\":\(options.allowsWebSocket),\"cookie_needed\":\(options.setsCookie),"
            + "\"origins\":[\"*:*\"],\"entropy\":\(entropy)}"
        exchange.respond(
            SockJSResponse.head(
                200, contentType: "application/json; charset=UTF-8", caching: .never, crossOrigin: .echo,
                for: exchange.request), body: ByteBuffer(string: body))
    }

    /// A page for browsers that can't ask other origins.
    func serveIframe(_ exchange: any Exchange) {
        var script = ""
        for character in options.clientScriptURL where character != "\"" && character != "<" {
            script.append(character)
        }
        let page = """
            <!DOCTYPE html>
            <html>
            <head>
              <meta http-equiv="X-UA-Compatible" content="IE=edge" />
              <meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />
              <script src="\(script)"></script>
              <script>
                document.domain = document.domain;
                SockJS.bootstrap_iframe();
              </script>
            </head>
            <body>
              <h2>Don't panic!</h2>
              <p>This is a SockJS hidden iframe. It's used for cross domain magic.</p>
            </body>
            </html>
            """
        // FNV-1a: the tag only has to change when the page does.
        let hash = page.utf8.reduce(0xCBF2_9CE4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
        let tag = "\"\(String(hash, radix: 16))\""
        let isKnown = Self.matches(exchange.request.fields.text("If-None-Match"), tag)
        var head = SockJSResponse.head(
            isKnown ? 304 : 200, contentType: isKnown ? nil : "text/html; charset=UTF-8", caching: .year,
            for: exchange.request)
        head.fields.append("ETag", tag)
        guard !isKnown else {
            exchange.respond(head)
            return exchange.finish(trailers: nil)
        }
        exchange.respond(head, body: ByteBuffer(string: page))
    }

    /// Whether what a client has is still good (RFC 9110 section 13.1.2).
    private static func matches(_ condition: String?, _ tag: String) -> Bool {
        guard let condition else { return false }
        return condition.split(separator: ",").contains { candidate in
            let candidate = candidate.drop { $0 == " " }
            return candidate == "*" || candidate == tag || candidate == "W/" + tag
        }
    }
}
