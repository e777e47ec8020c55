import Foundation
import KiteCore
import Testing

@testable import EmbeddedKontrol

@Suite(.timeLimit(.minutes(1)))
struct KontrolServiceTests {
    func audience(_ token: String) throws -> String? { try SignedToken(parsing: token).claims.audience }

    @Test func findsWhatIsRegistered() async throws {
        try await withService { service, _, _ in
            try await service.enter(identity("math", version: "1.2.0"))
            try await service.enter(identity("fs"))
            try await service.enter(identity("math", id: "bobs", user: "bob"))
            func names(_ query: String) async throws -> Set<String> {
                Set(try await service.kites(matching: KontrolQuery(parsing: query)).map(\.identity.id))
            }
            #expect(try await names("/kontrol") == ["id-of-math", "id-of-fs"])
            #expect(try await names("/kontrol/dev/math/>= 1.0, < 2.0") == ["id-of-math"])
            #expect(try await names("/kontrol/dev/math/>= 2.0") == [])
            #expect(try await names("/bob") == ["bobs"])
            #expect(try await service.kite(id: "bobs")?.identity.username == "bob")
            #expect(try await service.kite(id: "nobody") == nil)
            #expect(try await service.kite(id: "") == nil)
            #expect(await refusal { _ = try await service.kites(matching: KontrolQuery()) } == "Empty username field")
        }
    }

    @Test func tokensOpenOneKindOfKiteAndNeverEverything() async throws {
        try await withService { service, clock, _ in
            try await service.enter(identity("math"))
            try await service.enter(identity("fs"))
            let kites = try await service.kites(matching: KontrolQuery(username: "kontrol"), for: "ann")
            for kite in kites {
                let credential = try service.verifier.verify(
                    token: kite.token, username: "kontrol", environment: "dev", name: kite.identity.name)
                #expect(credential.username == "ann")
                #expect(credential.audience?.description == "/kontrol/dev/\(kite.identity.name)")
                #expect(credential.expiresAt == clock.now + 48 * 3600 + 300)
            }
            let byID = try await service.token(matching: KontrolQuery(id: "id-of-math"), for: "ann", isForced: false)
            #expect(try audience(byID) == "/kontrol/dev/math")
            #expect(kites.map(\.token).contains(byID))
        }
    }

    @Test func theSameTokenIsGivenUntilItExpiresOrANewOneIsForced() async throws {
        try await withService { service, clock, _ in
            try await service.enter(identity("math"), source: .http)
            let query = KontrolQuery(username: "kontrol", environment: "dev", name: "math")
            func token(for user: String = "ann", forced: Bool = false) async throws -> String {
                try await service.token(matching: query, for: user, isForced: forced)
            }
            let first = try await token()
            clock.advance(3600)
            #expect(try await token() == first)
            #expect(try await token(for: "bob") != first)
            let forced = try await token(forced: true)
            #expect(forced != first)
            #expect(try await token() == forced)
            clock.advance(48 * 3600 - 1)
            #expect(try await token() == forced)
            #expect(throws: Never.self) { try service.verifier.verify(token: forced) }
            clock.advance(1)
            #expect(try await token() != forced)
        }
    }

    @Test func refusesTokensAsGoDoes() async throws {
        try await withService { service, _, _ in
            try await service.enter(identity("math"))
            try await service.enter(identity("fs"))
            let cases: [(KontrolQuery, String)] = [
                (KontrolQuery(), "Empty username field"),
                (KontrolQuery(username: "kontrol"), "query matches more than one kite"),
                (KontrolQuery(username: "kontrol", name: "x"), "Invalid query. Query option is not set: environment"),
                (KontrolQuery(username: "nobody"), "no kites found"), (KontrolQuery(id: "nobody"), "no kites found"),
            ]
            for (query, message) in cases {
                let found = await refusal { _ = try await service.token(matching: query, for: "ann", isForced: false) }
                #expect(found == message)
            }
        }
    }

