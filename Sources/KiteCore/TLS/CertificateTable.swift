/// Names and the contexts of handshakes for them: what a ``CertificateStore`` swaps as a whole when something changes.
import NIOSSL

/// Immutable.
struct CertificateTable: Sendable {
    /// What makes a context another one.
    struct ContextKey: Hashable, Sendable {
        let certificate: String
        let rule: String?
    }

    /// One certificate for a name.
    struct Choice: Sendable {
        let keys: ClientHello.Keys
        let contexts: HandshakeContexts
    }

    /// A rule for client certificates.
    struct Rule: Sendable {
        let name: ClientRuleName
        let rule: ClientCertificateRule
        /// For hosts without a certificate.
        let fallback: [Choice]
    }

    /// By name; wildcards by what follows `*.`.
    private var exact: [String: [Choice]] = [:]
    private var wildcards: [String: [Choice]] = [:]
    /// For clients that ask for no name or another one.
    private var first: [Choice] = []
    private(set) var rules = HostTable<Rule>()
    /// As `exact` and `wildcards`, for hosts with a rule; hosts for whom there is a rule of their own are in the former.
    private var ruledExact: [String: [Choice]] = [:]
    private var ruledWildcards: [String: [Choice]] = [:]
    private var challenges: [String: NIOSSLContext] = [:]
    private var applicationProtocols: [String] = []
    private var refusesUnknownNames = false

    init() {}

    /// - Parameter contexts: those that exist; becomes those that are used now.
    init(
        certificates: [CertificateStore.Origin: [ServerCertificate]], rules: [String: ClientCertificateRule],
        challenges: [String: NIOSSLContext], options: CertificateStore.Options,
        contexts: inout [ContextKey: HandshakeContexts]
    ) throws(CertificateError) {
        let ordered = certificates.sorted { $0.key < $1.key }.flatMap { $0.value }
        var byName: [String: [ServerCertificate]] = [:]
        for certificate in ordered {
            for name in Set(certificate.names) { byName[name, default: []].append(certificate) }
        }
        var used: [ContextKey: HandshakeContexts] = [:]
        let old = contexts
        func choice(_ certificate: ServerCertificate, _ rule: ClientCertificateRule?) throws(CertificateError)
            -> Choice
        {
            let key = ContextKey(certificate: certificate.fingerprint, rule: rule?.fingerprint)
            let contexts: HandshakeContexts
            if let known = used[key] ?? old[key] {
                contexts = known
            } else {
                contexts = try HandshakeContexts(certificate, rule: rule, options: options)
            }
            used[key] = contexts
            return Choice(keys: certificate.keyKind.clientKeys, contexts: contexts)
        }
        func choices(_ certificates: [ServerCertificate], _ rule: ClientCertificateRule? = nil)
            throws(CertificateError) -> [Choice]
        {
            var choices: [Choice] = []
            for certificate in certificates { choices.append(try choice(certificate, rule)) }
            return choices
        }
        for (name, certificates) in byName {
            if name.hasPrefix("*.") {
                wildcards[String(name.dropFirst(2))] = try choices(Self.oneOfEachKind(certificates))
            } else {
                exact[name] = try choices(Self.oneOfEachKind(certificates))
            }
        }
        // Those that share the first one's names stand in for it where its kind of key does not suit.
        let firsts = ordered.first.map { first in ordered.filter { $0.names == first.names } } ?? []
        first = try choices(Self.oneOfEachKind(firsts))
        for (name, rule) in rules {
            let pattern = name.lowercased()
            self.rules[pattern] = Rule(
                name: ClientRuleName(pattern: pattern, isRequired: rule.isRequired), rule: rule,
                fallback: try choices(Self.oneOfEachKind(firsts), rule))
        }
        for name in Set(byName.keys).union(rules.keys.map { $0.lowercased() }) {
            guard name != "*" else { continue }
            let isWildcard = name.hasPrefix("*.")
            // A wildcard certificate is for hosts that have any label in its place.
            let found = self.rules.value(for: isWildcard ? "\u{0}" + name.dropFirst() : name)
            guard let found, let own = byName[name] ?? Self.parent(of: name).flatMap({ byName["*." + $0] }) else {
                continue
            }
            let made = try choices(Self.oneOfEachKind(own), found.rule)
            if isWildcard { ruledWildcards[String(name.dropFirst(2))] = made } else { ruledExact[name] = made }
        }
        self.challenges = challenges
        applicationProtocols = options.applicationProtocols
        refusesUnknownNames = options.refusesUnknownNames
        contexts = used
    }

    /// The first of each kind of key, those on elliptic curves before RSA: they cost the gateway a fraction.
    private static func oneOfEachKind(_ certificates: [ServerCertificate]) -> [ServerCertificate] {
        var kinds: Set<ServerCertificate.KeyKind> = []
        let chosen = certificates.filter { kinds.insert($0.keyKind).inserted }
        return chosen.filter { $0.keyKind != .rsa } + chosen.filter { $0.keyKind == .rsa }
    }

    private static func parent(of name: String) -> String? {
        guard let dot = name.firstIndex(of: "."), dot > name.startIndex else { return nil }
        return String(name[name.index(after: dot)...])
    }

    var isEmpty: Bool { first.isEmpty }

    func choices(for name: String) -> [Choice]? {
        exact[name] ?? Self.parent(of: name).flatMap { wildcards[$0] }
    }

    private func ruledChoices(for name: String) -> [Choice]? {
        ruledExact[name] ?? Self.parent(of: name).flatMap { ruledWildcards[$0] }
    }

    func select(_ hello: ClientHello) -> CertificateStore.Selection {
        if !hello.applicationProtocols.isEmpty {
            if hello.applicationProtocols.contains(CertificateStore.challengeProtocol) {
                // The validating server offers nothing else (RFC 8737 section 3).
                guard let name = hello.serverName, let context = challenges[name] else {
                    return .refused(.noApplicationProtocol)
                }
                return .challenge(context)
            }
            guard hello.applicationProtocols.contains(where: applicationProtocols.contains) else {
                return .refused(.noApplicationProtocol)
            }
        }
        let rule = rules.value(for: hello.serverName)
        if let choices = hello.serverName.flatMap({ rule == nil ? choices(for: $0) : ruledChoices(for: $0) }) {
            return pick(choices, hello, rule: rule?.name.pattern, isFallback: false)
        }
        guard !refusesUnknownNames else { return .refused(.unrecognizedName) }
        return pick(rule?.fallback ?? first, hello, rule: rule?.name.pattern, isFallback: true)
    }

    /// The first whose signatures the client can verify; where there is none the handshake fails with the library's alert.
    private func pick(_ choices: [Choice], _ hello: ClientHello, rule: String? = nil, isFallback: Bool)
        -> CertificateStore.Selection
    {
        guard let choice = choices.first(where: { !$0.keys.isDisjoint(with: hello.keys) }) ?? choices.first else {
            return .refused(.unrecognizedName)
        }
        return .context(choice.contexts.context(for: hello.suites), rule: rule, isFallback: isFallback)
    }
}
