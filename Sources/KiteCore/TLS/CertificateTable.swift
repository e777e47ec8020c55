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
        let context: NIOSSLContext
    }

    /// A rule for client certificates with the contexts that put it into effect.
    struct Rule: Sendable {
        let name: String
        let isRequired: Bool
        let choices: [Choice]
        let isFallback: Bool
    }

    /// By name; wildcards by what follows `*.`.
    private var exact: [String: [Choice]] = [:]
    private var wildcards: [String: [Choice]] = [:]
    /// For clients that ask for no name or another one.
    private var first: [Choice] = []
    private var exactRules: [String: Rule] = [:]
    private var wildcardRules: [String: Rule] = [:]
    private var challenges: [String: NIOSSLContext] = [:]
    private var applicationProtocols: [String] = []
    private var refusesUnknownNames = false

    init() {}

    /// - Parameter contexts: those that exist; becomes those that are used now.
    init(
        certificates: [CertificateStore.Origin: [ServerCertificate]], rules: [String: ClientCertificateRule],
        challenges: [String: NIOSSLContext], options: CertificateStore.Options,
        contexts: inout [ContextKey: NIOSSLContext]
    ) throws(CertificateError) {
        let ordered = certificates.sorted { $0.key < $1.key }.flatMap { $0.value }
        var byName: [String: [ServerCertificate]] = [:]
        for certificate in ordered {
            for name in Set(certificate.names) { byName[name, default: []].append(certificate) }
        }
        var used: [ContextKey: NIOSSLContext] = [:]
        let old = contexts
        func choice(_ certificate: ServerCertificate, _ rule: ClientCertificateRule?) throws(CertificateError)
            -> Choice
        {
            let key = ContextKey(certificate: certificate.fingerprint, rule: rule?.fingerprint)
            let context: NIOSSLContext
            if let known = used[key] ?? old[key] {
                context = known
            } else {
                context = try Self.makeContext(certificate, rule: rule, options: options)
            }
            used[key] = context
            return Choice(keys: certificate.keyKind.clientKeys, context: context)
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
            let isWildcard = pattern.hasPrefix("*.")
            let own =
                byName[pattern] ?? (isWildcard ? nil : Self.parent(of: pattern).flatMap { byName["*." + $0] })
            let made = Rule(
                name: pattern, isRequired: rule.isRequired,
                choices: try choices(Self.oneOfEachKind(own ?? firsts), rule), isFallback: own == nil)
            if isWildcard {
                wildcardRules[String(pattern.dropFirst(2))] = made
            } else {
                exactRules[pattern] = made
            }
        }
        // A host that has a certificate of its own and falls under the rule of a pattern.
        for (name, certificates) in byName where !name.hasPrefix("*.") && exactRules[name] == nil {
            guard let parent = Self.parent(of: name), let pattern = wildcardRules[parent],
                let rule = rules["*." + parent]
            else { continue }
            exactRules[name] = Rule(
                name: pattern.name, isRequired: pattern.isRequired,
                choices: try choices(Self.oneOfEachKind(certificates), rule), isFallback: false)
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
    var hasRules: Bool { !exactRules.isEmpty || !wildcardRules.isEmpty }

    func choices(for name: String) -> [Choice]? {
        exact[name] ?? Self.parent(of: name).flatMap { wildcards[$0] }
    }

    func rule(for name: String) -> Rule? {
        guard hasRules else { return nil }
        return exactRules[name] ?? Self.parent(of: name).flatMap { wildcardRules[$0] }
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
        guard let name = hello.serverName else {
            return refusesUnknownNames ? .refused(.unrecognizedName) : pick(first, hello, isFallback: true)
        }
        if let rule = rule(for: name), !(rule.isFallback && refusesUnknownNames) {
            return pick(rule.choices, hello, rule: rule.name, isFallback: rule.isFallback)
        }
        if let choices = choices(for: name) { return pick(choices, hello, isFallback: false) }
        return refusesUnknownNames ? .refused(.unrecognizedName) : pick(first, hello, isFallback: true)
    }

    /// The first whose signatures the client can verify; where there is none the handshake fails with the library's alert.
    private func pick(_ choices: [Choice], _ hello: ClientHello, rule: String? = nil, isFallback: Bool)
        -> CertificateStore.Selection
    {
        guard let choice = choices.first(where: { !$0.keys.isDisjoint(with: hello.keys) }) ?? choices.first else {
            return .refused(.unrecognizedName)
        }
        return .context(choice.context, rule: rule, isFallback: isFallback)
    }

    /// Suites of TLS 1.2 with forward secrecy and authenticated encryption, as Mozilla's intermediate profile has them; the order is the
    /// client's, who knows whether it has AES in hardware. Those of 1.3 are the library's.
    private static let cipherSuites = [
        "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305",
    ].joined(separator: ":")

    static func makeContext(
        _ certificate: ServerCertificate, rule: ClientCertificateRule?, options: CertificateStore.Options
    ) throws(CertificateError) -> NIOSSLContext {
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: certificate.chain.map { .certificate($0) }, privateKey: .privateKey(certificate.key))
        configuration.minimumTLSVersion = options.minimumVersion == .tlsv13 ? .tlsv13 : .tlsv12
        configuration.cipherSuites = cipherSuites
        configuration.curves = [.x25519_MLKEM768, .x25519, .secp256r1, .secp384r1]
        configuration.applicationProtocols = options.applicationProtocols
        configuration.renegotiationSupport = .none
        if let rule {
            configuration.certificateVerification = rule.isRequired ? .noHostnameVerification : .optionalVerification
            configuration.trustRoots = .certificates(rule.authorities)
            configuration.sendCANameList = true
        }
        do {
            return try NIOSSLContext(configuration: configuration)
        } catch {
            throw CertificateError("no TLS context can be made: \(error)")
        }
    }
}
