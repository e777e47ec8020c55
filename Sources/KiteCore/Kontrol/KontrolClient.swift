/// A kite's connection to a Kontrol elsewhere.
internal import Logging
public import ServiceLifecycle
internal import Synchronization

/// Talks to Kontrol on behalf of a kite: finds other kites, gets and renews tokens, and registers the kite.
///
/// Run it in the service group; calls wait for the connection within their timeout. To keep a kite registered, run a
/// ``KontrolRegistration`` beside it.
public final class KontrolClient: Service {
    /// Seconds before its expiry from when on a token is replaced.
    static let renewalMargin: Int64 = 30
    private static let maximumTokens = 1000

    private struct State {
        var key: KiteKey
        var tokens: [KontrolQuery: (token: String, expiresAt: Int64)] = [:]
        var renewals: [TokenRenewal] = []
        /// From so many renewals on those nobody needs any more are taken out.
        var tidyAt = 64
    }

    /// The kite that it acts for.
    public let kite: Kite
    /// The connection.
    public let client: KiteClient
    private let credentials: KiteCredentials
    private let connector: KiteConnector
    private let verifier: TokenVerifier?
    private let state: Mutex<State>
    private let now: @Sendable () -> Int64
    private let keyChange: (@Sendable (KiteKey) -> Void)?

    /// - Parameters:
    ///   - kite: its configuration names Kontrol's URL and the kite key, unless they are given here.
    ///   - verifier: learns the keys with which Kontrol signs from now on; where nil, the kite's authenticator if it is a
    ///     ``TokenVerifier``. Whoever judges callers otherwise sees to that without this client.
    ///   - onKeyChange: called when Kontrol has given the kite a new key, to be kept in its file. The kite itself uses it already.
    /// - Throws: ``KontrolError`` with `invalidRegistration` when there is no URL or no kite key.
    public convenience init(
        kite: Kite, url: String? = nil, key: KiteKey? = nil, connector: @escaping KiteConnector,
        verifier: TokenVerifier? = nil, onKeyChange: (@Sendable (KiteKey) -> Void)? = nil
    ) throws(KontrolError) {
        try self.init(
            kite: kite, url: url, key: key, connector: connector, verifier: verifier, now: secondsSince1970,
            onKeyChange: onKeyChange)
    }

    package init(
        kite: Kite, url: String?, key: KiteKey?, connector: @escaping KiteConnector, verifier: TokenVerifier? = nil,
        now: @escaping @Sendable () -> Int64,
        onKeyChange: (@Sendable (KiteKey) -> Void)?
    ) throws(KontrolError) {
        guard let key = key ?? kite.configuration.kiteKey else {
            throw KontrolError(.invalidRegistration, "A kite key is needed to talk to Kontrol")
        }
        guard let url = url ?? kite.configuration.kontrolURL ?? key.kontrolURL, !url.isEmpty else {
            throw KontrolError(.invalidRegistration, "Neither the configuration nor the kite key says where Kontrol is")
        }
        self.kite = kite
        self.connector = connector
        self.verifier = verifier ?? kite.authenticator as? TokenVerifier
        self.now = now
        keyChange = onKeyChange
        credentials = .kiteKey(key.text)
        var options = KiteClient.Options()
        options.backoffLimit = Self.longestPause
        client = KiteClient(url: url, as: kite, credentials: credentials, options: options, connector: connector)
        state = Mutex(State(key: key))
    }

    /// Between attempts to reach a Kontrol that is away, and to register there: all that depends on it is back soon after it is.
    static let longestPause = Duration.seconds(2)

    /// The kite key in use; Kontrol may have replaced the one in the configuration.
    public var key: KiteKey { state.withLock { $0.key } }

    /// Keeps the connection, and renews tokens in time, until the task is cancelled or the service group shuts down.
    public func run() async throws {
        await cancelWhenGracefulShutdown {
            await withDiscardingTaskGroup { group in
                group.addTask { try? await self.client.run() }
                group.addTask { await self.keepRenewing() }
            }
        }
    }

