/// Who owns which name: the rules alone, without a store, so that a decision and its entry are one step.

/// Owners of names and kite ids. A value; its owner serialises access.
struct ClaimBook: Sendable {
    /// How long a claim is kept.
    enum Term: Sendable, Hashable {
        /// A name that a user chose: kept, and counted, until somebody takes it away.
        case lasting
        /// A kite's id, or a name that the gateway made up: each start of a program brings new ones, so the oldest that nobody serves
        /// any more makes room for the next.
        case passing
    }
    enum Outcome: Sendable, Hashable {
        /// All are the user's now. `unrecorded`: lasting ones that are in no store yet; each is to be recorded, and then reported with
        /// ``ClaimBook/recorded(_:at:)`` or ``ClaimBook/notRecorded(_:)``. `dropped`: passing ones that made room.
        case taken(unrecorded: [RouteKey], dropped: [RouteKey])
        case heldByAnother(RouteKey)
        /// The user has as many as one may have.
        case full
    }
    private struct Entry: Sendable {
        var username: String
        var term: Term
        /// Whether a store has it.
        var isRecorded = false
        /// Sessions that have been given it and are recording it.
        var recordings = 0
        /// What the store knows of its last use, in seconds since 1970.
        var lastUsed: Int64 = 0
    }

    /// Of each term and user.
    var limit: Int
    /// Between two records of the use of one claim, in seconds.
    static let useInterval: Int64 = 60
    private var entries: [RouteKey: Entry] = [:]
    private var lastingCount: [String: Int] = [:]
    /// Oldest use first.
    private var passing: [String: [RouteKey]] = [:]

    init(limit: Int) { self.limit = max(limit, 1) }

    func owner(of key: RouteKey) -> String? { entries[key]?.username }

    /// How long a claim is kept; nil where there is none.
    func term(of key: RouteKey) -> Term? { entries[key]?.term }

    /// Takes several names for a user, or none of them.
    /// - Parameter isServed: whether a passing claim is in use and must stay.
    mutating func take(
        _ wanted: [(key: RouteKey, term: Term)], for username: String, isServed: (RouteKey) -> Bool
    ) -> Outcome {
        for (key, _) in wanted {
            if let entry = entries[key], entry.username != username { return .heldByAnother(key) }
        }
        let new = wanted.filter { entries[$0.key] == nil }
        guard lastingCount[username, default: 0] + new.count(where: { $0.term == .lasting }) <= limit else {
            return .full
        }
        var kept = passing[username, default: []]
        let excess = kept.count + new.count(where: { $0.term == .passing }) - limit
        var dropped: [RouteKey] = []
        if excess > 0 {
            for key in kept where dropped.count < excess && !isServed(key) && !wanted.contains(where: { $0.key == key })
            {
                dropped.append(key)
            }
            guard dropped.count == excess else { return .full }
        }
        for key in dropped { entries[key] = nil }
        kept.removeAll { key in dropped.contains(key) || wanted.contains { $0.key == key } }
        var unrecorded: [RouteKey] = []
        for (key, term) in wanted {
            var entry = entries[key] ?? Entry(username: username, term: term)
            if entries[key] == nil, term == .lasting { lastingCount[username, default: 0] += 1 }
            if entry.term == .lasting, !entry.isRecorded {
                entry.recordings += 1
                unrecorded.append(key)
            }
            if entry.term == .passing { kept.append(key) }
            entries[key] = entry
        }
        passing[username] = kept.isEmpty ? nil : kept
        return .taken(unrecorded: unrecorded, dropped: dropped)
    }

    /// A store has a claim that was to be recorded.
    mutating func recorded(_ key: RouteKey, at time: Int64) {
        entries[key]?.recordings -= 1
        entries[key]?.isRecorded = true
        entries[key]?.lastUsed = time
    }

    /// A store did not take a claim. The name is nobody's again, unless somebody else has recorded it meanwhile or still tries to: another
    /// session of the same user.
    mutating func notRecorded(_ key: RouteKey) {
        entries[key]?.recordings -= 1
        guard let entry = entries[key], !entry.isRecorded, entry.recordings <= 0 else { return }
        release(key)
    }

    /// A claim is used by its owner.
    /// - Returns: what is to be recorded of that; nil where it is not worth it, or nothing is kept of the claim.
    mutating func used(_ key: RouteKey, at time: Int64) -> Claim? {
        guard let entry = entries[key], entry.isRecorded, time - entry.lastUsed >= Self.useInterval else { return nil }
        entries[key]?.lastUsed = time
        return Claim(name: key.description, username: entry.username, lastUsed: time)
    }

    /// Enters a claim that was recorded before, without regard to limits.
    mutating func restore(_ key: RouteKey, username: String, lastUsed: Int64 = 0) {
        guard entries[key] == nil else { return }
        entries[key] = Entry(username: username, term: .lasting, isRecorded: true, lastUsed: lastUsed)
        lastingCount[username, default: 0] += 1
    }

    /// Takes a claim back.
    mutating func release(_ key: RouteKey) {
        guard let entry = entries.removeValue(forKey: key) else { return }
        switch entry.term {
        case .lasting:
            let left = lastingCount[entry.username, default: 1] - 1
            lastingCount[entry.username] = left > 0 ? left : nil
        case .passing:
            let left = passing[entry.username, default: []].filter { $0 != key }
            passing[entry.username] = left.isEmpty ? nil : left
        }
    }
}
