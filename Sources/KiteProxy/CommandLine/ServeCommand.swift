/// `kiteproxy serve`, what `kiteproxy` does unless told otherwise.
import ArgumentParser
import KiteCommand
import Logging

struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve", abstract: "Serve visitors, kites and agents (the default).",
        discussion: "Runs until SIGTERM or SIGINT, then lets what is going on come to its end.")

    @OptionGroup var source: GatewayConfigurationFlags

    func run() async throws {
        let configuration = try source.load()
        let missing = configuration.missingFiles()
        guard missing.isEmpty else { throw SettingProblems(missing) }
        let logger = configuration.logger()
        raiseFileLimit()
        let services = try await GatewayServices(configuration, logger: logger)
        let reload = ReloadService(
            gateway: services.gateway, certificates: services.certificates, configuration: configuration,
            load: { [source] in try source.load() }, logger: logger)
        try await runUntilSignal(
            services.services + [reload], endingWith: services.handover,
            drain: configuration.settings[GatewaySettings.drainTime])
        logger.notice("Stopped")
    }
}

extension GatewayConfiguration {
    /// The logger that the settings ask for; loggers that libraries make for themselves write the same way.
    func logger() -> Logger {
        let (format, level) = (settings[GatewaySettings.logFormat], settings[GatewaySettings.logLevel].level)
        Logs.bootstrap(format: format, level: level)
        return Logs.logger("kiteproxy", format: format, level: level)
    }
}
