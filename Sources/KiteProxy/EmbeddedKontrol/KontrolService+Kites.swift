/// What kites ask of the embedded Kontrol: to be registered, and to find each other.
public import KiteCore
import Logging
import Synchronization

extension KontrolService {
    /// What came of a registration.
    package struct Registered: Sendable {
        package let receipt: Registry.Receipt
        package let kite: KontrolKite
        /// What the kite should take over, when it came with a retired key.
        package let kiteKey: KiteKey?
        package let publicKey: KontrolPublicKey?
    }

    /// Registers a kite of the user whose kite key the caller showed.
    /// - Parameters:
    ///   - identity: who it says it is; its user name is replaced by that of the key, as Go's Kontrol does.
    ///   - url: where it is reached.
    ///   - credential: what ``verifier`` made of the kite key.
    ///   - text: the kite key.
    /// - Throws: ``KontrolError`` with Go's wording.
    package func register(
        _ identity: KiteIdentity, url: String, credential: VerifiedCredential, kiteKey text: String,
        source: Registry.Source
    ) async throws(KontrolError) -> Registered {
        var identity = identity
        identity.username = credential.username
        try RegistrationRules.check(url: url)
        try RegistrationRules.check(identity)

        let ring = ring
        // The key may have been removed since it was looked at.
        guard ring.trustedIssuer.keys.contains(credential.key) else {
            throw KontrolError(.forbidden, TokenError.untrustedKontrolKey.message)
        }
        var renewed: KiteKey?
        if credential.key != ring.active.publicKey {
            do throws(KeyError) {
                renewed = try await TokenIssuer(issuer: self.identity.username, keyPair: ring.active)
                    .renewed(KiteKey(parsing: text))
            } catch {
                logger.error("A kite key could not be renewed", metadata: ["error": "\(error)"])
            }
        }
        let keyID = renewed == nil ? credential.key.id : ring.active.id
        let kite = KontrolKite(identity: identity, url: url, keyID: keyID)
        let receipt = try await take(kite, source: source)
        if ring.active.id != self.ring.active.id { registry.setOutdated(receipt) }
        return Registered(
            receipt: receipt, kite: kite, kiteKey: renewed, publicKey: renewed == nil ? nil : ring.active.publicKey)
    }

    /// Registers a kite that lives in this process, such as the gateway itself. It stays until ``deregister(_:)``.
    @discardableResult
    package func register(local identity: KiteIdentity, url: String) async throws(KontrolError) -> Registry.Receipt {
        try RegistrationRules.check(url: url)
        try RegistrationRules.check(identity)
        return try await take(KontrolKite(identity: identity, url: url, keyID: ring.active.id), source: .process)
    }

    private func take(_ kite: KontrolKite, source: Registry.Source) async throws(KontrolError) -> Registry.Receipt {
        let now = options.now()
        let (registration, changes) = try registry.register(kite, source: source, now: now)
        logger.info("Kite registered", metadata: Self.metadata(kite))
        do throws(KontrolError) {
            // What lives in this process is another one after a restart.
            if source != .process {
                try await store.save([.init(kite: kite, number: registration.receipt.number, storedAt: now)])
                try await store.recordUser(kite.identity.username, now: now)
            }
        } catch {
            // It is registered all the same; only a restart would forget it.
            logger.error("A registration could not be stored", metadata: ["error": "\(error)"])
        }
        for change in changes { notify(change) }
        return registration.receipt
    }

    /// Takes a registration back, unless a later one of the same kite has replaced it.
    package func deregister(_ receipt: Registry.Receipt) async {
        guard let registration = registry.deregister(receipt) else { return }
        logger.info("Kite deregistered", metadata: Self.metadata(registration.kite))
        notify(.deregistered(registration.kite))
        await forget([receipt])
    }

    /// A heartbeat over the connection on which a kite registered.
    package func heartbeat(_ receipt: Registry.Receipt) async -> Registry.Beat {
        await note(registry.heartbeat(receipt, now: options.now()))
    }

    /// A heartbeat over HTTP.
    /// - Returns: false when the kite, or another with its id, must register again.
    package func heartbeat(id: String) async -> Bool {
        var isKnown = true
        for beat in registry.heartbeat(id: id, now: options.now()) {
            switch await note(beat) {
            case .alive, .store: continue
            case .outdated, .gone, .superseded: isKnown = false
            }
        }
        return isKnown
    }

    private func note(_ beat: Registry.Beat) async -> Registry.Beat {
        if case .store(let registration) = beat {
            do throws(KontrolError) {
                try await store.save([
                    .init(
                        kite: registration.kite, number: registration.receipt.number, storedAt: registration.storedAt)
                ])
            } catch {
                logger.error("A registration could not be stored", metadata: ["error": "\(error)"])
            }
        }
        return beat
    }

    /// The connection on which a kite registered is over. The kite has a few seconds to come back; a newer registration is not
    /// touched.
    package func disconnected(_ receipt: Registry.Receipt) {
        // When Kontrol itself ends, its kites have not left.
        guard !isEnding.load(ordering: .relaxed) else { return }
        registry.disconnected(receipt, now: options.now())
    }

