/// What happens when processes die: everything is back within five seconds of the last restart, without a person.
import Foundation
import Testing

@Suite("Recovery", .serialized)
struct RecoveryTests {
    /// A program that may die.
    enum Part: String { case kontrol, gateway, agent }

    /// What `visitor.py calls` saw.
    struct Calls: Decodable {
        /// The last error of each URL that has not answered.
        let left: [String: String]
    }

    private static let domain = "test.example"
    /// The id under which the agent's kite can be called: known to nobody but agent and gateway.
    private static let privateID = "0e1d7b54-0000-4000-8000-00000000beef"

    /// A Kontrol, a gateway, an agent before a kite that is not registered, and a registered kite.
    private struct Site {
        let installation: Installation
        var running: [Part: ChildProcess] = [:]
        let privateKite: String
        let registeredID: String

        init(_ installation: Installation) async throws {
            self.installation = installation
            let kontrol = try installation.spawnKontrol()
            try await installation.answers(installation.kontrolURL, kontrol)
            let gateway = try await installation.startGateway()
            privateKite = try await installation.testKite("listen").line()
            registeredID = try await installation.testKite("register").line()
            running = [.kontrol: kontrol, .gateway: gateway]
            running[.agent] = try spawn(.agent)
        }

        func spawn(_ part: Part) throws -> ChildProcess {
            switch part {
            case .kontrol: try installation.spawnKontrol()
            case .gateway: try installation.spawnGateway()
            case .agent: try installation.tunnelclient("kite", privateKite, "--name", "math", "--kite-id", privateID)
            }
        }

        /// Waits until a part that was started again takes part in what the next one finds.
        func waitUntilUp(_ part: Part) async throws {
            guard let process = running[part] else { return }
            switch part {
            case .kontrol: try await installation.answers(installation.kontrolURL, process)
            case .gateway:
                try await installation.answers("http://127.0.0.1:\(installation.adminPort)/healthz", process)
            case .agent: break
            }
        }

        /// Calls `square` of the agent's kite by host name and by its id, and of registered kites by theirs, until all have answered.
        func call(_ ids: [String]) async throws -> Calls {
            let urls =
                ["http://math.\(domain):\(installation.port)/kite"] + ids.map { "\(installation.url)/proxy/\($0)" }
            let output = try await ChildProcess.run(
                Place.python,
                [Place.peer("visitor.py"), "calls", "5", "127.0.0.1:\(installation.port)"] + urls)
            return try JSONDecoder().decode(Calls.self, from: Data(output.utf8))
        }

        /// Kills parts all at once and starts them again in this order, each when the one before is up.
        mutating func restart(_ order: [Part], after outage: Duration = .zero) async throws {
            // Registered before, and never asked for until afterwards: nobody has it in a cache.
            let fresh = try await installation.testKite("register").line()
            for part in order { running[part]?.kill(SIGKILL) }
            for part in order { _ = try await running[part]?.waitForEnd() }
            if outage > .zero { try await Task.sleep(for: outage) }
            var start = ContinuousClock.now
            for part in order {
                start = .now
                running[part] = try spawn(part)
                if part != order.last { try await waitUntilUp(part) }
            }
            let what = order.map(\.rawValue).joined(separator: ", then ")
            async let found = installation.testKite("find", "proxy").line(within: 10)
            let calls = try await call([privateID, registeredID, fresh])
            #expect(calls.left.isEmpty, "\(what): \(calls.left) \(running.mapValues(\.standardError))")
            #expect(try await found.hasPrefix(installation.url), "\(what): the gateway is registered again")
            let time = ContinuousClock.now - start
            #expect(time < .seconds(5), "\(what)")
        }
    }

    private func withSite(_ body: (inout Site) async throws -> Void) async throws {
        try await withInstallation(options: ["--domain", Self.domain], hasOwnKontrol: true) { installation in
            var site = try await Site(installation)
            let calls = try await site.call([Self.privateID, site.registeredID])
            try #require(calls.left.isEmpty, "\(calls.left)")
            try await body(&site)
        }
    }

    @Test(
        "Kites are called within 5 s after any of Kontrol, gateway and agent were killed and started again, in any order",
        .timeLimit(.minutes(2)))
    func restarts() async throws {
        try await withSite { site in
            for order: [Part] in [
                [.agent], [.gateway], [.kontrol], [.kontrol, .gateway, .agent], [.kontrol, .agent, .gateway],
                [.gateway, .kontrol, .agent], [.gateway, .agent, .kontrol], [.agent, .kontrol, .gateway],
                [.agent, .gateway, .kontrol],
            ] {
                try await site.restart(order)
            }
        }
    }

    @Test("Agents and kites that waited long are back within 5 s too", .timeLimit(.minutes(1)))
    func longOutage() async throws {
        try await withSite { site in try await site.restart([.gateway, .kontrol], after: .seconds(12)) }
    }

    @Test("SIGTERM ends gateway and agent with exit code 0", .timeLimit(.minutes(1)))
    func orderlyEnd() async throws {
        try await withInstallation { installation in
            let running = try await installation.start("small")
            #expect(try await running.agent.terminate() == 0)
            #expect(try await running.gateway.terminate() == 0)
        }
    }
}
