/// Makes and shows the keys of an embedded Kontrol: what `kiteproxy keys` does.
public import KiteCore

/// The key pairs and kite keys in a data directory. Works on the files and the database, whether a gateway runs on them or not; a running one
/// notices new key pairs within a minute.
public struct KontrolKeys: Sendable {
    /// What ``initialise(dataDirectory:username:kontrolURL:kiteKeyPath:)`` found and did.
    public struct Outcome: Sendable, Hashable {
        /// Kontrol's user.
        public let username: String
        /// The active key pair.
        public let keyPairID: String
        /// Whether the key pair was made just now.
        public let madeKeyPair: Bool
        /// Where the kite key lies.
        public let kiteKeyPath: String
        /// Whether the kite key was made just now.
        public let madeKiteKey: Bool
        /// Whether the kite key was signed anew just now, with the active key pair instead of a retired one.
        public let renewedKiteKey: Bool
        /// Whether the kite key was signed by this Kontrol. One that was there before may be another's; it is left alone.
        public let kiteKeyIsTrusted: Bool
    }

    /// What ``show()`` tells.
    public struct Overview: Sendable, Hashable {
        /// A key pair, without its private half.
        public struct KeyPair: Sendable, Hashable {
            public let id: String
            public let publicPEM: String
            /// Seconds since 1970.
            public let createdAt: Int64
            public let isActive: Bool
        }
        /// A user who has had a kite key.
        public struct User: Sendable, Hashable {
            public let username: String
            /// How many kite keys the user was given.
            public let kiteKeys: Int
        }
        /// Kontrol's user.
        public let username: String
        /// Where new kite keys say that Kontrol is.
        public let kontrolURL: String
        /// All key pairs of the data directory.
        public let keyPairs: [KeyPair]
        /// All users.
        public let users: [User]
    }

    private let directory: KeyDirectory
    private let store: KontrolStore

    /// Opens a data directory, making it where it does not exist.
    /// - Throws: ``KeyError`` with `fileAccess`.
    public init(dataDirectory: String) async throws(KeyError) {
        directory = try KeyDirectory(dataDirectory: dataDirectory)
        do throws(KontrolError) {
            store = try await KontrolStore(path: directory.databasePath)
        } catch {
            throw KeyError(.fileAccess, error.message)
        }
    }

    /// Makes a key pair and the operator's kite key, each where it is missing. Never overwrites anything.
    /// - Parameters:
    ///   - username: Kontrol's user, who is the operator; not changed where the directory has one already.
    ///   - kontrolURL: what kite keys say where Kontrol is (`http://host:4000/kite`).
    /// - Throws: ``KeyError``.
    public static func initialise(
        dataDirectory: String, username: String, kontrolURL: String, kiteKeyPath: String = KiteKey.defaultPath()
    ) async throws(KeyError) -> Outcome {
        let keys = try await KontrolKeys(dataDirectory: dataDirectory)
        let outcome: Result<Outcome, KeyError>
        do throws(KeyError) {
            outcome = .success(try await keys.initialise(username, kontrolURL: kontrolURL, kiteKeyPath: kiteKeyPath))
        } catch {
            outcome = .failure(error)
        }
        keys.close()
        return try outcome.get()
    }

    /// Closes the database.
    public func close() { try? store.close() }

    private func initialise(
        _ username: String, kontrolURL: String, kiteKeyPath: String
    ) async throws(KeyError) -> Outcome {
        let isNew = try await storage { store throws(KontrolError) in try await store.keyPairs().isEmpty }
        let issuer = try await setting("username", default: username)
        try await change("kontrolURL", to: kontrolURL)
        if isNew { try await activate(KontrolKeyPair.generate()) }
        let ring = try await ring()

        var made = false
        var (isTrusted, renewed) = (true, false)
        do throws(KeyError) {
            (isTrusted, renewed) = try await renew(kiteKeyAt: kiteKeyPath, ring)
        } catch  where error.code == .notFound {
            try await issue(user: issuer, kontrolURL: kontrolURL).write(to: kiteKeyPath)
            made = true
        }
        return Outcome(
            username: issuer, keyPairID: ring.active.id, madeKeyPair: isNew, kiteKeyPath: kiteKeyPath,
            madeKiteKey: made, renewedKiteKey: renewed, kiteKeyIsTrusted: isTrusted)
    }

    /// Signs the kite key in a file anew with the active key pair, where a retired one has signed it. A key of another Kontrol is left
    /// alone.
    /// - Returns: whether the file was changed; false also where there is none.
    /// - Throws: ``KeyError`` when the file cannot be read or replaced.
    public func renew(kiteKeyAt path: String) async throws(KeyError) -> Bool {
        let ring = try await ring()
        do throws(KeyError) {
            return try await renew(kiteKeyAt: path, ring).isRenewed
        } catch  where error.code == .notFound {
            return false
        }
    }

