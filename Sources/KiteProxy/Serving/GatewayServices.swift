/// Puts a gateway together from its configuration: keys, Kontrol, the gateway's kite, the gateway, the admin listener.
import ACME
import EmbeddedKontrol
import Foundation
import KiteCommand
import KiteCore
import KiteGateway
import KiteHTTP
import KiteTLS
import Logging
import NIOCore
import ServiceLifecycle
import UnixSignals

/// Everything that `serve` runs.
struct GatewayServices: Sendable {
    let gateway: Gateway
    let admin: AdminService
    /// The embedded Kontrol, where there is one.
    let kontrol: KontrolListener?
    /// Takes the place of another gateway and gives its own to the next; ends when that has happened.
    let handover: HandoverService
    /// Of the TLS listeners, where there are any.
    let certificates: ServerCertificates?
    /// In the order in which they start; they are shut down in the reverse order.
    let services: [any Service]

    /// Makes keys that are missing, binds Kontrol and the admin listener, and prepares the gateway, which binds when it is run.
    /// - Throws: ``CommandFailure``.
    init(_ configuration: GatewayConfiguration, logger: Logger) async throws {
        let settings = configuration.settings
        let origin = try await SocketOrigin(configuration, logger: logger)
        var inherited: [[ListeningSocket]] = []
        for address in settings[GatewaySettings.listen] {
            inherited.append(try await origin.sockets(for: address, key: "listen"))
        }
        for address in settings[GatewaySettings.listenTLS] {
            inherited.append(try await origin.sockets(for: address, key: "listen-tls"))
        }
        let adminSockets = try await origin.sockets(for: settings[GatewaySettings.adminListen], key: "admin-listen")
        var kontrol: KontrolListener?
        let key: KiteKey
        let verifier: TokenVerifier
        if !configuration.usesEmbeddedKontrol {
            key = try Self.readKey(configuration)
            do throws(KeyError) {
                verifier = TokenVerifier(
                    trusting: [TrustedIssuer(name: key.kontrolUsername, keys: [try key.kontrolPublicKey()])])
            } catch {
                throw CommandFailure(.failed, "\(configuration.kiteKeyPath): \(error.message)")
            }
        } else {
            let opened = try await Self.openKontrol(configuration, origin, logger: logger)
            (kontrol, key) = (opened.0, opened.1)
            verifier = opened.0.service.verifier
        }
        let identity = KiteIdentity(
            name: "proxy", username: settings[GatewaySettings.username] ?? key.username, id: Self.randomID(),
            environment: settings[GatewaySettings.environment], region: settings[GatewaySettings.region],
            version: "1.0.0", hostname: ProcessInfo.processInfo.hostName)
        let kite = GatewayKite(identity: identity, key: key, verifier: verifier, logger: logger)

        let kontrolURL =
            kontrol.map { configuration.ownKontrolURL(port: $0.port) }
            ?? "\(settings[GatewaySettings.kontrolURL] ?? SettingURL(scheme: "http", host: "", port: nil))"
        let keep = Self.keeping(configuration.kiteKeyPath, logger: logger)
        let client = try KontrolClient(
            kite: kite.kite, url: kontrolURL, key: key, connector: KiteClient.sockJS, verifier: verifier,
            onKeyChange: keep)
        let tunnelClient = try KontrolClient(
            kite: kite.makeNamesake(logger: logger), url: kontrolURL, key: key, connector: KiteClient.sockJS,
            verifier: verifier, onKeyChange: keep)

        var options = configuration.gatewayOptions
        options.kontrolUsername = identity.username
        options.kontrolEnvironment = identity.environment
        var served: ServerCertificates?
        if !configuration.certificates.isEmpty || !settings[GatewaySettings.listenTLS].isEmpty {
            let certificates = try ServerCertificates(
                configuration.certificates, authorities: configuration.clientAuthorities,
                options: configuration.tlsOptions, logger: logger)
            options.certificates = certificates.store
            served = certificates
        }
        let challenges = ChallengeTable()
        if GatewayConfiguration.usesACME(settings) {
            options.challengeAnswer = { challenges.keyAuthorization(token: $0) }
        }
        let claims: StoredClaims
        do {
            claims = try await StoredClaims(dataDirectory: configuration.dataDirectory)
        } catch {
            throw CommandFailure(.failed, "the data directory \(configuration.dataDirectory) cannot be used: \(error)")
        }
        let endpoint = kite.endpoint
        let resolver: any KiteResolver = kontrol.map { $0.service as any KiteResolver } ?? client
        let service = kontrol?.service
        gateway = Gateway(
            options: options, resolver: resolver,
            authenticator: KontrolAuthenticator(verifier: verifier, identity: identity) { service?.note(user: $0) },
            claims: claims, visitors: verifier, kite: { endpoint.acceptor(on: $0) }, inherited: inherited,
            logger: logger)
        kite.attach(gateway)
        let automatic = try Self.automaticCertificates(
            configuration, gateway, served?.store, challenges, logger: logger)

        let isEmbedded = kontrol != nil
        let source = GatewayAdminSource(gateway: gateway, certificates: served, automatic: automatic) {
            if isEmbedded || client.client.remote?.isClosed == false { return nil }
            return "there is no connection to Kontrol at \(kontrolURL)"
        }
        let adminAddress = settings[GatewaySettings.adminListen]
        if !adminAddress.isLoopback {
            logger.warning(
                "The admin listener is reachable from elsewhere and asks nobody for a password",
                metadata: ["address": "\(adminAddress)"])
        }
        admin = try await AdminService.bind(
            adminAddress, inherited: adminSockets, source: source, logger: logger)
        self.kontrol = kontrol
        certificates = served
        var services: [any Service] = [admin]
        if let kontrol { services.append(kontrol) }
        if let served { services.append(served) }
        services += [client, tunnelClient, kite, gateway] as [any Service]
        // Before the gateway's event loops, on which handshakes wait for certificates.
        if let automatic { services.append(automatic) }
        // Ended first: kites are not to be sent to a gateway that shuts down.
        for client in [client, tunnelClient] { services.append(GatewayRegistration(client: client, gateway: gateway)) }
        self.services = services
        handover = Self.handover(configuration, gateway, admin, kontrol, origin.predecessor, logger: logger)
    }

