/// The embedded Kontrol on a listener of its own: `/kite` for kites, `/register` and `/heartbeat` over HTTP.
import EmbeddedKontrol
import KiteCommand
import KiteCore
import KiteHTTP
import KiteSupport
import Logging
import NIOCore
import ServiceLifecycle

/// An opened and bound Kontrol. Run it as a service.
struct KontrolListener: Service {
    let service: KontrolService
    /// Its methods live as long as it does.
    private let server: KontrolServer
    private let listener: KiteServer
    private let tasks: TaskPool

    /// The port that it listens on.
    var port: Int { listener.address.port ?? 0 }

    /// Opens the data directory, whose keys must exist, and binds.
    /// - Throws: ``CommandFailure``.
    static func open(dataDirectory: String, listen: ListenAddress, logger: Logger) async throws -> KontrolListener {
        try await PortCheck.require(listen, key: "kontrol-listen")
        let service: KontrolService
        do throws(KontrolError) {
            service = try await KontrolService(
                options: KontrolService.Options(dataDirectory: dataDirectory), logger: logger)
        } catch {
            throw CommandFailure(.failed, "the embedded Kontrol cannot open \(dataDirectory): \(error.message)")
        }
        let server = KontrolServer(service: service, logger: logger)
        let tasks = TaskPool(limit: 1024)
        do {
            let listener = try await server.kite.listen(host: listen.host, port: listen.port) { _ in
                KontrolExchangeAcceptor(service: service, tasks: tasks, next: NothingElse())
            }
            return KontrolListener(service: service, server: server, listener: listener, tasks: tasks)
        } catch {
            throw CommandFailure.listening(on: listen, key: "kontrol-listen", error)
        }
    }

    func run() async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await service.run() }
            group.addTask { try await listener.run() }
            group.addTask { try await tasks.run() }
            try await group.waitForAll()
        }
    }
}

/// Answers what nobody else does.
private final class NothingElse: ExchangeAcceptor {
    func accept(_ exchange: any Exchange) {
        exchange.refuse(Refusal(404, "This is Kontrol: kites are served at /kite."))
    }
}
