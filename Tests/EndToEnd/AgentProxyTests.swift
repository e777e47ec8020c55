/// Agents behind corporate proxies.
import Foundation
import Testing

@Suite("Agents behind proxies", .serialized)
struct AgentProxyTests {
    @Test(
        "The tunnel goes through the proxy that the environment names", .timeLimit(.minutes(1)),
        arguments: [("connect", "HTTP_PROXY", "http"), ("socks5", "ALL_PROXY", "socks5")])
    func proxy(kind: String, variable: String, scheme: String) async throws {
        let installation = try Installation()
        let gateway = try await installation.startGateway()
        let (target, port) = try await installation.startTarget("polls")
        let proxy = try ChildProcess(Place.python, [Place.peer("proxies.py"), kind])
        let proxyPort = try await proxy.line()
        var environment = installation.environment
        environment[variable] = "\(scheme)://u:p@127.0.0.1:\(proxyPort)"
        // A name that only the proxy knows.
        let agent = try ChildProcess(
            "\(Place.products)/tunnelclient",
            ["http", "\(port)", "--name", "inside", "--gateway", "http://gateway.invalid:\(installation.port)"],
            environment: environment)
        let url = try await agent.line { $0.hasPrefix("http") }
        #expect(try await curl(url + "waiting").status == 200)
        #expect(proxy.standardOutput.contains("gateway.invalid:\(installation.port)"))
        #expect(!agent.standardError.contains("u:p"))
        withExtendedLifetime((gateway, target)) {}
    }
}
