/// Finds the session that a request belongs to, whatever loop the request came in on.
import NIOCore
import Synchronization

/// The sessions of one service by id. The lock is held for a dictionary look-up only; the sessions themselves live on their loops.
final class SockJSSessionRegistry: Sendable {
    /// A session on its loop.
    typealias Reference = LoopReference<SockJSSession>

    enum Found: Sendable {
        case session(Reference)
        /// There is no such session and none may be opened.
        case full
    }

    private struct State {
        var sessions: [String: (serial: UInt64, reference: Reference)] = [:]
        /// Sessions in `sessions`, and those of WebSockets, which nobody looks up.
        var count = 0
        var serial: UInt64 = 0
    }

    private let maxSessions: Int
    private let state = Mutex(State())

    init(maxSessions: Int) { self.maxSessions = maxSessions }

    /// How many sessions live.
    var count: Int { state.withLock { $0.count } }

    func find(_ id: String) -> Reference? { state.withLock { $0.sessions[id]?.reference } }

    /// Takes a place for a session.
    /// - Returns: a serial number to give it back with; nil when all are taken.
    func reserve() -> UInt64? {
        state.withLock { state in
            guard state.count < maxSessions else { return nil }
            state.count += 1
            state.serial += 1
            return state.serial
        }
    }

    /// Enters a session unless there is one already.
    /// - Returns: the one that is entered now.
    func enter(_ reference: Reference, id: String, serial: UInt64) -> (reference: Reference, isNew: Bool) {
        state.withLock { state in
            if let known = state.sessions[id] { return (known.reference, false) }
            state.sessions[id] = (serial, reference)
            return (reference, true)
        }
    }

    /// Gives the place back and forgets the session if it is still the one with that id.
    func release(serial: UInt64, id: String?) {
        state.withLock { state in
            state.count -= 1
            if let id, state.sessions[id]?.serial == serial { state.sessions[id] = nil }
        }
    }
}
