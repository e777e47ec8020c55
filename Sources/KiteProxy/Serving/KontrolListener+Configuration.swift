/// Opens the embedded Kontrol as the settings say.
import EmbeddedKontrol
import KiteCommand
import KiteCore
import Logging

extension KontrolListener {
    /// Opens the data directory, whose keys must exist, and binds.
    /// - Parameters:
    ///   - origin: where its sockets come from; nil: they are bound.
    ///   - publicURL: where kites find Kontrol; as the settings say where nil.
    /// - Throws: ``CommandFailure``.
    static func open(
        _ configuration: GatewayConfiguration, _ origin: SocketOrigin? = nil, publicURL: String? = nil, logger: Logger
    ) async throws -> KontrolListener {
        let (directory, listen) = (configuration.dataDirectory, configuration.settings[GatewaySettings.kontrolListen])
        let inherited = try await origin?.sockets(for: listen, key: "kontrol-listen") ?? []
        if inherited.isEmpty { try await PortCheck.require(listen, key: "kontrol-listen") }
        var options = KontrolService.Options(dataDirectory: directory)
        options.machinePolicy = configuration.settings[GatewaySettings.machinePolicy]
        let service: KontrolService
        do throws(KontrolError) {
            service = try await KontrolService(options: options, logger: logger)
        } catch {
            throw CommandFailure(.failed, "the embedded Kontrol cannot open \(directory): \(error.message)")
        }
        do {
            return try await KontrolListener(
                KontrolServer(service: service, logger: logger), host: listen.host, port: listen.port,
                inherited: inherited
            ) { publicURL ?? configuration.ownKontrolURL(port: $0) }
        } catch {
            throw CommandFailure.listening(on: listen, key: "kontrol-listen", error)
        }
    }
}
