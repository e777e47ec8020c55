/// The sessions for which a kite has been asked to dial back: whoever comes with a session's token first gets it.
import KiteHTTP
import KiteSockJS
import KiteSupport
import Synchronization

/// Hands the channels of kites that dial back to the sessions that wait for them.
final class PendingTunnels: Sendable {
    /// What is to be said of a token before the connection is accepted.
    enum Verdict: Sendable, Hashable {
        case good
        /// It is no tunnel token.
        case malformed
        /// Another gateway made it, or this one before it was started anew.
        case otherInstance
        /// It was used, withdrawn or never given out.
        case spent
    }
    private enum Arrival {
        case expected
        case awaited(CheckedContinuation<any MessageChannel, any Error>)
        case arrived(any MessageChannel)
    }
    private struct Entry {
        let secret: String
        var arrival = Arrival.expected
    }
    private struct State {
        var entries: [UInt64: Entry] = [:]
        var lastSession: UInt64 = 0
    }

    /// Names this gateway in its tokens.
    let instance = TunnelToken.randomText()
    private let limit: Int
    private let state = Mutex(State())

    /// - Parameter limit: how many sessions may wait at a time.
    init(limit: Int) { self.limit = limit }

    var count: Int { state.withLock { $0.entries.count } }

    /// A token for a new session; nil when too many wait. Must be withdrawn in the end.
    func issue() -> TunnelToken? {
        state.withLock { state in
            guard state.entries.count < limit else { return nil }
            state.lastSession += 1
            let token = TunnelToken(instance: instance, session: state.lastSession)
            state.entries[token.session] = Entry(secret: token.secret)
            return token
        }
    }

    /// Whether a token is good, without using it.
    func verdict(on text: String) -> Verdict {
        guard let token = TunnelToken(parsing: text) else { return .malformed }
        guard token.instance == instance else { return .otherInstance }
        return state.withLock { state in
            guard let entry = state.entries[token.session], Self.isOpen(entry, to: token) else { return .spent }
            return .good
        }
    }

    private static func isOpen(_ entry: Entry, to token: TunnelToken) -> Bool {
        guard SecureCompare.equal(token.secret, entry.secret) else { return false }
        if case .arrived = entry.arrival { return false }
        return true
    }

    /// A kite has dialled back.
    /// - Returns: false when the token is not good, or not any more.
    func redeem(_ text: String, with channel: any MessageChannel) -> Bool {
        guard let token = TunnelToken(parsing: text), token.instance == instance else { return false }
        let (isGood, waiting) = state.withLock { state in
            guard let entry = state.entries[token.session], Self.isOpen(entry, to: token) else {
                return (false, nil as CheckedContinuation<any MessageChannel, any Error>?)
            }
            if case .awaited(let continuation) = entry.arrival {
                state.entries[token.session] = nil
                return (true, continuation)
            }
            state.entries[token.session]?.arrival = .arrived(channel)
            return (true, nil)
        }
        waiting?.resume(returning: channel)
        return isGood
    }

    /// The kite's channel, once it has dialled back. Waits until then, or until the token is withdrawn or the task cancelled.
    func channel(for token: TunnelToken) async throws -> any MessageChannel {
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let result: Result<any MessageChannel, any Error>? = state.withLock { state in
                    guard !Task.isCancelled, let entry = state.entries[token.session] else {
                        return .failure(CancellationError())
                    }
                    if case .arrived(let channel) = entry.arrival {
                        state.entries[token.session] = nil
                        return .success(channel)
                    }
                    state.entries[token.session]?.arrival = .awaited(continuation)
                    return nil
                }
                if let result { continuation.resume(with: result) }
            }
        } onCancel: {
            withdraw(token)
        }
    }

    /// The session is no longer interested. Nothing happens once it has its channel.
    func withdraw(_ token: TunnelToken) {
        switch state.withLock({ $0.entries.removeValue(forKey: token.session) })?.arrival {
        case .awaited(let continuation): continuation.resume(throwing: CancellationError())
        case .arrived(let channel): channel.close(code: 3000, reason: "Go away!")
        case .expected, nil: break
        }
    }
}
