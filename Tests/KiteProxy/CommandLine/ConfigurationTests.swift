/// The gateway's configuration: flags, rules across settings, and `check`.
import ArgumentParser
import Foundation
import KiteCommand
import KiteGateway
import Testing

@testable import KiteProxy

@Suite("Gateway configuration")
struct ConfigurationTests {
    private func load(_ arguments: [String], environment: [String: String] = [:]) throws -> GatewayConfiguration {
        try GatewayConfigurationFlags.parse(arguments).load(environment: environment)
    }

    @Test("Without anything the defaults of the contract apply")
    func defaults() throws {
        let configuration = try load([], environment: ["HOME": "/home/x"])
        let settings = configuration.settings
        #expect(settings[GatewaySettings.listen].map(\.description) == ["127.0.0.1:3999"])
        #expect(settings[GatewaySettings.kontrolListen].description == "127.0.0.1:4000")
        #expect(settings[GatewaySettings.adminListen].description == "127.0.0.1:3998")
        #expect(settings[GatewaySettings.environment] == "development")
        #expect(settings[GatewaySettings.region] == "local")
        #expect(configuration.dataDirectory == "/home/x/.kiteproxy")
        #expect(configuration.kiteKeyPath == "/home/x/.kite/kite.key")
        #expect(configuration.threads >= 1)
    }

    @Test("KITE_HOME is where the kite key is")
    func kiteHome() throws {
        #expect(try load([], environment: ["HOME": "/h", "KITE_HOME": "/k"]).kiteKeyPath == "/k/kite.key")
        #expect(try load(["--kite-key", "~/a.key"], environment: ["HOME": "/h"]).kiteKeyPath == "/h/a.key")
    }

    @Test("Every setting has a flag, a variable and a key that say the same thing")
    func everySetting() throws {
        let samples = [
            "HOST:PORT": "127.0.0.1:1", "FILE": "/f", "DIR": "/d", "URL": "http://a:1", "NAME": "name", "HOST": "host",
            "CIDR": "10.0.0.0/8", "QUERY": "/user/development/math", "FIRST-LAST": "1-2", "N": "60", "SIZE": "8KiB",
            "TIME": "60s", "": "true", "HOSTNAME": "www.example.org", "ADDRESS": "ops@example.org",
        ]
        var flags: [String] = []
        var environment: [String: String] = [:]
        var yaml = ""
        var expected: [String: [String]] = [:]
        for setting in GatewaySettings.schema.settings.map(\.description) {
            let sample = samples[setting.placeholder] ?? String(setting.placeholder.prefix { $0 != "|" })
            flags += setting.placeholder.isEmpty ? ["--\(setting.key)"] : ["--\(setting.key)", sample]
            environment[GatewaySettings.schema.environmentName(setting.key)] = sample
            yaml += "\(setting.key): \(sample)\n"
            expected[setting.key] = [sample]
            #expect(!setting.meaning.isEmpty && !setting.range.isEmpty && !setting.defaultText.isEmpty)
        }
        let schema = GatewaySettings.schema
        let byFlag = try Settings(schema: schema, flags: GatewayFlags.parse(flags).given)
        let byVariable = try Settings(schema: schema, environment: environment)
        let byFile = try Settings(schema: schema, file: SettingsFile(yaml: yaml, path: "f"))
        for settings in [byFlag, byVariable, byFile] {
            #expect(Dictionary(settings.given.map { ($0.key, $0.values) }) { $1 } == expected)
        }
        #expect(expected.count > 40)
    }

    @Test("A switch can be turned off again")
    func switches() throws {
        let configuration = try load(["--no-access-log"], environment: ["KITEPROXY_ACCESS_LOG": "true"])
        #expect(!configuration.settings[GatewaySettings.accessLog])
        #expect(try load([], environment: ["KITEPROXY_ACCESS_LOG": "1"]).settings[GatewaySettings.accessLog])
    }

