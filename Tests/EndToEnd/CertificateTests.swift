/// The gateway obtains its certificates by itself: from the test authority, and from Pebble.
import Foundation
import Testing

@Suite("Automatic certificates", .serialized, .timeLimit(.minutes(2)))
struct CertificateTests {
    private let host = "www.example.org"

    /// What goes with an authority.
    private struct Site {
        let installation: Installation
        let tlsPort: Int
        let root: String
        var url: String { "https://www.example.org:\(tlsPort)/" }

        init(_ installation: Installation) throws {
            self.installation = installation
            tlsPort = try freePort()
            root = installation.directory + "/root.pem"
        }

        /// - Parameter lifetime: of certificates, in seconds.
        func startAuthority(lifetime: Int, port: Int = 0) async throws -> (ChildProcess, directory: String) {
            let authority = try installation.run(
                "\(Place.products)/ACMETestServer",
                ["\(installation.port)", "\(tlsPort)", "\(lifetime)", root, "\(port)"])
            return (authority, try await authority.line())
        }

        func startGateway(_ directory: String, _ further: [String]) async throws -> ChildProcess {
            let gateway = try installation.run(
                "\(Place.products)/kiteproxy",
                [
                    "serve", "--listen", "127.0.0.1:\(installation.port)", "--listen-tls", "127.0.0.1:\(tlsPort)",
                    "--admin-listen", "127.0.0.1:\(installation.adminPort)", "--kontrol-listen",
                    "127.0.0.1:\(installation.kontrolPort)", "--data-dir", installation.directory + "/data",
                    "--acme-directory", directory, "--acme-agree", "--tls-default", "refuse",
                ] + further)
            try await installation.answers("http://127.0.0.1:\(installation.adminPort)/readyz", gateway)
            return gateway
        }

        /// Whether a visitor that trusts the authority's root is served.
        func isServed(_ host: String, _ further: String = "--tlsv1.2") async -> Bool {
            let answer = try? await curl(
                "https://\(host):\(tlsPort)/", "--cacert", root, "--resolve", "\(host):\(tlsPort):127.0.0.1", further)
            return answer?.status == 404
        }

        /// Numbers of `/metrics`, by name.
        func metric(_ name: String) async throws -> Int {
            let text = try await curl("http://127.0.0.1:\(installation.adminPort)/metrics").body
            let line = text.split(separator: "\n").first { $0.hasPrefix(name + " ") }
            return line.flatMap { Int($0.split(separator: " ").last ?? "") } ?? -1
        }
    }

    @Test(
        "A certificate is obtained, renewed, and kept when the authority fails", arguments: ["http-01", "tls-alpn-01"])
    func lives(kind: String) async throws {
        try await withInstallation { installation in
            let site = try Site(installation)
            let (authority, directory) = try await site.startAuthority(lifetime: 12)
            let gateway = try await site.startGateway(directory, ["--acme-domain", host, "--acme-challenge", kind])
            try await deadline(20, "the first certificate", gateway) {
                while await !site.isServed(host) { try await Task.sleep(for: .milliseconds(100)) }
            }
            try await deadline(20, "a renewal", gateway) {
                while try await site.metric("kiteproxy_acme_certificates_total") < 2 {
                    try await Task.sleep(for: .milliseconds(100))
                }
            }
            #expect(await site.isServed(host))
            #expect(gateway.standardError.contains("Certificate obtained"))
            authority.kill(SIGKILL)
            try await deadline(20, "a failure", gateway) {
                while !gateway.standardError.contains("No certificate was obtained") {
                    try await Task.sleep(for: .milliseconds(50))
                }
            }
            // With so short a lifetime it may have expired by now, but it is still what is shown.
            #expect(await site.isServed(host, "--insecure"))
            #expect(try await gateway.terminate() == 0)
        }
    }

    @Test("A restart uses what was kept, with no authority there")
    func restarts() async throws {
        try await withInstallation { installation in
            let site = try Site(installation)
            let (authority, directory) = try await site.startAuthority(lifetime: 90 * 86_400)
            let first = try await site.startGateway(directory, ["--acme-domain", host])
            try await deadline(20, "the first certificate", first) {
                while await !site.isServed(host) { try await Task.sleep(for: .milliseconds(100)) }
            }
            #expect(try await first.terminate() == 0)
            authority.kill(SIGKILL)
            let second = try await site.startGateway(directory, ["--acme-domain", host])
            #expect(await site.isServed(host))
            #expect(try await site.metric("kiteproxy_acme_certificates_total") == 0)
            #expect(try await second.terminate() == 0)
        }
    }

