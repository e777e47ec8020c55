/// The subcommands of `tunnelclient`: one for each kind of target, and one for a file with many.
import ArgumentParser
import KiteCommand
import KiteTunnel

struct HTTPCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "http", abstract: "Expose an HTTP service, WebSockets included.")

    @Argument(
        help: ArgumentHelp(
            "8080, localhost:8080, http://host:port, https://host or unix:/path/of/socket.", valueName: "TARGET"))
    var target: String
    @OptionGroup var tunnel: TunnelFlags
    @Option(
        help: ArgumentHelp("What Host says to the target. (default: what the visitor asked for)", valueName: "HOST"))
    var hostHeader: String?
    @OptionGroup(title: "Agent") var agent: AgentFlags

    func validate() throws {
        if let hostHeader { try checkHostHeader(hostHeader) }
    }

    func run() async throws {
        try await agent.serve([
            TunnelDefinition(
                name: tunnel.effectiveName, target: parseTarget(target, .http), hostHeader: hostHeader)
        ])
    }
}

struct KiteTargetCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "kite", abstract: "Expose a kite.")

    @Argument(help: ArgumentHelp("Where the kite is, such as http://localhost:3636/kite.", valueName: "URL"))
    var target: String
    @OptionGroup var tunnel: TunnelFlags
    @Option(help: ArgumentHelp("The kite's id, where known: its route is then /proxy/ID too.", valueName: "ID"))
    var kiteID: String?
    @OptionGroup(title: "Agent") var agent: AgentFlags

    func run() async throws {
        try await agent.serve([
            TunnelDefinition(name: tunnel.effectiveName, target: parseTarget(target, .kite), kiteID: kiteID)
        ])
    }
}

struct TCPCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tcp", abstract: "Expose a TCP service on a port of the gateway.",
        discussion: "The gateway's operator must allow it (tcp-ports).")

    @Argument(help: ArgumentHelp("5432 or localhost:5432.", valueName: "HOST:PORT"))
    var target: String
    @OptionGroup var tunnel: TunnelFlags
    @OptionGroup(title: "Agent") var agent: AgentFlags

    func run() async throws {
        try await agent.serve([TunnelDefinition(name: tunnel.effectiveName, target: parseTarget(target, .tcp))])
    }
}

struct ManyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run", abstract: "Expose all tunnels of a configuration file (the default with --config).")

    @OptionGroup var agent: AgentFlags

    func run() async throws {
        let tunnels = try agent.load().tunnels
        guard !tunnels.isEmpty else {
            throw CommandFailure(
                .usage,
                "there is nothing to expose: write `tunnelclient http 8080`, or name a file that has `tunnels:` with --config"
            )
        }
        try await agent.serve([])
    }
}

func parseTarget(_ text: String, _ kind: TunnelKind) throws -> TunnelTarget {
    do throws(InvalidTarget) {
        return try TunnelTarget(text, kind: kind)
    } catch {
        throw CommandFailure(.usage, error.description)
    }
}

func checkHostHeader(_ text: String) throws {
    guard !text.isEmpty, text.utf8.count <= 253, text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != 0x2F }) else {
        throw ValidationError("`\(text)` is no host: write a name or an address, with a port where needed")
    }
}
