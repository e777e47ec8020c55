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
    /// Whose kites visitors may call by name alone: those under the user and environment under which the gateway asks Kontrol for names.
    struct Naming: Sendable {
        var username: String
        var environment: String

        /// No kite's.
        static let none = Naming(username: "", environment: "")

        /// A kite's name as a key, where it may be called by it. Its case counts.
        func name(of kite: KiteIdentity) -> RouteKey? {
            guard !username.isEmpty, kite.username == username, kite.environment == environment else { return nil }
            let name = RouteKey(asWritten: ByteBuffer(string: kite.name))
            // Nobody can pass for another by a name that is an id.
            return name.isName && !name.isKiteID ? name : nil
        }
    }
    private struct Waiter {
        let id: UInt64
        let continuation: CheckedContinuation<TunnelledKite?, Never>
    }
    private struct State {
        var kites: [RouteKey: TunnelledKite] = [:]
        /// The ids of kites that may be called by a name; the next one in turn comes first.
        var named: [RouteKey: [RouteKey]] = [:]
        var leftAt: [RouteKey: NIODeadline] = [:]
        var waiting: [RouteKey: [Waiter]] = [:]
        var sessions: [RouteKey: Int] = [:]
        var lastNumber: UInt64 = 0
    }

    /// How long a kite that has left is waited for by visitors who come.
    private static let memory = TimeAmount.minutes(10)
    private static let rememberedKites = 10_000
    private let naming: Naming
    /// Whether there has ever been a kite: asked for many requests, without the lock.
    private let hasEntries = Atomic(false)
    private let state = Mutex(State())

    init(naming: Naming = .none) { self.naming = naming }

    var isUsed: Bool { hasEntries.load(ordering: .relaxed) }

    var kites: [TunnelledKite] { state.withLock { Array($0.kites.values) } }

    func find(_ key: RouteKey) -> TunnelledKite? { state.withLock { $0.kites[key] } }

    /// The id of a kite that is connected: of one that has it, or of the one with the fewest sessions of those that have the name.
    func id(of key: RouteKey) -> RouteKey? {
        state.withLock { state in
            if state.kites[key] != nil { return key }
            guard let ids = state.named[key] else { return nil }
            guard let id = ids.min(by: { state.sessions[$0, default: 0] < state.sessions[$1, default: 0] }) else {
                return nil
            }
            // Equals take turns.
            state.named[key] = ids.filter { $0 != id } + [id]
            return id
        }
    }

    /// Whether a kite that is connected is called by a name, in whatever case, and belongs to somebody other than this user: nobody else may
    /// have its visitors, with the tokens that they show.
    func isName(_ key: RouteKey, ofAnotherThan username: String) -> Bool {
        guard isUsed, username != naming.username else { return false }
        return state.withLock { $0.named.keys.contains { $0.inLowerCase == key.inLowerCase } }
    }

    /// - Parameter key: an id, or a name.
    func presence(of key: RouteKey, now: NIODeadline = .now()) -> Presence {
        state.withLock { state in
            if state.kites[key] != nil || state.named[key] != nil { return .serving }
            guard let left = state.leftAt[key], now - left < Self.memory else { return .unknown }
            return .away
        }
    }

    /// A kite has registered. An earlier registration of the same kite is forgotten; sessions that it serves go on.
    /// - Returns: the registration's number, for ``remove(_:registration:now:)``.
    func enter(_ kite: TunnelledKite, as key: RouteKey) -> UInt64 {
        var kite = kite
        hasEntries.store(true, ordering: .relaxed)
        let (number, waiters) = state.withLock { state in
            state.lastNumber += 1
            kite.registration = state.lastNumber
            if let old = state.kites[key] { forgetName(of: old, key, in: &state) }
            state.kites[key] = kite
            state.leftAt[key] = nil
            var waiters = state.waiting.removeValue(forKey: key) ?? []
            if let name = naming.name(of: kite.identity) {
                state.named[name, default: []].insert(key, at: 0)
                state.leftAt[name] = nil
                waiters += state.waiting.removeValue(forKey: name) ?? []
            }
            return (state.lastNumber, waiters)
        }
        for waiter in waiters { waiter.continuation.resume(returning: kite) }
        return number
    }

    /// The connection of a registration has ended. A newer registration stays.
    /// - Returns: whether the kite is gone now.
    func remove(_ key: RouteKey, registration: UInt64, now: NIODeadline = .now()) -> Bool {
        state.withLock { state in
            guard let kite = state.kites[key], kite.registration == registration else { return false }
            state.kites[key] = nil
            forgetName(of: kite, key, in: &state)
            if state.leftAt.count >= Self.rememberedKites {
                state.leftAt = state.leftAt.filter { now - $0.value < Self.memory }
            }
            if state.leftAt.count < Self.rememberedKites {
                state.leftAt[key] = now
                if let name = naming.name(of: kite.identity), state.named[name] == nil { state.leftAt[name] = now }
            }
            return true
        }
    }

    private func forgetName(of kite: TunnelledKite, _ key: RouteKey, in state: inout State) {
        guard let name = naming.name(of: kite.identity) else { return }
        let left = state.named[name, default: []].filter { $0 != key }
        state.named[name] = left.isEmpty ? nil : left
    }

    /// The kite, as soon as it is connected; nil when the task is cancelled before.
    /// - Parameter key: an id, or a name.
    func await(_ key: RouteKey) async -> TunnelledKite? {
        let id = state.withLock { state in
            state.lastNumber += 1
            return state.lastNumber
        }
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let (isSettled, kite) = state.withLock { state in
                    if let kite = state.kites[key] ?? state.named[key]?.first.flatMap({ state.kites[$0] }) {
                        return (true, kite as TunnelledKite?)
                    }
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
