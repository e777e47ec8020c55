/// `tunnelclient`: the root command and its entry point.
import ArgumentParser
import KiteCommand

@main
struct TunnelClientCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tunnelclient",
        abstract: "Gives a private service a public URL through a KiteProxy gateway.",
        discussion: """
            Opens a tunnel outward; no port is opened here. The public URL is the first line of standard output, as soon as it \
            serves. Exit codes: 0 after a clean end, 1 when the gateway refuses (wrong key, name taken) or it could not start, \
            2 for wrong usage.
            """,
        version: programVersion,
        subcommands: [HTTPCommand.self, KiteTargetCommand.self, TCPCommand.self, ManyCommand.self],
        defaultSubcommand: ManyCommand.self)

    static func main() async { await runProgram(TunnelClientCommand.self) }
}
