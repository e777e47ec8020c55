/// `kiteproxy kontrol`: the embedded Kontrol alone.
import ArgumentParser
import EmbeddedKontrol
import KiteCommand
import KiteCore
import Logging
import NIOCore

struct KontrolCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "kontrol", abstract: "Serve the embedded Kontrol alone.",
        discussion: "Registry of kites and issuer of keys; gateways use it with --kontrol-url.")

    @OptionGroup var place: KeysFlags
    @Option(help: ArgumentHelp("Where it listens. (default: 127.0.0.1:4000)", valueName: "HOST:PORT"))
    var kontrolListen: String?
    @Option(help: ArgumentHelp("Where kites find it. (default: from kontrol-listen)", valueName: "URL"))
    var kontrolURL: String?
    @Option(
        help: ArgumentHelp("Who may ask it for a kite key. (default: deny)", valueName: "deny|secret|open"))
    var registerMachine: String?
    @Option(help: ArgumentHelp("The least important log lines.", valueName: "LEVEL")) var logLevel: String?
    @Option(help: ArgumentHelp("human or json.", valueName: "FORMAT")) var logFormat: String?

    func validate() throws { try checkKontrolURL(kontrolURL) }

    func run() async throws {
        func one(_ value: String?) -> [String] { value.map { [$0] } ?? [] }
        let configuration = try place.load(
            more: [
                "kontrol-listen": one(kontrolListen), "register-machine": one(registerMachine),
                "log-level": one(logLevel), "log-format": one(logFormat),
            ])
        let logger = configuration.logger()
        raiseFileLimit()
        do throws(KeyError) {
            let outcome = try await KontrolKeys.initialise(
                dataDirectory: configuration.dataDirectory,
                username: configuration.settings[GatewaySettings.username] ?? "kontrol",
                kontrolURL: kontrolURL ?? configuration.ownKontrolURL, kiteKeyPath: configuration.kiteKeyPath)
            if outcome.renewedKiteKey {
                logger.notice("Signed the operator's kite key anew", metadata: ["path": "\(outcome.kiteKeyPath)"])
            }
            if outcome.madeKiteKey {
                logger.notice("Made the operator's kite key", metadata: ["path": "\(outcome.kiteKeyPath)"])
            }
        } catch {
            throw CommandFailure(.failed, error.message)
        }
        let kontrol = try await KontrolListener.open(configuration, publicURL: kontrolURL, logger: logger)
        try await runUntilSignal([kontrol], drain: .seconds(2))
        logger.notice("Stopped")
    }
}
