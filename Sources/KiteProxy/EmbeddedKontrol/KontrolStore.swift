/// What the embedded Kontrol keeps over restarts, in SQLite: kites, users, the public halves of key pairs and settings.
internal import GRDB
package import KiteCore
internal import NIOPosix

/// The database of a Kontrol. All calls are asynchronous and run on the database's own queues, never on an event loop. Private keys are not in it:
/// see ``KeyDirectory``.
package struct KontrolStore: Sendable {
    private let database: DatabasePool

    /// Opens the database, makes it (mode 0600) where it does not exist, and brings its schema up to date.
    /// - Throws: ``KontrolError`` with `unavailable`.
    package init(path: String) async throws(KontrolError) {
        do {
            database = try await NIOThreadPool.singleton.runIfActive { try Self.open(path) }
        } catch {
            throw KontrolError(.unavailable, "The database \(path) cannot be opened: \(error)")
        }
    }

    private static func open(_ path: String) throws -> DatabasePool {
        // SQLite gives the files beside the database its mode, so it must be right from the beginning.
        if !KeyFile.exists(path) {
            do throws(KeyError) {
                try KeyFile.write("", to: path, mode: .ownerWrites, replacing: false)
            } catch {
                // Somebody else may have been faster.
                guard error.code == .exists else { throw error }
            }
        }
        var configuration = Configuration()
        configuration.busyMode = .timeout(5)
        configuration.maximumReaderCount = 2
        configuration.prepareDatabase { try $0.execute(sql: "PRAGMA synchronous = NORMAL") }
        let pool = try DatabasePool(path: path, configuration: configuration)
        try migrator.migrate(pool)
        return pool
    }

    private static var migrator: DatabaseMigrator {
        var migrator = DatabaseMigrator()
        migrator.registerMigration("1 kites, users, key pairs, settings") { database in
            try database.execute(
                sql: """
                    CREATE TABLE kites (
                        id TEXT PRIMARY KEY NOT NULL, number INTEGER NOT NULL, username TEXT NOT NULL,
                        environment TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL, region TEXT NOT NULL,
                        hostname TEXT NOT NULL, url TEXT NOT NULL, key_id TEXT NOT NULL, stored_at INTEGER NOT NULL
                    ) WITHOUT ROWID;
                    CREATE INDEX kites_stored_at ON kites (stored_at);
                    CREATE TABLE users (
                        username TEXT PRIMARY KEY NOT NULL, created_at INTEGER NOT NULL
                    ) WITHOUT ROWID;
                    CREATE TABLE kite_keys (
                        id TEXT PRIMARY KEY NOT NULL, username TEXT NOT NULL REFERENCES users (username),
                        issued_at INTEGER NOT NULL
                    ) WITHOUT ROWID;
                    CREATE TABLE key_pairs (
                        id TEXT PRIMARY KEY NOT NULL, public_key TEXT NOT NULL, created_at INTEGER NOT NULL,
                        is_active INTEGER NOT NULL
                    ) WITHOUT ROWID;
                    CREATE TABLE invitations (
                        digest TEXT PRIMARY KEY NOT NULL, username TEXT NOT NULL, expires_at INTEGER NOT NULL
                    ) WITHOUT ROWID;
                    CREATE TABLE settings (name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL) WITHOUT ROWID;
                    """)
        }
        migrator.registerMigration("2 kites by their path") { database in
            // Kites that were given their kite key's id share it.
            try database.execute(
                sql: """
                    CREATE TABLE kites_by_path (
                        path TEXT PRIMARY KEY NOT NULL, id TEXT NOT NULL, number INTEGER NOT NULL,
                        username TEXT NOT NULL, environment TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL,
                        region TEXT NOT NULL, hostname TEXT NOT NULL, url TEXT NOT NULL, key_id TEXT NOT NULL,
                        stored_at INTEGER NOT NULL
                    ) WITHOUT ROWID;
                    INSERT INTO kites_by_path
                        SELECT '/' || username || '/' || environment || '/' || name || '/' || version || '/' || region
                            || '/' || hostname || '/' || id,
                            id, number, username, environment, name, version, region, hostname, url, key_id, stored_at
                        FROM kites;
                    DROP TABLE kites;
                    ALTER TABLE kites_by_path RENAME TO kites;
                    CREATE INDEX kites_stored_at ON kites (stored_at);
                    """)
        }
        return migrator
    }

    /// Makes a database as an earlier version left it, for tests of what becomes of it.
    static func make(path: String, upTo migration: String, _ sql: String) throws {
        let database = try DatabaseQueue(path: path)
        try migrator.migrate(database, upTo: migration)
        try database.write { try $0.execute(sql: sql) }
        try database.close()
    }

    /// Closes the database; calls after that fail.
    package func close() throws { try database.close() }

    private func read<Value: Sendable>(
        _ body: @escaping @Sendable (Database) throws -> Value
    ) async throws(KontrolError) -> Value {
        do { return try await database.read(body) } catch { throw Self.failure(error) }
    }

    private func write<Value: Sendable>(
        _ body: @escaping @Sendable (Database) throws -> Value
    ) async throws(KontrolError) -> Value {
        do { return try await database.write(body) } catch { throw Self.failure(error) }
    }

    private static func failure(_ error: any Error) -> KontrolError {
        (error as? KontrolError) ?? KontrolError(.unavailable, "The database failed: \(error)")
    }
}