    private func renew(
        kiteKeyAt path: String, _ ring: KeyRing
    ) async throws(KeyError) -> (isTrusted: Bool, isRenewed: Bool) {
        let present = try KiteKey.read(from: path)
        let verifier = TokenVerifier(trusting: [ring.trustedIssuer])
        guard let credential = try? verifier.verify(kiteKey: present.text) else { return (false, false) }
        guard credential.key != ring.active.publicKey else { return (true, false) }
        try await TokenIssuer(issuer: ring.issuer, keyPair: ring.active).renewed(present)
            .write(to: path, replacing: true)
        return (true, true)
    }

    /// Makes a kite key for a user.
    /// - Parameters:
    ///   - user: must not be empty or contain `/`.
    ///   - kontrolURL: where kites with this key find Kontrol; what was given to `initialise` where nil.
    public func issue(user: String, kontrolURL: String? = nil) async throws(KeyError) -> KiteKey {
        let ring = try await ring()
        let url: String
        if let kontrolURL { url = kontrolURL } else { url = try await setting("kontrolURL", default: "") }
        let now = secondsSince1970()
        let key = try await TokenIssuer(issuer: ring.issuer, keyPair: ring.active)
            .kiteKey(for: user, kontrolURL: url, now: now)
        _ = try await storage { store throws(KontrolError) in try await store.recordKiteKey(key, now: now) }
        return key
    }

    /// A secret with which `registerMachine` gives out one kite key for a user.
    /// - Parameter lifetime: seconds for which it is good.
    public func invite(user: String, lifetime: Int64 = 24 * 3600) async throws(KeyError) -> String {
        guard !user.isEmpty, !user.contains("/") else {
            throw KeyError(.malformed, "A username must not be empty or contain \"/\"")
        }
        let secret = randomSecret()
        try await storage { store throws(KontrolError) in
            try await store.invite(
                user, digest: secretDigest(secret), expiresAt: secondsSince1970() + lifetime)
        }
        return secret
    }

    /// What there is.
    public func show() async throws(KeyError) -> Overview {
        let pairs = try await storage { store throws(KontrolError) in try await store.keyPairs() }
        let users = try await storage { store throws(KontrolError) in
            try await store.users().map { Overview.User(username: $0.username, kiteKeys: $0.keys) }
        }
        return Overview(
            username: try await setting("username", default: ""),
            kontrolURL: try await setting("kontrolURL", default: ""),
            keyPairs: pairs.map {
                Overview.KeyPair(id: $0.id, publicPEM: $0.publicPEM, createdAt: $0.createdAt, isActive: $0.isActive)
            }, users: users)
    }

    /// Takes over a key pair from PEM files, such as an existing Kontrol's. It becomes the active one.
    /// - Parameters:
    ///   - publicPath: the public key file; must belong to the private one.
    ///   - privatePath: the private key file.
    ///   - username: Kontrol's user, where the directory has none yet.
    public func importKeys(
        public publicPath: String?, private privatePath: String, username: String = "kontrol"
    ) async throws(KeyError) -> String {
        let pair = try await KontrolKeyPair(privateKeyPath: privatePath, publicKeyPath: publicPath)
        _ = try await setting("username", default: username)
        try await activate(pair)
        return pair.id
    }

    /// Makes a new key pair the active one. Kites learn it when they register again; what was signed before stays good until
    /// ``remove(keyPair:)``.
    public func rotate() async throws(KeyError) -> String {
        let pair = try await KontrolKeyPair.generate()
        try await activate(pair)
        return pair.id
    }

    /// Stops accepting what a retired key pair has signed, and deletes its files.
    /// - Returns: false when there is no such pair, or it is the active one.
    public func remove(keyPair id: String) async throws(KeyError) -> Bool {
        guard try await storage({ store throws(KontrolError) in try await store.removeKeyPair(id: id) }) else {
            return false
        }
        try directory.remove(id: id)
        return true
    }

    // MARK: -

    private func ring() async throws(KeyError) -> KeyRing {
        let issuer = try await setting("username", default: "kontrol")
        let directory = directory
        return try await storage { store throws(KontrolError) in
            try await KeyRing(issuer: issuer, store: store, directory: directory)
        }
    }

    private func activate(_ pair: KontrolKeyPair) async throws(KeyError) {
        try directory.add(pair)
        try await storage { store throws(KontrolError) in
            try await store.activate(pair.publicKey, now: secondsSince1970())
        }
    }

    /// A setting; what it should be where it has never been set, which is then kept.
    private func setting(_ name: String, default value: String) async throws(KeyError) -> String {
        try await storage { store throws(KontrolError) in
            if let known = try await store.setting(name) { return known }
            if !value.isEmpty { try await store.set(name, to: value) }
            return value
        }
    }

    private func change(_ name: String, to value: String) async throws(KeyError) {
        try await storage { store throws(KontrolError) in try await store.set(name, to: value) }
    }

    private func storage<Value: Sendable>(
        _ body: (KontrolStore) async throws(KontrolError) -> Value
    ) async throws(KeyError) -> Value {
        do throws(KontrolError) {
            return try await body(store)
        } catch {
            throw KeyError(.fileAccess, error.message)
        }
    }
}
