import KiteCore
import Testing

@testable import EmbeddedKontrol

struct RegistryTests {
    func kite(_ name: String, id: String? = nil, user: String = "kontrol", url: String = "http://a/kite") -> KontrolKite
    {
        KontrolKite(identity: identity(name, id: id, user: user), url: url, keyID: "k")
    }

    @Test func aSilentKiteIsDroppedAfterThirtySeconds() throws {
        var registry = Registry()
        let receipt = try registry.register(kite("a"), source: .connection, now: 100).registration.receipt
        #expect(registry.expire(now: 129).isEmpty)
        #expect(registry.heartbeat(receipt, now: 129) == .alive)
        #expect(registry.expire(now: 158).isEmpty)
        #expect(registry.expire(now: 159).map(\.receipt) == [receipt])
        #expect(registry.count == 0)
        #expect(registry.heartbeat(receipt, now: 160) == .gone)
        #expect(registry.kites(matching: KontrolQuery(username: "kontrol"), limit: 10).isEmpty)
    }

    @Test func aLivingKiteIsStoredOnceAMinute() throws {
        var registry = Registry()
        let registration = try registry.register(kite("a"), source: .connection, now: 100).registration
        var stored: [Int64] = []
        for now in stride(from: Int64(110), through: 300, by: 10) {
            if case .store(let due) = registry.heartbeat(registration.receipt, now: now) {
                #expect(due.kite == registration.kite)
                stored.append(now)
            }
        }
        #expect(stored == [160, 220, 280])
    }

    @Test func theEndOfAnOldConnectionDoesNotTouchANewerRegistration() throws {
        var registry = Registry()
        let old = try registry.register(kite("a"), source: .connection, now: 100).registration.receipt
        let new = try registry.register(kite("a", url: "http://b/kite"), source: .connection, now: 101).registration
            .receipt
        registry.disconnected(old, now: 102)
        #expect(registry.deregister(old) == nil)
        #expect(registry.heartbeat(old, now: 102) == .superseded)
        #expect(registry.expire(now: 130).isEmpty)
        #expect(registry.registrations(id: "id-of-a").first?.kite.url == "http://b/kite")
        registry.disconnected(new, now: 110)
        #expect(registry.expire(now: 114).isEmpty)
        #expect(registry.expire(now: 115).map(\.receipt) == [new])
    }

    @Test func aDisconnectedKiteThatComesBackInTimeWasNeverAway() throws {
        var registry = Registry()
        let first = try registry.register(kite("a"), source: .connection, now: 100)
        #expect(first.changes == [.registered(kite("a"))])
        registry.disconnected(first.registration.receipt, now: 101)
        let second = try registry.register(kite("a"), source: .connection, now: 104)
        #expect(second.changes == [])
        #expect(registry.expire(now: 110).isEmpty)
    }

