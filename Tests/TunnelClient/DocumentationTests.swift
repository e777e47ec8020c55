/// What is written for the agent's users agrees with what it does.
import ArgumentParser
import Foundation
import KiteCommand
import Testing

@testable import TunnelClient

@Suite("Documentation and examples of the agent")
struct AgentDocumentationTests {
    private static let checkout = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath()
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    @Test("The table in docs/configuration.md is the schema's")
    func table() throws {
        let url = Self.checkout.appendingPathComponent("docs/configuration.md")
        let document = try String(contentsOf: url, encoding: .utf8)
        let begin = try #require(document.range(of: "<!-- table of tunnelclient -->\n"))
        let end = try #require(document.range(of: "<!-- end of table -->", range: begin.upperBound..<document.endIndex))
        let table = AgentSettings.schema.markdown
        if ProcessInfo.processInfo.environment["UPDATE_DOCS"] != nil {
            let updated = document.replacingCharacters(in: begin.upperBound..<end.lowerBound, with: table)
            try updated.write(to: url, atomically: true, encoding: .utf8)
        } else {
            #expect(document[begin.upperBound..<end.lowerBound] == table, "run the tests once with UPDATE_DOCS=1")
        }
    }

    @Test("The example configuration is right")
    func example() throws {
        let path = Self.checkout.appendingPathComponent("deploy/tunnelclient.yaml").path
        let (settings, tunnels) = try AgentFlags.parse(["--config", path]).load(environment: [:])
        #expect(tunnels.map(\.name) == ["shop", "math"])
        #expect(settings[AgentSettings.gateway].description == "http://gateway.example:3999")
    }
}