// MARK: Kites

extension KontrolStore {
    package struct StoredKite: Sendable, Hashable {
        package var kite: KontrolKite
        package var number: UInt64
        package var storedAt: Int64

        package init(kite: KontrolKite, number: UInt64, storedAt: Int64) {
            self.kite = kite
            self.number = number
            self.storedAt = storedAt
        }
    }

    /// Writes registrations, each unless a later one of the same kite is there.
    package func save(_ kites: [StoredKite]) async throws(KontrolError) {
        guard !kites.isEmpty else { return }
        try await write { database in
            for kite in kites { try Self.save(kite, in: database) }
        }
    }

    private static func save(_ stored: StoredKite, in database: Database) throws {
        let (kite, identity) = (stored.kite, stored.kite.identity)
        try database.execute(
            sql: """
                INSERT INTO kites (path, id, number, username, environment, name, version, region, hostname, url, key_id, stored_at)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT (path) DO UPDATE SET number = excluded.number, url = excluded.url,
                    key_id = excluded.key_id, stored_at = excluded.stored_at
                WHERE excluded.number >= kites.number
                """,
            arguments: [
                identity.path, identity.id, Int64(clamping: stored.number), identity.username, identity.environment,
                identity.name,
                identity.version, identity.region, identity.hostname, kite.url, kite.keyID, stored.storedAt,
            ])
    }

    /// Removes registrations, each unless a later one of the same kite is there.
    package func remove(_ receipts: [Registry.Receipt]) async throws(KontrolError) {
        guard !receipts.isEmpty else { return }
        try await write { database in
            for receipt in receipts {
                try database.execute(
                    sql: "DELETE FROM kites WHERE path = ? AND number <= ?",
                    arguments: [receipt.path, Int64(clamping: receipt.number)])
            }
        }
    }

    /// What was stored since a time; what is older is removed.
    package func kites(storedSince time: Int64) async throws(KontrolError) -> [StoredKite] {
        try await write { database in
            try database.execute(sql: "DELETE FROM kites WHERE stored_at < ?", arguments: [time])
            return try Row.fetchAll(database, sql: "SELECT * FROM kites").map { row in
                StoredKite(
                    kite: KontrolKite(
                        identity: KiteIdentity(
                            name: row["name"], username: row["username"], id: row["id"],
                            environment: row["environment"], region: row["region"], version: row["version"],
                            hostname: row["hostname"]), url: row["url"], keyID: row["key_id"]),
                    number: UInt64(clamping: row["number"] as Int64), storedAt: row["stored_at"])
            }
        }
    }
}

// MARK: Users and keys

extension KontrolStore {
    package struct StoredKeyPair: Sendable, Hashable {
        package var id: String
        package var publicPEM: String
        package var createdAt: Int64
        /// Whether new things are signed with it; otherwise its old signatures are still good.
        package var isActive: Bool
    }

