/// `kiteproxy`: the root command and its entry point.
import ArgumentParser
import KiteCommand

@main
struct KiteProxyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "kiteproxy",
        abstract: "A reverse proxy and tunnel gateway for kites and other private services.",
        discussion: """
            Settings come from flags, environment variables (KITEPROXY_…) and a YAML file (--config), in this order of \
            precedence. Exit codes: 0 after a clean shutdown, 1 when it could not start, 2 for wrong usage.
            """,
        version: programVersion,
        subcommands: [
            ServeCommand.self, DemoCommand.self, KontrolCommand.self, KeysCommand.self, RoutesCommand.self,
            CheckCommand.self,
        ], defaultSubcommand: ServeCommand.self)

    static func main() async { await runProgram(KiteProxyCommand.self) }
}
