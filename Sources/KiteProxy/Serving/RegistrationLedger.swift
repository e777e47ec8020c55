/// Which routes to kites were registered over which connection, to take them back when that ends.

/// Holds one entry for each route of a connection, however often the kite registers.
struct RegistrationLedger: Sendable {
    struct Route: Sendable, Hashable {
        let kiteID: String
        /// Whether the kite dials back; otherwise it is reached at its address.
        let dialsBack: Bool
    }

    struct Entry: Sendable, Hashable {
        let route: Route
        /// Counts up; of a route's registrations the latest one is in force.
        let registration: UInt64
    }

    private var registrations: [UInt64: [Route: UInt64]] = [:]

    /// A kite has registered over a connection.
    /// - Returns: whether it is the connection's first, so that its end is to be waited for.
    mutating func add(_ entry: Entry, of connection: UInt64) -> Bool {
        let isFirst = registrations[connection] == nil
        let known = registrations[connection]?[entry.route] ?? 0
        registrations[connection, default: [:]][entry.route] = max(known, entry.registration)
        return isFirst
    }

    /// A connection has ended.
    /// - Returns: what is to be taken back.
    mutating func end(of connection: UInt64) -> [Entry] {
        let ended = registrations.removeValue(forKey: connection) ?? [:]
        return ended.map { Entry(route: $0.key, registration: $0.value) }
    }
}