    @Test func aUserRegistersOnlyHisOwn() async throws {
        try await withService { service, _, _ in
            let kite = try await service.enter(identity("math", user: "kontrol"), as: "bob").kite
            #expect(kite.identity.username == "bob")
            #expect(try await service.kites(matching: KontrolQuery(username: "kontrol")).isEmpty)
            let message = await refusal { try await service.enter(identity("math", user: "eve")) }
            #expect(message == "The kite id id-of-math is registered by another user")
            #expect(try await service.kite(id: "id-of-math")?.identity.username == "bob")
        }
    }

    @Test func refusesIncompleteAndHostileRegistrations() async throws {
        try await withService { service, _, _ in
            func message(_ url: String = "http://a/kite", _ change: (inout KiteIdentity) -> Void = { _ in }) async
                -> String?
            {
                var kite = identity("math")
                change(&kite)
                return await refusal { try await service.enter(kite, url: url) }
            }
            #expect(await message("") == "empty url")
            #expect(await message { $0.environment = "" } == "Empty Kite field: environment")
            #expect(await message { $0.name = "a/b" } == "Field \"name\" must not contain '/'")
            #expect(await message { $0.name = "a\nb" } != nil)
            #expect(await message { $0.id = String(repeating: "i", count: 257) } != nil)
            for url in [
                "ftp://a/kite", "http://", "http:///kite", "http://?x", "javascript:alert(1)", "http://a/ki te",
                "http://a/\r\nX: y", "//a/kite", "http://" + String(repeating: "a", count: 2048),
            ] {
                #expect(await message(url)?.hasPrefix("invalid register URL") == true, "\(url)")
            }
            for url in ["http://a", "https://a:1/kite", "ws://[::1]:1/kite", "WSS://a/kite"] {
                #expect(await message(url) == nil, "\(url)")
            }
        }
    }

    @Test func silenceAndDisconnectsEndRegistrations() async throws {
        try await withService { service, clock, _ in
            let math = try await service.enter(identity("math")).receipt
            try await service.enter(identity("fs"), source: .http)
            clock.advance(20)
            #expect(await service.heartbeat(math) == .alive)
            #expect(await service.heartbeat(id: "id-of-fs"))
            #expect(await service.heartbeat(id: "id-of-math") == false)
            clock.advance(20)
            await service.expire()
            #expect(await service.kiteCount == 2)
            await service.disconnected(math)
            clock.advance(5)
            await service.expire()
            #expect(try await service.kite(id: "id-of-math") == nil)
            clock.advance(5)
            await service.expire()
            #expect(await service.kiteCount == 0)
            #expect(await service.heartbeat(id: "id-of-fs") == false)
        }
    }

    @Test func watchersAreToldOfWhatTheyAskedFor() async throws {
        try await withService { service, clock, _ in
            let (id, changes) = try await service.watch(
                KontrolQuery(username: "kontrol", environment: "dev", name: "math"))
            try await service.enter(identity("fs"))
            let math = try await service.enter(identity("math"))
            await service.deregister(math.receipt)
            try await service.enter(identity("math", id: "two"))
            clock.advance(30)
            await service.expire()
            #expect(await service.cancelWatcher(id))
            #expect(await service.cancelWatcher(id) == false)
            try await service.enter(identity("math", id: "three"))
            var events: [KiteEvent] = []
            for await change in changes { events.append(try await service.event(change, for: "ann")) }
            #expect(events.map(\.action) == [.register, .deregister, .register, .deregister])
            #expect(events.map(\.kite.id) == ["id-of-math", "id-of-math", "two", "two"])
            #expect(events[0].url == "http://127.0.0.1:7000/kite" && events[1].url == nil)
            let token = try #require(events[0].token)
            #expect(try audience(token) == "/kontrol/dev/math")
        }
    }

