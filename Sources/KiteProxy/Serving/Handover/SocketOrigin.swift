/// Where a gateway's listening sockets come from: from the system, or from the gateway whose place it takes.
import KiteCommand
import KiteHTTP
import Logging

struct SocketOrigin: Sendable {
    /// Nil where no other gateway is to be replaced, or none runs.
    let predecessor: Predecessor?

    /// Asks the gateway that runs for its sockets, if the configuration says that its place is to be taken.
    /// - Throws: ``CommandFailure`` when it does not answer as it should.
    init(_ configuration: GatewayConfiguration, logger: Logger) async throws {
        guard configuration.settings[GatewaySettings.takeOver] else {
            predecessor = nil
            return
        }
        do {
            predecessor = try await Predecessor.find(dataDirectory: configuration.dataDirectory)
        } catch {
            throw CommandFailure(
                .failed,
                "the gateway that runs with the data directory \(configuration.dataDirectory) does not hand over its listeners: \(error). It goes on; stop it, and start without --take-over"
            )
        }
        if predecessor == nil { logger.info("No gateway runs with this data directory: there is nothing to take over") }
    }

    /// The sockets of an address; none when it is to be bound, which was possible a moment ago.
    /// - Throws: ``CommandFailure`` naming the address, the setting and the cure.
    func sockets(for address: ListenAddress, key: String) async throws -> [ListeningSocket] {
        if let predecessor {
            let sockets = try await predecessor.take(address.resolved(key: key))
            if !sockets.isEmpty { return sockets }
        }
        try await PortCheck.require(address, key: key)
        return []
    }
}
