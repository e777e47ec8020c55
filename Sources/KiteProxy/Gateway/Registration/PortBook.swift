/// Which tunnel has which public port, and had which: the rules alone, without a socket.

/// Owners of public ports. A value; its owner serialises access.
struct PortBook: Sendable {
    /// Who has a port.
    struct Holder: Sendable, Hashable {
        /// The tunnel's name.
        var name: RouteKey
        var username: String
        var session: String
    }
    /// Of one user.
    var limit: Int
    private var holders: [Int: Holder] = [:]
    /// The tunnel that each port was given to last; each tunnel has one port here at most.
    private var lastName: [Int: RouteKey] = [:]
    private var lastPort: [RouteKey: Int] = [:]
    private var lastUnnumbered = 0

    init(limit: Int) { self.limit = max(limit, 1) }

    /// Whether a user may have another.
    func hasRoom(for username: String) -> Bool { holders.values.count { $0.username == username } < limit }

    /// The ports to try for a tunnel, in this order: the one it had last, those that no tunnel is known to have had, the others.
    /// - Parameter range: `0...0` stands for any that the system chooses.
    func candidates(for name: RouteKey, in range: ClosedRange<Int>) -> [Int] {
        let last = lastPort[name].flatMap { holders[$0] == nil ? $0 : nil }
        if range == 0...0 { return [last, 0].compactMap { $0 } }
        var unknown: [Int] = []
        var others: [Int] = []
        for port in range where holders[port] == nil && port != last {
            if lastName[port] == nil { unknown.append(port) } else { others.append(port) }
        }
        return [last].compactMap { $0 }.filter(range.contains) + unknown + others
    }

    /// Takes a port before it is opened.
    /// - Returns: by what ``opened(_:as:)`` and ``release(_:)`` know it; nil when somebody has it by now.
    mutating func take(_ port: Int, for holder: Holder) -> Int? {
        var place = port
        if port == 0 {
            // It has no number yet.
            lastUnnumbered -= 1
            place = lastUnnumbered
        }
        guard holders[place] == nil else { return nil }
        holders[place] = holder
        return place
    }

    /// A port that was taken is open.
    mutating func opened(_ place: Int, as number: Int) {
        guard let holder = holders.removeValue(forKey: place) else { return }
        holders[number] = holder
        remember(number, of: holder.name)
    }

    /// A tunnel is to have this port again.
    mutating func remember(_ number: Int, of name: RouteKey) {
        if let other = lastName[number] { lastPort[other] = nil }
        if let before = lastPort[name] { lastName[before] = nil }
        lastName[number] = name
        lastPort[name] = number
    }

    /// A port is closed, or could not be opened.
    mutating func release(_ place: Int) { holders[place] = nil }

    /// The sessions of a user that have a port for a tunnel.
    func sessions(holding name: RouteKey, of username: String) -> [String] {
        holders.values.filter { $0.name == name && $0.username == username }.map(\.session)
    }
}
