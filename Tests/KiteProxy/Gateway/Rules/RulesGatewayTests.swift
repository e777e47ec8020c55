/// Rules over real sockets, in front of a kite that says what it was asked.
import Foundation
import KiteDialing
import KiteHTTP
import NIOCore
import NIOPosix
import Testing

@testable import KiteGateway

@Suite("Rules of hosts and routes", .timeLimit(.minutes(1)))
struct RulesGatewayTests {
    private static let id = "0e1d7b54-0000-4000-8000-00000000000f"
    private static let path = "/proxy/0e1d7b54-0000-4000-8000-00000000000f/mirror"

    /// A gateway with rules for all hosts, and optionally for the route, before a mirror.
    private func withRules(
        route: RuleSet? = nil, _ rules: (inout RuleSet) -> Void,
        options change: (inout GatewayOptions) -> Void = { _ in },
        visit body: @escaping @Sendable (Int) async throws -> Void
    ) async throws {
        var set = RuleSet()
        rules(&set)
        let book = RuleBook(
            hosts: [(.any, set)], routes: route.map { [(name: Self.id, rules: $0)] } ?? [])
        let (mirror, mirrorPort) = try await startMirror()
        try await withGateway({
            $0.rules = book
            change(&$0)
        }) { gateway, port in
            _ = try await gateway.register(kiteID: Self.id, url: "http://127.0.0.1:\(mirrorPort)/kite", username: "o")
            try await body(port)
        }
        await mirror.close()
    }

    @Test("Fields are set, added and removed on both ways; what a visitor sends in their place is gone")
    func fields() async throws {
        try await withRules {
            $0.requestSet = ["X-Set": "gateway"]
            $0.requestAdded = ["X-Added": "2"]
            $0.requestRemoved = ["X-Removed"]
            $0.responseSet = ["X-Mirror": "set"]
            $0.responseAdded = ["X-More": "1"]
            $0.hostField = "intranet:81"
        } visit: { port in
            let seen = try await get(
                Self.path, port: port,
                fields: "x-SET: forged\r\nX_Set: forged\r\nX-Set: forged\r\nX-Added: 1\r\nx-removed: 1\r\nX-Kept: 1\r\n"
            )
            let body = try #require(seen.range(of: "\r\n\r\n").map { seen[$0.upperBound...] })
            #expect(body.contains("X-Set: gateway\n"))
            #expect(!body.contains("forged"))
            #expect(body.contains("X-Added: 1\n") && body.contains("X-Added: 2\n"))
            #expect(!body.lowercased().contains("x-removed"))
            #expect(body.contains("X-Kept: 1\n"))
            #expect(body.contains(" intranet:81\n"), "what Host said")
            #expect(body.contains("X-Forwarded-Host: gw.test\n"))
            #expect(seen.contains("X-Mirror: set\r\n") && !seen.contains("X-Mirror: 1\r\n"))
            #expect(seen.contains("X-More: 1\r\n"))
        }
    }

    @Test("Rules that should never have been read still frame nothing and split nothing")
    func smuggling() async throws {
        try await withRules {
            $0.requestSet = [
                "Content-Length": "5", "Transfer-Encoding": "chunked", "Connection": "X-Real-IP",
                "X-Evil": "a\r\nX-Split: 1",
                "Bad\r\nName": "x",
            ]
            $0.responseSet = ["Content-Length": "1", "Transfer-Encoding": "chunked", "X-Evil": "a\r\n\r\nsplit"]
        } visit: { port in
            let seen = try await send(
                "POST \(Self.path) HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc", to: port)
            #expect(seen.hasPrefix("HTTP/1.1 200 "))
            #expect(seen.hasSuffix("\n\nabc"))
            #expect(!seen.contains("X-Split") && !seen.contains("split"))
            #expect(seen.contains("Content-Length: 3\n"))
            #expect(!seen.contains("Content-Length: 5") && !seen.contains("Content-Length: 1\r\n"))
            #expect(!seen.contains("Transfer-Encoding"))
        }
    }

