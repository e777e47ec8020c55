/// The admin listener over a real socket.
import Foundation
import KiteCommand
import Logging
import NIOCore
import Synchronization
import Testing

@testable import KiteProxy

private final class FakeSource: AdminSource {
    let problem = Mutex<String?>(nil)
    func metrics() async -> String { "up 1\n" }
    func unreadiness() async -> String? { problem.withLock { $0 } }
    func routes() async -> String { "{\"routes\":[]}" }
    func agents() async -> String { "{\"agents\":[]}" }
}

@Suite("Admin listener")
struct AdminTests {
    private func withAdmin(_ body: (FakeSource, Int) async throws -> Void) async throws {
        let source = FakeSource()
        let service = try await AdminService.bind(
            ListenAddress(host: "127.0.0.1", port: 0), source: source,
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        let running = Task { try await service.run() }
        let outcome: Result<Void, any Error>
        do { outcome = .success(try await body(source, service.address.port ?? 0)) } catch { outcome = .failure(error) }
        running.cancel()
        try await running.value
        try outcome.get()
    }

    private func ask(_ port: Int, _ request: String) async throws -> String {
        try await AdminClient.exchange(host: "127.0.0.1", port: port, request: request)
    }

    @Test(
        "What it serves", .timeLimit(.minutes(1)),
        arguments: [
            ("/healthz", "200", "ok"), ("/readyz", "200", "ready"), ("/metrics", "200", "up 1"),
            ("/api/routes", "200", "{\"routes\":[]}"), ("/api/agents", "200", "{\"agents\":[]}"),
            ("/", "200", "<title>KiteProxy</title>"), ("/nothing", "404", "/metrics"),
        ])
    func paths(path: String, status: String, content: String) async throws {
        try await withAdmin { _, port in
            let answer = try await ask(
                port, "GET \(path) HTTP/1.1\r\nHost: 127.0.0.1:\(port)\r\nConnection: close\r\n\r\n")
            #expect(answer.hasPrefix("HTTP/1.1 \(status) "))
            #expect(answer.contains(content))
            #expect(answer.contains("Cache-Control: no-store"))
        }
    }

    @Test("Not ready is 503 with the reason", .timeLimit(.minutes(1)))
    func notReady() async throws {
        try await withAdmin { source, port in
            source.problem.withLock { $0 = "not registered with Kontrol" }
            let answer = try await ask(port, "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            #expect(answer.hasPrefix("HTTP/1.1 503 "))
            #expect(answer.contains("not registered with Kontrol"))
        }
    }

    @Test("Only GET and HEAD", .timeLimit(.minutes(1)), arguments: ["POST", "PUT", "DELETE", "OPTIONS"])
    func methods(method: String) async throws {
        try await withAdmin { _, port in
            let answer = try await ask(
                port, "\(method) /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            #expect(answer.hasPrefix("HTTP/1.1 405 "))
            #expect(answer.contains("Allow: GET, HEAD"))
        }
    }

    @Test(
        "Names that a web page could let point here are refused", .timeLimit(.minutes(1)),
        arguments: ["evil.example", "evil.example:3998", "127.0.0.1.evil.example"])
    func rebinding(host: String) async throws {
        try await withAdmin { _, port in
            let answer = try await ask(port, "GET /metrics HTTP/1.1\r\nHost: \(host)\r\nConnection: close\r\n\r\n")
            #expect(answer.hasPrefix("HTTP/1.1 421 "))
        }
    }

    @Test("A taken port is an error that names it and the cure", .timeLimit(.minutes(1)))
    func takenPort() async throws {
        let holder = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(holder) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                _ = bind(holder, $0, length)
                _ = getsockname(holder, $0, &length)
            }
        }
        listen(holder, 1)
        let port = Int(UInt16(bigEndian: address.sin_port))
        let failure = await #expect(throws: CommandFailure.self) {
            _ = try await AdminService.bind(
                ListenAddress(host: "127.0.0.1", port: port), source: FakeSource(), logger: Logger(label: "test"))
        }
        #expect(failure?.kind == .failed)
        #expect(failure?.message.contains("127.0.0.1:\(port)") == true)
        #expect(failure?.message.contains("--admin-listen") == true)
    }

    @Test("A port on which somebody else shares it is taken all the same", .timeLimit(.minutes(1)))
    func sharedPort() async throws {
        try await withAdmin { _, port in
            let failure = await #expect(throws: CommandFailure.self) {
                try await PortCheck.require(ListenAddress(host: "127.0.0.1", port: port), key: "listen")
            }
            #expect(failure?.message.contains("127.0.0.1:\(port)") == true)
            #expect(failure?.message.contains("--listen") == true)
        }
        try await PortCheck.require(ListenAddress(host: "127.0.0.1", port: 0), key: "listen")
    }
}
