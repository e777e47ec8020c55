import ACME
import ArgumentParser
import Foundation
import KiteCommand
import Testing

@testable import KiteProxy

/// What `kiteproxy check` says of certificates that come by themselves.
@Suite struct ACMESettingsTests {
    private func load(_ arguments: String...) throws -> GatewayConfiguration {
        try GatewayConfigurationFlags.parse(arguments).load(environment: [:])
    }

    private func problem(_ arguments: String...) -> String {
        do {
            _ = try GatewayConfigurationFlags.parse(arguments).load(environment: [:])
            return ""
        } catch {
            return "\(error)"
        }
    }

    @Test func anACMEDomainStandsForACertificate() async throws {
        let configuration = try load("--listen-tls", "0.0.0.0:8443", "--acme-domain", "WWW.Example.org", "--acme-agree")
        let options = try #require(try configuration.automaticCertificates { _ in false })
        #expect(options.names == ["www.example.org"] && options.isAgreed && options.onDemand == nil)
        #expect(options.servers.map { "\($0)" } == ["https://acme-v02.api.letsencrypt.org/directory"])
        #expect(options.kinds == [.http01, .tlsALPN01])
        #expect(configuration.missingFiles().isEmpty)
        #expect(try load().automaticCertificates { _ in true } == nil)
    }

    @Test func saysWhatDoesNotFitTogether() {
        let tls = ["--listen-tls", "0.0.0.0:8443"]
        for (arguments, words) in [
            (["--acme-domain", "a.test", "--acme-agree"], "listen-tls"),
            (tls + ["--acme-domain", "a.test"], "acme-agree"),
            (tls + ["--acme-on-demand", "claimed", "--acme-agree"], "domain"),
            (tls + ["--acme-domain", "a.test", "--acme-agree", "--acme-eab-kid", "x"], "acme-eab-hmac-file"),
            (tls + ["--acme-domain", "*.a.test", "--acme-agree"], "cannot be validated"),
            (tls + ["--acme-domain", "localhost", "--acme-agree"], "acme-domain"),
            (tls + ["--acme-domain", "a.test", "--acme-challenge", "dns-01"], "acme-challenge"),
            (tls + ["--acme-domain", "a.test", "--acme-contact", "nobody"], "acme-contact"),
            (tls + ["--acme-domain", "a.test", "--acme-directory", "ftp://a.test/"], "acme-directory"),
            (tls, "tls-cert"),
        ] {
            do {
                _ = try GatewayConfigurationFlags.parse(arguments).load(environment: [:])
                Issue.record("\(arguments) is taken")
            } catch {
                #expect("\(error)".contains(words), "\(arguments): \(error)")
            }
        }
        // A server of one's own may have no terms.
        #expect(
            problem("--listen-tls", "0.0.0.0:8443", "--acme-domain", "a.test", "--acme-directory", "http://ca.test/")
                .isEmpty)
    }

    @Test func looksIntoTheFiles() throws {
        let directory = NSTemporaryDirectory() + "acme-settings-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let (key, authorities) = (directory + "/hmac", directory + "/ca.pem")
        func problems() throws -> [String] {
            try load(
                "--listen-tls", "0.0.0.0:8443", "--acme-domain", "a.test", "--acme-agree", "--acme-eab-kid", "k",
                "--acme-eab-hmac-file", key, "--acme-ca-file", authorities
            ).missingFiles()
        }
        #expect(try problems().count == 2)
        try "!!".write(toFile: key, atomically: true, encoding: .utf8)
        try "no certificate".write(toFile: authorities, atomically: true, encoding: .utf8)
        #expect(try problems().count == 2)
        try "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n".write(toFile: key, atomically: true, encoding: .utf8)
        let left = try problems()
        #expect(left.count == 1 && left.first?.contains("acme-ca-file") == true)
    }

    @Test func onDemandIsForClaimedNamesAndPatterns() async throws {
        let configuration = try load(
            "--listen-tls", "0.0.0.0:8443", "--acme-agree", "--acme-on-demand", "claimed", "--domain", "gw.test",
            "--acme-on-demand-allow", "*.shop.test", "--acme-on-demand-allow", "one.test", "--acme-on-demand-rate", "3")
        let options = try #require(try configuration.automaticCertificates { $0 == "mine" })
        let onDemand = try #require(options.onDemand)
        #expect(onDemand.namesPerHour == 3)
        for name in ["mine.gw.test", "a.shop.test", "one.test"] { #expect(await onDemand.isAllowed(name)) }
        for name in [
            "other.gw.test", "a.mine.gw.test", "gw.test", "shop.test", "a.b.shop.test", "a.one.test", "minegw.test",
        ] {
            #expect(await !onDemand.isAllowed(name), "\(name)")
        }
    }
}
