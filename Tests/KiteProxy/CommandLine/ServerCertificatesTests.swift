/// Certificate files that change while the gateway runs.
import Foundation
import KiteCommand
import KiteTLS
import Logging
import ServiceLifecycle
import Testing

@testable import KiteProxy

@Suite(.timeLimit(.minutes(1))) final class ServerCertificatesTests {
    private let directory: URL

    init() throws {
        directory = FileManager.default.temporaryDirectory.appendingPathComponent(
            "kite-certificates-" + UUID().uuidString)
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    }

    private func path(_ name: String) -> String { directory.appendingPathComponent(name).path }
    private func files(_ name: String) -> ServerCertificates.Files { (path(name + ".crt"), path(name + ".key")) }

    private func make(_ name: String, host: String, days: Int = 30) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
            path(name + ".key"), "-out", path(name + ".crt"), "-days", "\(days)", "-subj", "/CN=\(host)", "-addext",
            "subjectAltName=DNS:\(host)",
        ]
        process.standardError = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        try #require(process.terminationStatus == 0)
    }

    deinit { try? FileManager.default.removeItem(at: directory) }

    private let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    @Test func aBrokenPairLeavesItsOldCertificateAndTheOthersAlone() throws {
        try make("a", host: "a.example")
        try make("b", host: "b.example")
        let certificates = try ServerCertificates([files("a"), files("b")], logger: logger)
        let before = certificates.store.status
        try make("b", host: "c.example")
        try Data("nonsense".utf8).write(to: URL(fileURLWithPath: path("a.crt")))
        #expect(throws: CommandFailure.self) { try certificates.reload() }
        #expect(certificates.reloadFailures == 1)
        let after = certificates.store.status
        #expect(after.map(\.names) == [["a.example"], ["c.example"]])
        #expect(after.first?.fingerprint == before.first?.fingerprint)
        try make("a", host: "a.example")
        try certificates.reload()
        #expect(certificates.store.status.first?.fingerprint != before.first?.fingerprint)
    }

    @Test func rulesForClientsFollowTheConfiguration() throws {
        try make("a", host: "a.example")
        try make("ca", host: "ca")
        var hello = ClientHello()
        hello.serverName = "a.example"
        func rule(_ certificates: ServerCertificates) -> String? {
            guard case .context(_, let rule, _) = certificates.store.select(hello) else { return "none" }
            return rule
        }
        let certificates = try ServerCertificates(
            [files("a")], authorities: [.init(host: "*.example", path: path("ca.crt"), isRequired: true)],
            logger: logger)
        #expect(rule(certificates) == "*.example")
        #expect(throws: CommandFailure.self) {
            try certificates.setAuthorities([.init(host: "a.example", path: path("none"), isRequired: true)])
        }
        #expect(throws: CommandFailure.self) {
            try certificates.setAuthorities([.init(host: "a.example", path: path("a.key"), isRequired: true)])
        }
        #expect(rule(certificates) == "*.example")
        try certificates.setAuthorities([])
        #expect(rule(certificates) == nil)
    }

    @Test func filesThatCannotBeUsedAtFirstAreNamed() throws {
        try make("a", host: "a.example")
        try make("b", host: "b.example")
        for pair in [
            (path("a.crt"), path("b.key")), (path("a.crt"), path("none.key")), (path("none.crt"), path("a.key")),
        ] {
            let failure = #expect(throws: CommandFailure.self) {
                try ServerCertificates([pair], logger: logger)
            }
            #expect("\(failure.map { "\($0)" } ?? "")".contains(pair.1 == path("a.key") ? pair.0 : pair.1))
        }
    }

    @Test func changedFilesAreNoticedAlsoBehindLinks() async throws {
        try make("1", host: "a.example")
        try make("2", host: "a.example")
        let manager = FileManager.default
        // As container platforms do it: the files are links through a link to a directory.
        for version in ["1", "2"] {
            try manager.createDirectory(atPath: path("v" + version), withIntermediateDirectories: true)
            for kind in ["crt", "key"] {
                try manager.moveItem(atPath: path("\(version).\(kind)"), toPath: path("v\(version)/tls.\(kind)"))
            }
        }
        try manager.createSymbolicLink(atPath: path("data"), withDestinationPath: "v1")
        for kind in ["crt", "key"] {
            try manager.createSymbolicLink(atPath: path("tls." + kind), withDestinationPath: "data/tls." + kind)
        }
        let certificates = try ServerCertificates([files("tls")], logger: logger)
        let before = certificates.store.status
        let watching = Task { try await certificates.run() }
        try manager.removeItem(atPath: path("data"))
        try manager.createSymbolicLink(atPath: path("data"), withDestinationPath: "v2")
        // Ends by the time limit where nothing is noticed.
        while certificates.store.status == before { try await Task.sleep(for: .milliseconds(20)) }
        #expect(certificates.reloadFailures == 0)
        watching.cancel()
        _ = try? await watching.value
    }

    @Test func warnsOnceADayFromFourteenDaysOn() {
        func status(_ fingerprint: String, _ notAfter: Int64) -> CertificateStore.Status {
            .init(names: [fingerprint], origin: .files, keyKind: .p256, notAfter: notAfter, fingerprint: fingerprint)
        }
        let day: Int64 = 86400
        let certificates = [status("a", 100 * day), status("b", 200 * day)]
        var watch = ExpiryWatch()
        #expect(watch.due(certificates, now: 86 * day).isEmpty)
        #expect(watch.due(certificates, now: 86 * day + 1).map(\.names) == [["a"]])
        #expect(watch.due(certificates, now: 86 * day + 2).isEmpty)
        #expect(watch.due(certificates, now: 87 * day + 1).map(\.days) == [12])
        #expect(watch.due(certificates, now: 101 * day).map(\.days) == [-1])
        // Renewed: nothing more to say.
        #expect(watch.due([status("c", 300 * day), certificates[1]], now: 102 * day).isEmpty)
    }

    @Test func expiryIsGivenByNameOfWhatExpiresFirst() {
        let statistics = CertificateStatistics(
            [
                .init(names: ["b", "a"], origin: .files, keyKind: .p256, notAfter: 150, fingerprint: "1"),
                .init(names: ["a"], origin: .files, keyKind: .rsa, notAfter: 120, fingerprint: "2"),
            ], reloadFailures: 3, now: 100)
        #expect(statistics.secondsLeft.map { "\($0.0) \($0.1)" } == ["a 20", "b 50"])
    }
}
