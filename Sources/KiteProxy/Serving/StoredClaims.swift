/// Who owns which name, kept in the data directory's database over restarts of the gateway.
import EmbeddedKontrol
import Foundation
import KiteCore
import KiteGateway

/// Claims in one row of the settings, written anew with each change: changes are rare, and so are names.
actor StoredClaims: ClaimStore {
    private let store: KontrolStore
    private var stored: [String: Claim] = [:]
    private static let row = "claims"

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
        stored[claim.name] = claim
        try await write()
    }

    func remove(name: String) async throws {
        guard stored.removeValue(forKey: name) != nil else { return }
        try await write()
    }

    private func write() async throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        let data = try encoder.encode(stored.values.sorted { $0.name < $1.name })
        try await store.set(Self.row, to: String(decoding: data, as: UTF8.self))
    }
}
