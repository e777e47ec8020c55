/// The agent's configuration file: settings and tunnels.
import KiteCommand
import KiteTunnel
import Testing

@testable import TunnelClient

@Suite("Agent configuration")
struct AgentConfigurationTests {
    private func tunnels(_ yaml: String) throws -> [TunnelDefinition] {
        try TunnelDefinition.tunnels(in: SettingsFile(yaml: yaml, path: "f.yaml"))
    }

    @Test("Tunnels keep their order, kinds and options")
    func many() throws {
        let tunnels = try tunnels(
            """
            gateway: https://gw.example
            tunnels:
              shop:
                http: 8080
                host-header: shop.local
              math:
                kite: http://localhost:3636/kite
                kite-id: 0e1d7b54-0000-4000-8000-000000000000
              db:
                tcp: localhost:5432
            """)
        #expect(tunnels.map(\.name) == ["shop", "math", "db"])
        #expect(tunnels.map(\.target.kind) == [.http, .kite, .tcp])
        #expect(tunnels.first?.hostHeader == "shop.local")
        #expect(tunnels.dropFirst().first?.request.path == "/kite")
        #expect(tunnels.dropFirst().first?.request.kiteID == "0e1d7b54-0000-4000-8000-000000000000")
    }

    @Test(
        "What is wrong is told with its line",
        arguments: [
            ("tunnels:\n  shop: 8080\n", "f.yaml:2: write `tunnels:`"), ("tunnels: x\n", "f.yaml:1: write `tunnels:`"),
            ("tunnels:\n  Shop:\n    http: 1\n", "f.yaml:3: `Shop` is no name"),
            ("tunnels:\n  a:\n    htp: 1\n", "f.yaml:3: unknown key `tunnels.a.htp`; did you mean `http`?"),
            ("tunnels:\n  a:\n    http: 1\n    tcp: 2\n", "f.yaml:4: tunnel `a` has two targets"),
            ("tunnels:\n  a:\n    http: nowhere\n", "f.yaml:3: `nowhere` is no target"),
            ("tunnels:\n  a:\n    host-header: x\n", "f.yaml:3: tunnel `a` needs"),
            ("tunnels:\n  a:\n    http: [1]\n", "f.yaml:3: `tunnels.a.http` takes one value"),
        ])
    func problems(yaml: String, expected: String) {
        let problems = #expect(throws: SettingProblems.self) { try tunnels(yaml) }
        #expect(problems?.description.hasPrefix(expected) == true, "\(String(describing: problems))")
    }

    @Test("The gateway comes from the flag, KITE_PROXY_URL, the file, or is the local one")
    func gateway() throws {
        let file = try SettingsFile(yaml: "gateway: http://file:1\ntunnels: {a: {http: 1}}\n", path: "f")
            .removing(section: "tunnels")
        func gateway(flag: [String], variable: String?, file: SettingsFile?) throws -> String {
            try Settings(
                schema: AgentSettings.schema, flags: ["gateway": flag],
                environment: variable.map { ["KITE_PROXY_URL": $0] } ?? [:], file: file)[AgentSettings.gateway]
                .description
        }
        #expect(try gateway(flag: [], variable: nil, file: nil) == "http://127.0.0.1:3999")
        #expect(try gateway(flag: [], variable: nil, file: file) == "http://file:1")
        #expect(try gateway(flag: [], variable: "http://var:1/kite", file: file) == "http://var:1/kite")
        #expect(try gateway(flag: ["https://flag"], variable: "http://var:1", file: file) == "https://flag")
    }
}
