/// Who owns which name, kept in the data directory's database over restarts of the gateway.
import EmbeddedKontrol
import Foundation
import KiteCore
import KiteGateway

/// Claims in one row of the settings, written anew with each change: changes are rare, and names are few.
actor StoredClaims: ClaimStore {
    private let store: KontrolStore
    private var stored: [String: Claim] = [:]
    private static let row = "claims"
    private struct Change {
        let number: Int
        let name: String
        /// Nil takes it away.
        let claim: Claim?
    }
    /// Changes that are not written yet, in the order in which they came.
    private var waiting: [Change] = []
    private var lastNumber = 0
    private var isWriting = false
    private var turns: [CheckedContinuation<Void, Never>] = []

    /// Reads the claims of a data directory, which is made where it does not exist.
    init(dataDirectory: String) async throws {
        store = try await KontrolStore(path: try KeyDirectory(dataDirectory: dataDirectory).databasePath)
        if let text = try await store.setting(Self.row) {
            let claims = try JSONDecoder().decode([Claim].self, from: Data(text.utf8))
            stored = Dictionary(claims.map { ($0.name, $0) }) { $1 }
        }
    }

    func claims() -> [Claim] { Array(stored.values) }

    func save(_ claim: Claim) async throws {
        guard stored[claim.name] != claim else { return }
        try await change(claim.name, to: claim)
    }

    func remove(name: String) async throws { try await change(name, to: nil) }

    /// Changes an entry, and returns once the database has it. Writing goes one after the other, and what has come together meanwhile is
    /// written together: after a restart all agents come at once.
    private func change(_ name: String, to claim: Claim?) async throws {
        lastNumber += 1
        let number = lastNumber
        waiting.append(Change(number: number, name: name, claim: claim))
        while isWriting { await withCheckedContinuation { turns.append($0) } }
        // Somebody else may have written it with their own.
        guard waiting.contains(where: { $0.number == number }) else { return }
        isWriting = true
        defer {
            isWriting = false
            let next = turns
            turns = []
            for turn in next { turn.resume() }
        }
        let last = lastNumber
        var changed = stored
        for change in waiting { changed[change.name] = change.claim }
        do {
            if changed != stored { try await write(changed) }
        } catch {
            // The others have their own try.
            waiting.removeAll { $0.number == number }
            throw error
        }
        stored = changed
        waiting.removeAll { $0.number <= last }
    }

    private func write(_ claims: [String: Claim]) async throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        let data = try encoder.encode(claims.values.sorted { $0.name < $1.name })
        try await store.set(Self.row, to: String(decoding: data, as: UTF8.self))
    }
}
