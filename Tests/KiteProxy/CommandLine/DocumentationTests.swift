/// What is written for operators agrees with what the programs do.
import ArgumentParser
import Foundation
import KiteCommand
import Testing

@testable import KiteProxy

@Suite("Documentation and examples")
struct DocumentationTests {
    private static let checkout = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath()
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    private func text(_ path: String) throws -> String {
        try String(contentsOf: Self.checkout.appendingPathComponent(path), encoding: .utf8)
    }

    @Test("The table in docs/configuration.md is the schema's")
    func table() throws {
        let document = try text("docs/configuration.md")
        let begin = try #require(document.range(of: "<!-- table of kiteproxy -->\n"))
        let end = try #require(document.range(of: "<!-- end of table -->", range: begin.upperBound..<document.endIndex))
        let table = GatewaySettings.schema.markdown
        if ProcessInfo.processInfo.environment["UPDATE_DOCS"] != nil {
            let updated = document.replacingCharacters(in: begin.upperBound..<end.lowerBound, with: table)
            try updated.write(
                to: Self.checkout.appendingPathComponent("docs/configuration.md"), atomically: true, encoding: .utf8)
        } else {
            #expect(document[begin.upperBound..<end.lowerBound] == table, "run the tests once with UPDATE_DOCS=1")
        }
    }

    @Test("kiteproxy check accepts the example configuration")
    func example() throws {
        let path = Self.checkout.appendingPathComponent("deploy/kiteproxy.yaml").path
        let flags = try GatewayConfigurationFlags.parse(["--config", path])
        let configuration = try flags.load(environment: [:])
        #expect(configuration.settings[GatewaySettings.domain] == "gateway.example")
        #expect(CheckCommand.report(configuration).contains("deploy/kiteproxy.yaml:"))
    }

    @Test("Every key that the example shows commented out is right as well")
    func commented() throws {
        var yaml = ""
        for line in try text("deploy/kiteproxy.yaml").split(separator: "\n", omittingEmptySubsequences: false) {
            let isSample = line.hasPrefix("# ") && (line.hasPrefix("#   - ") || line.dropFirst(2).contains(":"))
            let body = line.dropFirst(2)
            let key = body.prefix { $0 != ":" }
            let isKey = GatewaySettings.schema.setting(String(key)) != nil
            // An existing Kontrol excludes the embedded one, which the example has.
            guard isSample, key != "kontrol-url", isKey || line.hasPrefix("#   - ") else {
                yaml += line + "\n"
                continue
            }
            yaml += body + "\n"
        }
        let file = try SettingsFile(yaml: yaml, path: "example")
        let settings = try Settings(schema: GatewaySettings.schema, file: file)
        let configuration = try GatewayConfiguration(settings, environment: [:])
        #expect(configuration.certificates.count == 1)
        #expect(settings[GatewaySettings.tcpPorts] == 20000...20099)
    }

    @Test("The documents name every metric that exists")
    func metrics() throws {
        let document = try text("docs/operations.md")
        var count = 0
        for line in MetricsText.sample.split(separator: "\n") where line.hasPrefix("# TYPE ") {
            let name = line.split(separator: " ")[2]
            #expect(document.contains("`\(name)`"), "\(name) is missing in docs/operations.md")
            count += 1
        }
        #expect(count > 20)
    }
}