    @Test func aWatcherThatDoesNotTakeItsEventsEnds() async throws {
        try await withService { service, _, _ in
            let (id, changes) = try await service.watch(KontrolQuery(username: "kontrol"))
            for number in 0..<300 { try await service.enter(identity("math", id: "\(number)")) }
            #expect(await service.cancelWatcher(id) == false)
            var count = 0
            for await _ in changes { count += 1 }
            #expect(count == 256)
        }
    }

    @Test func aRestartForgetsNothingThatIsFresh() async throws {
        try await withTemporaryDirectory { directory in
            try await prepare(directory, with: Keys.first)
            let clock = TestClock()
            var options = KontrolService.Options(dataDirectory: directory)
            options.now = { clock.now }
            let before = try await KontrolService(options: options, logger: quiet)
            let old = try await before.enter(identity("math"), source: .http).receipt
            await before.close()
            clock.advance(25)
            let after = try await KontrolService(options: options, logger: quiet)
            #expect(try await after.kite(id: "id-of-math")?.url == "http://127.0.0.1:7000/kite")
            #expect(await after.heartbeat(id: "id-of-math") == false)
            let message = await refusal { try await after.enter(identity("math", user: "eve")) }
            #expect(message?.contains("another user") == true)
            #expect(try await after.enter(identity("math"), source: .http).receipt.number > old.number)
            #expect(await after.heartbeat(id: "id-of-math"))
            await after.close()
            clock.advance(91)
            let later = try await KontrolService(options: options, logger: quiet)
            #expect(await later.kiteCount == 0)
            await later.close()
        }
    }

