/// A message channel without a network: two ends in one process.
import KiteCore
import KiteHTTP
import KiteSockJS
import NIOCore
import Synchronization

/// One end. What is sent on it is received on ``other``.
final class MemoryChannel: MessageChannel {
    private struct State {
        var messages: [ByteBuffer] = []
        var isClosed = false
        var receiver: CheckedContinuation<ByteBuffer?, any Error>?
        var other: MemoryChannel?
        var closedWith: (code: UInt16, reason: String)?
    }
    let peer: MessagePeer
    private let state = Mutex(State())

    init(transport: String = "websocket") {
        peer = MessagePeer(transport: transport, address: "memory", target: "/kite")
    }

    static func pair() -> (MemoryChannel, MemoryChannel) {
        let (left, right) = (MemoryChannel(), MemoryChannel())
        left.state.withLock { $0.other = right }
        right.state.withLock { $0.other = left }
        return (left, right)
    }

    /// How this end was closed by its owner.
    var closedWith: (code: UInt16, reason: String)? { state.withLock { $0.closedWith } }

    /// Messages that nobody has received yet.
    var waiting: Int { state.withLock { $0.messages.count } }

    func receive() async throws -> ByteBuffer? {
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let outcome: Result<ByteBuffer?, any Error>? = state.withLock { state in
                    if Task.isCancelled { return .failure(CancellationError()) }
                    if !state.messages.isEmpty { return .success(state.messages.removeFirst()) }
                    if state.isClosed { return .success(nil) }
                    state.receiver = continuation
                    return nil
                }
                if let outcome { continuation.resume(with: outcome) }
            }
        } onCancel: {
            let receiver = takeReceiver()
            receiver?.resume(throwing: CancellationError())
        }
    }

    func send(_ message: ByteBuffer) async throws {
        try Task.checkCancellation()
        guard let other = state.withLock({ $0.isClosed ? nil : $0.other }) else {
            throw TransportError(.reset, "closed")
        }
        other.deliver(message)
    }

    func close(code: UInt16, reason: String) {
        let other = state.withLock { state in
            if state.closedWith == nil { state.closedWith = (code, reason) }
            defer { state.other = nil }
            return state.other
        }
        end()
        other?.end()
    }

    private func deliver(_ message: ByteBuffer) {
        let receiver = state.withLock { state in
            defer { state.receiver = nil }
            if state.receiver == nil { state.messages.append(message) }
            return state.receiver
        }
        receiver?.resume(returning: message)
    }

    private func end() {
        let receiver = state.withLock { state in
            state.isClosed = true
            defer { state.receiver = nil }
            return state.receiver
        }
        receiver?.resume(returning: nil)
    }

    private func takeReceiver() -> CheckedContinuation<ByteBuffer?, any Error>? {
        state.withLock { state in
            defer { state.receiver = nil }
            return state.receiver
        }
    }

    // MARK: for tests that play the peer

    func send(_ text: String) async throws { try await send(ByteBuffer(string: text)) }
    /// The next message as dnode value; nil at the end.
    func next() async throws -> DnodeValue? { try await receive().map { try DnodeValue(parsing: $0) } }
}

/// A channel on which sending takes as long as `afterSending` does.
final class SlowSender: MessageChannel {
    private let channel: MemoryChannel
    private let afterSending: @Sendable () async throws -> Void

    init(_ channel: MemoryChannel, afterSending: @escaping @Sendable () async throws -> Void) {
        self.channel = channel
        self.afterSending = afterSending
    }

    var peer: MessagePeer { channel.peer }
    func receive() async throws -> ByteBuffer? { try await channel.receive() }
    func send(_ message: ByteBuffer) async throws {
        try await channel.send(message)
        try await afterSending()
    }
    func close(code: UInt16, reason: String) { channel.close(code: code, reason: reason) }
}

/// Serves `kite` on one end while `body` plays the peer on the other.
func withPeer(
    of kite: Kite, trusting: Bool = false, _ body: (MemoryChannel) async throws -> Void
) async throws {
    let (mine, theirs) = MemoryChannel.pair()
    async let served: Void = kite.serve(theirs, trustingPeer: trusting)
    do { try await body(mine) } catch {
        mine.close(code: 1000, reason: "")
        await served
        throw error
    }
    mine.close(code: 1000, reason: "")
    await served
}

/// A connector to a kite in the same process.
func connector(to kite: Kite, owner: MemoryServer) -> KiteConnector {
    { _, _ in
        let (mine, theirs) = MemoryChannel.pair()
        owner.accept(theirs)
        return mine
    }
}

/// Serves a kite on as many in-memory channels as are dialled.
final class MemoryServer: Sendable {
    private let channels: AsyncStream<MemoryChannel>
    private let accepted: AsyncStream<MemoryChannel>.Continuation

    init() { (channels, accepted) = AsyncStream.makeStream() }

    func accept(_ channel: MemoryChannel) { accepted.yield(channel) }

    func serve(_ kite: Kite) async {
        await withDiscardingTaskGroup { group in
            for await channel in channels { group.addTask { await kite.serve(channel) } }
        }
    }

    /// Serves `kite` while `body` runs.
    static func run(_ kite: Kite, _ body: (@escaping KiteConnector) async throws -> Void) async throws {
        let server = MemoryServer()
        let task = Task { await server.serve(kite) }
        defer { task.cancel() }
        try await body(connector(to: kite, owner: server))
        task.cancel()
        await task.value
    }
}

extension Kite {
    static func test(
        _ name: String = "math", authenticator: (any KiteAuthenticator)? = nil,
        _ change: (inout KiteConfiguration) -> Void = { _ in }
    ) -> Kite {
        var configuration = KiteConfiguration()
        configuration.username = "kontrol"
        configuration.id = "4695c4bd-e2bd-4ba9-ab7c-4a160349ac62"
        change(&configuration)
        return Kite(name: name, version: "1.0.0", configuration: configuration, authenticator: authenticator)
    }
}
