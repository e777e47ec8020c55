/// TLS listeners as operators run them.
import Foundation
import Testing

@Suite("TLS listeners", .serialized, .timeLimit(.minutes(2)))
struct TLSListenerTests {
    /// What `swap.py` saw.
    private struct Swap: Decodable {
        let requests: Int
        let messages: Int
        let failures: [String: Int]
        let swapSeconds: Double
        let isSwapped: Bool
    }

    private func make(_ name: String, in directory: String) async throws {
        _ = try await ChildProcess.run(
            "/usr/bin/openssl",
            [
                "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                "\(directory)/\(name).key", "-out", "\(directory)/\(name).crt", "-days", "30", "-subj", "/CN=localhost",
                "-addext", "subjectAltName=DNS:localhost",
            ])
    }

    @Test(
        "Certificates are swapped under load with open WebSockets: nothing fails, and new connections see the new one in 5 s"
    )
    func swapped() async throws {
        let directory = NSTemporaryDirectory() + "kite-swap-\(UUID().uuidString.prefix(8))"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try await make("tls", in: directory)
        try await make("new", in: directory)
        let port = try freePort()
        try await withInstallation(options: [
            "--listen-tls", "127.0.0.1:\(port)", "--tls-cert", "\(directory)/tls.crt", "--tls-key",
            "\(directory)/tls.key",
            "--threads", "2",
        ]) { installation in
            let running = try await installation.start("websocket")
            let output = try await ChildProcess.run(
                Place.python, [Place.peer("swap.py"), "\(port)", directory, "50", "10"], within: 60)
            let seen = try JSONDecoder().decode(Swap.self, from: Data(output.utf8))
            #expect(seen.failures.isEmpty)
            #expect(seen.isSwapped)
            #expect(seen.swapSeconds < 5)
            #expect(seen.requests > 200 && seen.messages > 100)
            let metrics = try await curl("http://127.0.0.1:\(installation.adminPort)/metrics")
            #expect(metrics.body.contains("kiteproxy_certificate_expiry_seconds{name=\"localhost\"}"))
            #expect(metrics.body.contains("kiteproxy_certificate_reload_failures_total 0"))
            #expect(try await running.gateway.terminate() == 0)
        }
    }
}
