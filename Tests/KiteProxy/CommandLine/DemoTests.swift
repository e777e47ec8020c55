/// The demo as a whole, in this process and on free ports: what it prints works.
import Foundation
import KiteCommand
import KiteCore
import Logging
import NIOCore
import ServiceLifecycle
import Testing

@testable import KiteProxy

@Suite("Demo")
struct DemoTests {
    @Test("The printed URLs serve the page, its client, a square for curl, and the kite", .timeLimit(.minutes(1)))
    func demo() async throws {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("demo-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let any = ["127.0.0.1:0"]
        let configuration = try GatewayConfiguration(
            Settings(
                schema: GatewaySettings.schema,
                flags: [
                    "listen": any, "kontrol-listen": any, "admin-listen": any, "threads": ["1"], "drain-time": ["1s"],
                    "data-dir": [directory + "/data"], "kite-key": [directory + "/kite.key"],
                ]), environment: ["HOME": directory])
        let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let parts = try await GatewayServices(configuration, logger: quiet)
        let key = try KiteKey.read(from: configuration.kiteKeyPath)
        let endpoint = DemoKite.make(key: key, logger: quiet)
        let (printed, continuation) = AsyncStream<String>.makeStream()
        let demo = Demo(
            gateway: parts.gateway, endpoint: endpoint, key: key, admin: parts.admin.address, logger: quiet
        ) { continuation.yield($0) }
        let group = ServiceGroup(
            configuration: ServiceGroupConfiguration(
                services: (parts.services + [endpoint, demo]).map { .init(service: $0) }, logger: quiet))
        let running = Task { try await group.run() }
        var iterator = printed.makeAsyncIterator()
        let text = try #require(await iterator.next())
        let line = try #require(text.split(separator: "\n").first { $0.contains("curl ") })
        let square = try #require(SettingURL(String(line.split(separator: " ").last ?? "")))
        #expect(square.path == "/proxy/demo/square/4")
        let port = try #require(square.port)
        func get(_ path: String) async throws -> String {
            try await AdminClient.get("/proxy/demo" + path, host: square.host, port: port)
        }
        #expect(try await get("/square/4") == "16\n")
        #expect(try await get("/") == DemoPage.html)
        #expect(try await get("/kite") == "Welcome to SockJS!\n")
        let admin = try #require(parts.admin.address.port)
        #expect(try await AdminClient.get("/readyz", host: "127.0.0.1", port: admin) == "ready\n")
        #expect(try await AdminClient.get("/api/routes", host: "127.0.0.1", port: admin).contains("\"name\":\"demo\""))
        #expect(try await AdminClient.get("/api/agents", host: "127.0.0.1", port: admin).contains("\"demo\""))

        let client = try await KiteClient.connect(to: "http://127.0.0.1:\(port)/proxy/demo/kite")
        let result: Double = try await client.tell("square", 7)
        #expect(result == 49)
        await client.close()
        await group.triggerGracefulShutdown()
        try await running.value
    }
}
