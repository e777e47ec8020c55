/// HTTP/2 with the clients that people have: curl, nghttp2's tools and a browser, through gateway, tunnel and agent.
import Foundation
import Testing

@Suite("HTTP/2", .serialized)
struct HTTP2Tests {
    private static let nghttp = "/usr/bin/nghttp"
    private static let h2load = "/usr/bin/h2load"
    private static var hasTools: Bool {
        ProcessInfo.processInfo.environment["CI"] != nil
            || [nghttp, h2load].allSatisfy { FileManager.default.isExecutableFile(atPath: $0) }
    }

    /// Starts a gateway with a TLS listener and an access log.
    /// - Parameter body: gets the installation, the gateway, the listener's URL and the file of its certificate.
    private func withTLS(
        _ further: [String] = [],
        _ body: (Installation, ChildProcess, _ url: String, _ certificate: String) async throws -> Void
    ) async throws {
        let directory = NSTemporaryDirectory() + "tls-\(UUID().uuidString.prefix(8))"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let (certificate, key) = (directory + "/certificate.pem", directory + "/key.pem")
        _ = try await ChildProcess.run(
            "/usr/bin/openssl",
            [
                "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
                "-keyout", key, "-out", certificate, "-subj", "/CN=localhost", "-addext",
                "subjectAltName=DNS:localhost,IP:127.0.0.1",
            ])
        let port = try freePort()
        try await withInstallation(
            options: [
                "--listen-tls", "127.0.0.1:\(port)", "--tls-cert", certificate, "--tls-key", key, "--access-log",
            ] + further
        ) { installation in
            let gateway = try await installation.startGateway()
            try await body(installation, gateway, "https://127.0.0.1:\(port)", certificate)
        }
    }

    /// Waits for a line of the access log that has all of these.
    private func logged(_ gateway: ChildProcess, _ parts: String...) async throws {
        try await deadline(10, "a log line with \(parts)", gateway) {
            while !gateway.standardError.split(separator: "\n").contains(where: { line in
                parts.allSatisfy { line.contains($0) }
            }) { try await Task.sleep(for: .milliseconds(20)) }
        }
    }

    /// Beside the test of that name.
    private func visitor(_ url: String) async throws -> Answer { try await EndToEndTests.curl(url) }

    /// What curl saw over a protocol: its own name for that, the status, and the file it wrote.
    private func fetch(_ arguments: String..., certificate: String, file: String) async throws -> String {
        try await ChildProcess.run(
            "/usr/bin/curl",
            [
                "--silent", "--show-error", "--max-time", "40", "--cacert", certificate, "--output", file,
                "--write-out", "%{http_version} %{http_code}\n",
            ] + arguments, within: 60
        ).trimmingCharacters(in: .whitespacesAndNewlines)
    }

    @Test("curl down- and uploads over it, and over HTTP/1.1 on the same port", .timeLimit(.minutes(2)))
    func curl() async throws {
        try await withTLS { installation, gateway, url, certificate in
            let (_, port) = try await installation.startTarget("blobs")
            _ = try await installation.startAgent("http", "127.0.0.1:\(port)", "--name", "blobs")
            let blob = installation.directory + "/blob"
            let echo = installation.directory + "/echo"
            for (option, name) in [("--http2", "2"), ("--http1.1", "1.1")] {
                let down = try await fetch(
                    option, url + "/proxy/blobs/20000000", certificate: certificate, file: blob)
                #expect(down == "\(name) 200")
                #expect(try FileManager.default.attributesOfItem(atPath: blob)[.size] as? Int == 20_000_000)
                let hash = try await ChildProcess.run("/usr/bin/sha256sum", [blob]).prefix(64)
                for length in ["Expect:", "Transfer-Encoding: chunked"] {
                    let up = try await fetch(
                        option, "--data-binary", "@\(blob)", "--header", length, url + "/proxy/blobs/up",
                        certificate: certificate, file: echo)
                    #expect(up == "\(name) 200")
                    #expect(try String(contentsOfFile: echo, encoding: .utf8) == "20000000 \(hash)")
                }
            }
            try await logged(gateway, "method=POST", "path=/proxy/blobs/up", "protocol=h2", "status=200")
            try await logged(gateway, "method=POST", "path=/proxy/blobs/up", "protocol=http/1.1", "status=200")
            let metrics = try await visitor("http://127.0.0.1:\(installation.adminPort)/metrics").body
            #expect(metrics.contains("\nkiteproxy_http2_requests_total 3\n"))
        }
    }

    @Test("It can be turned off", .timeLimit(.minutes(1)))
    func off() async throws {
        try await withTLS(["--no-http2"]) { installation, _, url, certificate in
            let seen = try await fetch(
                "--http2", url + "/-/kite.js", certificate: certificate, file: installation.directory + "/x")
            #expect(seen == "1.1 200")
        }
    }

    @Test(
        "nghttp and h2load see every request answered", .timeLimit(.minutes(2)), .enabled(if: hasTools))
    func nghttp2() async throws {
        try await withTLS { installation, gateway, url, _ in
            let (_, port) = try await installation.startTarget("blobs")
            _ = try await installation.startAgent("http", "127.0.0.1:\(port)", "--name", "blobs")
            let seen = try await ChildProcess.run(
                Self.nghttp, ["--null-out", "--verbose", "--no-verify-peer", url + "/proxy/blobs/100000"], within: 40)
            #expect(seen.contains(":status: 200"))
            #expect(!seen.contains("RST_STREAM"))
            #expect(!seen.contains("error_code=PROTOCOL_ERROR"))
            for (requests, clients, streams, bytes) in [(2000, 4, 50, 100), (60, 2, 30, 1_000_000)] {
                let report = try await ChildProcess.run(
                    Self.h2load,
                    [
                        "-n", "\(requests)", "-c", "\(clients)", "-m", "\(streams)", "\(url)/proxy/blobs/\(bytes)",
                    ], within: 60)
                #expect(
                    report.contains("\(requests) succeeded, 0 failed, 0 errored, 0 timeout"),
                    "\(report) \(gateway.standardError.suffix(1000))")
            }
        }
    }

    @Test("A browser's WebSocket to a tunnelled kite goes over its HTTP/2 connection", .timeLimit(.minutes(2)))
    func browser() async throws {
        try await withTLS { installation, gateway, url, _ in
            let kite = try installation.testKite("listen")
            _ = try await installation.startAgent("kite", try await kite.line(), "--name", "math")
            let browser = try Browser(installation, flags: ["--ignore-certificate-errors"])
            let seen: String = try await browser.go(
                to: url + "/-/kite.js",
                until: """
                    (window.started ??= import("/-/kite.js").then(async ({ connect }) => {
                        const kite = await connect(location.origin + "/proxy/math", { transports: ["websocket"] });
                        window.seen = kite.transport + " " + await kite.tell("square", 9);
                        kite.close();
                    }).catch((error) => { window.seen = String(error) }), window.seen)
                    """)
            #expect(seen == "websocket 81")
            try await logged(gateway, "/websocket", "protocol=h2", "route=math", "status=101")
            #expect(!gateway.standardError.contains("protocol=http/1.1 route=math"))
        }
    }
}
