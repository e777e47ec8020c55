/// Connections without a network, between kites of one process.
import Foundation
import KiteCore
import KiteHTTP
import KiteSockJS
import NIOCore
import Synchronization

/// One end of a connection; what is sent on it is received on the other.
final class MemoryChannel: MessageChannel {
    let peer = MessagePeer(transport: "websocket", address: "memory", target: "/kite")
    private let incoming: MessageQueue
    private let outgoing: MessageQueue

    private init(_ incoming: MessageQueue, _ outgoing: MessageQueue) {
        self.incoming = incoming
        self.outgoing = outgoing
    }

    static func pair() -> (MemoryChannel, MemoryChannel) {
        let (left, right) = (MessageQueue(), MessageQueue())
        return (MemoryChannel(left, right), MemoryChannel(right, left))
    }

    func receive() async throws -> ByteBuffer? {
        let message = await incoming.next()
        if message == nil { try Task.checkCancellation() }
        return message
    }

    func send(_ message: ByteBuffer) async throws {
        try Task.checkCancellation()
        guard outgoing.yield(message) else { throw TransportError(.reset, "closed") }
    }

    func close(code: UInt16, reason: String) {
        incoming.finish()
        outgoing.finish()
    }

    // MARK: for tests that play the peer

    func send(_ text: String) async throws { try await send(ByteBuffer(string: text)) }

    /// The next message as a JSON object.
    func next() async throws -> [String: Any] {
        guard let message = try await receive() else { throw TransportError(.reset, "closed") }
        let value = try JSONSerialization.jsonObject(with: Data(message.readableBytesView))
        return value as? [String: Any] ?? [:]
    }
}

/// One direction.
final class MessageQueue: Sendable {
    private let continuation: AsyncStream<ByteBuffer>.Continuation
    private let stream: AsyncStream<ByteBuffer>

    init() { (stream, continuation) = AsyncStream.makeStream() }

    func next() async -> ByteBuffer? {
        var iterator = stream.makeAsyncIterator()
        return await iterator.next()
    }

    func yield(_ message: ByteBuffer) -> Bool {
        if case .enqueued = continuation.yield(message) { true } else { false }
    }

    func finish() { continuation.finish() }
}

/// Kites by their URLs, reachable through ``connector`` while ``serve()`` runs.
final class MemoryNetwork: Sendable {
    private let kites = Mutex<[String: Kite]>([:])
    private let channels: AsyncStream<(MemoryChannel, Kite)>
    private let accepted: AsyncStream<(MemoryChannel, Kite)>.Continuation

    init() { (channels, accepted) = AsyncStream.makeStream() }

    func add(_ kite: Kite, at url: String) { kites.withLock { $0[url] = kite } }

    func remove(_ url: String) { kites.withLock { $0[url] = nil } }

    var connector: KiteConnector {
        { [self] url, _ in
            guard let kite = kites.withLock({ $0[url] }) else {
                throw TransportError(.connectFailed, "nobody is at \(url)")
            }
            let (mine, theirs) = MemoryChannel.pair()
            accepted.yield((theirs, kite))
            return mine
        }
    }

    func serve() async {
        await withDiscardingTaskGroup { group in
            for await (channel, kite) in channels { group.addTask { await kite.serve(channel) } }
            group.cancelAll()
        }
    }
}

/// Asks until the answer is yes; fails the test by the time limit of its suite.
func eventually(_ condition: () async throws -> Bool) async throws {
    while try await !condition() {
        try Task.checkCancellation()
        try await Task.sleep(for: .milliseconds(2))
    }
}

/// Lines of a fixture, split at tabs, without comments.
func fixture(_ name: String) throws -> [[String]] {
    let tests = "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    let text = try String(contentsOfFile: "\(tests)/Fixtures/Kontrol/\(name)", encoding: .utf8)
    return text.split(separator: "\n").filter { !$0.hasPrefix("#") }
        .map { $0.split(separator: "\t", omittingEmptySubsequences: false).map(String.init) }
}
