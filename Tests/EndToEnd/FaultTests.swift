/// A bad network between agent and gateway, and peers that hang: visitors see a pause at most.
import Foundation
import Testing

@Suite("Faults", .serialized)
struct FaultTests {
    /// What `mixed.py` saw.
    private struct Mixed: Decodable {
        let failures: [String: Int]
        let passed: [String: Int]
        let seconds: Double
    }
    private struct Held: Decodable {
        let failures: [String: Int]
        let pauses: [Double]
    }

    private func mix(
        _ network: BadNetwork, _ agent: MixedAgent, size: Int, echoes: Int, sessions: Int, cuts: Int, within: Double
    ) async throws -> Mixed {
        let output = try await ChildProcess.run(
            Place.python,
            [
                Place.peer("mixed.py"), network.control, agent.blobs, agent.sockets, agent.kite, "\(size)", "\(echoes)",
                "\(sessions)", "\(cuts)", String(network.seed.split(separator: " ").last ?? "0"),
            ], within: within)
        return try JSONDecoder().decode(Mixed.self, from: Data(output.utf8))
    }

    @Test("Downloads, uploads, WebSockets and SockJS sessions outlive twenty cuts", .timeLimit(.minutes(2)))
    func cuts() async throws {
        try await withInstallation(options: ["--threads", "2"]) { installation in
            let gateway = try await installation.startGateway()
            let network = try await BadNetwork(installation)
            let agent = try await network.startMixedAgent(installation)
            async let mixed = mix(
                network, agent, size: 20_000_000, echoes: 20, sessions: 10, cuts: 20, within: 60)
            // Who copies what an agent said on the wire disturbs nobody for long.
            for _ in 0..<3 {
                try await Task.sleep(for: .seconds(1))
                try await network.tell("duplicate")
            }
            let seen = try await mixed
            #expect(seen.failures.isEmpty, "\(network.seed)")
            #expect(seen.passed["downloads"] == 1 && seen.passed["uploads"] == 1)
            #expect(seen.passed["cuts"] == 20)
            #expect(seen.passed["echoes", default: 0] >= 100)
            #expect(seen.passed["calls", default: 0] >= 20)
            #expect(gateway.peakResidentBytes < 150_000_000)
            #expect(agent.process.peakResidentBytes < 150_000_000)
        }
    }

    @Test("Bytes arrive whole over a lane that is chopped up, slow or late", .timeLimit(.minutes(1)))
    func shapes() async throws {
        try await withInstallation { installation in
            _ = try await installation.startGateway()
            let network = try await BadNetwork(installation)
            let agent = try await network.startMixedAgent(installation)
            for (shape, size) in [
                ("split=1", 20_000), ("split=7", 100_000), ("rate=400000", 500_000), ("delay=0.02", 500_000),
            ] {
                try await network.tell("shape?\(shape)")
                // The handshakes, too, shall pass over what is shaped; and one of the cuts comes in the middle.
                try await network.tell("cut?within=0&which=all")
                let seen = try await mix(network, agent, size: size, echoes: 2, sessions: 1, cuts: 1, within: 30)
                #expect(seen.failures.isEmpty, "\(shape), \(network.seed)")
                #expect(seen.passed["downloads"] == 1 && seen.passed["uploads"] == 1, "\(shape)")
                #expect(seen.passed["echoes", default: 0] >= 2, "\(shape)")
            }
        }
    }

    /// Positions in the handshakes and after them, one for each connection to come.
    private func positions(_ step: Int, offset: Int) -> String {
        var positions: [String] = []
        for byte in stride(from: offset, to: 400, by: step) {
            for direction in ["up", "down"] {
                positions.append("\(byte):\(direction):\(positions.count % 3 == 1 ? "fin" : "rst")")
            }
        }
        return positions.joined(separator: ",")
    }