    @Test func anIdBelongsToItsUser() throws {
        var registry = Registry()
        _ = try registry.register(kite("a", id: "1"), source: .http, now: 100)
        let mine = kite("a", id: "1")
        #expect(throws: KontrolError.self) {
            try registry.register(self.kite("a", id: "1", user: "eve"), source: .connection, now: 101)
        }
        #expect(registry.registrations(id: "1").first?.kite == mine)
        #expect(registry.expire(now: 130).count == 1)
        #expect(
            try registry.register(kite("a", id: "1", user: "eve"), source: .connection, now: 131).changes.count == 1)
    }

    @Test func heartbeatsOverHTTPKeepOnlyWhatWasRegisteredOverHTTP() throws {
        var registry = Registry()
        _ = try registry.register(kite("a"), source: .http, now: 100)
        _ = try registry.register(kite("b"), source: .connection, now: 100)
        #expect(registry.heartbeat(id: "id-of-a", now: 120) == [.alive])
        #expect(registry.heartbeat(id: "id-of-b", now: 120) == [.gone])
        #expect(registry.heartbeat(id: "nobody", now: 120) == [.gone])
        #expect(registry.expire(now: 130).map(\.kite.identity.name) == ["b"])
        #expect(registry.expire(now: 150).map(\.kite.identity.name) == ["a"])
    }

    @Test func whatWasStoredIsTakenUpForNinetySeconds() throws {
        var registry = Registry()
        registry.restore(kite("a"), number: 7, storedAt: 100, now: 150)
        registry.restore(kite("old"), number: 3, storedAt: 60, now: 150)
        registry.restore(kite("future"), number: 3, storedAt: 1000, now: 150)
        #expect(registry.count == 1)
        #expect(registry.heartbeat(id: "id-of-a", now: 151) == [.gone])
        #expect(registry.parting().staying.isEmpty && registry.parting().leaving.isEmpty)
        #expect(registry.expire(now: 189).isEmpty)
        let back = try registry.register(kite("a"), source: .http, now: 189).registration
        #expect(back.receipt.number > 7)
        #expect(registry.expire(now: 200).isEmpty)
        #expect(registry.parting().staying == [back])
    }

    @Test func kitesThatShareAnIdDoNotReplaceEachOther() throws {
        var registry = Registry()
        let (a, b) = (kite("a", id: "1"), kite("b", id: "1", url: "http://b/kite"))
        let first = try registry.register(a, source: .http, now: 100).registration.receipt
        #expect(try registry.register(b, source: .http, now: 101).changes == [.registered(b)])
        #expect(registry.count == 2)
        #expect(registry.registrations(id: "1").map(\.kite) == [b, a])
        #expect(registry.kites(matching: KontrolQuery(id: "1"), limit: 9) == [b, a])
        #expect(registry.kites(matching: KontrolQuery(id: "1"), limit: 1) == [b])
        var query = KontrolQuery(username: "kontrol", environment: "dev", name: "a")
        #expect(registry.kites(matching: query, limit: 9) == [a])
        query.name = "b"
        query.id = "1"
        #expect(registry.kites(matching: query, limit: 9) == [b])
        // One that beats by its id alone keeps both.
        #expect(registry.heartbeat(id: "1", now: 129) == [.alive, .alive])
        #expect(registry.expire(now: 140).isEmpty)
        registry.setKey("new", ofKite: a.identity.path)
        #expect(registry.registrations(id: "1").map(\.kite.keyID) == ["k", "new"])
        #expect(registry.deregister(first)?.kite.identity == a.identity)
        #expect(registry.registrations(id: "1").map(\.kite) == [b])
        #expect(throws: KontrolError.self) {
            try registry.register(self.kite("c", id: "1", user: "eve"), source: .http, now: 141)
        }
    }

    @Test func numbersAreBounded() throws {
        var limits = Registry.Limits()
        limits.maximumKites = 3
        limits.maximumKitesPerUser = 2
        var registry = Registry(limits: limits)
        _ = try registry.register(kite("a"), source: .http, now: 0)
        _ = try registry.register(kite("b"), source: .http, now: 0)
        #expect(throws: KontrolError.self) { try registry.register(self.kite("c"), source: .http, now: 0) }
        _ = try registry.register(kite("a"), source: .http, now: 0)
        _ = try registry.register(kite("c", user: "bob"), source: .http, now: 0)
        #expect(throws: KontrolError.self) { try registry.register(self.kite("d", user: "ann"), source: .http, now: 0) }
        #expect(registry.kites(matching: KontrolQuery(username: "kontrol"), limit: 1).count == 1)
    }

    @Test func whatLivesInTheProcessStays() throws {
        var registry = Registry()
        let receipt = try registry.register(kite("a"), source: .process, now: 0).registration.receipt
        #expect(registry.expire(now: .max - 1).isEmpty)
        #expect(registry.deregister(receipt)?.receipt == receipt)
        #expect(registry.count == 0)
    }

    @Test func aRestartForgetsWhoIsLeavingAndWhatLivesInTheProcess() throws {
        var registry = Registry()
        _ = try registry.register(kite("beating"), source: .http, now: 0)
        _ = try registry.register(kite("connected"), source: .connection, now: 0)
        let left = try registry.register(kite("left"), source: .connection, now: 0).registration.receipt
        _ = try registry.register(kite("own"), source: .process, now: 0)
        registry.restore(kite("away"), number: 9, storedAt: 0, now: 1)
        registry.disconnected(left, now: 1)
        func names(_ registrations: [Registry.Registration]) -> [String] {
            registrations.map(\.kite.identity.name).sorted()
        }
        #expect(names(registry.parting().staying) == ["beating", "connected"])
        #expect(names(registry.parting().leaving) == ["left", "own"])
        _ = try registry.register(kite("left"), source: .connection, now: 2)
        #expect(names(registry.parting().leaving) == ["own"])
    }

    @Test func whoKnowsAnOldKeyMustRegisterAgain() throws {
        func kite(_ name: String, _ keyID: String) -> KontrolKite {
            KontrolKite(identity: identity(name), url: "http://a/kite", keyID: keyID)
        }
        var registry = Registry()
        let old = try registry.register(kite("old", "1"), source: .connection, now: 0).registration.receipt
        let new = try registry.register(kite("new", "2"), source: .connection, now: 0).registration.receipt
        let gone = try registry.register(kite("gone", "0"), source: .connection, now: 0).registration.receipt
        _ = try registry.register(kite("http", "1"), source: .http, now: 0)
        _ = try registry.register(kite("own", "0"), source: .process, now: 0)
        #expect(registry.keysChanged(active: "2", retired: ["1"]).map(\.receipt) == [gone])
        #expect(registry.heartbeat(old, now: 10) == .outdated)
        #expect(registry.heartbeat(id: "id-of-http", now: 10) == [.outdated])
        #expect(registry.heartbeat(new, now: 10) == .alive)
        #expect(registry.heartbeat(gone, now: 10) == .gone)
        #expect(registry.registrations(id: "id-of-own").first?.kite.keyID == "2")
        // Only what registers again counts: those that do not are dropped in time.
        #expect(registry.expire(now: 30).map(\.kite.identity.name).sorted() == ["http", "old"])
        let back = try registry.register(kite("old", "2"), source: .connection, now: 31).registration.receipt
        #expect(registry.heartbeat(back, now: 32) == .alive)
        // Going back to a pair that kites know is no reason to disturb them.
        _ = registry.keysChanged(active: "3", retired: ["2"])
        #expect(registry.heartbeat(back, now: 33) == .outdated)
        #expect(registry.keysChanged(active: "2", retired: ["3"]).isEmpty)
        #expect(registry.heartbeat(back, now: 34) == .alive)
    }

    @Test func keysChangeOnlyForTheirUser() throws {
        var registry = Registry()
        _ = try registry.register(kite("a"), source: .http, now: 0)
        registry.setKey("new", ofKite: identity("a").path)
        #expect(registry.registrations(id: "id-of-a").first?.kite.keyID == "new")
        registry.setKey("new", ofKite: identity("a", user: "eve").path)
        #expect(registry.count == 1)
    }

    /// The bookkeeping by user must agree with the registrations whatever happens in whatever order.
    @Test func agreesWithASimpleModel() throws {
        var random = SplitMix(seed: 42)
        var registry = Registry()
        var model: [String: (user: String, number: UInt64, deadline: Int64)] = [:]
        var receipts: [Registry.Receipt] = []
        var now: Int64 = 0
        for _ in 0..<20_000 {
            now += Int64(random.next(below: 3))
            for id in model.filter({ $0.value.deadline <= now }).map(\.key) { model[id] = nil }
            _ = registry.expire(now: now)
            switch random.next(below: 4) {
            case 0, 1:
                let (id, user) = ("\(random.next(below: 8))", "u\(random.next(below: 3))")
                let result = try? registry.register(kite("n", id: id, user: user), source: .connection, now: now)
                #expect((result == nil) == (model[id].map { $0.user != user } ?? false))
                if let receipt = result?.registration.receipt {
                    model[id] = (user, receipt.number, now + 30)
                    receipts.append(receipt)
                }
            case 2:
                guard let receipt = receipts.randomElement(using: &random) else { continue }
                let id = String(receipt.path.split(separator: "/").last ?? "")
                registry.disconnected(receipt, now: now)
                if let entry = model[id], entry.number == receipt.number {
                    model[id]?.deadline = min(entry.deadline, now + 5)
                }
            default:
                guard let receipt = receipts.randomElement(using: &random) else { continue }
                let id = String(receipt.path.split(separator: "/").last ?? "")
                _ = registry.deregister(receipt)
                if model[id]?.number == receipt.number { model[id] = nil }
            }
            #expect(registry.count == model.count)
            for user in ["u0", "u1", "u2"] {
                let found = registry.kites(matching: KontrolQuery(username: user), limit: 100).map(\.identity.id)
                #expect(Set(found) == Set(model.filter { $0.value.user == user }.keys))
            }
        }
    }
}

/// Random numbers that are the same in every run.
struct SplitMix: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    mutating func next(below bound: Int) -> Int { Int.random(in: 0..<bound, using: &self) }
}
