/// Agents behind corporate proxies.
import Foundation
import Testing

@Suite("Agents behind proxies", .serialized)
struct AgentProxyTests {
    @Test(
        "The tunnel goes through the proxy that the environment names", .timeLimit(.minutes(1)),
        arguments: [("connect", "HTTP_PROXY", "http"), ("socks5", "ALL_PROXY", "socks5")])
    func proxy(kind: String, variable: String, scheme: String) async throws {
        try await withInstallation { installation in
            _ = try await installation.startGateway()
            let (_, port) = try await installation.startTarget("small")
            let proxy = try installation.run(Place.python, [Place.peer("proxies.py"), kind])
            let proxyPort = try await proxy.line()
            // A name that only the proxy knows.
            let agent = try installation.run(
                "\(Place.products)/tunnelclient",
                ["http", "\(port)", "--name", "inside", "--gateway", "http://gateway.invalid:\(installation.port)"],
                environment: [variable: "\(scheme)://u:p@127.0.0.1:\(proxyPort)"])
            let url = try await agent.line { $0.hasPrefix("http") }
            #expect(try await curl(url).status == 200)
            #expect(proxy.standardOutput.contains("gateway.invalid:\(installation.port)"))
            #expect(!agent.standardError.contains("u:p"))
        }
    }
}
