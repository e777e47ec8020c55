/// The flags that all subcommands of `tunnelclient` share. What each means stands in ``AgentSettings``.
import ArgumentParser
import Foundation
import KiteCommand

private let helpByKey: [String: ArgumentHelp] = Dictionary(
    AgentSettings.schema.settings.map(\.description).map { setting in
        let shown = setting.defaultText.replacing("`", with: "")
        let variable = AgentSettings.schema.environmentName(setting.key)
        let help = ArgumentHelp(
            "\(setting.meaning.replacing("`", with: "")). (default: \(shown); environment: \(variable))",
            valueName: setting.placeholder.isEmpty ? nil : setting.placeholder)
        return (setting.key, help)
    }
) { $1 }

private func help(_ key: String) -> ArgumentHelp { helpByKey[key] ?? "" }

struct AgentFlags: ParsableArguments {
    @Option(
        name: .customLong("config"),
        help: ArgumentHelp(
            "YAML file with settings and many tunnels. (environment: TUNNELCLIENT_CONFIG)", valueName: "FILE"))
    var file: String?
    @Option(name: .customLong("gateway"), help: help("gateway"))
    var gateway: String?
    @Option(name: .customLong("kite-key"), help: help("kite-key"))
    var kiteKey: String?
    @Option(name: .customLong("ca-file"), help: help("ca-file"))
    var certificateAuthorities: String?
    @Option(name: .customLong("threads"), help: help("threads"))
    var threads: String?
    @Option(name: .customLong("connect-timeout"), help: help("connect-timeout"))
    var connectTimeout: String?
    @Flag(name: .customLong("json"), inversion: .prefixedNo, help: help("json"))
    var json: Bool?
    @Option(name: .customLong("log-level"), help: help("log-level"))
    var logLevel: String?
    @Option(name: .customLong("log-format"), help: help("log-format"))
    var logFormat: String?

    var given: [String: [String]] {
        func one(_ value: String?) -> [String] { value.map { [$0] } ?? [] }
        return [
            "gateway": one(gateway), "kite-key": one(kiteKey), "ca-file": one(certificateAuthorities),
            "threads": one(threads), "connect-timeout": one(connectTimeout),
            "json": json.map { [String($0)] } ?? [], "log-level": one(logLevel), "log-format": one(logFormat),
        ]
    }

    /// The settings and the tunnels of the configuration file.
    /// - Throws: ``SettingProblems``.
    func load(
        environment: [String: String] = ProcessInfo.processInfo.environment
    ) throws(SettingProblems) -> (settings: Settings, tunnels: [TunnelDefinition]) {
        let path = file ?? environment["TUNNELCLIENT_CONFIG"].flatMap { $0.isEmpty ? nil : $0 }
        var read: SettingsFile?
        if let path { read = try SettingsFile(contentsOf: path) }
        let settings = try Settings(
            schema: AgentSettings.schema, flags: given, environment: environment,
            file: read?.removing(section: "tunnels"))
        return (settings, try read.map { file throws(SettingProblems) in try TunnelDefinition.tunnels(in: file) } ?? [])
    }
}

/// The flags of a subcommand that opens one tunnel.
struct TunnelFlags: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The name in the public URL: 1 to 63 of a-z, 0-9 and -. (default: from the name of this host)",
            valueName: "NAME"))
    var name: String?

    func validate() throws {
        if let name, !TunnelDefinition.isName(name) {
            throw ValidationError("`\(name)` is no name for a tunnel: use 1 to 63 of a-z, 0-9 and `-`")
        }
    }

    /// The name given, or the host's.
    var effectiveName: String { name ?? TunnelDefinition.name(fromHost: ProcessInfo.processInfo.hostName) }
}