    // MARK: Finding

    /// The kites that a query matches, in random order, with tokens for a user.
    /// - Throws: ``KontrolError`` with `invalidQuery`.
    package func kites(
        matching query: KontrolQuery, for username: String
    ) async throws(KontrolError) -> [KontrolKite] {
        try query.validate()
        var kites = registry.kites(matching: query, limit: options.maximumAnswer).shuffled()
        for position in kites.indices {
            kites[position].token = try await token(for: username, to: kites[position])
        }
        return kites
    }

    /// A token for the one kite that a query matches. An id alone may be that of several kites, and clients renew tokens by it: of those it
    /// is the one that the user has been given a token for already, or else the one that registered last.
    /// - Throws: ``KontrolError`` with `invalidQuery`, `notFound` or `ambiguous`.
    package func token(
        matching query: KontrolQuery, for username: String, isForced: Bool
    ) async throws(KontrolError) -> String {
        try query.validate()
        let kites = registry.kites(matching: query, limit: query.isByIDOnly ? options.maximumAnswer : 2)
        guard let latest = kites.first else { throw KontrolError(.notFound, "no kites found") }
        guard kites.count == 1 || query.isByIDOnly else {
            throw KontrolError(.ambiguous, "query matches more than one kite")
        }
        let kite = kites.count == 1 ? latest : kites.first { hasToken(username, to: $0) } ?? latest
        return try await token(for: username, to: kite, isForced: isForced)
    }

    /// The event that a watcher of a user is told of a change.
    package func event(_ change: Registry.Change, for username: String) async throws(KontrolError) -> KiteEvent {
        switch change {
        case .registered(let kite):
            KiteEvent(
                action: .register, kite: kite.identity, url: kite.url,
                token: try await token(for: username, to: kite))
        case .deregistered(let kite): KiteEvent(action: .deregister, kite: kite.identity)
        }
    }

    // MARK: Keys

    /// The public key that the caller should trust. From now on tokens for its kite are signed with that one.
    /// - Parameter kite: who it says it is; the user is proven.
    package func publicKey(for kite: KiteIdentity, of username: String) -> KontrolPublicKey {
        var kite = kite
        kite.username = username
        registry.setKey(ring.active.id, ofKite: kite.path)
        return ring.active.publicKey
    }

    /// A kite key for somebody who has none, if the operator's policy allows it.
    /// - Parameters:
    ///   - username: who the caller says it is.
    ///   - secret: the one-time secret it brought.
    ///   - kontrolURL: where the kite will find Kontrol.
    /// - Throws: ``KontrolError`` with `forbidden`.
    package func registerMachine(username: String, secret: String?) async throws(KontrolError) -> KiteKey {
        let now = options.now()
        var user = username
        switch options.machinePolicy {
        case .deny: throw KontrolError(.forbidden, "no valid authentication key found")
        case .secret:
            guard let secret, secret.utf8.count <= 1024,
                let invited = try await store.redeemInvitation(digest: secretDigest(secret), now: now)
            else { throw KontrolError(.forbidden, "cannot authenticate user: the secret is not valid") }
            user = invited
        case .open:
            guard !user.isEmpty, !user.contains("/"), user.utf8.count <= RegistrationRules.maximumFieldLength,
                user != identity.username
            else { throw KontrolError(.forbidden, "cannot authenticate user: the username is not allowed") }
        }
        let key: KiteKey
        do throws(KeyError) {
            key = try await TokenIssuer(issuer: identity.username, keyPair: ring.active)
                .kiteKey(for: user, kontrolURL: try await kontrolURL(), now: now)
        } catch {
            throw KontrolError(.unavailable, "Server error: Cannot generate a kite key")
        }
        guard try await store.recordKiteKey(key, isNew: options.machinePolicy == .open, now: now) else {
            throw KontrolError(.forbidden, "cannot authenticate user: the username is taken")
        }
        logger.notice("Machine registered", metadata: ["user": "\(user)"])
        return key
    }

    private func kontrolURL() async throws(KeyError) -> String {
        do throws(KontrolError) {
            return try await store.setting("kontrolURL") ?? ""
        } catch {
            throw KeyError(.fileAccess, error.message)
        }
    }
}

// MARK: In the same process

extension KontrolService: KiteResolver {
    /// With tokens for Kontrol's own user.
    public func kites(matching query: KontrolQuery) async throws -> [KontrolKite] {
        try await kites(matching: query, for: identity.username)
    }

    /// With a token for Kontrol's own user. Where several kites have the id it is the one that registered last.
    public func kite(id: String) async throws -> KontrolKite? {
        guard !id.isEmpty, id.utf8.count <= RegistrationRules.maximumFieldLength,
            var kite = registry.kites(matching: KontrolQuery(id: id), limit: 1).first
        else { return nil }
        kite.token = try await token(for: identity.username, to: kite)
        return kite
    }
}