    @Test("Nobody takes a rule's field out again with Connection or in a trailer")
    func connectionOptions() async throws {
        try await withRules {
            $0.requestSet = ["X-Set": "gateway"]
            $0.requestRemoved = ["X-Removed"]
        } visit: { port in
            let seen = try await send(
                "POST \(Self.path) HTTP/1.1\r\nHost: a\r\nConnection: close, X-Set, X-Other\r\nX-Other: 1\r\nTrailer: X-Set\r\n"
                    + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Set: forged\r\nX-Removed: 1\r\n\r\n",
                to: port)
            #expect(seen.contains("X-Set: gateway\n"))
            #expect(!seen.contains("X-Other: 1\n") && !seen.contains("forged") && !seen.contains("X-Removed"))
            #expect(seen.hasSuffix("ok"))
        }
    }

    @Test("http is sent to https with path and query, except where certificate authorities look")
    func secureOnly() async throws {
        try await withRules {
            $0.isHTTPSOnly = true
            $0.strictTransport = 86_400
        } visit: { port in
            let seen = try await get("/a?b=c", port: port, host: "GW.test:80")
            #expect(seen.hasPrefix("HTTP/1.1 308 "))
            #expect(seen.contains("Location: https://gw.test/a?b=c\r\n"))
            #expect(!seen.contains("Strict-Transport"), "not over plain HTTP")
            #expect(try await get("/.well-known/acme-challenge/x", port: port).hasPrefix("HTTP/1.1 404 "))
            for other in ["", "../a", "x/y", "x?y", String(repeating: "x", count: 257)] {
                #expect(
                    try await get("/.well-known/acme-challenge/" + other, port: port).hasPrefix("HTTP/1.1 308 "))
            }
            let forged = try await get("/", port: port, fields: "X-Forwarded-Proto: https\r\n")
            #expect(forged.hasPrefix("HTTP/1.1 308 "))
            let upgrade = try await get(Self.path, port: port, fields: "Upgrade: websocket\r\n")
            #expect(upgrade.hasPrefix("HTTP/1.1 308 "))
        }
        try await withRules {
            $0.isHTTPSOnly = true
            $0.strictTransport = 86_400
            $0.strictTransportSubdomains = true
        } options: {
            $0.trustedProxies = [AddressRange("127.0.0.1")].compactMap { $0 }
        } visit: { port in
            let seen = try await get(Self.path, port: port, fields: "X-Forwarded-Proto: https\r\n")
            #expect(seen.hasPrefix("HTTP/1.1 200 "))
            #expect(seen.contains("Strict-Transport-Security: max-age=86400; includeSubDomains\r\n"))
        }
    }

    @Test("Passwords: asked for, checked once, and not passed on; upgrades have to show them too")
    func passwords() async throws {
        let hash = try #require(PasswordHash(hashing: "secret", logRounds: 4))
        try await withRules {
            $0.users = ["alice": hash]
            $0.realm = "kites"
        } visit: { port in
            let right = "Authorization: Basic YWxpY2U6c2VjcmV0\r\n"
            let asked = try await get(Self.path, port: port)
            #expect(asked.hasPrefix("HTTP/1.1 401 "))
            #expect(asked.contains("WWW-Authenticate: Basic realm=\"kites\", charset=\"UTF-8\"\r\n"))
            for wrong in ["Basic YWxpY2U6c2VjcmV1", "Basic Ym9iOnNlY3JldA==", "Bearer x", "Basic", "Basic !"] {
                #expect(
                    try await get(Self.path, port: port, fields: "Authorization: \(wrong)\r\n").hasPrefix(
                        "HTTP/1.1 401 "))
            }
            #expect(
                try await get(Self.path, port: port, fields: right + "Authorization: Basic x\r\n").hasPrefix(
                    "HTTP/1.1 401 "))
            for _ in 0..<2 {
                let seen = try await send(
                    "POST \(Self.path) HTTP/1.1\r\nHost: a\r\n\(right)Content-Length: 5\r\nConnection: close\r\n\r\nhello",
                    to: port)
                #expect(seen.hasPrefix("HTTP/1.1 200 "))
                #expect(seen.hasSuffix("\n\nhello"))
                #expect(!seen.contains("YWxpY2U6c2VjcmV0"))
            }
            let upgrade =
                "Upgrade: echo\r\nConnection: Upgrade\r\n\r\nping"
            let path = Self.path.replacing("/mirror", with: "/echo")
            let refused = try await send("GET \(path) HTTP/1.1\r\nHost: a\r\n\(upgrade)", to: port, until: "\r\n\r\n")
            #expect(refused.hasPrefix("HTTP/1.1 401 "))
            let upgraded = try await send(
                "GET \(path) HTTP/1.1\r\nHost: a\r\n\(right)\(upgrade)", to: port, until: "ping")
            #expect(upgraded.hasPrefix("HTTP/1.1 101 "))
        }
    }

    @Test("Agents and kites that dial in are not asked for passwords, sent elsewhere or kept out by maintenance")
    func dialIns() async throws {
        let hash = try #require(PasswordHash(hashing: "secret", logRounds: 4))
        try await withRules {
            $0.users = ["alice": hash]
            $0.isHTTPSOnly = true
            $0.isInMaintenance = true
        } visit: { port in
            #expect(try await get("/", port: port).hasPrefix("HTTP/1.1 503 "))
            for path in ["/-/tunnel", "/tunnel"] {
                let seen = try await get(path, port: port)
                #expect(!seen.contains("being maintained") && !seen.hasPrefix("HTTP/1.1 308 "), "\(path)")
                #expect(!seen.contains("WWW-Authenticate: Basic"), "\(path)")
            }
            #expect(try await get("/kite", port: port).contains("being maintained"))
        }
        try await withRules {
            $0.users = ["alice": hash]
            $0.denied = [AddressRange("127.0.0.0/8")].compactMap { $0 }
        } visit: { port in
            for path in ["/-/tunnel", "/tunnel", "/kite"] {
                let seen = try await get(path, port: port)
                #expect(seen.hasPrefix("HTTP/1.1 403 "), "\(path)")
            }
        }
        try await withRules {
            $0.users = ["alice": hash]
        } visit: { port in
            let kite = try await get("/kite", port: port)
            #expect(!kite.hasPrefix("HTTP/1.1 401 "))
            let other = try await get("/", port: port)
            #expect(other.hasPrefix("HTTP/1.1 401 "))
        }
    }

    @Test("Addresses, rates, maintenance: who is stopped, and who is not")
    func stopping() async throws {
        try await withRules {
            $0.denied = [AddressRange("127.0.0.0/8")].compactMap { $0 }
        } visit: { port in
            #expect(try await get(Self.path, port: port).hasPrefix("HTTP/1.1 403 "))
            let forged = try await get(
                Self.path, port: port, fields: "X-Forwarded-For: 8.8.8.8\r\nX-Real-IP: 8.8.8.8\r\n")
            #expect(forged.hasPrefix("HTTP/1.1 403 "))
        }
        try await withRules {
            $0.rateLimit = RateLimit("3/h")
        } visit: { port in
            for _ in 0..<3 { #expect(try await get(Self.path, port: port).hasPrefix("HTTP/1.1 200 ")) }
            let seen = try await get(Self.path, port: port)
            #expect(seen.hasPrefix("HTTP/1.1 429 "))
            #expect(seen.contains("Retry-After: 1200\r\n") || seen.contains("Retry-After: 1199\r\n"))
        }
        try await withRules {
            $0.rateLimit = RateLimit("1/h")
            $0.rateKey = .token
        } visit: { port in
            for (token, status) in [("a", 200), ("b", 200), ("a", 429)] {
                let seen = try await get(Self.path, port: port, fields: "Authorization: Bearer \(token)\r\n")
                #expect(seen.hasPrefix("HTTP/1.1 \(status) "))
            }
            // Inventing tokens helps up to eight times the rate.
            for number in 0..<7 {
                let seen = try await get(Self.path, port: port, fields: "Authorization: Bearer n\(number)\r\n")
                #expect(seen.hasPrefix("HTTP/1.1 \(number < 6 ? 200 : 429) "))
            }
        }
        try await withRules {
            $0.isInMaintenance = true
            $0.maintenanceRetry = 77
            $0.maintenancePage = PageTemplate("<p>{status}: {reason}</p>")
            $0.maintenanceAllowed = [AddressRange("10.0.0.1")].compactMap { $0 }
        } options: {
            $0.trustedProxies = [AddressRange("127.0.0.1")].compactMap { $0 }
        } visit: { port in
            let plain = try await get(Self.path, port: port)
            #expect(plain.hasPrefix("HTTP/1.1 503 ") && plain.contains("Retry-After: 77\r\n"))
            #expect(plain.contains("text/plain"))
            let page = try await get(Self.path, port: port, fields: "Accept: text/html\r\n")
            #expect(page.contains("<p>503: ") && page.contains("text/html"))
            let friend = try await get(Self.path, port: port, fields: "X-Forwarded-For: 10.0.0.1\r\n")
            #expect(friend.hasPrefix("HTTP/1.1 200 "))
        }
    }

    @Test("Error pages are for those who want HTML; a route's section comes before the host's")
    func pages() async throws {
        var route = RuleSet()
        route.redirect = RedirectTarget("https://elsewhere.example/")
        route.redirectStatus = 307
        try await withRules(route: route) {
            $0.errorPages = [.hundred(4): PageTemplate("<h1>{status}</h1>")]
        } visit: { port in
            let page = try await get("/proxy/nobody/", port: port, fields: "Accept: text/html,*/*;q=0.8\r\n")
            #expect(page.hasPrefix("HTTP/1.1 404 ") && page.hasSuffix("<h1>404</h1>"))
            #expect(
                !(try await get("/proxy/nobody/", port: port, fields: "Accept: application/json\r\n")).contains("<h1>"))
            #expect(!(try await get("/proxy/nobody/", port: port)).contains("<h1>"))
            let redirect = try await get(Self.path + "?x", port: port)
            #expect(redirect.hasPrefix("HTTP/1.1 307 "))
            #expect(redirect.contains("Location: https://elsewhere.example\(Self.path)?x\r\n"))
        }
    }

    @Test("Origins: preflights are answered, others refused, WebSockets too")
    func origins() async throws {
        try await withRules {
            $0.origins = ["https://app.example"]
            $0.responseAdded = ["Access-Control-Expose-Headers": "X-Mirror"]
        } visit: { port in
            let none = try await get(Self.path, port: port)
            #expect(none.hasPrefix("HTTP/1.1 200 ") && none.contains("Vary: Origin\r\n"))
            #expect(
                try await get(Self.path, port: port, fields: "Origin: http://gw.test\r\n").hasPrefix("HTTP/1.1 200 "))
            let allowed = try await get(Self.path, port: port, fields: "Origin: https://App.example\r\n")
            #expect(allowed.contains("Access-Control-Allow-Origin: https://App.example\r\n"))
            #expect(allowed.contains("Access-Control-Allow-Credentials: true\r\n"))
            for other in [
                "https://evil.example", "null", "https://app.example.evil",
                "https://app.example\r\nOrigin: https://app.example",
            ] {
                let seen = try await get(
                    Self.path, port: port, fields: "Origin: \(other)\r\nUpgrade: websocket\r\n")
                #expect(seen.hasPrefix("HTTP/1.1 403 "), "\(other)")
                #expect(!seen.contains("Access-Control-Allow-Origin"))
            }
            let preflight = try await send(
                "OPTIONS \(Self.path) HTTP/1.1\r\nHost: gw.test\r\nConnection: close\r\nOrigin: https://app.example\r\n"
                    + "Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: x-a\r\n\r\n", to: port)
            #expect(preflight.hasPrefix("HTTP/1.1 204 "))
            #expect(preflight.contains("Access-Control-Allow-Methods: PUT\r\n"))
            #expect(preflight.contains("Access-Control-Allow-Headers: x-a\r\n"))
            #expect(!preflight.contains("X-Mirror: "))
        }
    }

    @Test("Bodies that are too long are refused, whether they say so or not")
    func bodies() async throws {
        try await withRules {
            $0.bodyBytes = 5
        } visit: { port in
            func post(_ rest: String) async throws -> String {
                try await send(
                    "POST \(Self.path) HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\(rest)", to: port)
            }
            #expect(try await post("Content-Length: 5\r\n\r\nhello").hasPrefix("HTTP/1.1 200 "))
            #expect(try await post("Content-Length: 6\r\n\r\nhello!").hasPrefix("HTTP/1.1 413 "))
            #expect(
                try await post("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").hasPrefix("HTTP/1.1 200 "))
            let long = try await post("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n")
            #expect(long.hasPrefix("HTTP/1.1 413 "))
            #expect(!long.contains("200 OK"))
        }
    }

    @Test("Responses are compressed for those who accept it, and are the same")
    func compression() async throws {
        try await withRules {
            $0.compresses = true
            $0.responseSet = ["Content-Type": "text/plain"]
            $0.compressedBytes = 10
        } visit: { port in
            let plain = try await get(Self.path, port: port)
            #expect(plain.contains("Vary: Accept-Encoding\r\n") && !plain.contains("Content-Encoding"))
            let text = String(repeating: "kites ", count: 20_000)
            let wire = try await sendForBytes(
                "POST \(Self.path) HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAccept-Encoding: gzip\r\n"
                    + "Content-Length: \(text.utf8.count)\r\n\r\n\(text)", to: port)
            let end = try #require(wire.firstRange(of: Array("\r\n\r\n".utf8)))
            let head = String(decoding: wire[..<end.lowerBound], as: UTF8.self)
            #expect(head.contains("Content-Encoding: gzip"))
            #expect(!head.contains("Content-Length"))
            #expect(wire.count < 10_000)
            var decoder = ByteBuffer(bytes: dechunked(Array(wire[end.upperBound...])))
            let reader = GzipReader()
            _ = reader.read(&decoder)
            #expect(reader.isAtEnd)
            #expect(String(decoding: reader.bytes, as: UTF8.self).hasSuffix("\n\n" + text))
        }
    }
}