    /// Adds a key pair, which becomes the active one; the one before is kept for what it has signed.
    package func activate(_ key: KontrolPublicKey, now: Int64) async throws(KontrolError) {
        try await write { database in
            try database.execute(sql: "UPDATE key_pairs SET is_active = 0")
            try database.execute(
                sql: """
                    INSERT INTO key_pairs (id, public_key, created_at, is_active) VALUES (?, ?, ?, 1)
                    ON CONFLICT (id) DO UPDATE SET is_active = 1
                    """, arguments: [key.id, key.pem, now])
        }
    }

    /// Removes a key pair that is not the active one: what it has signed is no longer good.
    package func removeKeyPair(id: String) async throws(KontrolError) -> Bool {
        try await write { database in
            try database.execute(sql: "DELETE FROM key_pairs WHERE id = ? AND is_active = 0", arguments: [id])
            return database.changesCount > 0
        }
    }

    /// All key pairs, the active one first, then from the newest to the oldest.
    package func keyPairs() async throws(KontrolError) -> [StoredKeyPair] {
        try await read { database in
            try Row.fetchAll(
                database, sql: "SELECT * FROM key_pairs ORDER BY is_active DESC, created_at DESC, id"
            ).map {
                StoredKeyPair(
                    id: $0["id"], publicPEM: $0["public_key"], createdAt: $0["created_at"], isActive: $0["is_active"])
            }
        }
    }

    /// Notes that a user was given a kite key.
    /// - Parameter isNew: whether the user must not exist yet.
    /// - Returns: false when the user exists and should not.
    package func recordKiteKey(_ key: KiteKey, isNew: Bool = false, now: Int64) async throws(KontrolError) -> Bool {
        try await write { database in
            try database.execute(
                sql: "INSERT INTO users (username, created_at) VALUES (?, ?) ON CONFLICT DO NOTHING",
                arguments: [key.username, now])
            if isNew, database.changesCount == 0 { return false }
            try database.execute(
                sql: "INSERT INTO kite_keys (id, username, issued_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                arguments: [key.id, key.username, now])
            return true
        }
    }

    /// Notes that there is a user, whoever gave them their kite key.
    package func recordUser(_ username: String, now: Int64) async throws(KontrolError) {
        guard try await !isUser(username) else { return }
        try await write { database in
            try database.execute(
                sql: "INSERT INTO users (username, created_at) VALUES (?, ?) ON CONFLICT DO NOTHING",
                arguments: [username, now])
        }
    }

    /// Whether a user has ever had a kite key.
    package func isUser(_ username: String) async throws(KontrolError) -> Bool {
        try await read {
            try Bool.fetchOne($0, sql: "SELECT 1 FROM users WHERE username = ?", arguments: [username]) ?? false
        }
    }

    /// The users in alphabetical order, with the number of kite keys each was given.
    package func users() async throws(KontrolError) -> [(username: String, keys: Int)] {
        try await read { database in
            try Row.fetchAll(
                database,
                sql: """
                    SELECT username, (SELECT count(*) FROM kite_keys WHERE kite_keys.username = users.username) AS keys
                    FROM users ORDER BY username
                    """
            ).map { (username: $0["username"], keys: $0["keys"]) }
        }
    }

    /// Notes a one-time secret, by its digest.
    package func invite(_ username: String, digest: String, expiresAt: Int64) async throws(KontrolError) {
        try await write { database in
            try database.execute(
                sql: "INSERT INTO invitations (digest, username, expires_at) VALUES (?, ?, ?)",
                arguments: [digest, username, expiresAt])
        }
    }

    /// Uses up a one-time secret.
    /// - Returns: for whom it was made; nil when there is none, or its time is over.
    package func redeemInvitation(digest: String, now: Int64) async throws(KontrolError) -> String? {
        try await write { database in
            try database.execute(sql: "DELETE FROM invitations WHERE expires_at <= ?", arguments: [now])
            let username = try String.fetchOne(
                database, sql: "SELECT username FROM invitations WHERE digest = ?", arguments: [digest])
            try database.execute(sql: "DELETE FROM invitations WHERE digest = ?", arguments: [digest])
            return username
        }
    }

    package func setting(_ name: String) async throws(KontrolError) -> String? {
        try await read { try String.fetchOne($0, sql: "SELECT value FROM settings WHERE name = ?", arguments: [name]) }
    }

    package func set(_ name: String, to value: String) async throws(KontrolError) {
        try await write { database in
            try database.execute(
                sql:
                    "INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                arguments: [name, value])
        }
    }
}