    // MARK: Tokens and keys

    /// A token with which the kite may call the one that a query names; the same one until shortly before it expires.
    /// - Parameter isForced: whether a new one is asked for in any case.
    /// - Throws: ``KontrolError``.
    public func token(for query: KontrolQuery, isForced: Bool = false) async throws -> String {
        let time = now()
        if !isForced, let known = state.withLock({ $0.tokens[query] }), time + Self.renewalMargin < known.expiresAt {
            return known.token
        }
        let token: String = try await tell("getToken", TokenRequest(query: query, isForced: isForced))
        let expiry = (try? SignedToken(parsing: token))?.claims.expiresAt ?? .max
        // Kontrol too gives out the same one until it expires; shortly before that is no use to us.
        if !isForced, expiry <= time + Self.renewalMargin { return try await self.token(for: query, isForced: true) }
        state.withLock { state in
            if state.tokens.count >= Self.maximumTokens {
                state.tokens = state.tokens.filter { time < $0.value.expiresAt }
                if state.tokens.count >= Self.maximumTokens { state.tokens = [:] }
            }
            state.tokens[query] = (token, expiry)
        }
        return token
    }

    /// Asks for the key with which Kontrol signs now, and trusts it besides those it trusted before.
    /// - Throws: ``KontrolError``.
    @discardableResult
    public func publicKey() async throws -> KontrolPublicKey {
        let pem: String
        do {
            pem = try await client.tell("getKey")
        } catch {
            throw Self.error(error)
        }
        return try trust(pem: pem)
    }

    private func trust(pem: String) throws(KontrolError) -> KontrolPublicKey {
        let key: KontrolPublicKey
        do throws(KeyError) {
            key = try KontrolPublicKey(pem: pem)
        } catch {
            throw KontrolError(.invalidAnswer, "Kontrol's key is not usable: \(error.message)")
        }
        verifier?.learn(key, of: self.key.kontrolUsername)
        return key
    }

    /// What a client of another kite proves itself with. Renewed when the other kite says so, and shortly before its expiry while
    /// this service runs.
    public func credentials(for other: KontrolKite) -> KiteCredentials {
        let id = other.identity.id
        let current: Authentication? = other.token.isEmpty ? nil : .token(other.token)
        let credentials = KiteCredentials(current) { [weak self] expired in
            guard let self else { throw KiteError(.authentication, "The connection to Kontrol is gone") }
            return .token(try await self.token(for: KontrolQuery(id: id), isForced: expired != nil))
        }
        let expiry = (try? SignedToken(parsing: other.token))?.claims.expiresAt
        if let expiry {
            state.withLock { state in
                if state.renewals.count >= state.tidyAt {
                    state.renewals.removeAll { $0.credentials == nil }
                    state.tidyAt = max(64, 2 * state.renewals.count)
                }
                state.renewals.append(TokenRenewal(credentials: credentials, kiteID: id, expiresAt: expiry))
            }
        }
        return credentials
    }

    /// A client of another kite, to be run or connected; its token is renewed.
    public func client(of other: KontrolKite) -> KiteClient {
        KiteClient(url: other.url, as: kite, credentials: credentials(for: other), connector: connector)
    }

    /// How many tokens are watched for their expiry.
    var renewalCount: Int { state.withLock { $0.renewals.count } }

    private func keepRenewing() async {
        while !Task.isCancelled {
            guard (try? await Task.sleep(for: .seconds(5))) != nil else { return }
            await renewTokens()
        }
    }

