/// When which certificate is to be obtained: the rules alone, with time as an argument.
import Foundation

/// The names and what is known of each. A value; its owner serialises access.
struct RenewalSchedule: Sendable {
    /// Why a name is here.
    enum Origin: Sendable, Hashable { case configured, onDemand }

    struct Entry: Sendable {
        var origin: Origin
        var notBefore: Date?
        var notAfter: Date?
        /// When it is to be obtained.
        var due: Date
        /// Whether that is being done.
        var isRunning = false
        /// In a row.
        var failures = 0
        var lastFailure: (time: Date, failure: ACMEFailure)?
        /// Servers that do not want to be asked for it before a time.
        var blocked: [String: Date] = [:]
    }

    enum Demand: Sendable, Hashable {
        case accepted
        case known
        /// Too many new names within an hour.
        case overBudget
        /// Too many names in all.
        case full
    }

    /// The wait after the first failure; doubled by each further one. Five attempts come within an hour, which is what the best-known authority
    /// allows of failed validations.
    static let firstRetry: TimeInterval = 120
    static let longestRetry: TimeInterval = 6 * 3600
    /// How long to wait where another process has the name.
    static let lockRetry: TimeInterval = 5

    private(set) var entries: [String: Entry] = [:]
    private let namesPerHour: Int
    private let onDemandNames: Int
    /// When new names were accepted on demand, oldest first.
    private var accepted: [Date] = []

    /// - Parameters:
    ///   - namesPerHour: new names on demand.
    ///   - onDemandNames: in all.
    init(namesPerHour: Int, onDemandNames: Int) {
        self.namesPerHour = namesPerHour
        self.onDemandNames = onDemandNames
    }

    /// Two thirds of the lifetime, give or take a fortieth, so that certificates that were obtained together are not renewed together.
    /// - Parameter jitter: -1 to 1.
    static func renewal(notBefore: Date, notAfter: Date, jitter: Double) -> Date {
        let lifetime = notAfter.timeIntervalSince(notBefore)
        return notBefore.addingTimeInterval(lifetime * 2 / 3 + lifetime / 40 * jitter)
    }

    mutating func add(_ name: String, origin: Origin, at now: Date) {
        guard entries[name] == nil else { return }
        entries[name] = Entry(origin: origin, due: now)
    }

    /// A visitor asks for a name that nothing is known of, and the name is allowed.
    mutating func demand(_ name: String, at now: Date) -> Demand {
        guard entries[name] == nil else { return .known }
        accepted.removeAll { $0 <= now.addingTimeInterval(-3600) }
        guard accepted.count < namesPerHour else { return .overBudget }
        guard entries.values.count(where: { $0.origin == .onDemand }) < onDemandNames else { return .full }
        accepted.append(now)
        add(name, origin: .onDemand, at: now)
        return .accepted
    }

    mutating func forget(_ name: String) { entries[name] = nil }

    /// There is a certificate for a name: from now on it is renewed.
    mutating func obtained(_ name: String, notBefore: Date, notAfter: Date, jitter: Double) {
        guard var entry = entries[name] else { return }
        entry.notBefore = notBefore
        entry.notAfter = notAfter
        entry.due = Self.renewal(notBefore: notBefore, notAfter: notAfter, jitter: jitter)
        entry.failures = 0
        entry.isRunning = false
        entries[name] = entry
    }

    /// - Parameter jitter: -1 to 1.
    /// - Returns: when it is tried again.
    @discardableResult
    mutating func failed(_ name: String, _ failure: ACMEFailure, jitter: Double, at now: Date) -> Date? {
        guard var entry = entries[name] else { return nil }
        entry.failures = min(entry.failures + 1, 1000)
        let wait = min(Self.firstRetry * pow(2, Double(min(entry.failures - 1, 20))), Self.longestRetry)
        entry.due = max(now.addingTimeInterval(wait * (1 + jitter / 4)), failure.retryAfter ?? now)
        entry.lastFailure = (now, failure)
        entry.isRunning = false
        entries[name] = entry
        return entry.due
    }

    /// A server is not to be asked for a name for a while.
    mutating func block(_ name: String, server: String, until end: Date) { entries[name]?.blocked[server] = end }

    func isBlocked(_ name: String, server: String, at now: Date) -> Bool {
        entries[name]?.blocked[server].map { $0 > now } ?? false
    }

    /// It is not our turn.
    mutating func postpone(_ name: String, until time: Date) {
        entries[name]?.due = time
        entries[name]?.isRunning = false
    }

    /// The name that is due longest, which counts as being worked on from now.
    mutating func take(at now: Date) -> String? {
        let due = entries.filter { !$0.value.isRunning && $0.value.due <= now }
        guard let name = due.min(by: { ($0.value.due, $0.key) < ($1.value.due, $1.key) })?.key else { return nil }
        entries[name]?.isRunning = true
        return name
    }

    /// When something is due next; nil where all are being worked on.
    var nextDue: Date? { entries.values.lazy.filter { !$0.isRunning }.map(\.due).min() }
}