    @Test("Agents come up and come back when connections end at any byte of the handshake", .timeLimit(.minutes(1)))
    func handshakes() async throws {
        try await withInstallation(options: ["--threads", "1"]) { installation in
            _ = try await installation.startGateway()
            let port = try await installation.startTarget("blobs").port
            let network = try await BadNetwork(installation)
            try await network.tell("close?at=\(positions(40, offset: 0))")
            let urls = try await withThrowingTaskGroup(of: String.self) { group in
                for number in 0..<5 {
                    group.addTask {
                        try await network.startAgent(installation, "http", "\(port)", "--name", "a\(number)").url
                    }
                }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            for url in urls { #expect(try await curl(url + "10").status == 200) }
            // And lanes that have something under way.
            try await network.tell("shape?rate=200000")
            try await withThrowingTaskGroup(of: TrafficTests.Download.self) { group in
                for url in urls { group.addTask { try await visit("download", url, "500000", within: 40) } }
                try await network.tell("close?at=\(positions(40, offset: 20))")
                try await network.tell("cut?after=100000&within=1&which=all")
                for try await seen in group {
                    #expect(seen.status == 200 && seen.hash == seen.expected, "\(network.seed)")
                }
            }
            try await network.tell("shape")
            // What is left is used up.
            try await deadline(30, "all positions to be used") {
                while try await !network.tell("count").hasSuffix(" 0") {
                    try await network.tell("cut?within=0&which=all")
                    // Agents whose lane did not last wait longer and longer.
                    try await Task.sleep(for: .milliseconds(1200))
                }
            }
            for url in urls { #expect(try await curl(url + "10").status == 200) }
        }
    }

    /// An agent that falls silent, in one way or another.
    private struct Silent {
        let agent: ChildProcess
        let url: String
        var network: BadNetwork?
    }

    /// What `halfopen.py` saw.
    private struct HalfOpen: Decodable {
        let before: Double
        let after: Double
        let kept: Int
        let descriptors: Int
        let reconnects: Int
    }

    @Test(
        "A thousand reconnects that leave half-open connections leave memory and descriptors as they were",
        .timeLimit(.minutes(1)))
    func halfOpen() async throws {
        try await withInstallation(options: ["--threads", "1"]) { installation in
            let gateway = try await installation.startGateway()
            let key = try #require(installation.environment["KITE_HOME"]) + "/kite.key"
            let output = try await ChildProcess.run(
                Place.python,
                [Place.peer("halfopen.py"), "127.0.0.1", "\(installation.port)", key, "\(gateway.pid)", "1000"])
            let seen = try JSONDecoder().decode(HalfOpen.self, from: Data(output.utf8))
            #expect(seen.reconnects == 1000)
            #expect(abs(seen.after / seen.before - 1) <= 0.05, "\(seen.before) to \(seen.after) KiB")
            #expect(seen.kept == 0)
            #expect(seen.descriptors < 100)
        }
    }

    @Test("Peers that fall silent are noticed within 15 s, and all goes on when they are back", .timeLimit(.minutes(2)))
    func silence() async throws {
        // Most of either is waiting.
        async let gateway: Void = frozenGateway()
        try await silentAgents()
        try await gateway
    }

    private func silentAgents() async throws {
        try await withInstallation(options: ["--threads", "1", "--park-time", "2s"]) { installation in
            let gateway = try await installation.startGateway()
            let port = try await installation.startTarget("websocket").port
            // Frozen; and frozen, with another agent for the same name.
            var agents: [Silent] = []
            for name in ["frozen", "both"] {
                let (agent, url) = try await installation.startAgent("http", "\(port)", "--name", name)
                agents.append(Silent(agent: agent, url: url))
            }
            let (_, both) = try await installation.startAgent("http", "\(port)", "--name", "both")
            // Silence in both directions, and in one.
            for name in ["hold", "up", "down"] {
                let network = try await BadNetwork(installation)
                let (agent, url) = try await network.startAgent(installation, "http", "\(port)", "--name", name)
                agents.append(Silent(agent: agent, url: url, network: network))
            }
            let silent = agents
            let held = try installation.run(
                Place.python, [Place.peer("mixed.py"), "hold"] + silent.filter { $0.url != both }.map(\.url))
            _ = try await held.line()

            let began = ContinuousClock.now
            for (position, each) in silent.enumerated() {
                guard let network = each.network else {
                    each.agent.kill(SIGSTOP)
                    continue
                }
                try await network.tell(position == 2 ? "hold" : "hold?direction=\(position == 3 ? "up" : "down")")
            }
            // It is on its way when its agent hangs.
            async let early = curl(silent[2].url, "--max-time", "60")
            try await deadline(17, "all lanes to be given up", gateway) {
                while gateway.standardError.components(separatedBy: "lane lost").count <= silent.count
                    || silent.contains(where: { $0.network != nil && !$0.agent.standardError.contains("Lane down") })
                {
                    try await Task.sleep(for: .milliseconds(50))
                }
            }
            #expect(ContinuousClock.now - began < .seconds(16))
            for _ in 0..<5 { #expect(try await curl(both).status == 426) }
            for each in silent where each.url != both {
                let answer = try await curl(each.url)
                #expect(answer.status == 503)
                #expect(answer.fields["retry-after"] != nil)
            }

            for each in silent {
                guard let network = each.network else {
                    each.agent.kill(SIGCONT)
                    continue
                }
                try await network.tell("release?keep=\(each.url == silent[3].url ? "no" : "yes")")
            }
            for each in silent { try await installation.answers(each.url, with: 426, each.agent) }
            #expect(try await early.status == 426)
            held.kill(SIGUSR1)
            let seen = try JSONDecoder().decode(Held.self, from: Data(try await held.line().utf8))
            #expect(seen.failures.isEmpty)
            // The silence was one.
            #expect(seen.pauses.allSatisfy { $0 > 5 })
        }
    }

    private func frozenGateway() async throws {
        try await withInstallation(options: ["--threads", "1"]) { installation in
            let running = try await installation.start("websocket")
            let held = try installation.run(Place.python, [Place.peer("mixed.py"), "hold", running.url])
            _ = try await held.line()
            let began = ContinuousClock.now
            running.gateway.kill(SIGSTOP)
            async let during = curl(running.url, "--max-time", "60")
            try await deadline(17, "the lane to be given up", running.agent) {
                while !running.agent.standardError.contains("Lane down") {
                    try await Task.sleep(for: .milliseconds(50))
                }
            }
            #expect(ContinuousClock.now - began < .seconds(16))
            running.gateway.kill(SIGCONT)
            #expect(try await during.status == 426)
            held.kill(SIGUSR1)
            let seen = try JSONDecoder().decode(Held.self, from: Data(try await held.line().utf8))
            #expect(seen.failures.isEmpty)
            #expect(seen.pauses.allSatisfy { $0 > 5 })
        }
    }
}

extension Installation {
    /// Waits until an agent's target answers with a status.
    fileprivate func answers(_ url: String, with status: Int, _ program: ChildProcess) async throws {
        try await deadline(15, "\(url) to answer \(status)", program) {
            while try await curl(url).status != status { try await Task.sleep(for: .milliseconds(50)) }
        }
    }
}