    /// Replaces the tokens that are about to expire.
    func renewTokens() async {
        let limit = now() + Self.renewalMargin
        let due = state.withLock { state in
            state.renewals.removeAll { $0.credentials == nil }
            return state.renewals.filter { $0.expiresAt <= limit }
        }
        for renewal in due {
            guard let credentials = renewal.credentials else { continue }
            do {
                let token = try await token(for: KontrolQuery(id: renewal.kiteID))
                credentials.update(.token(token))
                let expiry = (try? SignedToken(parsing: token))?.claims.expiresAt ?? .max
                state.withLock { state in
                    for position in state.renewals.indices where state.renewals[position].credentials === credentials {
                        state.renewals[position].expiresAt = expiry
                    }
                }
            } catch let error as KontrolError where error.code == .notFound {
                // The kite is gone; should it come back, its refusal of the old token leads to a new one.
                state.withLock { $0.renewals.removeAll { $0.credentials === credentials } }
            } catch {
                kite.logger.warning("A token could not be renewed yet", metadata: ["error": "\(error)"])
            }
        }
    }

    // MARK: Registering

    /// Registers the kite once. Kontrol forgets it soon after the connection ends; ``KontrolRegistration`` keeps it registered.
    /// - Parameter url: where the kite is reached.
    /// - Returns: the URL that Kontrol noted.
    /// - Throws: ``KontrolError``.
    @discardableResult
    public func register(url: String) async throws -> String {
        let answer: RegisterResponse = try await tell("register", RegisterRequest(url: url))
        try take(answer)
        return answer.url
    }

    /// Takes over the keys that came with an answer.
    func take(_ answer: RegisterResponse) throws(KontrolError) {
        if let text = answer.kiteKey, !text.isEmpty {
            let new: KiteKey
            do throws(KeyError) {
                new = try KiteKey(parsing: text)
            } catch {
                throw KontrolError(.invalidAnswer, "Kontrol's new kite key is not usable: \(error.message)")
            }
            // A new key for somebody else would change who we are.
            guard new.username == key.username else {
                throw KontrolError(.invalidAnswer, "Kontrol's new kite key is another user's")
            }
            state.withLock { $0.key = new }
            credentials.update(.kiteKey(new.text))
            kite.logger.notice("Kontrol has given this kite a new key")
            keyChange?(new)
        }
        if let pem = answer.publicKey ?? (answer.kiteKey == nil ? nil : key.kontrolKey), !pem.isEmpty {
            _ = try trust(pem: pem)
        }
    }

    // MARK: -

    func tell<Result: Decodable>(_ method: String, _ argument: some Encodable & Sendable) async throws -> Result {
        do {
            return try await client.tell(method, argument, timeout: kite.configuration.timeout)
        } catch {
            throw Self.error(error)
        }
    }

    /// What an error of a call means.
    static func error(_ error: any Error) -> any Error {
        guard let error = error as? KiteError else { return error }
        let message = error.message
        switch error.type {
        case .timeout, .send, .disconnect: return KontrolError(.unavailable, message)
        case .invalidResponse: return KontrolError(.invalidAnswer, message)
        case .authentication: return KontrolError(.forbidden, message)
        default: break
        }
        // Go's Kontrol says what its storage says.
        if message.contains("Key not found") || message.contains("no kites found") || message.hasPrefix("No kite") {
            return KontrolError(.notFound, message)
        }
        if message.contains("more than one kite") { return KontrolError(.ambiguous, message) }
        if message.hasPrefix("Invalid query") || message.hasPrefix("Empty username") {
            return KontrolError(.invalidQuery, message)
        }
        return KontrolError(.refused, message)
    }
}

/// A token in use by a client.
private struct TokenRenewal {
    weak var credentials: KiteCredentials?
    let kiteID: String
    var expiresAt: Int64
}

/// Arguments of `getToken`.
private struct TokenRequest: Encodable, Sendable {
    let query: KontrolQuery
    let isForced: Bool

    enum CodingKeys: String, CodingKey {
        case force
    }

    func encode(to encoder: any Encoder) throws {
        try query.encode(to: encoder)
        if isForced {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(true, forKey: .force)
        }
    }
}
