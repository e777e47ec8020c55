/// Finds the session that a request belongs to, whatever loop the request came in on.
import KiteHTTP
import NIOCore
import Synchronization

/// The sessions of one service by id. The lock is held for a dictionary look-up only; the sessions themselves live on their loops.
final class SockJSSessionRegistry: Sendable {
    /// A session on its loop.
    typealias Reference = LoopReference<SockJSSession>

    /// A place for a session, to be given back once.
    struct Place: Sendable {
        fileprivate let serial: UInt64
        fileprivate let address: AddressKey?
    }

    private struct State {
        var sessions: [String: (serial: UInt64, reference: Reference)] = [:]
        /// Sessions in `sessions`, and those of WebSockets, which nobody looks up.
        var count = 0
        var countsByAddress: [AddressKey: Int] = [:]
        var serial: UInt64 = 0
    }

    private let maxSessions: Int
    private let maxSessionsPerAddress: Int
    private let state = Mutex(State())

    init(maxSessions: Int, maxSessionsPerAddress: Int) {
        self.maxSessions = maxSessions
        self.maxSessionsPerAddress = maxSessionsPerAddress
    }

    /// How many sessions live.
    var count: Int { state.withLock { $0.count } }
    /// Whether three quarters of the places are taken.
    var isNearlyFull: Bool { count > maxSessions - maxSessions / 4 }

    func find(_ id: String) -> Reference? { state.withLock { $0.sessions[id]?.reference } }

    /// Takes a place for a session.
    /// - Parameter address: whose session it is; nil where it counts only among all.
    /// - Returns: nil when all are taken, or all that an address may have.
    func reserve(for address: AddressKey?) -> Place? {
        state.withLock { state in
            guard state.count < maxSessions else { return nil }
            if let address {
                let count = state.countsByAddress[address, default: 0]
                guard count < maxSessionsPerAddress else { return nil }
                state.countsByAddress[address] = count + 1
            }
            state.count += 1
            state.serial += 1
            return Place(serial: state.serial, address: address)
        }
    }

    /// Enters a session unless there is one already.
    /// - Returns: the one that is entered now.
    func enter(_ reference: Reference, id: String, place: Place) -> (reference: Reference, isNew: Bool) {
        state.withLock { state in
            if let known = state.sessions[id] { return (known.reference, false) }
            state.sessions[id] = (place.serial, reference)
            return (reference, true)
        }
    }

    /// Gives the place back and forgets the session if it is still the one with that id.
    func release(_ place: Place, id: String?) {
        state.withLock { state in
            state.count -= 1
            if let address = place.address, let count = state.countsByAddress[address] {
                state.countsByAddress[address] = count > 1 ? count - 1 : nil
            }
            if let id, state.sessions[id]?.serial == place.serial { state.sessions[id] = nil }
        }
    }
}
