/// What a visitor and an agent are told when something is wrong.
import Foundation
import Testing

@Suite("Refusals", .serialized)
struct RefusalTests {
    @Test("Each refusal has its status and a reason that says what to do", .timeLimit(.minutes(2)))
    func visitors() async throws {
        let installation = try Installation(options: ["--domain", "test.example"])
        let gateway = try await installation.startGateway()
        let unused = try freePort()
        let (agent, _) = try await installation.startAgent("http", "\(unused)", "--name", "dead")

        let host = try await curl(installation.url, "--header", "Host: nobody.test.example")
        #expect(host.status == 404)
        #expect(!host.body.isEmpty)
        #expect(try await curl(installation.url + "/proxy/0e1d7b54-0000-4000-8000-000000000000/kite").status == 404)

        let broken = try await curl(installation.url, "--header", "Host: dead.test.example")
        #expect(broken.status == 502)
        let asJSON = try await curl(
            installation.url, "--header", "Host: dead.test.example", "--header", "Accept: application/json")
        #expect(asJSON.fields["content-type"]?.hasPrefix("application/json") == true)
        #expect(try JSONSerialization.jsonObject(with: Data(asJSON.body.utf8)) is [String: Any])

        let long = String(repeating: "a", count: 17 << 10)
        #expect(try await curl(installation.url + "/" + long).status == 414)
        let big = String(repeating: "b", count: 70 << 10)
        #expect(try await curl(installation.url, "--header", "X-Big: \(big)").status == 431)
        #expect(try await curl(installation.url, "--header", "Content-Length: x").status == 400)

        agent.kill(SIGKILL)
        _ = try await agent.waitForEnd()
        let away = try await curl(installation.url, "--header", "Host: dead.test.example")
        #expect(away.status == 503)
        #expect(away.fields["retry-after"] != nil)
        withExtendedLifetime(gateway) {}
    }

    @Test("An agent with a key of another Kontrol is refused, says why and exits 1", .timeLimit(.minutes(1)))
    func foreignKey() async throws {
        let installation = try Installation()
        let other = try Installation()
        let gateway = try await installation.startGateway()
        try await other.startGateway().terminate()
        let agent = try ChildProcess(
            "\(Place.products)/tunnelclient", ["http", "1", "--name", "intruder", "--gateway", installation.url],
            environment: other.environment)
        #expect(try await agent.waitForEnd() == 1)
        #expect(agent.standardError.contains("401"))
        withExtendedLifetime(gateway) {}
    }

    @Test("A name that another user holds is refused with 409, and the agent exits 1", .timeLimit(.minutes(1)))
    func takenName() async throws {
        let installation = try Installation()
        let gateway = try await installation.startGateway()
        let (first, _) = try await installation.startAgent("http", "1", "--name", "mine")
        let key = installation.directory + "/other.key"
        _ = try await ChildProcess.run(
            "\(Place.products)/kiteproxy",
            ["keys", "issue", "somebody", "--data-dir", installation.directory + "/data", "--out", key],
            environment: installation.environment)
        let second = try ChildProcess(
            "\(Place.products)/tunnelclient",
            ["http", "1", "--name", "mine", "--gateway", installation.url, "--kite-key", key],
            environment: installation.environment)
        #expect(try await second.waitForEnd() == 1)
        #expect(second.standardError.contains("mine"))
        withExtendedLifetime((gateway, first)) {}
    }

    @Test(
        "Wrong usage exits 2 and says how to mend it",
        arguments: [["serve", "--threads", "many"], ["nonsense"], ["serve", "--listen", "nowhere"]])
    func usage(arguments: [String]) async throws {
        let child = try ChildProcess("\(Place.products)/kiteproxy", arguments)
        #expect(try await child.waitForEnd() == 2)
        #expect(!child.standardError.isEmpty)
    }

    @Test("A port that is taken exits 1 and names it")
    func takenPort() async throws {
        let holder = try ChildProcess(
            Place.python,
            [
                "-c",
                "import socket,time\ns=socket.socket()\ns.bind(('127.0.0.1',0))\ns.listen()\nprint(s.getsockname()[1],flush=True)\ntime.sleep(60)",
            ])
        let port = try await holder.line()
        let installation = try Installation()
        let child = try ChildProcess(
            "\(Place.products)/kiteproxy",
            [
                "serve", "--listen", "127.0.0.1:\(port)", "--kontrol-listen", "127.0.0.1:0", "--admin-listen",
                "127.0.0.1:0", "--data-dir", installation.directory + "/data",
            ],
            environment: installation.environment)
        #expect(try await child.waitForEnd() == 1)
        #expect(child.standardError.contains(port))
    }
}
