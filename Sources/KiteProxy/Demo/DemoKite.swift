/// The kite of the demo: it calls and is called, serves its page, and listens nowhere.
import KiteCore
import KiteHTTP
import Logging
import NIOCore

enum DemoKite {
    /// The kite and what answers its exchanges.
    static func make(key: KiteKey, logger: Logger) -> KiteEndpoint {
        var configuration = KiteConfiguration()
        configuration.username = key.username
        configuration.kiteKey = key
        let kite = Kite(
            name: "demo", version: "1.0.0", configuration: configuration, authenticator: OpenAuthenticator(),
            logger: logger)
        kite.handle("square", .anonymous) { (_: KiteRequest, number: Double) in number * number }
        // The page has a method of its own; the kite calls it over the same connection.
        kite.handle("introduce", .anonymous) { (request: KiteRequest) -> String in
            let page: PageDescription = try await request.remote.tell("page.describe")
            return "Hello, browser of \(page.width)×\(page.height) points that speaks \(page.language)"
        }
        kite.handle("countdown", .anonymous) { (_: KiteRequest, from: Int, callback: DnodeFunction) in
            for number in stride(from: min(max(from, 0), 20), through: 0, by: -1) {
                try await callback.call(number)
                if number > 0 { try await Task.sleep(for: .milliseconds(300)) }
            }
        }
        return KiteEndpoint(kite: kite) { _ in DemoPages() }
    }

    private struct PageDescription: Decodable {
        let language: String
        let width: Int
        let height: Int
    }
}

/// What the demo kite serves beside `/kite`: its page and a method for curl.
final class DemoPages: ExchangeAcceptor {
    func accept(_ exchange: any Exchange) {
        guard exchange.request.method == .get || exchange.request.method == .head else {
            return exchange.refuse(Refusal(405, "Use GET here."))
        }
        let path = exchange.request.path
        switch path {
        case "/": answer(exchange, "text/html; charset=utf-8", DemoPage.html)
        case _ where path.hasPrefix("/square/"):
            guard let number = Double(path.dropFirst(8)), number.isFinite, (number * number).isFinite else {
                return exchange.refuse(Refusal(400, "Write a number, such as /square/4."))
            }
            let square = number * number
            let text = square == square.rounded() && square < 1e15 ? "\(Int64(square))" : "\(square)"
            answer(exchange, "text/plain; charset=utf-8", text + "\n")
        default: exchange.refuse(Refusal(404, "The demo serves /, /square/4 and /kite."))
        }
    }

    private func answer(_ exchange: any Exchange, _ type: String, _ body: String) {
        let head = ResponseHead(status: 200, fields: HeaderBlock(["Content-Type": type, "Cache-Control": "no-store"]))
        exchange.respond(head, body: ByteBuffer(string: body))
    }
}
