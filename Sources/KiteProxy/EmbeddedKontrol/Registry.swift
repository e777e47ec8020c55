/// Which kites are registered at present: a value that is told what happens and when, and says what follows.
package import KiteCore

/// The registrations of a Kontrol. Times are seconds since 1970; nothing here reads a clock or talks to anyone.
package struct Registry {
    /// How a kite keeps its registration alive.
    package enum Source: Sendable, Hashable {
        /// By calling back over the connection on which it registered.
        case connection
        /// By `GET /heartbeat`.
        case http
        /// Not at all: it was read from storage after a restart, and the kite has not come back yet.
        case storage
        /// It lives in this process, and leaves by itself.
        case process
    }

    /// Names one registration. A later one of the same kite has a higher number, and what the earlier one's connection does no
    /// longer matters.
    package struct Receipt: Sendable, Hashable {
        /// ``KiteIdentity/path``: kites that were given their kite key's id share it, so that an id alone names no kite.
        package let path: String
        package let number: UInt64
    }

    package struct Registration: Sendable, Hashable {
        package var kite: KontrolKite
        package let receipt: Receipt
        package let source: Source
        /// When it is dropped unless something happens.
        var deadline: Int64
        /// When it was last written to storage.
        var storedAt: Int64
        /// Whether the connection on which it was made has not ended.
        var isConnected = true
        /// Whether the kite must register again, to be told of the key pair that is active now.
        var isOutdated = false
    }

    /// What watchers are told.
    package enum Change: Sendable, Hashable {
        case registered(KontrolKite)
        case deregistered(KontrolKite)

        package var kite: KontrolKite {
            switch self {
            case .registered(let kite), .deregistered(let kite): kite
            }
        }
    }

    /// What a heartbeat meant.
    package enum Beat: Sendable, Hashable {
        case alive
        /// Alive, and due to be written to storage.
        case store(Registration)
        /// The kite knows a retired key pair only: it must register again, which tells it of the active one.
        case outdated
        /// The registration is gone; the kite may register again.
        case gone
        /// Somebody else has registered since.
        case superseded
    }

    /// Times and bounds, in seconds.
    package struct Limits: Sendable {
        /// How often a kite is asked to send a heartbeat.
        package var heartbeatInterval: Int64 = 10
        /// A kite that was silent for so long is dropped.
        package var heartbeatTimeout: Int64 = 30
        /// How long a kite whose connection ended may take to come back before it is dropped.
        package var disconnectGrace: Int64 = 5
        /// How old an entry in storage may be at a restart.
        package var storedLifetime: Int64 = 90
        /// How often a living entry is written to storage.
        package var storeInterval: Int64 = 60
        package var maximumKites = 100_000
        package var maximumKitesPerUser = 10_000

        package init() {}
    }

    package let limits: Limits
    /// By ``KiteIdentity/path``.
    private var registrations: [String: Registration] = [:]
    private var pathsByUser: [String: Set<String>] = [:]
    private var pathsByID: [String: Set<String>] = [:]
    private var lastNumber: UInt64 = 0

    package init(limits: Limits = Limits()) { self.limits = limits }

    package var count: Int { registrations.count }

    /// The registration of a kite's path.
    package subscript(path path: String) -> Registration? { registrations[path] }

    /// The registrations with an id, the latest first.
    package func registrations(id: String) -> [Registration] {
        (pathsByID[id] ?? []).compactMap { registrations[$0] }.sorted { $0.receipt.number > $1.receipt.number }
    }

    // MARK: Coming and going

    /// Takes a kite up, or replaces its registration.
    /// - Throws: ``KontrolError`` with `forbidden` when the id is another user's or there are too many.
    package mutating func register(
        _ kite: KontrolKite, source: Source, now: Int64
    ) throws(KontrolError) -> (registration: Registration, changes: [Change]) {
        let identity = kite.identity
        let path = identity.path
        var changes: [Change] = [.registered(kite)]
        if let other = pathsByID[identity.id]?.first, registrations[other]?.kite.identity.username != identity.username
        {
            throw KontrolError(.forbidden, "The kite id \(identity.id) is registered by another user")
        }
        if let old = registrations[path] {
            if old.kite.url == kite.url { changes = [] }
        } else {
            guard registrations.count < limits.maximumKites,
                pathsByUser[identity.username]?.count ?? 0 < limits.maximumKitesPerUser
            else { throw KontrolError(.forbidden, "Too many kites are registered") }
        }
        lastNumber += 1
        let registration = Registration(
            kite: kite, receipt: Receipt(path: path, number: lastNumber), source: source,
            deadline: source == .process ? .max : now + limits.heartbeatTimeout, storedAt: now)
        enter(registration)
        return (registration, changes)
    }

    private mutating func enter(_ registration: Registration) {
        let (identity, path) = (registration.kite.identity, registration.receipt.path)
        registrations[path] = registration
        pathsByUser[identity.username, default: []].insert(path)
        pathsByID[identity.id, default: []].insert(path)
    }

    /// Takes up what storage held before a restart.
    package mutating func restore(_ kite: KontrolKite, number: UInt64, storedAt: Int64, now: Int64) {
        lastNumber = max(lastNumber, number)
        let path = kite.identity.path
        guard registrations[path] == nil, now < storedAt + limits.storedLifetime, storedAt <= now + 60,
            registrations.count < limits.maximumKites
        else { return }
        enter(
            Registration(
                kite: kite, receipt: Receipt(path: path, number: number), source: .storage,
                deadline: storedAt + limits.storedLifetime, storedAt: storedAt))
    }

    /// A heartbeat over the connection on which a kite registered.
    package mutating func heartbeat(_ receipt: Receipt, now: Int64) -> Beat {
        guard let registration = registrations[receipt.path] else { return .gone }
        guard registration.receipt == receipt else { return .superseded }
        return registration.isOutdated ? .outdated : alive(registration, now: now)
    }

    /// A heartbeat over HTTP. It proves nothing about its sender, so it keeps only registrations alive that were made over HTTP; it names
    /// no more than an id, so it is one of each kite that has it.
    /// - Returns: one for each of them, at least one.
    package mutating func heartbeat(id: String, now: Int64) -> [Beat] {
        let beating = registrations(id: id).filter { $0.source == .http }
        guard !beating.isEmpty else { return [.gone] }
        return beating.map { $0.isOutdated ? .outdated : alive($0, now: now) }
    }

    private mutating func alive(_ registration: Registration, now: Int64) -> Beat {
        var registration = registration
        registration.deadline = max(registration.deadline, now + limits.heartbeatTimeout)
        let isDue = now - registration.storedAt >= limits.storeInterval
        if isDue { registration.storedAt = now }
        registrations[registration.receipt.path] = registration
        return isDue ? .store(registration) : .alive
    }

    /// The connection of a registration ended.
    package mutating func disconnected(_ receipt: Receipt, now: Int64) {
        guard var registration = registrations[receipt.path], registration.receipt == receipt else { return }
        registration.isConnected = false
        registration.deadline = min(registration.deadline, now + limits.disconnectGrace)
        registrations[receipt.path] = registration
    }

    /// Takes a registration back, unless a later one has replaced it.
    package mutating func deregister(_ receipt: Receipt) -> Registration? {
        guard let registration = registrations[receipt.path], registration.receipt == receipt else { return nil }
        remove(registration)
        return registration
    }

    /// Drops everything whose time is over.
    package mutating func expire(now: Int64) -> [Registration] {
        let expired = registrations.values.filter { $0.deadline <= now }
        for registration in expired { remove(registration) }
        return expired
    }

    private mutating func remove(_ registration: Registration) {
        let (identity, path) = (registration.kite.identity, registration.receipt.path)
        registrations[path] = nil
        Self.remove(path, from: &pathsByUser, at: identity.username)
        Self.remove(path, from: &pathsByID, at: identity.id)
    }

    private static func remove(_ path: String, from index: inout [String: Set<String>], at key: String) {
        index[key]?.remove(path)
        if index[key]?.isEmpty == true { index[key] = nil }
    }

    /// Notes which key pair signs tokens for a kite, by its path.
    package mutating func setKey(_ keyID: String, ofKite path: String) { registrations[path]?.kite.keyID = keyID }

    /// Other key pairs are in use. Kites of this process go over to the active one at once. All others that know another must
    /// register again, to be told; those whose pair is not accepted any more are dropped.
    /// - Returns: what was dropped.
    package mutating func keysChanged(active: String, retired: Set<String>) -> [Registration] {
        var dropped: [Registration] = []
        for (path, registration) in registrations {
            let keyID = registration.kite.keyID
            if keyID == active {
                registrations[path]?.isOutdated = false
            } else if registration.source == .process {
                registrations[path]?.kite.keyID = active
            } else if retired.contains(keyID) {
                registrations[path]?.isOutdated = true
            } else {
                dropped.append(registration)
            }
        }
        for registration in dropped { remove(registration) }
        return dropped
    }

    /// The registration must be renewed at the kite's next heartbeat.
    package mutating func setOutdated(_ receipt: Receipt) {
        guard registrations[receipt.path]?.receipt == receipt else { return }
        registrations[receipt.path]?.isOutdated = true
    }

    // MARK: Looking up

    /// What a restart should not forget, and what it should: kites that are connected or beat over HTTP, and kites that are leaving or
    /// live in this process. Those that have not come back since the last restart are in storage already.
    package func parting() -> (staying: [Registration], leaving: [Registration]) {
        var (staying, leaving): ([Registration], [Registration]) = ([], [])
        for registration in registrations.values {
            switch registration.source {
            case .storage: continue
            case .process: leaving.append(registration)
            case .connection, .http:
                if registration.isConnected { staying.append(registration) } else { leaving.append(registration) }
            }
        }
        return (staying, leaving)
    }

    /// The kites that a valid query matches, at most `limit`: those with an id from the latest to the oldest, others in no particular order.
    package func kites(matching query: KontrolQuery, limit: Int) -> [KontrolKite] {
        if !query.id.isEmpty {
            return Array(
                registrations(id: query.id).lazy.map(\.kite).filter { query.matches($0.identity) }.prefix(limit))
        }
        var found: [KontrolKite] = []
        for path in pathsByUser[query.username] ?? [] {
            guard let kite = registrations[path]?.kite, query.matches(kite.identity) else { continue }
            found.append(kite)
            if found.count >= limit { break }
        }
        return found
    }
}
