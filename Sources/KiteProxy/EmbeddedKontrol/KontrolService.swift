/// The embedded Kontrol without its network side: registrations, tokens, watchers and keys of a data directory.
public import KiteCore
public import Logging
public import ServiceLifecycle
import Synchronization

/// A Kontrol in this process. The gateway asks it directly; other kites reach it through the server methods built on it. Run it as a
/// service: without that nothing expires.
public actor KontrolService: Service {
    /// How a Kontrol behaves.
    public struct Options: Sendable {
        /// Where database and keys lie; they must exist (``KontrolKeys/initialise(dataDirectory:username:kontrolURL:kiteKeyPath:)``).
        public var dataDirectory: String
        /// Who Kontrol is. `username` is replaced by that of the data directory.
        public var identity: KiteIdentity
        /// Who may have a kite key by `registerMachine`.
        public var machinePolicy: MachinePolicy = .deny
        /// Seconds for which tokens are good, without the five minutes' leeway.
        public var tokenLifetime: Int64 = TokenIssuer.tokenLifetime
        /// The most kites in one answer.
        public var maximumAnswer = 1000
        /// The most watchers at a time.
        public var maximumWatchers = 10_000
        package var limits = Registry.Limits()
        /// Seconds since 1970.
        package var now: @Sendable () -> Int64 = secondsSince1970

        /// - Parameter identity: who Kontrol is; one with the name `kontrol` and a random id where nil.
        public init(dataDirectory: String, identity: KiteIdentity? = nil) {
            self.dataDirectory = dataDirectory
            self.identity =
                identity
                ?? KiteIdentity(
                    name: "kontrol", id: randomIdentifier(), environment: "production", region: "local",
                    version: "1.0.0", hostname: "localhost")
        }
    }

    /// Who this Kontrol is.
    public nonisolated let identity: KiteIdentity
    /// Judges everybody who comes with a token or a kite key of this Kontrol. Knows of new key pairs as soon as the service does.
    public nonisolated let verifier: TokenVerifier
    nonisolated let options: Options
    nonisolated let logger: Logger
    let store: KontrolStore
    private let directory: KeyDirectory
    private(set) var ring: KeyRing
    var registry: Registry
    private var tokens = TokenCache()
    private var isHandedOver = false
    private var watchers: [String: Watcher] = [:]
    /// Whether the service is being shut down.
    let isEnding = Atomic<Bool>(false)
    private let users = KnownUsers()

    private struct Watcher {
        let query: KontrolQuery
        let events: AsyncStream<Registry.Change>.Continuation
    }

    /// Opens a data directory and takes up the kites that were registered there a moment ago.
    /// - Throws: ``KontrolError`` with `unavailable` when there are no keys or the database cannot be read.
    public init(options: Options, logger: Logger) async throws(KontrolError) {
        do throws(KeyError) {
            directory = try KeyDirectory(dataDirectory: options.dataDirectory)
        } catch {
            throw KontrolError(.unavailable, error.message)
        }
        store = try await KontrolStore(path: directory.databasePath)
        var identity = options.identity
        identity.username = try await store.setting("username") ?? "kontrol"
        self.identity = identity
        self.options = options
        self.logger = logger
        ring = try await KeyRing(issuer: identity.username, store: store, directory: directory)
        verifier = TokenVerifier(trusting: [ring.trustedIssuer], learns: false, now: options.now)
        registry = Registry(limits: options.limits)
        let now = options.now()
        for stored in try await store.kites(storedSince: now - options.limits.storedLifetime) {
            registry.restore(stored.kite, number: stored.number, storedAt: stored.storedAt, now: now)
        }
        // Keys may have been removed while nothing ran.
        let dropped = registry.keysChanged(active: ring.active.id, retired: Set(ring.retired.map(\.id)))
        try await store.remove(dropped.map(\.receipt))
    }

    /// How many kites are registered.
    public var kiteCount: Int { registry.count }

    /// The public key that new signatures verify with.
    public var publicKey: KontrolPublicKey { ring.active.publicKey }

    // MARK: Life

    /// Expires registrations and notices new keys until the service is shut down; then notes who was alive.
    public func run() async throws {
        await withTaskCancellationOrGracefulShutdownHandler {
            await cancelWhenGracefulShutdown {
                await withDiscardingTaskGroup { group in
                    group.addTask { await self.keepHouse() }
                    group.addTask { await self.recordUsers() }
                }
            }
        } onCancelOrGracefulShutdown: {
            self.isEnding.store(true, ordering: .relaxed)
        }
        await close()
    }

    /// Notes that there is a user, who has shown a kite key elsewhere, such as at the tunnel door: nobody else is given a key in that
    /// name. From any thread; written while the service runs.
    package nonisolated func note(user: String) { users.note(user) }

    private func recordUsers() async {
        for await username in users.fresh {
            do throws(KontrolError) {
                try await store.recordUser(username, now: options.now())
            } catch {
                logger.warning("A user could not be stored", metadata: ["user": "\(username)", "error": "\(error)"])
            }
        }
    }

    private func keepHouse() async {
        var second = 0
        while !Task.isCancelled {
            try? await Task.sleep(for: .seconds(1))
            await expire()
            second += 1
            if second % 30 == 0 { await reloadKeys() }
        }
    }

    /// Drops the kites that have been silent for too long.
    package func expire() async {
        let expired = registry.expire(now: options.now())
        guard !expired.isEmpty else { return }
        for registration in expired {
            logger.info("Kite dropped: no heartbeat", metadata: Self.metadata(registration.kite))
            notify(.deregistered(registration.kite))
        }
        await forget(expired.map(\.receipt))
    }

    /// Reads the key pairs again, which `kiteproxy keys` may have changed.
    package func reloadKeys() async {
        do throws(KontrolError) {
            let fresh = try await KeyRing(issuer: identity.username, store: store, directory: directory)
            guard !fresh.isSame(as: ring) else { return }
            ring = fresh
            tokens = TokenCache()
            verifier.trust([fresh.trustedIssuer])
            logger.notice("Key pairs changed", metadata: ["active": "\(fresh.active.id)"])
            let dropped = registry.keysChanged(active: fresh.active.id, retired: Set(fresh.retired.map(\.id)))
            for registration in dropped {
                logger.notice(
                    "Kite dropped: its key pair was removed", metadata: Self.metadata(registration.kite))
                notify(.deregistered(registration.kite))
            }
            await forget(dropped.map(\.receipt))
        } catch {
            logger.error("Key pairs could not be read again; the old ones stay in use", metadata: ["error": "\(error)"])
        }
    }

    /// Stores which kites are registered, for a process that opens the same data directory.
    package func saveLiving() async {
        let (staying, leaving) = registry.parting()
        do throws(KontrolError) {
            // So that it ends when it would have ended without the restart.
            try await store.save(
                staying.map {
                    .init(
                        kite: $0.kite, number: $0.receipt.number, storedAt: $0.deadline - options.limits.storedLifetime)
                })
            try await store.remove(leaving.map(\.receipt))
        } catch {
            logger.warning("The registered kites could not be stored", metadata: ["error": "\(error)"])
        }
    }

    /// Another process keeps the registry now; what this one knows is not to be stored over it.
    package func handedOver() { isHandedOver = true }

    /// Ends all watchers, notes who was alive and closes the database.
    package func close() async {
        for watcher in watchers.values { watcher.events.finish() }
        watchers = [:]
        if !isHandedOver { await saveLiving() }
        try? store.close()
    }

    func forget(_ receipts: [Registry.Receipt]) async {
        guard !isHandedOver else { return }
        do throws(KontrolError) {
            try await store.remove(receipts)
        } catch {
            // Nothing is lost: what stays in storage is too old to be taken up after a restart.
            logger.warning("Dropped kites could not be removed from storage", metadata: ["error": "\(error)"])
        }
    }

    static func metadata(_ kite: KontrolKite) -> Logger.Metadata {
        ["kite": "\(kite.identity.path)", "url": "\(kite.url)"]
    }

    // MARK: Watching

    /// Tells of every kite that comes or goes and that a query matches, until the watcher is cancelled. A watcher that does not
    /// take its events ends.
    /// - Returns: the watcher's id, and what happens from now on.
    /// - Throws: ``KontrolError`` with `invalidQuery`, or `forbidden` when there are too many watchers.
    package func watch(_ query: KontrolQuery) throws(KontrolError) -> (
        id: String, changes: AsyncStream<Registry.Change>
    ) {
        try query.validate()
        guard watchers.count < options.maximumWatchers else {
            throw KontrolError(.forbidden, "Too many watchers")
        }
        let id = randomIdentifier()
        let (changes, continuation) = AsyncStream<Registry.Change>.makeStream(bufferingPolicy: .bufferingOldest(256))
        watchers[id] = Watcher(query: query, events: continuation)
        return (id, changes)
    }

    /// Ends a watcher.
    /// - Returns: false when there is none with this id.
    package func cancelWatcher(_ id: String) -> Bool {
        guard let watcher = watchers.removeValue(forKey: id) else { return false }
        watcher.events.finish()
        return true
    }

    func notify(_ change: Registry.Change) {
        for (id, watcher) in watchers where watcher.query.matches(change.kite.identity) {
            if case .enqueued = watcher.events.yield(change) { continue }
            // One event lost would leave the watcher with a wrong picture for ever: it has to ask anew.
            watcher.events.finish()
            watchers[id] = nil
        }
    }

    // MARK: Tokens

    /// A token with which a user may call a kite, and others of the same user, environment and name.
    /// - Parameter isForced: whether a new one is made though one was issued before.
    func token(
        for username: String, to kite: KontrolKite, isForced: Bool = false
    ) async throws(KontrolError) -> String {
        let pair = ring.pair(id: kite.keyID)
        let key = tokenKey(username, kite, pair)
        let now = options.now()
        if !isForced, let token = tokens[key, now] { return token }
        let token: String
        do throws(KeyError) {
            token = try await TokenIssuer(issuer: self.identity.username, keyPair: pair)
                .token(for: username, audience: key.audience, now: now, lifetime: options.tokenLifetime)
        } catch {
            logger.error("A token could not be signed", metadata: ["error": "\(error)"])
            throw KontrolError(.unavailable, "Server error: Cannot generate a token")
        }
        // The leeway at the end is for clocks that differ, not for use.
        tokens.insert(token, for: key, until: now + options.tokenLifetime, now: now)
        return token
    }

    /// Whether a user was given a token for a kite that is still good.
    func hasToken(_ username: String, to kite: KontrolKite) -> Bool {
        tokens[tokenKey(username, kite, ring.pair(id: kite.keyID)), options.now()] != nil
    }

    private func tokenKey(_ username: String, _ kite: KontrolKite, _ pair: KontrolKeyPair) -> TokenCache.Key {
        let identity = kite.identity
        return TokenCache.Key(
            username: username,
            audience: Audience(username: identity.username, environment: identity.environment, name: identity.name),
            keyID: pair.id)
    }
}
