/// Names kept, credentials told apart, certificates chosen.
import EmbeddedKontrol
import Foundation
import KiteCore
import KiteGateway
import Synchronization
import Testing

@testable import KiteProxy

@Suite("Serving")
struct ServingTests {
    private func withDirectory(_ body: (String) async throws -> Void) async throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("serving-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        try await body(path)
    }

    @Test("Claims outlive the gateway")
    func claims() async throws {
        try await withDirectory { path in
            let claims = try await StoredClaims(dataDirectory: path)
            try await claims.save(Claim(name: "shop", username: "alice", lastUsed: 1))
            try await claims.save(Claim(name: "math", username: "bob", lastUsed: 2))
            try await claims.save(Claim(name: "shop", username: "alice", lastUsed: 3))
            try await claims.remove(name: "math")
            try await claims.remove(name: "nothing")
            let again = try await StoredClaims(dataDirectory: path)
            #expect(await again.claims() == [Claim(name: "shop", username: "alice", lastUsed: 3)])
        }
    }

    @Test("Claims that come all at once are all kept")
    func manyClaims() async throws {
        try await withDirectory { path in
            let claims = try await StoredClaims(dataDirectory: path)
            let names = (0..<200).map { "name\($0)" }
            try await withThrowingTaskGroup { tasks in
                for name in names + names {
                    tasks.addTask { try await claims.save(Claim(name: name, username: "alice", lastUsed: 1)) }
                }
                for name in ["gone1", "gone2"] {
                    try await claims.save(Claim(name: name, username: "alice", lastUsed: 1))
                    tasks.addTask { try await claims.remove(name: name) }
                }
                try await tasks.waitForAll()
            }
            let again = try await StoredClaims(dataDirectory: path)
            #expect(await Set(again.claims().map(\.name)) == Set(names))
        }
    }

    @Test("The tunnel door takes kite keys and tokens for the gateway, and says why it takes nothing else")
    func credentials() async throws {
        let pair = try await KontrolKeyPair.generate()
        let issuer = TokenIssuer(issuer: "kontrol", keyPair: pair)
        let now = Int64(Date().timeIntervalSince1970)
        let identity = KiteIdentity(
            name: "proxy", username: "kontrol", id: "1", environment: "development", region: "local",
            version: "1.0.0", hostname: "h")
        let seen = Mutex<[String]>([])
        let authenticator = KontrolAuthenticator(
            verifier: TokenVerifier(trusting: [TrustedIssuer(name: "kontrol", keys: [pair.publicKey])]),
            identity: identity
        ) { user in seen.withLock { $0.append(user) } }
        let key = try await issuer.kiteKey(for: "alice", kontrolURL: "http://k/kite", now: now)
        #expect(try authenticator.user(presenting: key.text) == "alice")
        let token = try await issuer.token(
            for: "bob", audience: Audience(username: "kontrol", environment: "development", name: "proxy"), now: now)
        #expect(try authenticator.user(presenting: token) == "bob")
        #expect(seen.withLock { $0 } == ["alice", "bob"])
        let other = try await issuer.token(
            for: "bob", audience: Audience(username: "kontrol", environment: "development", name: "math"), now: now)
        for wrong in ["", "x", "a.b.c", key.text + "x", other] {
            let refusal = #expect(throws: CredentialRefusal.self) { try authenticator.user(presenting: wrong) }
            #expect(refusal?.description.isEmpty == false)
            #expect(wrong.isEmpty || wrong.count < 6 || refusal?.description.contains(wrong) == false)
        }
    }
}
