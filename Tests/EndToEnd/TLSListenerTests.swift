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
                Place.python, [Place.peer("swap.py"), "\(port)", directory, "50", "9"], within: 60)
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

    @Test("Hosts take client certificates, and other connections are not theirs")
    func clientCertificates() async throws {
        let directory = NSTemporaryDirectory() + "kite-clients-\(UUID().uuidString.prefix(8))"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try await make("tls", in: directory)
        // Issues itself, which is enough for a root.
        try await make("alice", in: directory)
        try """
        hosts:
          must.test:
            client-ca: \(directory)/alice.crt
          may.test:
            client-ca: \(directory)/alice.crt
            client-cert: optional
        """.write(toFile: "\(directory)/kiteproxy.yaml", atomically: true, encoding: .utf8)
        let port = try freePort()
        try await withInstallation(options: [
            "--config", "\(directory)/kiteproxy.yaml", "--listen-tls", "127.0.0.1:\(port)", "--tls-cert",
            "\(directory)/tls.crt", "--tls-key", "\(directory)/tls.key",
        ]) { installation in
            let gateway = try await installation.startGateway()
            func status(_ name: String, host: String? = nil, isAlice: Bool = false) async throws -> Int {
                let arguments =
                    [
                        "--silent", "--insecure", "--max-time", "20", "--output", "/dev/null", "--write-out",
                        "%{http_code}\n",
                    ]
                    + ["--connect-to", "\(name):\(port):127.0.0.1:\(port)", "https://\(name):\(port)/-/kite.js"]
                    + (host.map { ["--header", "Host: \($0)"] } ?? [])
                    + (isAlice ? ["--cert", "\(directory)/alice.crt", "--key", "\(directory)/alice.key"] : [])
                // A failed handshake is no answer: 000.
                let output = try await ChildProcess.run(
                    "/bin/sh", ["-c", "exec 2>&1; \"$@\" || true", "sh", "/usr/bin/curl"] + arguments)
                return Int(output.trimmingCharacters(in: .whitespacesAndNewlines)) ?? -1
            }
            #expect(try await status("must.test", isAlice: true) == 200)
            #expect(try await status("must.test") == 0)
            #expect(try await status("may.test") == 200)
            #expect(try await status("other.test") == 200)
            #expect(try await status("other.test", host: "must.test", isAlice: true) == 421)
            #expect(try await status("may.test", host: "MUST.test:443") == 421)
            #expect(try await status("must.test", host: "other.test", isAlice: true) == 421)
            #expect(try await curl(installation.url + "/-/kite.js", "--header", "Host: must.test").status == 421)
            #expect(try await curl(installation.url + "/-/kite.js", "--header", "Host: may.test").status == 200)
            #expect(try await gateway.terminate() == 0)
        }
    }
}
