/// Starts the agent that the command line describes, and runs it until a signal or a final refusal.
import Foundation
import KiteCommand
import KiteCore
import KiteDialing
import KiteHTTP
import KiteTunnel
import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle
import UnixSignals

extension AgentFlags {
    /// Serves one tunnel, or those of the configuration file where none is given.
    func serve(_ given: [TunnelDefinition]) async throws {
        let (settings, inFile) = try load()
        let tunnels = given.isEmpty ? inFile : given
        let keyPath = settings[AgentSettings.kiteKey].map(expandHome) ?? KiteKey.defaultPath()
        try checkKey(keyPath)

        let isTerminal = isatty(STDOUT_FILENO) == 1
        let asJSON = settings[AgentSettings.json]
        let standardOutput: @Sendable (String) -> Void = { writeAll($0, to: STDOUT_FILENO) }
        let terminal = isTerminal && !asJSON ? TerminalDisplay(write: standardOutput) : nil
        var output = LogOutput.standardError
        if let terminal, isatty(STDERR_FILENO) == 1 {
            output = LogOutput(isTerminal: output.isTerminal) { terminal.writeAround($0) }
        }
        // The display tells a person what the log would.
        let level: Logger.Level =
            terminal != nil && !settings.isGiven("log-level") ? .critical : settings[AgentSettings.logLevel].level
        let logger = Logs.logger(
            "tunnelclient", format: settings[AgentSettings.logFormat], level: level, output: output)
        let display: any EventDisplay =
            if let terminal {
                terminal
            } else if asJSON {
                JSONDisplay(write: standardOutput)
            } else {
                LineDisplay(write: standardOutput, logger: logger)
            }

        let group = MultiThreadedEventLoopGroup(numberOfThreads: settings[AgentSettings.threads])
        let gateway = settings[AgentSettings.gateway]
        let dialers = try AgentDialers(settings)
        let agent = Agent(
            Agent.Configuration(
                gateway: "\(gateway.isSecure ? "https" : "http")://\(gateway.authority)", tunnels: tunnels,
                credential: { try KiteKey.read(from: keyPath).text },
                software: "tunnelclient/\(programVersion)"),
            loops: Array(group.makeIterator()), dialLane: dialers.lane, dialTarget: dialers.target, display: display,
            logger: logger)
        let services = ServiceGroup(
            configuration: ServiceGroupConfiguration(
                services: [.init(service: agent, successTerminationBehavior: .gracefullyShutdownGroup)],
                gracefulShutdownSignals: [.sigterm, .sigint],
                logger: Logger(label: "quiet") { _ in SwiftLogNoOpLogHandler() }))
        do {
            try await services.run()
        } catch let refusal as TunnelRefusal {
            throw CommandFailure(.failed, "\(gateway): \(refusal.reason) (\(refusal.status))")
        }
        try? await group.shutdownGracefully()
    }

    private func checkKey(_ path: String) throws {
        do throws(KeyError) {
            _ = try KiteKey.read(from: path)
        } catch {
            throw CommandFailure(
                .failed,
                "\(error.message). A kite key says who you are: the gateway's operator makes one with `kiteproxy keys issue NAME`; name its file with --kite-key, or put it at \(KiteKey.defaultPath())"
            )
        }
    }
}

func expandHome(_ path: String) -> String {
    path.hasPrefix("~/") ? NSHomeDirectory() + path.dropFirst() : path
}
