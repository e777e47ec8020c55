/// A network between agents and their gateway that breaks as a test wants it to (`Peers/faults.py`).
import Foundation
import Testing

struct BadNetwork: Sendable {
    /// What agents dial in place of the gateway.
    let url: String
    /// Where `mixed.py` tells it what to break.
    let control: String
    /// What its chances were made from: to be told by failing tests.
    let seed: String
    private let process: ChildProcess

    /// - Parameter seed: that of an earlier run which is to be looked at again; by chance where nil.
    init(_ installation: Installation, seed: UInt32? = nil) async throws {
        let seed = seed ?? .random(in: 0...UInt32.max)
        process = try installation.run(
            Place.python, [Place.peer("faults.py"), "127.0.0.1", "\(installation.port)", "\(seed)"])
        self.seed = try await process.line()
        print("Faults with \(self.seed)")
        url = "http://127.0.0.1:\(try await process.line())"
        control = "http://127.0.0.1:\(try await process.line())"
    }

    /// Breaks something, or mends it; what can be told is described in `faults.py`.
    @discardableResult
    func tell(_ what: String) async throws -> String {
        let answer = try await curl("\(control)/\(what)")
        guard answer.status == 200 else { throw HarnessError("faults.py: \(process.standardError)") }
        return answer.body
    }

    /// Starts an agent that reaches the gateway over this network, and waits until it serves one tunnel.
    func startAgent(
        _ installation: Installation, _ arguments: String...
    ) async throws -> (agent: ChildProcess, url: String) {
        let agent = try installation.run(
            "\(Place.products)/tunnelclient", arguments + ["--gateway", url])
        return (agent, try await agent.line(within: 30) { $0.hasPrefix("http") })
    }

    /// Starts one agent before targets of all kinds.
    func startMixedAgent(_ installation: Installation) async throws -> MixedAgent {
        let blobs = try await installation.startTarget("blobs").port
        let sockets = try await installation.startTarget("websocket").port
        let kite = try await installation.testKite("listen").line()
        let file = installation.directory + "/tunnels.yaml"
        try Data(
            "tunnels: {blobs: {http: '\(blobs)'}, sockets: {http: '\(sockets)'}, math: {kite: '\(kite)'}}".utf8
        ).write(to: URL(fileURLWithPath: file))
        let agent = try installation.run(
            "\(Place.products)/tunnelclient", ["--config", file, "--gateway", url])
        var urls: [String] = []
        for name in ["blobs", "sockets", "math"] {
            let url = "\(installation.url)/proxy/\(name)"
            try await deadline(20, url, agent) {
                while ![200, 426].contains(try await curl(url + "/1").status), name != "math" {
                    try await Task.sleep(for: .milliseconds(50))
                }
            }
            urls.append(url)
        }
        return MixedAgent(process: agent, blobs: urls[0], sockets: urls[1], kite: urls[2])
    }
}

struct MixedAgent: Sendable {
    let process: ChildProcess
    let blobs: String
    let sockets: String
    let kite: String
}
