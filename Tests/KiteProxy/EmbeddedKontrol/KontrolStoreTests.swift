import Foundation
import KiteCore
import Testing

@testable import EmbeddedKontrol

@Suite(.timeLimit(.minutes(1)))
struct KontrolStoreTests {
    func withStore(_ body: (KontrolStore, String) async throws -> Void) async throws {
        try await withTemporaryDirectory { directory in
            let path = directory + "/kontrol.sqlite"
            let store = try await KontrolStore(path: path)
            try await body(store, path)
            try store.close()
        }
    }

    func kite(_ name: String, url: String = "http://a/kite") -> KontrolKite {
        KontrolKite(identity: identity(name), url: url, keyID: "k")
    }

    @Test func kitesSurvive() async throws {
        try await withStore { store, path in
            try await store.save([.init(kite: kite("a"), number: 1, storedAt: 100)])
            try await store.save([.init(kite: kite("b"), number: 2, storedAt: 200)])
            try store.close()
            let again = try await KontrolStore(path: path)
            let found = try await again.kites(storedSince: 150)
            #expect(found == [.init(kite: kite("b"), number: 2, storedAt: 200)])
            #expect(try await again.kites(storedSince: 0).count == 1)
            try again.close()
        }
    }

    @Test func writesThatComeLateDoNotUndoNewerOnes() async throws {
        try await withStore { store, _ in
            try await store.save([.init(kite: kite("a", url: "http://new/kite"), number: 2, storedAt: 100)])
            try await store.save([.init(kite: kite("a", url: "http://old/kite"), number: 1, storedAt: 101)])
            try await store.remove([.init(path: identity("a").path, number: 1)])
            #expect(try await store.kites(storedSince: 0).map(\.kite.url) == ["http://new/kite"])
            try await store.remove([.init(path: identity("a").path, number: 2)])
            #expect(try await store.kites(storedSince: 0).isEmpty)
        }
    }

    @Test func kitesThatShareAnIdAreKeptBoth() async throws {
        try await withStore { store, _ in
            var other = kite("b")
            other.identity.id = "id-of-a"
            try await store.save([
                .init(kite: kite("a"), number: 1, storedAt: 100), .init(kite: other, number: 2, storedAt: 100),
            ])
            try await store.remove([.init(path: other.identity.path, number: 2)])
            #expect(try await store.kites(storedSince: 0).map(\.kite) == [kite("a")])
        }
    }

    @Test func aDatabaseOfBeforeKeepsItsKites() async throws {
        try await withTemporaryDirectory { directory in
            let path = directory + "/kontrol.sqlite"
            try KontrolStore.make(
                path: path, upTo: "1 kites, users, key pairs, settings",
                """
                INSERT INTO kites VALUES ('id-of-a', 7, 'kontrol', 'dev', 'a', '1.0.0', 'lo', 'vm', 'http://a/kite', 'k', 100);
                INSERT INTO users VALUES ('ann', 5);
                """)
            let store = try await KontrolStore(path: path)
            #expect(try await store.isUser("ann"))
            // Under its path: an older registration does not undo it, a newer one replaces it.
            try await store.save([.init(kite: kite("a", url: "http://old/kite"), number: 6, storedAt: 101)])
            #expect(try await store.kites(storedSince: 0) == [.init(kite: kite("a"), number: 7, storedAt: 100)])
            try await store.remove([.init(path: identity("a").path, number: 7)])
            #expect(try await store.kites(storedSince: 0).isEmpty)
            try store.close()
        }
    }

    @Test func onlyTheOwnerReadsTheFiles() async throws {
        try await withStore { store, path in
            try await store.set("x", to: "y")
            for suffix in ["", "-wal", "-shm"] { #expect(try mode(of: path + suffix) == 0o600, "\(suffix)") }
        }
    }

    @Test func oneKeyPairIsActive() async throws {
        try await withStore { store, _ in
            let (first, second) = (try await Keys.first.publicKey, try await Keys.second.publicKey)
            try await store.activate(first, now: 1)
            try await store.activate(second, now: 2)
            #expect(try await store.keyPairs().map(\.id) == [second.id, first.id])
            #expect(try await store.keyPairs().map(\.isActive) == [true, false])
            #expect(try await store.removeKeyPair(id: second.id) == false)
            try await store.activate(first, now: 3)
            #expect(try await store.keyPairs().map(\.isActive) == [true, false])
            #expect(try await store.keyPairs().first?.id == first.id)
            #expect(try await store.removeKeyPair(id: second.id))
            #expect(try await store.removeKeyPair(id: second.id) == false)
        }
    }

    @Test func usersAreCountedAndNewOnesAreNew() async throws {
        try await withStore { store, _ in
            let issuer = TokenIssuer(issuer: "kontrol", keyPair: try await Keys.first)
            let first = try await issuer.kiteKey(for: "ann", kontrolURL: "", now: 1)
            let second = try await issuer.kiteKey(for: "ann", kontrolURL: "", now: 1)
            #expect(try await store.recordKiteKey(first, isNew: true, now: 1))
            #expect(try await store.recordKiteKey(second, isNew: true, now: 1) == false)
            #expect(try await store.recordKiteKey(second, now: 1))
            #expect(try await store.isUser("ann"))
            #expect(try await store.isUser("bob") == false)
            try await store.recordUser("ann", now: 2)
            try await store.recordUser("bob", now: 2)
            #expect(try await store.isUser("bob"))
            let third = try await issuer.kiteKey(for: "bob", kontrolURL: "", now: 1)
            #expect(try await store.recordKiteKey(third, isNew: true, now: 1) == false)
            let users = try await store.users()
            #expect(users.map(\.username) == ["ann", "bob"] && users.map(\.keys) == [2, 0])
        }
    }

    @Test func invitationsAreGoodOnce() async throws {
        try await withStore { store, _ in
            try await store.invite("ann", digest: "d", expiresAt: 100)
            try await store.invite("bob", digest: "e", expiresAt: 50)
            #expect(try await store.redeemInvitation(digest: "x", now: 49) == nil)
            #expect(try await store.redeemInvitation(digest: "e", now: 50) == nil)
            #expect(try await store.redeemInvitation(digest: "d", now: 60) == "ann")
            #expect(try await store.redeemInvitation(digest: "d", now: 60) == nil)
        }
    }

    @Test func textFromOutsideIsOnlyText() async throws {
        try await withStore { store, _ in
            let nasty = "'; DROP TABLE kites; --"
            var kite = kite("a")
            kite.identity.name = nasty
            kite.url = nasty
            try await store.save([.init(kite: kite, number: 1, storedAt: 1)])
            #expect(try await store.kites(storedSince: 0).map(\.kite) == [kite])
        }
    }

    @Test func saysWhyItCannotOpen() async throws {
        try await withTemporaryDirectory { directory in
            let path = directory + "/kontrol.sqlite"
            try String(repeating: "no database ", count: 1000).write(toFile: path, atomically: false, encoding: .utf8)
            let message = await refusal { _ = try await KontrolStore(path: path) }
            #expect(message?.contains(path) == true)
        }
    }
}
