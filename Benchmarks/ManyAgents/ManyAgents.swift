/// Opens many agents' sessions from one process, for `Benchmarks/EndToEnd/scale.py`: what a gateway does for one route must not depend on
/// how many there are.
///
///     ManyAgents GATEWAY KITE_KEY_FILE AGENTS TUNNELS
///
/// Each agent serves TUNNELS names that refuse their visitors. Prints `ready` once all serve, and runs until it is killed.
import Foundation
import KiteDialing
import KiteHTTP
import KiteTunnel
import Logging
import NIOCore
import NIOPosix

@main
enum ManyAgents {
    static func main() async throws {
        let arguments = CommandLine.arguments
        guard arguments.count == 5, let agents = Int(arguments[3]), let tunnels = Int(arguments[4]) else {
            throw Usage()
        }
        let key = try String(contentsOfFile: arguments[2], encoding: .utf8)
            .trimmingCharacters(in: .whitespacesAndNewlines)
        let loops = [MultiThreadedEventLoopGroup.singleton.next()]
        let dialer = laneDialer(try Dialer())
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            let (serving, told) = AsyncStream<Void>.makeStream()
            for agent in 0..<agents {
                let configuration = TunnelAgentConfiguration(
                    gateway: arguments[1],
                    tunnels: (0..<tunnels).map { TunnelRequest(name: "many-\(agent)-\($0)", kind: .http) }
                ) { key }
                let session = TunnelAgentSession(
                    configuration: configuration, loops: loops, dialer: dialer,
                    logger: Logger(label: "agents") { _ in SwiftLogNoOpLogHandler() }
                ) { $0.stream.abort(TransportError(.refused, "nothing is served here")) }
                tasks.addTask { try await session.run() }
                tasks.addTask {
                    for await event in session.events { if case .laneUp = event { told.yield() } }
                }
            }
            var count = 0
            for await _ in serving {
                count += 1
                if count == agents {
                    try FileHandle.standardOutput.write(contentsOf: Data("ready\n".utf8))
                }
            }
            try await tasks.waitForAll()
        }
    }
}

struct Usage: Error {}
