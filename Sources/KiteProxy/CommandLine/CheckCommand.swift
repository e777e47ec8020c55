/// `kiteproxy check`: says whether a configuration would be accepted, and what it comes to, without starting anything.
import ArgumentParser
import Foundation
import KiteCommand

struct CheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check", abstract: "Validate a configuration: file, environment and flags together.",
        discussion:
            "Prints what differs from the defaults and where it comes from. Exit code 2 when something is wrong.")

    @OptionGroup var source: GatewayConfigurationFlags

    @Flag(help: "Check values only, not whether certificate files can be read.")
    var valuesOnly = false

    func run() throws {
        let configuration = try source.load()
        var problems: [String] = []
        if !valuesOnly { problems += configuration.missingFiles() }
        guard problems.isEmpty else { throw SettingProblems(problems) }
        writeAll(Self.report(configuration), to: FileHandle.standardOutput.fileDescriptor)
    }

    /// What `check` prints for a configuration that is right.
    static func report(_ configuration: GatewayConfiguration) -> String {
        var text = "The configuration is valid.\n"
        let given = configuration.settings.given
        let width = given.map(\.key.count).max() ?? 0
        for (key, values, source) in given {
            text +=
                "  \(key.padding(toLength: width, withPad: " ", startingAt: 0))  \(values.joined(separator: ", "))  (\(source))\n"
        }
        for section in configuration.sections.all {
            text += "  \(section.subject.title)  \(section.keys.joined(separator: ", "))  (\(section.place))\n"
        }
        if given.isEmpty, configuration.sections.all.isEmpty { text += "  Everything is at its default.\n" }
        return text
    }
}

/// The flags of every command that needs the gateway's configuration.
struct GatewayConfigurationFlags: ParsableArguments {
    @Option(
        name: .customLong("config"),
        help: ArgumentHelp("YAML configuration file. (environment: KITEPROXY_CONFIG)", valueName: "FILE"))
    var file: String?

    @OptionGroup var flags: GatewayFlags

    /// Reads file and environment and lays the flags over them.
    /// - Throws: ``SettingProblems``.
    func load(environment: [String: String] = ProcessInfo.processInfo.environment) throws -> GatewayConfiguration {
        let path = file ?? environment["KITEPROXY_CONFIG"].flatMap { $0.isEmpty ? nil : $0 }
        return try GatewayConfiguration(path: path, flags: flags.given, environment: environment)
    }
}
