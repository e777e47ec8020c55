/// All rules of a gateway, and which of them are for a request.
import KiteHTTP
import NIOCore

/// The rules of all sections, in the form in which they are looked up. Shared by all event loops; replaced as a whole when the
/// configuration is read again.
///
/// Of the sections for hosts the one counts that says most: the host itself, then the longest `*.domain` that it lies below, then `*`. A
/// section of the route comes before all of them, then, where a route is reached by its path, what is said of the route's own host in
/// particular. Key by key: what the better section does not say, the next one does.
package final class RuleBook: Sendable {
    private let exact: [RouteKey: Int]
    private let below: [RouteKey: Int]
    private let any: Int?
    private let routes: [RouteKey: Int]
    /// Of hosts: already laid over those of less specific ones.
    private let sets: [RuleSet]
    /// The same without what is said of all hosts.
    private let particular: [RuleSet]
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
        var particular = written
        for (key, index) in exact {
            if let parent = Self.longest(key.bytes, in: below) {
                particular[index] = written[index].over(written[parent])
            }
            if let parent = Self.longest(key.bytes, in: below) ?? any { sets[index] = sets[index].over(sets[parent]) }
        }
        self.exact = exact
        self.below = below
        self.any = any
        self.routes = byRoute
        self.sets = sets
        self.particular = particular
        rates =
            written.contains { if case .every = $0.rateLimit { true } else { false } } ? RateLimitTable() : nil
    }

    /// Numbers of sections.
    struct Sections: Hashable {
        var host: Int?
        /// Of the host of a route that is reached by its path.
        var ownHost: Int?
        var route: Int?
    }

    /// Whether anything is said of hosts in particular.
    var knowsHosts: Bool { !exact.isEmpty || !below.isEmpty }

    /// The sections for a request; nil where there are none.
    /// - Parameter ownHost: that of the route, in lower case, where it is reached by its path.
    func sections(authority: ByteBuffer, ownHost: ByteBuffer? = nil, route: RouteKey?) -> Sections? {
        let sections = Sections(
            host: hostSection(authority), ownHost: ownHost.flatMap { particularSection(RouteKey($0)) },
            route: routes.isEmpty ? nil : route.flatMap { routes[$0.inLowerCase] })
        return sections == Sections() ? nil : sections
    }

    private func hostSection(_ authority: ByteBuffer) -> Int? {
        guard knowsHosts else { return any }
        return particularSection(Self.host(authority)) ?? any
    }

    private func particularSection(_ host: RouteKey) -> Int? {
        exact[host] ?? Self.longest(host.bytes, in: below)
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
    func rules(_ sections: Sections) -> RuleSet {
        var rules = sections.host.map { sets[$0] } ?? RuleSet()
        if let ownHost = sections.ownHost { rules = particular[ownHost].over(rules) }
        return sections.route.map { sets[$0].over(rules) } ?? rules
    }
}

/// One event loop's view of the rules: those that were needed, compiled.
final class RuleTable {
    let book: RuleBook
    private var compiled: [RuleBook.Sections: Rules] = [:]

    init(_ book: RuleBook) { self.book = book }

    /// The rules for a request; nil where there are none.
    func find(authority: ByteBuffer, ownHost: ByteBuffer? = nil, route: RouteKey?) -> Rules? {
        guard let sections = book.sections(authority: authority, ownHost: ownHost, route: route) else { return nil }
        if let rules = compiled[sections] { return rules }
        let rules = Rules(book.rules(sections))
        if compiled.count >= 4096 { compiled = [:] }
        compiled[sections] = rules
        return rules
    }
}