    @Test(
        "Settings that contradict each other are refused with the cure",
        arguments: [
            (["--listen-tls", "a:1"], "`listen-tls` needs a certificate"),
            (["--tls-cert", "/c"], "give one key for each certificate"),
            (["--kontrol-url", "http://a/kite", "--kontrol-listen", "a:1"], "give only one of them"),
            (["--listen", "127.0.0.1:3998"], "`admin-listen` and `listen` both say 127.0.0.1:3998"),
            (
                ["--listen", "0.0.0.0:3998"],
                "`admin-listen` says 127.0.0.1:3998 and `listen` 0.0.0.0:3998, which includes it"
            ),
            (
                ["--listen", "[::]:4000"],
                "`kontrol-listen` says 127.0.0.1:4000 and `listen` [::]:4000, which includes it"
            ),
            (["--listen", "localhost:3998"], "`admin-listen` says 127.0.0.1:3998 and `listen` localhost:3998"),
            (["--direct-deny", "10.0.0.0/+8"], "--direct-deny: `10.0.0.0/+8` is not valid"),
            (["--trusted-proxy", "::ffff:10.0.0.0/8"], "--trusted-proxy: `::ffff:10.0.0.0/8` is not valid"),
            (["--max-tunnels-per-agent", "65"], "1 to 64"),
            (["--public-url", "http://a/b"], "`public-url` must not have a path"),
            (["--max-parked-per-route", "10", "--max-parked", "5"], "lower it or raise `max-parked`"),
            (["--listen", "nowhere"], "--listen: `nowhere` is not valid: it must be HOST:PORT"),
            (["--threads", "many"], "--threads: `many` is not valid: it must be a whole number, 1 to 256"),
        ])
    func contradictions(arguments: [String], expected: String) {
        let problems = #expect(throws: SettingProblems.self) { try load(arguments) }
        #expect(problems?.description.contains(expected) == true, "\(String(describing: problems))")
    }

    @Test("Of an existing Kontrol and the embedded one the one given in the stronger place counts")
    func kontrol() throws {
        let image = ["KITEPROXY_KONTROL_LISTEN": "0.0.0.0:4000"]
        #expect(try load([], environment: image).usesEmbeddedKontrol)
        #expect(try !load(["--kontrol-url", "http://a/kite"], environment: image).usesEmbeddedKontrol)
        #expect(
            try load(["--kontrol-listen", "b:1"], environment: ["KITEPROXY_KONTROL_URL": "http://a/kite"])
                .usesEmbeddedKontrol)
        #expect(try !load([], environment: ["KITEPROXY_KONTROL_URL": "http://a/kite"]).usesEmbeddedKontrol)
    }

    @Test("A gateway on loopback that others reach through a front gives nobody its loopback services")
    func loopbackTargets() throws {
        let listen = ["--listen", "127.0.0.1:3999"]
        #expect(try load(listen).gatewayOptions.directTargets == .derived)
        #expect(try load(listen + ["--public-url", "http://localhost:3999"]).gatewayOptions.directTargets == .derived)
        #expect(
            try load(listen + ["--public-url", "https://gateway.example"]).gatewayOptions.directTargets
                == .refusingLoopback)
        #expect(try load(listen + ["--trusted-proxy", "127.0.0.1"]).gatewayOptions.directTargets == .refusingLoopback)
        let allowed = listen + ["--trusted-proxy", "127.0.0.1", "--direct-loopback", "allow"]
        #expect(try load(allowed).gatewayOptions.directTargets == .allowingLoopback)
    }

    @Test("Certificate files that cannot be read are named")
    func missingFiles() throws {
        let configuration = try load(["--tls-cert", "/nonexistent/c", "--tls-key", "/nonexistent/k"])
        #expect(configuration.missingFiles().count == 2)
    }

    @Test("The report shows what is not at its default and where it came from")
    func report() throws {
        let report = CheckCommand.report(try load(["--threads", "3"], environment: ["KITEPROXY_REGION": "eu"]))
        #expect(report.contains("region   eu  (environment KITEPROXY_REGION)"))
        #expect(report.contains("threads  3  (flag)"))
    }

    @Test(
        "Wrong usage ends with exit code 2, help and version with 0",
        arguments: [
            (["nonsense"], 2), (["check", "--nonsense"], 2), (["check", "--threads"], 2), (["--help"], 0),
            (["check", "--help"], 0), (["--version"], 0), (["check", "--version"], 0),
        ] as [([String], Int32)])
    func exitCodes(arguments: [String], code: Int32) {
        do {
            var command = try KiteProxyCommand.parseAsRoot(arguments)
            try command.run()
            Issue.record("\(arguments) was accepted")
        } catch {
            let ending = programEnding(KiteProxyCommand.self, error)
            #expect(ending.code == code)
            #expect(!ending.message.isEmpty)
        }
    }
}
