/// An embedded Kontrol that listens on a port of its own.
import KiteCore
package import KiteHTTP
import KiteSupport
import NIOCore
public import ServiceLifecycle

/// Serves Kontrol's methods below `/kite`, registering over HTTP, and keeps the service going. One thing to give to the service group.
public struct KontrolListener: Service {
    /// What it serves.
    public let server: KontrolServer
    private let listening: KiteServer
    private let tasks: TaskPool
    private let successor = Latch<Void>()

    /// Listens at once; connections are served while ``run()`` runs.
    /// - Parameters:
    ///   - host: a name or an IP address of this machine.
    ///   - port: 0 for any that is free.
    ///   - publicURL: where kites reach this Kontrol, by the port that it listens on; under it Kontrol lists itself. The address it
    ///     listens on where nil.
    /// - Throws: when the address does not exist or is taken.
    public init(
        _ server: KontrolServer, host: String, port: Int, publicURL: ((_ port: Int) -> String)? = nil
    ) async throws {
        try await self.init(server, host: host, port: port, inherited: [], publicURL: publicURL)
    }

    /// Listens on the sockets of a predecessor in another process; binds where there are none.
    package init(
        _ server: KontrolServer, host: String, port: Int, inherited: [ListeningSocket],
        publicURL: ((_ port: Int) -> String)? = nil
    ) async throws {
        self.server = server
        let tasks = TaskPool(limit: 1024)
        self.tasks = tasks
        let service = server.service
        listening = try await server.kite.listen(host: host, port: port, inherited: inherited) { _ in
            KontrolExchangeAcceptor(service: service, tasks: tasks, next: NothingElse())
        }
        let url = publicURL?(listening.address.port ?? port) ?? listening.url
        try await service.register(local: service.identity, url: url)
    }

    /// The Kontrol itself.
    public var service: KontrolService { server.service }

    /// The port that it listens on.
    public var port: Int { listening.address.port ?? 0 }

    /// What it listens on, for a successor in another process.
    package var sockets: [ListeningSocket] { listening.sockets }

    /// The predecessor accepts no more: serves its listener from now on.
    package func resume() async { await listening.resume() }

    /// Another process serves the listener now: connections of kites end, so that they go there.
    package func handedOver() async {
        await service.handedOver()
        successor.succeed(())
    }

    /// The URL by which clients of this machine reach it.
    public var url: String { listening.url }

    /// Serves until the task is cancelled or the service group shuts down; then the service notes who was alive and closes its
    /// database.
    public func run() async throws {
        try await withThrowingDiscardingTaskGroup { group in
            // First, so that it hears of a shutdown before connections end by it.
            group.addTask { try await server.service.run() }
            group.addTask {
                try await withThrowingTaskGroup(of: Void.self) { serving in
                    serving.addTask { try await listening.run() }
                    serving.addTask { _ = try? await successor.value() }
                    defer { serving.cancelAll() }
                    try await serving.next()
                }
            }
            group.addTask { try await tasks.run() }
        }
    }
}

/// Answers what nobody else does.
private final class NothingElse: ExchangeAcceptor {
    func accept(_ exchange: any Exchange) {
        exchange.refuse(Refusal(404, "This is Kontrol: kites are served at /kite."))
    }
}
