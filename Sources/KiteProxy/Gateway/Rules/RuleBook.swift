/// All rules of a gateway, and which of them are for a request.
import KiteHTTP
import NIOCore

/// The rules of all sections, in the form in which they are looked up. Shared by all event loops; replaced as a whole when the
/// configuration is read again.
///
/// Of the sections for hosts the one counts that says most: the host itself, then the longest `*.domain` that it lies below, then `*`. A
/// section of the route comes before all of them. Key by key: what the better section does not say, the next one does.
package final class RuleBook: Sendable {
    private let exact: [RouteKey: Int]
    private let below: [RouteKey: Int]
    private let any: Int?
    private let routes: [RouteKey: Int]
    /// Of hosts: already laid over those of less specific ones.
    private let sets: [RuleSet]
    let rates: RateLimitTable?

    /// - Returns: nil where there are no rules at all.
    package init?(hosts: [(pattern: HostPattern, rules: RuleSet)], routes: [(name: String, rules: RuleSet)]) {
        guard !hosts.isEmpty || !routes.isEmpty else { return nil }
        var sets: [RuleSet] = []
        var exact: [RouteKey: Int] = [:]
        var below: [RouteKey: Int] = [:]
        var any: Int?
        var byRoute: [RouteKey: Int] = [:]
        func add(_ rules: RuleSet) -> Int {
            var rules = rules
            if rules.rateLimit != nil { rules.rateLimitNumber = sets.count }
            rules.passwords = rules.users.map(PasswordList.init)
            sets.append(rules)
            return sets.count - 1
        }
        for (pattern, rules) in hosts {
            let index = add(rules)
            switch pattern {
            case .any: any = index
            case .exact(let name): exact[RouteKey(name)] = index
            case .below(let name): below[RouteKey(name)] = index
            }
        }
        for (name, rules) in routes { byRoute[RouteKey(name)] = add(rules) }
        let written = sets
        for index in below.values { if let any { sets[index] = sets[index].over(written[any]) } }
        for (key, index) in exact {
            if let parent = Self.longest(key.bytes, in: below) ?? any { sets[index] = sets[index].over(sets[parent]) }
        }
        self.exact = exact
        self.below = below
        self.any = any
        self.routes = byRoute
        self.sets = sets
        rates =
            written.contains { if case .every = $0.rateLimit { true } else { false } } ? RateLimitTable() : nil
    }

    /// The sections for a request, by their numbers; nil where there are none.
    func sections(authority: ByteBuffer, route: RouteKey?) -> (host: Int?, route: Int?)? {
        let forRoute = routes.isEmpty ? nil : route.flatMap { routes[$0.inLowerCase] }
        let forHost = hostSection(authority)
        return forHost == nil && forRoute == nil ? nil : (forHost, forRoute)
    }

    private func hostSection(_ authority: ByteBuffer) -> Int? {
        guard !exact.isEmpty || !below.isEmpty else { return any }
        let host = Self.host(authority)
        return exact[host] ?? Self.longest(host.bytes, in: below) ?? any
    }

    /// The host without its port and without a full stop at its end, in lower case.
    static func host(_ authority: ByteBuffer) -> RouteKey {
        let view = authority.readableBytesView
        var end = view.endIndex
        if let colon = view.lastIndex(of: UInt8(ascii: ":")), !view[colon...].contains(UInt8(ascii: "]")) {
            end = colon
        }
        if end > view.startIndex, view[end - 1] == UInt8(ascii: ".") { end -= 1 }
        return RouteKey(authority.getSlice(at: view.startIndex, length: end - view.startIndex) ?? ByteBuffer())
    }

    /// The longest domain that a host lies below.
    private static func longest(_ host: ByteBuffer, in domains: [RouteKey: Int]) -> Int? {
        guard !domains.isEmpty else { return nil }
        let view = host.readableBytesView
        var start = view.startIndex
        // A name has at most 127 labels; whatever has more is none.
        for _ in 0..<127 {
            guard let dot = view[start...].firstIndex(of: UInt8(ascii: ".")) else { return nil }
            start = dot + 1
            guard let rest = host.getSlice(at: start, length: view.endIndex - start) else { return nil }
            if let found = domains[RouteKey(rest)] { return found }
        }
        return nil
    }

    /// What sections come to together.
    func rules(host: Int?, route: Int?) -> RuleSet {
        let lower = host.map { sets[$0] } ?? RuleSet()
        return route.map { sets[$0].over(lower) } ?? lower
    }
}

/// One event loop's view of the rules: those that were needed, compiled.
final class RuleTable {
    let book: RuleBook
    private var compiled: [Int: Rules] = [:]

    init(_ book: RuleBook) { self.book = book }

    /// The rules for a request; nil where there are none.
    func find(authority: ByteBuffer, route: RouteKey?) -> Rules? {
        guard let (host, route) = book.sections(authority: authority, route: route) else { return nil }
        // Sections are at most 10,000, so that both fit.
        let key = (host ?? 0xFFFFF) << 20 | (route ?? 0xFFFFF)
        if let rules = compiled[key] { return rules }
        let rules = Rules(book.rules(host: host, route: route))
        if compiled.count >= 4096 { compiled = [:] }
        compiled[key] = rules
        return rules
    }
}