    private static func handover(
        _ configuration: GatewayConfiguration, _ gateway: Gateway, _ admin: AdminService, _ kontrol: KontrolListener?,
        _ predecessor: Predecessor?, logger: Logger
    ) -> HandoverService {
        HandoverService(
            path: HandoverService.path(dataDirectory: configuration.dataDirectory), software: programVersion,
            predecessor: predecessor,
            resume: {
                await admin.resume()
                await kontrol?.resume()
                await gateway.resumeListening()
            },
            hasStarted: { _ = try await gateway.boundAddresses() },
            prepare: {
                await kontrol?.service.saveLiving()
                return gateway.listeningSockets + [admin.sockets, kontrol?.sockets ?? []]
            },
            onTaken: {
                await admin.handedOver()
                await kontrol?.handedOver()
                await gateway.handedOver()
            }, logger: logger)
    }

    /// Makes what keys are missing, then opens Kontrol.
    private static func openKontrol(
        _ configuration: GatewayConfiguration, _ origin: SocketOrigin, logger: Logger
    ) async throws -> (KontrolListener, KiteKey) {
        let path = configuration.kiteKeyPath
        do throws(KeyError) {
            let outcome = try await KontrolKeys.initialise(
                dataDirectory: configuration.dataDirectory,
                username: configuration.settings[GatewaySettings.username] ?? "kontrol",
                kontrolURL: configuration.ownKontrolURL, kiteKeyPath: path)
            if outcome.madeKeyPair {
                logger.notice("Made Kontrol's key pair", metadata: ["id": "\(outcome.keyPairID)"])
            }
            if outcome.madeKiteKey { logger.notice("Made the operator's kite key", metadata: ["path": "\(path)"]) }
            if outcome.renewedKiteKey {
                logger.notice("Signed the operator's kite key anew", metadata: ["path": "\(path)"])
            }
            if !outcome.kiteKeyIsTrusted {
                throw KeyError(
                    .malformed,
                    "the kite key \(path) was issued by another Kontrol: name another file with --kite-key, set KITE_HOME, or use that Kontrol with --kontrol-url"
                )
            }
        } catch {
            throw CommandFailure(.failed, error.message)
        }
        let kontrol = try await KontrolListener.open(configuration, origin, logger: logger)
        return (kontrol, try readKey(configuration))
    }

    private static func readKey(_ configuration: GatewayConfiguration) throws -> KiteKey {
        do throws(KeyError) {
            return try KiteKey.read(from: configuration.kiteKeyPath)
        } catch {
            throw CommandFailure(
                .failed,
                "\(error.message). With --kontrol-url the gateway needs a kite key of that Kontrol: name its file with --kite-key"
            )
        }
    }

    /// Keeps a kite key that Kontrol has renewed where the gateway looks for it when it starts again.
    static func keeping(_ path: String, logger: Logger) -> @Sendable (KiteKey) -> Void {
        { key in
            do throws(KeyError) {
                try key.write(to: path, replacing: true)
                logger.notice("Kept the kite key that Kontrol has renewed", metadata: ["path": "\(path)"])
            } catch {
                logger.error(
                    "The kite key that Kontrol has renewed could not be kept: the gateway will start with the old one, which is good only until its key pair is removed",
                    metadata: ["error": "\(error.message)"])
            }
        }
    }

    private static func randomID() -> String { UUID().uuidString.lowercased() }
}

/// Keeps the gateway's kite registered with Kontrol at its public URL, once that is known.
struct GatewayRegistration: Service {
    let client: KontrolClient
    let gateway: Gateway

    func run() async throws {
        // Where binding fails, the gateway itself says why.
        guard let url = try? await gateway.publicURL() else { return try await gracefulShutdown() }
        try await client.registration(url: url + "/kite").run()
    }
}

/// Runs services until a signal, and says why they could not start.
/// - Parameter last: a service whose end shuts the others down.
func runUntilSignal(_ services: [any Service], endingWith last: (any Service)? = nil, drain: TimeAmount) async throws {
    var members = services.map { ServiceGroupConfiguration.ServiceConfiguration(service: $0) }
    if let last { members.append(.init(service: last, successTerminationBehavior: .gracefullyShutdownGroup)) }
    var configuration = ServiceGroupConfiguration(
        services: members, gracefulShutdownSignals: [.sigterm, .sigint],
        cancellationSignals: [.sigquit], logger: Logger(label: "services") { _ in SwiftLogNoOpLogHandler() })
    configuration.maximumGracefulShutdownDuration = .nanoseconds(drain.nanoseconds) + .seconds(10)
    do {
        try await ServiceGroup(configuration: configuration).run()
    } catch let error as GatewayError {
        throw CommandFailure(.failed, error.description)
    }
}

/// Lets the process have as many files as the system allows: each visitor and each stream's target is one.
func raiseFileLimit() {
    var limit = rlimit()
    guard getrlimit(__rlimit_resource_t(7), &limit) == 0 else { return }
    limit.rlim_cur = limit.rlim_max
    _ = setrlimit(__rlimit_resource_t(7), &limit)
}
