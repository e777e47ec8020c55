/// `SIGHUP`: configuration and certificates are read again, and put into effect where that can be done in a running gateway.
import KiteCommand
import KiteGateway
import KiteTLS
import Logging
import ServiceLifecycle
import UnixSignals

/// Waits for the signal until the task is cancelled or the service group shuts down.
struct ReloadService: Service {
    let gateway: Gateway
    let certificates: ServerCertificates?
    /// What is in effect at first.
    let configuration: GatewayConfiguration
    /// Reads flags, environment and file as at the start.
    let load: @Sendable () throws -> GatewayConfiguration
    let logger: Logger

    func run() async throws {
        await cancelWhenGracefulShutdown {
            var current = configuration
            for await _ in await UnixSignalsSequence(trapping: .sighup) {
                do {
                    current = try await reload(after: current)
                } catch {
                    logger.error(
                        "The configuration cannot be used; the old one stays in effect", metadata: ["cause": "\(error)"]
                    )
                }
            }
        }
    }

    /// - Throws: what is wrong with the configuration or its files.
    /// - Returns: what is in effect afterwards.
    func reload(after current: GatewayConfiguration) async throws -> GatewayConfiguration {
        let fresh = try load()
        let missing = fresh.missingFiles()
        guard missing.isEmpty else { throw SettingProblems(missing) }
        if let certificates {
            // What can be refused comes first. The rules of client certificates come last: requests are held to them by the options below.
            _ = try ServerCertificates.rules(of: fresh.clientAuthorities)
            try certificates.reload()
            try certificates.store.setOptions(fresh.tlsOptions)
            try certificates.setAuthorities(fresh.clientAuthorities)
        }
        let changed = fresh.settings.keysThatDiffer(from: current.settings)
        let waiting = changed.filter { !GatewaySettings.reloadable.contains($0) }
        var options = fresh.gatewayOptions
        // What the command adds to the settings stays.
        options.kontrolUsername = gateway.options.kontrolUsername
        options.kontrolEnvironment = gateway.options.kontrolEnvironment
        options.challengeAnswer = gateway.options.challengeAnswer
        await gateway.reconfigure(options)
        logger.notice(
            "Configuration read again",
            metadata: [
                "changed": "\(changed.filter(GatewaySettings.reloadable.contains).joined(separator: ", "))",
                "sections": "\(fresh.sections.all.count)",
            ])
        if !waiting.isEmpty {
            logger.warning(
                "Some settings that changed need a new process: start one with --take-over",
                metadata: ["settings": "\(waiting.joined(separator: ", "))"])
        }
        return fresh
    }
}
