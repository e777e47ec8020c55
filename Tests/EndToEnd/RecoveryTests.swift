/// What happens when processes die: everything is back within five seconds of the last restart, without a person.
import Foundation
import Testing

@Suite("Recovery", .serialized)
struct RecoveryTests {
    /// Asks until the answer is 200; fails after five seconds.
    private func expectBack(_ url: String, _ what: String, _ child: ChildProcess) async throws {
        try await deadline(5, what, child) {
            while true {
                if try await curl(url).status == 200 { return }
                try await Task.sleep(for: .milliseconds(50))
            }
        }
    }

    @Test("An agent that is killed and started again serves within 5 s", .timeLimit(.minutes(1)))
    func agentKilled() async throws {
        let installation = try Installation()
        let gateway = try await installation.startGateway()
        let (target, port) = try await installation.startTarget("polls")
        let (agent, url) = try await installation.startAgent("http", "\(port)", "--name", "polls")
        #expect(try await curl(url + "waiting").status == 200)
        agent.kill(SIGKILL)
        _ = try await agent.waitForEnd()
        let second = try ChildProcess(
            "\(Place.products)/tunnelclient", ["http", "\(port)", "--name", "polls", "--gateway", installation.url],
            environment: installation.environment)
        try await expectBack(url + "waiting", "the route to serve after the agent's restart", gateway)
        withExtendedLifetime((target, second)) {}
    }

    @Test("A gateway that is killed and started again has its agents back within 5 s", .timeLimit(.minutes(1)))
    func gatewayKilled() async throws {
        let installation = try Installation()
        let gateway = try await installation.startGateway()
        let (target, port) = try await installation.startTarget("polls")
        let (agent, url) = try await installation.startAgent("http", "\(port)", "--name", "polls")
        gateway.kill(SIGKILL)
        _ = try await gateway.waitForEnd()
        let second = try await installation.startGateway()
        try await expectBack(url + "waiting", "the route to serve after the gateway's restart", second)
        withExtendedLifetime((target, agent)) {}
    }

    @Test("Agents started before the gateway wait for it and serve", .timeLimit(.minutes(1)))
    func agentFirst() async throws {
        let installation = try Installation()
        // The first start makes the kite key that the agent needs.
        try await installation.startGateway().terminate()
        let (target, port) = try await installation.startTarget("polls")
        let agent = try ChildProcess(
            "\(Place.products)/tunnelclient", ["http", "\(port)", "--name", "polls", "--gateway", installation.url],
            environment: installation.environment)
        let gateway = try await installation.startGateway()
        try await expectBack(installation.url + "/proxy/polls/waiting", "the route to serve", gateway)
        withExtendedLifetime((target, agent)) {}
    }

    @Test(
        "A registered kite is found again within 5 s after Kontrol and gateway were killed, in either order",
        .timeLimit(.minutes(2)), arguments: [true, false])
    func kontrolKilled(kontrolFirst: Bool) async throws {
        let installation = try Installation()
        let kontrolURL = "http://127.0.0.1:\(installation.kontrolPort)/kite"
        @Sendable func startKontrol() async throws -> ChildProcess {
            let kontrol = try ChildProcess(
                "\(Place.products)/kiteproxy",
                [
                    "kontrol", "--kontrol-listen", "127.0.0.1:\(installation.kontrolPort)", "--data-dir",
                    installation.directory + "/kontrol",
                ], environment: installation.environment)
            try await deadline(30, "Kontrol to listen", kontrol) {
                while (try? await curl(kontrolURL).status) != 200 { try await Task.sleep(for: .milliseconds(50)) }
            }
            return kontrol
        }
        var kontrol = try await startKontrol()
        let gateways = try Installation(sharing: installation, options: ["--kontrol-url", kontrolURL])
        var gateway = try await gateways.startGateway()
        let kite = try ChildProcess("\(Place.products)/TestKite", ["register"], environment: installation.environment)
        let url = gateways.url + "/proxy/\(try await kite.line())/info"
        try await expectBack(url, "the kite to be found", gateway)

        kontrol.kill(SIGKILL)
        gateway.kill(SIGKILL)
        _ = try await kontrol.waitForEnd()
        _ = try await gateway.waitForEnd()
        if kontrolFirst {
            kontrol = try await startKontrol()
            gateway = try await gateways.startGateway()
        } else {
            async let starting = gateways.startGateway()
            kontrol = try await startKontrol()
            gateway = try await starting
        }
        try await expectBack(url, "the kite to be found again", gateway)
        withExtendedLifetime((kontrol, kite)) {}
    }

    @Test("SIGTERM ends gateway and agent with exit code 0", .timeLimit(.minutes(1)))
    func orderlyEnd() async throws {
        let installation = try Installation()
        let running = try await installation.start("polls")
        #expect(try await running.agent.terminate() == 0)
        #expect(try await running.gateway.terminate() == 0)
    }
}
