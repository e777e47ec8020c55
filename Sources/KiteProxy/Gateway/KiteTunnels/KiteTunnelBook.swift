/// The kites that dial back: which of them are connected, and which will be missed if they do not return.
import KiteCore
import NIOCore
import Synchronization

/// A kite that is connected to the gateway and dials back for each visitor when it is asked to.
struct TunnelledKite: Sendable {
    /// Who it is; the user is proven.
    var identity: KiteIdentity
    /// Whether visitors need not prove who they are.
    var isPublic: Bool
    /// Its connection.
    var caller: any KiteCaller
    /// Tells its registration from earlier and later ones of the same kite.
    fileprivate(set) var registration: UInt64 = 0

    init(identity: KiteIdentity, isPublic: Bool, caller: any KiteCaller) {
        self.identity = identity
        self.isPublic = isPublic
        self.caller = caller
    }
}

/// Who is connected, by kite id. Safe to use from everywhere; the lock is held for look-ups only, once per visitor's session.
final class KiteTunnelBook: Sendable {
    enum Presence: Sendable, Hashable {
        case serving
        /// It was here a while ago.
        case away
        case unknown
    }
    private struct Waiter {
        let id: UInt64
        let continuation: CheckedContinuation<TunnelledKite?, Never>
    }
    private struct State {
        var kites: [RouteKey: TunnelledKite] = [:]
        var leftAt: [RouteKey: NIODeadline] = [:]
        var waiting: [RouteKey: [Waiter]] = [:]
        var sessions: [RouteKey: Int] = [:]
        var lastNumber: UInt64 = 0
    }

    /// How long a kite that has left is waited for by visitors who come.
    private static let memory = TimeAmount.minutes(10)
    private static let rememberedKites = 10_000
    private let state = Mutex(State())

    var kites: [TunnelledKite] { state.withLock { Array($0.kites.values) } }

    func find(_ key: RouteKey) -> TunnelledKite? { state.withLock { $0.kites[key] } }

    func presence(of key: RouteKey, now: NIODeadline = .now()) -> Presence {
        state.withLock { state in
            if state.kites[key] != nil { return .serving }
            guard let left = state.leftAt[key], now - left < Self.memory else { return .unknown }
            return .away
        }
    }

    /// A kite has registered. An earlier registration of the same kite is forgotten; sessions that it serves go on.
    /// - Returns: the registration's number, for ``remove(_:registration:now:)``.
    func enter(_ kite: TunnelledKite, as key: RouteKey) -> UInt64 {
        var kite = kite
        let (number, waiters) = state.withLock { state in
            state.lastNumber += 1
            kite.registration = state.lastNumber
            state.kites[key] = kite
            state.leftAt[key] = nil
            return (state.lastNumber, state.waiting.removeValue(forKey: key) ?? [])
        }
        for waiter in waiters { waiter.continuation.resume(returning: kite) }
        return number
    }

    /// The connection of a registration has ended. A newer registration stays.
    /// - Returns: whether the kite is gone now.
    func remove(_ key: RouteKey, registration: UInt64, now: NIODeadline = .now()) -> Bool {
        state.withLock { state in
            guard state.kites[key]?.registration == registration else { return false }
            state.kites[key] = nil
            if state.leftAt.count >= Self.rememberedKites {
                state.leftAt = state.leftAt.filter { now - $0.value < Self.memory }
            }
            if state.leftAt.count < Self.rememberedKites { state.leftAt[key] = now }
            return true
        }
    }

    /// The kite, as soon as it is connected; nil when the task is cancelled before.
    func await(_ key: RouteKey) async -> TunnelledKite? {
        let id = state.withLock { state in
            state.lastNumber += 1
            return state.lastNumber
        }
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let (isSettled, kite) = state.withLock { state in
                    if let kite = state.kites[key] { return (true, kite as TunnelledKite?) }
                    if Task.isCancelled { return (true, nil) }
                    state.waiting[key, default: []].append(Waiter(id: id, continuation: continuation))
                    return (false, nil)
                }
                if isSettled { continuation.resume(returning: kite) }
            }
        } onCancel: {
            let waiter = state.withLock { state in
                guard let position = state.waiting[key]?.firstIndex(where: { $0.id == id }) else {
                    return nil as Waiter?
                }
                let waiter = state.waiting[key]?.remove(at: position)
                if state.waiting[key]?.isEmpty == true { state.waiting[key] = nil }
                return waiter
            }
            waiter?.continuation.resume(returning: nil)
        }
    }

    // MARK: Sessions

    /// Takes a place for a visitor's session with a kite.
    /// - Returns: false when the kite has as many as it may.
    func reserveSession(_ key: RouteKey, limit: Int) -> Bool {
        state.withLock { state in
            guard state.sessions[key, default: 0] < limit else { return false }
            state.sessions[key, default: 0] += 1
            return true
        }
    }

    func releaseSession(_ key: RouteKey) {
        state.withLock { state in
            let left = state.sessions[key, default: 1] - 1
            state.sessions[key] = left > 0 ? left : nil
        }
    }

    var sessionCount: Int { state.withLock { $0.sessions.values.reduce(0, +) } }
}
