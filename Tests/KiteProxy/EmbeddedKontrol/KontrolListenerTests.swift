import Foundation
import KiteCore
import NIOCore
import Synchronization
import Testing

@testable import EmbeddedKontrol
@testable import KiteCore

/// Kontrol on a real socket.
@Suite(.timeLimit(.minutes(1)))
struct KontrolListenerTests {
    func running(_ services: [@Sendable () async throws -> Void], _ body: () async throws -> Void) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for service in services { group.addTask { try await service() } }
            try await body()
            group.cancelAll()
            try await group.waitForAll()
        }
    }

    func port(_ listener: KontrolListener) -> Int {
        listener.url.split(separator: ":").last.flatMap { Int($0.prefix { $0.isNumber }) } ?? 0
    }

    @Test func listsItselfAndServesItsKite() async throws {
        try await withService { service, _, _ in
            let listener = try await KontrolListener(
                KontrolServer(service: service, logger: quiet), host: "127.0.0.1", port: 0)
            try await running([{ try await listener.run() }]) {
                let found = try await service.kites(matching: KontrolQuery(username: "kontrol"))
                #expect(found.map(\.url) == [listener.url] && listener.port == port(listener))
                let http = KontrolExchangeTests()
                #expect(try await http.get("/kite", from: port(listener)) == (200, "Welcome to SockJS!\n"))
                let (status, reason) = try await http.get("/nothing", from: port(listener))
                #expect(status == 404 && reason == "This is Kontrol: kites are served at /kite.\n")
            }
            let other = try await KontrolListener(
                KontrolServer(service: service, logger: quiet), host: "127.0.0.1", port: 0
            ) { "http://kontrol.example:\($0)/kite" }
            let found = try await service.kites(matching: KontrolQuery(username: "kontrol"))
            #expect(found.map(\.url) == ["http://kontrol.example:\(other.port)/kite"])
        }
    }

    @Test func kitesRegisterOverHTTPAndAgainWhenTold() async throws {
        var limits = Registry.Limits()
        limits.heartbeatInterval = 1
        try await withService(limits: limits) { service, clock, _ in
            let listener = try await KontrolListener(
                KontrolServer(service: service, logger: quiet), host: "127.0.0.1", port: 0)
            let key = try await TokenIssuer(issuer: "kontrol", keyPair: Keys.first)
                .kiteKey(for: "ann", kontrolURL: listener.url, now: 0)
            let port = port(listener)
            let requests = Mutex<[String]>([])
            let requester: KontrolHTTPRegistration.Requester = { method, url, body in
                let path = "/" + url.split(separator: "/").dropFirst(2).joined(separator: "/")
                requests.withLock { $0.append("\(method) \(path)") }
                let http = KontrolExchangeTests()
                let reply =
                    if let body {
                        try await http.post(String(buffer: body), to: port)
                    } else {
                        try await http.get(path, from: port)
                    }
                return (reply.status, ByteBuffer(string: reply.body))
            }
            func registration(id: String, _ count: @escaping @Sendable () -> Void) throws -> KontrolHTTPRegistration {
                var configuration = KiteConfiguration()
                configuration.apply(key)
                configuration.id = id
                let kite = Kite(name: "math", version: "1.0.0", configuration: configuration, logger: quiet)
                let client = try KontrolClient(kite: kite, connector: MemoryNetwork().connector)
                return KontrolHTTPRegistration(client, url: "http://math/kite", requester: requester) { _ in count() }
            }
            let good = Mutex(0)
            let bad = Mutex(0)
            let registered = try registration(id: "o n&e") { good.withLock { $0 += 1 } }
            let refused = try registration(id: "a/b") { bad.withLock { $0 += 1 } }
            try await running([
                { try await listener.run() }, { try await registered.run() }, { try await refused.run() },
            ]) {
                try await eventually { requests.withLock { $0.contains("GET /heartbeat?id=o%20n%26e") } }
                #expect(try await service.kite(id: "o n&e")?.url == "http://math/kite")
                clock.advance(31)
                await service.expire()
                try await eventually { good.withLock { $0 } >= 2 }
                #expect(try await service.kite(id: "o n&e") != nil)
                #expect(bad.withLock { $0 } == 0)
            }
        }
    }
}