/// The data of a chunked body.
private func dechunked(_ bytes: [UInt8]) -> [UInt8] {
    var rest = bytes[...]
    var result: [UInt8] = []
    while let end = rest.firstRange(of: Array("\r\n".utf8)),
        let size = Int(String(decoding: rest[rest.startIndex..<end.lowerBound], as: UTF8.self), radix: 16), size > 0
    {
        result += rest[end.upperBound...].prefix(size)
        rest = rest[end.upperBound...].dropFirst(size + 2)
    }
    return result
}

/// As `send`, for what is no text.
private func sendForBytes(_ wire: String, to port: Int) async throws -> [UInt8] {
    let loop = testGroup.next()
    let done = loop.makePromise(of: [UInt8].self)
    let dialer = try Dialer()
    loop.execute {
        dialer.dial(Endpoint(.tcp(host: "127.0.0.1", port: port)), on: loop) { result in
            switch result {
            case .success(let transport):
                transport.delegate = ByteCollector(transport, done)
                transport.write(ByteBuffer(string: wire))
            case .failure(let error): done.fail(error)
            }
        }
    }
    return try await done.futureResult.get()
}

private final class ByteCollector: ByteTransportDelegate {
    private let transport: any ByteTransport
    private let done: EventLoopPromise<[UInt8]>
    private var bytes: [UInt8] = []
    init(_ transport: any ByteTransport, _ done: EventLoopPromise<[UInt8]>) {
        self.transport = transport
        self.done = done
    }
    func transportReceived(_ bytes: ByteBuffer) { self.bytes += bytes.readableBytesView }
    func transportInputClosed() { transport.close() }
    func transportClosed(_ error: TransportError?) { done.succeed(bytes) }
    func transportWritabilityChanged(_ isWritable: Bool) {}
}
