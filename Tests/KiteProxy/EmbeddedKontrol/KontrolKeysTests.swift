import Foundation
import KiteCore
import Testing

@testable import EmbeddedKontrol

@Suite(.timeLimit(.minutes(1)))
struct KontrolKeysTests {
    @Test func makesWhatIsMissingAndNothingTwice() async throws {
        try await withTemporaryDirectory { directory in
            let (data, keyPath) = (directory + "/data", directory + "/home/kite.key")
            func initialise() async throws -> KontrolKeys.Outcome {
                try await KontrolKeys.initialise(
                    dataDirectory: data, username: "ann", kontrolURL: "http://a:4000/kite", kiteKeyPath: keyPath)
            }
            let first = try await initialise()
            #expect(first.madeKeyPair && first.madeKiteKey && first.kiteKeyIsTrusted)
            #expect(first.username == "ann")
            let key = try KiteKey.read(from: keyPath)
            #expect(key.username == "ann" && key.kontrolUsername == "ann" && key.kontrolURL == "http://a:4000/kite")
            #expect(try mode(of: keyPath) == 0o400)
            #expect(try mode(of: data) == 0o700)
            #expect(try mode(of: data + "/keys") == 0o700)
            #expect(try mode(of: data + "/kontrol.sqlite") == 0o600)
            #expect(try mode(of: data + "/keys/\(first.keyPairID).private.pem") == 0o600)
            #expect(try mode(of: data + "/keys/\(first.keyPairID).public.pem") == 0o644)

            let second = try await initialise()
            #expect(!second.madeKeyPair && !second.madeKiteKey && second.kiteKeyIsTrusted)
            #expect(second.keyPairID == first.keyPairID)
            #expect(try KiteKey.read(from: keyPath) == key)
        }
    }

    @Test func theOperatorsKiteKeyGoesOverToTheActiveKeyPair() async throws {
        try await withTemporaryDirectory { directory in
            let path = directory + "/home/kite.key"
            func initialise() async throws -> KontrolKeys.Outcome {
                try await KontrolKeys.initialise(
                    dataDirectory: directory, username: "kontrol", kontrolURL: "http://a/kite", kiteKeyPath: path)
            }
            try await prepare(directory, with: Keys.first)
            #expect(try await initialise().madeKiteKey)
            let old = try KiteKey.read(from: path)
            try await prepare(directory, with: Keys.second)
            let outcome = try await initialise()
            #expect(outcome.renewedKiteKey && outcome.kiteKeyIsTrusted && !outcome.madeKiteKey)
            let new = try KiteKey.read(from: path)
            let second = try await Keys.second.publicKey
            #expect(try new.kontrolPublicKey() == second)
            #expect(new.username == old.username && new.kontrolURL == old.kontrolURL && new.id == old.id)
            #expect(try mode(of: path) == 0o400)
            let keys = try await KontrolKeys(dataDirectory: directory)
            #expect(try await keys.renew(kiteKeyAt: path) == false)
            #expect(try await keys.renew(kiteKeyAt: path + ".nothing") == false)
            #expect(try await keys.remove(keyPair: Keys.first.id))
            keys.close()
            #expect(try await initialise().kiteKeyIsTrusted)
            #expect(try KiteKey.read(from: path) == new)
        }
    }

    @Test func leavesTheKiteKeyOfAnotherKontrolAlone() async throws {
        try await withTemporaryDirectory { directory in
            try await prepare(directory, with: Keys.first)
            let path = directory + "/kite.key"
            let other = try await TokenIssuer(issuer: "kontrol", keyPair: Keys.second)
                .kiteKey(for: "ann", kontrolURL: "http://other/kite", now: 0)
            try other.write(to: path)
            let outcome = try await KontrolKeys.initialise(
                dataDirectory: directory, username: "ann", kontrolURL: "http://a/kite", kiteKeyPath: path)
            #expect(!outcome.madeKiteKey && !outcome.kiteKeyIsTrusted && !outcome.madeKeyPair)
            #expect(try KiteKey.read(from: path) == other)
        }
    }

    @Test func issuesKeysThatItsVerifierAccepts() async throws {
        try await withTemporaryDirectory { directory in
            try await prepare(directory, with: Keys.first)
            let keys = try await KontrolKeys(dataDirectory: directory)
            let key = try await keys.issue(user: "bob", kontrolURL: "http://a/kite")
            let issuer = TrustedIssuer(name: "kontrol", keys: [try await Keys.first.publicKey])
            #expect(try TokenVerifier(trusting: [issuer]).verify(kiteKey: key.text).username == "bob")
            let overview = try await keys.show()
            #expect(overview.username == "kontrol")
            #expect(overview.users == [.init(username: "bob", kiteKeys: 1)])
            #expect(overview.keyPairs.map(\.publicPEM) == [try await Keys.first.publicKey.pem])
            await #expect(throws: KeyError.self) { try await keys.issue(user: "a/b") }
            keys.close()
        }
    }

    @Test func importedKeysMustBelongTogether() async throws {
        try await withTemporaryDirectory { directory in
            let (first, second) = (directory + "/first", directory + "/second")
            try await Keys.first.write(privateKeyPath: first, publicKeyPath: first + ".pub")
            try await Keys.second.write(privateKeyPath: second, publicKeyPath: second + ".pub")
            #expect(try mode(of: first) == 0o600 && mode(of: first + ".pub") == 0o644)
            let keys = try await KontrolKeys(dataDirectory: directory + "/data")
            await #expect(throws: KeyError.self) {
                try await keys.importKeys(public: second + ".pub", private: first)
            }
            await #expect(throws: KeyError.self) { try await keys.issue(user: "bob") }
            #expect(try await keys.importKeys(public: first + ".pub", private: first) == Keys.first.id)
            #expect(try await keys.importKeys(public: nil, private: second) == Keys.second.id)
            let pairs = try await keys.show().keyPairs
            #expect(pairs.map(\.isActive) == [true, false])
            #expect(pairs.map(\.id) == [try await Keys.second.id, try await Keys.first.id])
            #expect(try await keys.remove(keyPair: Keys.second.id) == false)
            #expect(try FileManager.default.contentsOfDirectory(atPath: directory + "/data/keys").count == 4)
            #expect(try await keys.remove(keyPair: Keys.first.id))
            let files = try FileManager.default.contentsOfDirectory(atPath: directory + "/data/keys")
            let kept = try await Keys.second.id
            #expect(files.sorted() == ["\(kept).private.pem", "\(kept).public.pem"])
            keys.close()
        }
    }
}