    @Test func aRestartForgetsWhoHasLeft() async throws {
        try await withTemporaryDirectory { directory in
            try await prepare(directory, with: Keys.first)
            let clock = TestClock()
            var options = KontrolService.Options(dataDirectory: directory)
            options.now = { clock.now }
            let before = try await KontrolService(options: options, logger: quiet)
            try await before.register(local: identity("own"), url: "http://own/kite")
            let left = try await before.enter(identity("left")).receipt
            let there = try await before.enter(identity("there")).receipt
            clock.advance(20)
            _ = await before.heartbeat(there)
            await before.disconnected(left)
            await before.close()
            clock.advance(1)
            let after = try await KontrolService(options: options, logger: quiet)
            #expect(
                try await after.kites(matching: KontrolQuery(username: "kontrol")).map(\.identity.name) == ["there"])
            // No longer than it would have been without the restart.
            clock.advance(28)
            await after.expire()
            #expect(await after.kiteCount == 1)
            clock.advance(1)
            await after.expire()
            #expect(await after.kiteCount == 0)
            await after.close()
        }
    }

    @Test func whenKontrolEndsItsKitesHaveNotLeft() async throws {
        try await withService { service, _, _ in
            let running = Task { try await service.run() }
            let there = try await service.enter(identity("there")).receipt
            running.cancel()
            try await running.value
            await service.disconnected(there)
            #expect(await service.registry.parting().staying.map(\.receipt) == [there])
        }
    }

    @Test func kitesThatBeatOverHTTPAreToldToRegisterAgainAfterARotation() async throws {
        try await withService { service, _, directory in
            try await service.enter(identity("math"), source: .http)
            #expect(await service.heartbeat(id: "id-of-math"))
            try await prepare(directory, with: Keys.second)
            await service.reloadKeys()
            #expect(await service.heartbeat(id: "id-of-math") == false)
            #expect(try await service.enter(identity("math"), source: .http).kiteKey != nil)
            #expect(await service.heartbeat(id: "id-of-math"))
        }
    }

    @Test func theKitesOfARemovedKeyPairAreDropped() async throws {
        try await withService { service, _, directory in
            let (_, changes) = try await service.watch(KontrolQuery(username: "kontrol"))
            let old = try await service.enter(identity("old")).receipt
            try await service.register(local: identity("own"), url: "http://own/kite")
            try await prepare(directory, with: Keys.second)
            await service.reloadKeys()
            try await service.enter(identity("new"), pair: Keys.second)
            let keys = try await KontrolKeys(dataDirectory: directory)
            #expect(try await keys.remove(keyPair: Keys.first.id))
            await service.reloadKeys()
            let left = try await service.kites(matching: KontrolQuery(username: "kontrol"))
            #expect(left.map(\.identity.name).sorted() == ["new", "own"])
            #expect(await service.heartbeat(old) == .gone)
            let second = try await Keys.second.publicKey
            for kite in left { #expect(try service.verifier.verify(token: kite.token).key == second) }
            var names: [String] = []
            for await change in changes {
                if case .deregistered(let kite) = change { names.append(kite.identity.name) }
                if !names.isEmpty { break }
            }
            #expect(names == ["old"])
            #expect(try await service.store.kites(storedSince: 0).map(\.kite.identity.name) == ["new"])
            keys.close()
        }
    }

    @Test func aRestartDropsTheKitesOfAKeyPairThatWasRemovedMeanwhile() async throws {
        try await withTemporaryDirectory { directory in
            try await prepare(directory, with: Keys.first)
            let options = KontrolService.Options(dataDirectory: directory)
            let before = try await KontrolService(options: options, logger: quiet)
            try await before.enter(identity("old"))
            await before.close()
            try await prepare(directory, with: Keys.second)
            let keys = try await KontrolKeys(dataDirectory: directory)
            #expect(try await keys.remove(keyPair: Keys.first.id))
            keys.close()
            let after = try await KontrolService(options: options, logger: quiet)
            #expect(await after.kiteCount == 0)
            await after.close()
        }
    }

    @Test func nobodyIsGivenAKeyForAUserWhoWasSeen() async throws {
        try await withService(policy: .open) { service, _, _ in
            // Their kite keys are another Kontrol's, whose key pair was imported.
            try await service.enter(identity("math", user: "ann"), source: .http)
            let running = Task { try await service.run() }
            service.note(user: "bob")
            try await eventually { try await service.store.isUser("bob") }
            for name in ["ann", "bob"] {
                let taken = await refusal { _ = try await service.registerMachine(username: name, secret: nil) }
                #expect(taken == "cannot authenticate user: the username is taken")
            }
            _ = try await service.registerMachine(username: "carol", secret: nil)
            running.cancel()
            try await running.value
        }
    }

    @Test func kitesWithARetiredKeyAreGivenTheNewOne() async throws {
        try await withService { service, _, directory in
            let (first, second) = (try await Keys.first, try await Keys.second)
            try await service.enter(identity("old"))
            let files = KeyDirectoryFiles(directory + "/second")
            try FileManager.default.createDirectory(atPath: files.directory, withIntermediateDirectories: true)
            try second.write(privateKeyPath: files.privatePath, publicKeyPath: files.publicPath)
            let keys = try await KontrolKeys(dataDirectory: directory)
            _ = try await keys.importKeys(public: files.publicPath, private: files.privatePath)
            await service.reloadKeys()

            // Those that have not come back get tokens signed with the key they know.
            let old = try #require(try await service.kite(id: "id-of-old"))
            #expect(try service.verifier.verify(token: old.token).key == first.publicKey)
            let returned = try await service.enter(identity("old"))
            #expect(returned.publicKey == second.publicKey)
            let renewed = try #require(returned.kiteKey)
            #expect(renewed.username == "kontrol" && renewed.kontrolURL == "http://127.0.0.1:4000/kite")
            #expect(try service.verifier.verify(kiteKey: renewed.text).key == second.publicKey)
            let now = try #require(try await service.kite(id: "id-of-old"))
            #expect(try service.verifier.verify(token: now.token).key == second.publicKey)

            let fresh = try await service.enter(identity("new"), pair: second)
            #expect(fresh.kiteKey == nil && fresh.publicKey == nil)
            #expect(try await keys.remove(keyPair: first.id))
            await service.reloadKeys()
            let message = await refusal { try await service.enter(identity("old")) }
            #expect(message == "kontrol key is not trusted")
            keys.close()
        }
    }

    @Test func kitesThatShareAnIdAreFoundAndCalledEach() async throws {
        try await withService { service, _, _ in
            let (math, files) = (identity("math", id: "of-the-key"), identity("files", id: "of-the-key"))
            try await service.enter(math)
            try await service.enter(files, url: "http://127.0.0.1:7001/kite")
            let found = try await service.kites(matching: KontrolQuery(id: "of-the-key"), for: "ann")
            #expect(Set(found.map(\.identity)) == [math, files])
            #expect(try await service.kite(id: "of-the-key")?.identity == files)
            // Who has a token for one of them renews that one; anybody else gets one for the latest.
            _ = try await service.kites(
                matching: KontrolQuery(username: "kontrol", environment: "dev", name: "math"), for: "bob")
            func byID(_ user: String) async throws -> String? {
                try audience(
                    try await service.token(matching: KontrolQuery(id: "of-the-key"), for: user, isForced: true))
            }
            #expect(try await byID("bob") == "/kontrol/dev/math")
            #expect(try await byID("cid") == "/kontrol/dev/files")
        }
    }

    @Test func askingForTheKeyMovesAKiteToIt() async throws {
        try await withService { service, _, directory in
            let (first, second) = (try await Keys.first.publicKey, try await Keys.second.publicKey)
            try await service.enter(identity("old"))
            try await prepare(directory, with: Keys.second)
            await service.reloadKeys()
            #expect(await service.publicKey(for: identity("old"), of: "eve") == second)
            let unmoved = try #require(try await service.kite(id: "id-of-old"))
            #expect(try service.verifier.verify(token: unmoved.token).key == first)
            _ = await service.publicKey(for: identity("old", user: "anything"), of: "kontrol")
            let moved = try #require(try await service.kite(id: "id-of-old"))
            #expect(try service.verifier.verify(token: moved.token).key == second)
        }
    }

    @Test func machinesAreRegisteredAsTheOperatorWants() async throws {
        try await withService { service, _, _ in
            let message = await refusal { _ = try await service.registerMachine(username: "ann", secret: nil) }
            #expect(message == "no valid authentication key found")
        }
        try await withService(policy: .secret) { service, clock, directory in
            let keys = try await KontrolKeys(dataDirectory: directory)
            let secret = try await keys.invite(user: "ann", lifetime: 1 << 40)
            for wrong in [nil, "", "x", secret + "0", String(repeating: "x", count: 2000)] {
                let message = await refusal { _ = try await service.registerMachine(username: "ann", secret: wrong) }
                #expect(message == "cannot authenticate user: the secret is not valid")
            }
            let key = try await service.registerMachine(username: "eve", secret: secret)
            #expect(key.username == "ann")
            #expect(try service.verifier.verify(kiteKey: key.text).username == "ann")
            let again = await refusal { _ = try await service.registerMachine(username: "ann", secret: secret) }
            #expect(again == "cannot authenticate user: the secret is not valid")
            keys.close()
        }
        try await withService(policy: .open) { service, _, _ in
            let key = try await service.registerMachine(username: "ann", secret: nil)
            #expect(key.username == "ann")
            let taken = await refusal { _ = try await service.registerMachine(username: "ann", secret: nil) }
            #expect(taken == "cannot authenticate user: the username is taken")
            for name in ["", "kontrol", "a/b"] {
                let message = await refusal { _ = try await service.registerMachine(username: name, secret: nil) }
                #expect(message == "cannot authenticate user: the username is not allowed", "\(name)")
            }
        }
    }

    @Test func saysThatThereAreNoKeys() async throws {
        try await withTemporaryDirectory { directory in
            let options = KontrolService.Options(dataDirectory: directory)
            let message = await refusal { _ = try await KontrolService(options: options, logger: quiet) }
            #expect(message == "Kontrol has no keys yet: run \"kiteproxy keys init\"")
        }
    }
}
