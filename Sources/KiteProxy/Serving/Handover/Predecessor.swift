/// The side that takes over: finds the gateway that serves, and gets its listening sockets.
import Foundation
import KiteHTTP
import NIOCore
import NIOPosix
import Synchronization

/// A running gateway whose place this process takes. It goes on until ``finish()``, and for good when this process ends before.
final class Predecessor: Sendable {
    private let connection: UnixConnection
    private let sockets: Mutex<[ListeningSocket]>
    /// What it says of itself.
    let offer: HandoverOffer

    private init(connection: UnixConnection, offer: HandoverOffer, sockets: [ListeningSocket]) {
        self.connection = connection
        self.offer = offer
        self.sockets = Mutex(sockets)
    }

    /// Asks the gateway of a data directory for its sockets.
    /// - Returns: nil when none is running.
    /// - Throws: `IOError`, or `DecodingError` when it speaks otherwise.
    static func find(dataDirectory: String) async throws -> Predecessor? {
        let path = HandoverService.path(dataDirectory: dataDirectory)
        return try await NIOThreadPool.singleton.runIfActive { try ask(path: path, timeout: 60) }
    }

    private static func ask(path: String, timeout: Int) throws -> Predecessor? {
        let connection: UnixConnection
        do {
            connection = try UnixConnection.connect(to: path, timeout: timeout)
        } catch let error as IOError where error.errnoCode == ENOENT || error.errnoCode == ECONNREFUSED {
            return nil
        }
        try connection.send(HandoverLine.take)
        var descriptors: [CInt] = []
        let line: [UInt8]
        do {
            line = try connection.receiveLine(limit: HandoverOffer.maximumBytes, descriptors: &descriptors)
        } catch {
            for descriptor in descriptors { close(descriptor) }
            throw error
        }
        // From here on each is closed by its object.
        let sockets = try descriptors.map { try ListeningSocket(adopting: $0) }
        let offer = try JSONDecoder().decode(HandoverOffer.self, from: Data(line))
        guard offer.version == HandoverOffer.version,
            offer.groups.allSatisfy({ (1...HandoverOffer.maximumSockets).contains($0) }),
            offer.groups.reduce(0, +) == sockets.count
        else {
            throw IOError(errnoCode: EPROTO, reason: "handover")
        }
        return Predecessor(connection: connection, offer: offer, sockets: sockets)
    }

    /// Takes out the sockets that are bound to an address; none where it did not listen there.
    func take(_ address: SocketAddress) -> [ListeningSocket] {
        sockets.withLock { sockets in
            let wanted = sockets.filter { $0.address == address }
            sockets.removeAll { $0.address == address }
            return wanted
        }
    }

    /// This process is ready to serve: the other is to stop accepting, and has when this returns. Sockets that were not taken are closed.
    /// - Throws: `IOError` when the other one is gone already.
    func finish() async throws {
        sockets.withLock { $0 = [] }
        try await NIOThreadPool.singleton.runIfActive { [connection] in
            try connection.send(HandoverLine.done)
            try connection.expect(HandoverLine.stopped)
        }
    }
}
