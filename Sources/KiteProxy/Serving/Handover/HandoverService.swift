/// The side that serves: waits for a successor, gives it the listening sockets, and ends once that one serves.
import Foundation
import KiteHTTP
import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle
import Synchronization

/// Run it with `successTerminationBehavior: .gracefullyShutdownGroup`: it returns when a successor has taken over.
struct HandoverService: Service {
    /// Where successors look for it: in the data directory, which two gateways that can replace each other share.
    let path: String
    let software: String
    /// The gateway whose place this one takes.
    let predecessor: Predecessor?
    /// Accepts from the sockets of the predecessor.
    let resume: @Sendable () async -> Void
    /// Returns when this gateway is ready to serve.
    let hasStarted: @Sendable () async throws -> Void
    /// Called for each successor that asks: stores what it will need, and gives the sockets of each listener.
    let prepare: @Sendable () async -> [[ListeningSocket]]
    /// Called when the successor is ready to serve: nobody is accepted here from its return on.
    let onTaken: @Sendable () async -> Void
    let logger: Logger
    /// How long a successor may take between two messages, in seconds: it opens its database meanwhile.
    var timeout = 60

    /// The socket's place in a data directory.
    static func path(dataDirectory: String) -> String { dataDirectory + "/takeover.sock" }

    func run() async throws {
        // Where starting fails, the gateway itself says why.
        do { try await hasStarted() } catch { return try await gracefulShutdown() }
        if let predecessor {
            do {
                try await predecessor.finish()
                logger.notice(
                    "Took the place of another gateway",
                    metadata: [
                        "process": "\(predecessor.offer.process)", "version": "\(predecessor.offer.software)",
                    ])
            } catch {
                logger.warning("The gateway before this one is gone already", metadata: ["cause": "\(error)"])
            }
            await resume()
        }
        let door: HandoverDoor
        do {
            door = try HandoverDoor(path: path)
        } catch {
            logger.warning(
                "No other process will be able to take this gateway's place",
                metadata: ["path": "\(path)", "cause": "\(error)"])
            return try await gracefulShutdown()
        }
        let threads = NIOThreadPool(numberOfThreads: 1)
        threads.start()
        let isTaken = await withGracefulShutdownHandler {
            await withTaskCancellationHandler {
                await serve(door, threads)
            } onCancel: {
                door.close()
            }
        } onGracefulShutdown: {
            door.close()
        }
        try? await threads.shutdownGracefully()
        guard !isTaken else { return }
        door.remove()
        try? await gracefulShutdown()
    }

    /// - Returns: whether a successor serves; false at shutdown.
    private func serve(_ door: HandoverDoor, _ threads: NIOThreadPool) async -> Bool {
        while true {
            do {
                guard let connection = try await threads.runIfActive({ try door.accept(timeout: timeout) }) else {
                    return false
                }
                logger.notice("Another gateway asks to take this one's place")
                try await handOver(connection, threads)
                logger.notice("Another gateway has taken this one's place")
                return true
            } catch {
                door.drop()
                guard !door.isClosed else { return false }
                logger.error("Another gateway did not take this one's place", metadata: ["cause": "\(error)"])
                // Such as the lack of descriptors, which the next attempt would meet at once.
                do { try await Task.sleep(for: .seconds(1)) } catch { return false }
            }
        }
    }

    private func handOver(_ connection: UnixConnection, _ threads: NIOThreadPool) async throws {
        try await threads.runIfActive {
            try connection.expect(HandoverLine.take)
        }
        let groups = await prepare().filter { !$0.isEmpty }
        let sockets = groups.flatMap { $0 }
        let offer = HandoverOffer(software: software, process: getpid(), groups: groups.map(\.count))
        guard sockets.count <= HandoverOffer.maximumSockets else {
            throw IOError(errnoCode: EMSGSIZE, reason: "handover")
        }
        let line = try Array(JSONEncoder().encode(offer)) + [UInt8(ascii: "\n")]
        try await threads.runIfActive {
            try connection.send(line, descriptors: sockets.map(\.descriptor))
            try connection.expect(HandoverLine.done)
        }
        await onTaken()
        // Where this does not get through, the successor is told by the end of the connection.
        try? await threads.runIfActive { try connection.send(HandoverLine.stopped) }
    }
}

/// The listening UNIX socket.
private final class HandoverDoor: Sendable {
    private let descriptor: CInt
    private let path: String
    /// Tells this socket's file from that of a successor.
    private let file: UInt64
    private let closed = Atomic<Bool>(false)
    private let current = Mutex<UnixConnection?>(nil)

    /// Takes the path's place, whoever had it before.
    init(path: String) throws {
        let descriptor = try UnixSocket.make()
        let temporary = path + ".new"
        do {
            unlink(temporary)
            // Nobody else's business: there is no moment in which others may connect.
            let mask = umask(0o177)
            defer { umask(mask) }
            try UnixSocket.withAddress(temporary) { address, length in
                guard bind(descriptor, address, length) == 0 else { throw UnixSocket.failure("bind") }
            }
            guard listen(descriptor, 4) == 0 else { throw UnixSocket.failure("listen") }
            guard rename(temporary, path) == 0 else { throw UnixSocket.failure("rename") }
        } catch {
            Glibc.close(descriptor)
            throw error
        }
        self.descriptor = descriptor
        self.path = path
        file = Self.file(path)
    }

    deinit { Glibc.close(descriptor) }

    var isClosed: Bool { closed.load(ordering: .acquiring) }

    /// Waits for a connection. Closing the door ends the last one, too.
    /// - Returns: nil once the door is closed.
    func accept(timeout: Int) throws -> UnixConnection? {
        let accepted = Glibc.accept(descriptor, nil, nil)
        guard accepted >= 0 else {
            if isClosed { return nil }
            throw UnixSocket.failure("accept")
        }
        let connection = UnixConnection(adopting: accepted, timeout: timeout)
        current.withLock { $0 = connection }
        return connection
    }

    /// Lets the last connection go.
    func drop() { current.withLock { $0 = nil } }

    /// Ends waiting.
    func close() {
        closed.store(true, ordering: .releasing)
        shutdown(descriptor, CInt(SHUT_RDWR))
        // A successor that says nothing must not hold up a shutdown.
        current.withLock { $0?.end() }
    }

    /// Takes the file away, unless it is another's by now.
    func remove() { if Self.file(path) == file { unlink(path) } }

    private static func file(_ path: String) -> UInt64 {
        // Not by `stat`: its members cannot be reached where the Swift runtime is linked statically.
        let attributes = try? FileManager.default.attributesOfItem(atPath: path)
        return (attributes?[.systemFileNumber] as? NSNumber)?.uint64Value ?? 0
    }
}

extension UnixConnection {
    /// Waits for a line that must be this one.
    func expect(_ line: [UInt8]) throws {
        var descriptors: [CInt] = []
        defer { for descriptor in descriptors { close(descriptor) } }
        guard try receiveLine(limit: line.count, descriptors: &descriptors) == line else {
            throw IOError(errnoCode: EPROTO, reason: "handover")
        }
    }
}