    @Test("The first visitor of a claimed name waits for its certificate, others are refused")
    func onDemand() async throws {
        try await withInstallation { installation in
            let site = try Site(installation)
            let (_, directory) = try await site.startAuthority(lifetime: 90 * 86_400)
            let gateway = try await site.startGateway(
                directory, ["--acme-on-demand", "claimed", "--domain", "gateway.example"])
            let (_, port) = try await installation.startTarget("blobs")
            _ = try await installation.startAgent("http", "127.0.0.1:\(port)", "--name", "mine")
            let answer = try await curl(
                "https://mine.gateway.example:\(site.tlsPort)/10", "--cacert", site.root, "--resolve",
                "mine.gateway.example:\(site.tlsPort):127.0.0.1")
            #expect(answer.status == 200)
            #expect(await !site.isServed("other.gateway.example"))
            #expect(try await site.metric("kiteproxy_acme_certificates_total") == 1)
            #expect(try await gateway.terminate() == 0)
        }
    }

    /// Where Debian's package puts Pebble, the server that Let's Encrypt wrote to test clients.
    private static let pebble: String? = {
        let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin"
        let found = path.split(separator: ":").map { "\($0)/pebble" }
        return found.first {
            FileManager.default.isExecutableFile(atPath: $0) && access($0 + "-challtestsrv", X_OK) == 0
        }
    }()

    @Test(
        "Pebble gives certificates, bound to an external account",
        .enabled(if: ProcessInfo.processInfo.environment["CI"] != nil || CertificateTests.pebble != nil),
        arguments: ["http-01", "tls-alpn-01"])
    func withPebble(kind: String) async throws {
        let pebble = try #require(Self.pebble, "pebble and pebble-challtestsrv are not installed")
        try await withInstallation { installation in
            let site = try Site(installation)
            let (port, management, dns) = (try freePort(), try freePort(), try freePort())
            let files = installation.directory
            _ = try await ChildProcess.run(
                "/usr/bin/openssl",
                [
                    "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                    files + "/ca.key", "-out", files + "/ca.pem", "-days", "2", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost",
                ])
            let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
            let configuration: [String: Any] = [
                "pebble": [
                    "listenAddress": "127.0.0.1:\(port)", "managementListenAddress": "127.0.0.1:\(management)",
                    "certificate": files + "/ca.pem", "privateKey": files + "/ca.key", "httpPort": installation.port,
                    "tlsPort": site.tlsPort, "externalAccountBindingRequired": true,
                    "externalAccountMACKeys": ["kid-1": key], "certificateValidityPeriod": 86_400,
                ] as [String: Any]
            ]
            try JSONSerialization.data(withJSONObject: configuration)
                .write(to: URL(fileURLWithPath: files + "/pebble.json"))
            try (key + "\n").write(toFile: files + "/hmac", atomically: true, encoding: .utf8)
            _ = try installation.run(
                pebble + "-challtestsrv",
                [
                    "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dns01", "127.0.0.1:\(dns)", "-http01", "",
                    "-https01", "", "-tlsalpn01", "", "-management", "127.0.0.1:\(try freePort())",
                ])
            let server = try installation.run(
                pebble, ["-config", files + "/pebble.json", "-dnsserver", "127.0.0.1:\(dns)", "-strict"],
                environment: ["PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "30"])
            try await deadline(20, "Pebble", server) {
                while (try? await curl("https://127.0.0.1:\(management)/roots/0", "--insecure").status) != 200 {
                    try await Task.sleep(for: .milliseconds(50))
                }
            }
            try await curl("https://127.0.0.1:\(management)/roots/0", "--insecure").body
                .write(toFile: site.root, atomically: true, encoding: .utf8)
            let gateway = try await site.startGateway(
                "https://localhost:\(port)/dir",
                [
                    "--acme-domain", host, "--acme-challenge", kind, "--acme-ca-file", files + "/ca.pem",
                    "--acme-eab-kid", "kid-1", "--acme-eab-hmac-file", files + "/hmac", "--acme-contact",
                    "ops@example.org",
                ])
            try await deadline(30, "a certificate from Pebble", gateway) {
                while await !site.isServed(host) { try await Task.sleep(for: .milliseconds(100)) }
            }
            #expect(try await gateway.terminate() == 0)
        }
    }
}
