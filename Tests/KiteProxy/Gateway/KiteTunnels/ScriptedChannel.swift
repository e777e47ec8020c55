/// A message channel that a test plays the other side of.
import KiteHTTP
import KiteSockJS
import NIOCore
import Synchronization

final class ScriptedChannel: MessageChannel {
    let peer: MessagePeer
    private struct State {
        var closings: [MessageClosing] = []
        var sent: [String] = []
        var closing: MessageClosing?
        /// How many messages are taken before senders have to wait; nil for any number.
        var room: Int?
        var senders: [CheckedContinuation<Void, any Error>] = []
    }
    private let state = Mutex(State())
    private let incoming: AsyncStream<ByteBuffer>
    private let source: AsyncStream<ByteBuffer>.Continuation

    init(target: String = "/", authorization: String? = nil, room: Int? = nil) {
        peer = MessagePeer(transport: "websocket", address: "test", target: target, authorization: authorization)
        (incoming, source) = AsyncStream.makeStream()
        state.withLock { $0.room = room }
    }

    // MARK: The channel

    func receive() async throws -> ByteBuffer? {
        var iterator = incoming.makeAsyncIterator()
        let message = await iterator.next()
        if message == nil { try Task.checkCancellation() }
        return message
    }

    func send(_ message: ByteBuffer) async throws {
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            let waits = state.withLock { state in
                state.sent.append(String(buffer: message))
                guard let room = state.room else { return false }
                if room > 0 {
                    state.room = room - 1
                    return false
                }
                state.senders.append(continuation)
                return true
            }
            if !waits { continuation.resume() }
        }
    }

    func close(code: UInt16, reason: String) {
        let senders = state.withLock { state in
            state.closings.append(MessageClosing(code: code, reason: reason))
            defer { state.senders = [] }
            return state.senders
        }
        source.finish()
        for sender in senders { sender.resume(throwing: TransportError(.reset, "closed")) }
    }

    var closing: MessageClosing? { state.withLock { $0.closing } }

    // MARK: The test

    /// With which codes it was closed, the first one counting.
    var closings: [MessageClosing] { state.withLock { $0.closings } }
    var sent: [String] { state.withLock { $0.sent } }

    func say(_ text: String) { source.yield(ByteBuffer(string: text)) }

    func leave(_ closing: MessageClosing? = nil) {
        state.withLock { $0.closing = closing }
        source.finish()
    }

    func makeRoom() {
        let senders = state.withLock { state in
            state.room = nil
            defer { state.senders = [] }
            return state.senders
        }
        for sender in senders { sender.resume() }
    }
}

/// Asks until the answer is yes; the time limit of the suite ends it.
func eventually(_ condition: () async throws -> Bool) async throws {
    while try await !condition() {
        try Task.checkCancellation()
        try await Task.sleep(for: .milliseconds(2))
    }
}
