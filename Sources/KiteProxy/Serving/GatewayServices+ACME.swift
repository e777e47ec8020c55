/// Puts automatic certificates together with the gateway that they are for.
import ACME
import KiteCommand
import KiteGateway
import KiteTLS
import Logging

extension GatewayServices {
    /// Makes the service that obtains certificates, and serves at once what was kept from before.
    /// - Returns: nil where the configuration wants none.
    /// - Throws: ``CommandFailure``.
    static func automaticCertificates(
        _ configuration: GatewayConfiguration, _ gateway: Gateway, _ store: CertificateStore?,
        _ challenges: ChallengeTable, logger: Logger
    ) throws -> AutomaticCertificates? {
        guard let store,
            let options = try configuration.automaticCertificates(isClaimed: { await gateway.isClaimed($0) })
        else { return nil }
        let certificates: AutomaticCertificates
        do {
            certificates = try AutomaticCertificates(
                options: options, sink: store, challenges: challenges, dialer: configuration.acmeDialer(),
                logger: logger, isListening: { _ = try await gateway.boundAddresses() })
        } catch {
            throw CommandFailure(.failed, "certificates cannot be obtained by ACME: \(error)")
        }
        certificates.installStored()
        store.setOnDemand { [weak certificates] name, loop in certificates?.wanted(name, on: loop) }
        return certificates
    }
}
