import Foundation
import KiteCore
import Synchronization
import Testing

@testable import EmbeddedKontrol
@testable import KiteCore

/// The client against the embedded Kontrol.
@Suite(.timeLimit(.minutes(1)))
struct KontrolClientTests {
    static let url = "http://127.0.0.1:4000/kite"

    /// What a test has at hand.
    struct World {
        let service: KontrolService
        let server: KontrolServer
        let network: MemoryNetwork
        let clock: TestClock
        let directory: String

        /// A kite with a key of Kontrol.
        func kite(_ name: String, user: String = "kontrol") async throws -> Kite {
            let key = try await TokenIssuer(issuer: "kontrol", keyPair: Keys.first)
                .kiteKey(for: user, kontrolURL: KontrolClientTests.url, now: 0)
            var configuration = KiteConfiguration()
            configuration.apply(key)
            configuration.environment = "dev"
            configuration.id = "id-of-\(name)"
            let issuer = TrustedIssuer(name: "kontrol", keys: [try await Keys.first.publicKey])
            let clock = clock
            return Kite(
                name: name, version: "1.0.0", configuration: configuration,
                authenticator: TokenVerifier(trusting: [issuer]) { clock.now }, logger: quiet)
        }

        func client(
            _ kite: Kite, onKeyChange: (@Sendable (KiteKey) -> Void)? = nil
        ) throws -> KontrolClient {
            let clock = clock
            return try KontrolClient(
                kite: kite, url: nil, key: nil, connector: network.connector, now: { clock.now },
                onKeyChange: onKeyChange)
        }
    }

    func withWorld(
        tokenLifetime: Int64 = 48 * 3600, limits: Registry.Limits = Registry.Limits(),
        _ body: (World) async throws -> Void
    ) async throws {
        try await withService(limits: limits, tokenLifetime: tokenLifetime) { service, clock, directory in
            let network = MemoryNetwork()
            let server = KontrolServer(service: service, logger: quiet)
            network.add(server.kite, at: Self.url)
            let serving = Task { await network.serve() }
            let world = World(
                service: service, server: server, network: network, clock: clock, directory: directory)
            do {
                try await body(world)
            } catch {
                serving.cancel()
                throw error
            }
            serving.cancel()
            await serving.value
        }
    }

    /// Runs services while `body` does.
    func running(
        _ clients: [KontrolClient], _ services: [@Sendable () async throws -> Void] = [],
        _ body: () async throws -> Void
    ) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for client in clients { group.addTask { try await client.run() } }
            for service in services { group.addTask { try await service() } }
            for client in clients { try await eventually { client.client.remote != nil } }
            try await body()
            group.cancelAll()
        }
    }

    @Test func aKiteIsFoundAndCalled() async throws {
        try await withWorld { world in
            let math = try await world.kite("math")
            math.handle("square") { (_, number: Int) in number * number }
            math.handle("whoami") { (request) in request.username ?? "" }
            world.network.add(math, at: "http://math/kite")
            let mathKontrol = try world.client(math)
            let exp = try world.client(try await world.kite("exp", user: "ann"))
            let registration = mathKontrol.registration(url: "http://math/kite")
            try await running([mathKontrol, exp], [{ try await registration.run() }]) {
                try await eventually { await world.service.kiteCount == 1 }
                let query = KontrolQuery(username: "kontrol", environment: "dev", name: "math")
                let found = try #require(try await exp.kites(matching: query).first)
                #expect(found.url == "http://math/kite" && found.identity == math.identity)
                let client = exp.client(of: found)
                let task = Task { try await client.run() }
                try await eventually { client.remote != nil }
                let square: Int = try await client.tell("square", 4)
                #expect(square == 16)
                let name: String = try await client.tell("whoami")
                #expect(name == "ann")
                task.cancel()
                try await task.value
                #expect(try await exp.kite(id: "id-of-math")?.url == "http://math/kite")
                #expect(try await exp.kite(id: "nobody") == nil)
                #expect(try await exp.kites(matching: KontrolQuery(username: "nobody")) == [])
                #expect(try await exp.publicKey() == (try await Keys.first.publicKey))
            }
        }
    }

    @Test func registersAgainAfterADisconnect() async throws {
        try await withWorld { world in
            let kontrol = try world.client(try await world.kite("math"))
            let registrations = Mutex(0)
            let registration = KontrolRegistration(kontrol, url: "http://math/kite") { _ in
                registrations.withLock { $0 += 1 }
            }
            try await running([kontrol], [{ try await registration.run() }]) {
                for round in 1...3 {
                    try await eventually { registrations.withLock { $0 } >= round }
                    let number = await world.service.registry.registrations(id: "id-of-math").first?.receipt.number
                    for remote in world.server.kite.connections { remote.close() }
                    try await eventually {
                        await world.service.registry.registrations(id: "id-of-math").first?.receipt.number ?? 0 > number
                            ?? 0
                    }
                }
            }
        }
    }

    @Test func takesOverANewKey() async throws {
        try await withWorld { world in
            let second = try await Keys.second
            let math = try await world.kite("math")
            let received = Mutex<KiteKey?>(nil)
            let kontrol = try world.client(math) { key in received.withLock { $0 = key } }
            try await prepare(world.directory, with: second)
            await world.service.reloadKeys()
            try await running([kontrol]) {
                try await kontrol.register(url: "http://math/kite")
                let key = try #require(received.withLock { $0 })
                #expect(try key.kontrolPublicKey() == second.publicKey)
                #expect(kontrol.key == key)
                // From now on the kite judges by the new key too, and shows the new one.
                let verifier = try #require(math.authenticator as? TokenVerifier)
                #expect(verifier.trustedIssuers.flatMap(\.keys) == [second.publicKey, try await Keys.first.publicKey])
                received.withLock { $0 = nil }
                try await kontrol.register(url: "http://math/kite")
                #expect(received.withLock { $0 } == nil)
            }
        }
    }

    @Test func theVerifierOfTheKontrolItselfIsNobodysToChange() async throws {
        try await withWorld { world in
            let (first, second) = (try await Keys.first, try await Keys.second)
            // The gateway's own kite judges by the embedded Kontrol's verifier.
            var configuration = KiteConfiguration()
            configuration.apply(
                try await TokenIssuer(issuer: "kontrol", keyPair: first).kiteKey(
                    for: "kontrol", kontrolURL: Self.url, now: 0))
            configuration.environment = "dev"
            let gateway = Kite(
                name: "proxy", version: "1.0.0", configuration: configuration, authenticator: world.service.verifier,
                logger: quiet)
            let kontrol = try world.client(gateway)
            try await prepare(world.directory, with: second)
            await world.service.reloadKeys()
            let trusted = world.service.verifier.trustedIssuers
            #expect(trusted.flatMap(\.keys) == [second.publicKey, first.publicKey])
            try await running([kontrol]) {
                try await kontrol.register(url: "http://proxy/kite")
                #expect(try kontrol.key.kontrolPublicKey() == second.publicKey)
                try await kontrol.publicKey()
            }
            #expect(world.service.verifier.trustedIssuers == trusted)
            try await world.service.enter(identity("old"))
        }
    }

    @Test func aVerifierGivenToTheClientLearnsNewKeys() async throws {
        try await withWorld { world in
            let (first, second) = (try await Keys.first.publicKey, try await Keys.second.publicKey)
            let verifier = TokenVerifier(trusting: [TrustedIssuer(name: "kontrol", keys: [first])])
            let math = try await world.kite("math")
            let kontrol = try KontrolClient(
                kite: math, connector: world.network.connector, verifier: verifier)
            try await prepare(world.directory, with: Keys.second)
            await world.service.reloadKeys()
            try await running([kontrol]) { try await kontrol.register(url: "http://math/kite") }
            #expect(verifier.trustedIssuers == [TrustedIssuer(name: "kontrol", keys: [second, first])])
            #expect((math.authenticator as? TokenVerifier)?.trustedIssuers.flatMap(\.keys) == [first])
        }
    }

    @Test func aConnectedKiteIsGivenTheNewKeyByItself() async throws {
        var limits = Registry.Limits()
        limits.heartbeatInterval = 1
        try await withWorld(limits: limits) { world in
            let second = try await Keys.second
            let received = Mutex<[KiteKey]>([])
            let kontrol = try world.client(try await world.kite("math")) { key in received.withLock { $0.append(key) } }
            let registrations = Mutex(0)
            let registration = KontrolRegistration(kontrol, url: "http://math/kite") { _ in
                registrations.withLock { $0 += 1 }
            }
            try await running([kontrol], [{ try await registration.run() }]) {
                try await eventually { registrations.withLock { $0 } == 1 }
                try await prepare(world.directory, with: second)
                await world.service.reloadKeys()
                try await eventually { received.withLock { $0.count } == 1 }
                try await eventually { registrations.withLock { $0 } == 2 }
                #expect(try kontrol.key.kontrolPublicKey() == second.publicKey)
                #expect(await world.service.registry.registrations(id: "id-of-math").first?.kite.keyID == second.id)
                // And it is left in peace from then on, also when the old pair goes.
                let keys = try await KontrolKeys(dataDirectory: world.directory)
                #expect(try await keys.remove(keyPair: Keys.first.id))
                keys.close()
                await world.service.reloadKeys()
                let receipt = try #require(await world.service.registry.registrations(id: "id-of-math").first?.receipt)
                #expect(await world.service.heartbeat(receipt) == .alive)
                #expect(received.withLock { $0.count } == 1)
            }
        }
    }

    @Test func aConnectedKiteWhoseKeyWasRemovedIsSentAway() async throws {
        var limits = Registry.Limits()
        limits.heartbeatInterval = 1
        try await withWorld(limits: limits) { world in
            let kontrol = try world.client(try await world.kite("math"))
            try await running([kontrol]) {
                try await kontrol.register(url: "http://math/kite")
                let first = try #require(kontrol.client.remote)
                try await prepare(world.directory, with: Keys.second)
                let keys = try await KontrolKeys(dataDirectory: world.directory)
                #expect(try await keys.remove(keyPair: Keys.first.id))
                keys.close()
                await world.service.reloadKeys()
                #expect(await world.service.kiteCount == 0)
                try await eventually { first.isClosed }
                await #expect(throws: KontrolError.self) { try await kontrol.register(url: "http://math/kite") }
            }
        }
    }

    @Test func keysThatMakeNoSenseAreNotTakenOver() async throws {
        try await withWorld { world in
            let kontrol = try world.client(try await world.kite("math"))
            let before = kontrol.key
            let others = try await TokenIssuer(issuer: "kontrol", keyPair: Keys.second)
                .kiteKey(for: "eve", kontrolURL: "", now: 0)
            for (kiteKey, publicKey) in [(others.text, nil), ("nonsense", nil), (nil, "nonsense")]
                as [(String?, String?)]
            {
                let answer = RegisterResponse(url: "", heartbeatInterval: 0, publicKey: publicKey, kiteKey: kiteKey)
                #expect(throws: KontrolError.self) { try kontrol.take(answer) }
            }
            #expect(kontrol.key == before)
        }
    }

    @Test func tokensAreKeptAndReplacedInTime() async throws {
        try await withWorld(tokenLifetime: 3600) { world in
            try await world.service.register(local: identity("math"), url: "http://math/kite")
            let kontrol = try world.client(try await world.kite("exp"))
            let query = KontrolQuery(username: "kontrol", environment: "dev", name: "math")
            try await running([kontrol]) {
                let first = try await kontrol.token(for: query)
                world.clock.advance(3600 + 300 - 31)
                #expect(try await kontrol.token(for: query) == first)
                world.clock.advance(1)
                let second = try await kontrol.token(for: query)
                #expect(second != first)
                #expect(try await kontrol.token(for: query, isForced: true) != second)
            }
        }
    }

    @Test func clientsAreGivenNewTokensBeforeTheOldOnesExpire() async throws {
        try await withWorld(tokenLifetime: 3600) { world in
            try await world.service.register(local: identity("math"), url: "http://math/kite")
            let kontrol = try world.client(try await world.kite("exp"))
            try await running([kontrol]) {
                let math = try #require(try await kontrol.kite(id: "id-of-math"))
                let credentials = kontrol.credentials(for: math)
                await kontrol.renewTokens()
                #expect(try await credentials.authentication() == .token(math.token))
                world.clock.advance(3600 + 300 - 30)
                await kontrol.renewTokens()
                let renewed = try #require(try await credentials.authentication())
                #expect(renewed != .token(math.token))
                #expect(try world.service.verifier.verify(token: renewed.key).expiresAt ?? 0 > world.clock.now + 3600)
                // What a kite says is expired is replaced whatever we think of it.
                #expect(try await credentials.renew(renewed) != renewed)
            }
        }
    }

    @Test func watchersHearEverythingOnceAcrossReconnects() async throws {
        try await withWorld { world in
            let kontrol = try world.client(try await world.kite("exp"))
            let math = try await world.service.register(local: identity("math"), url: "http://math/kite")
            let events = Mutex<[String]>([])
            let watch: @Sendable () async throws -> Void = {
                try? await kontrol.watch(KontrolQuery(username: "kontrol")) { event in
                    events.withLock { $0.append("\(event.action.rawValue) \(event.kite.name)") }
                }
            }
            try await running([kontrol], [watch]) {
                try await eventually { events.withLock { $0 } == ["REGISTER math"] }
                _ = try await world.service.register(local: identity("fs"), url: "http://fs/kite")
                try await eventually { events.withLock { $0.count } == 2 }
                // While the connection is cut one goes.
                world.network.remove(Self.url)
                for remote in world.server.kite.connections { remote.close() }
                try await eventually { world.server.kite.connections.isEmpty }
                await world.service.deregister(math)
                world.network.add(world.server.kite, at: Self.url)
                try await eventually { events.withLock { $0.count } == 3 }
                #expect(events.withLock { $0 } == ["REGISTER math", "REGISTER fs", "DEREGISTER math"])
            }
        }
    }

    @Test func aWatcherThatEndsIsNoneOfKontrolsAnyMore() async throws {
        struct Enough: Error {}
        try await withWorld { world in
            try await world.service.register(local: identity("math"), url: "http://math/kite")
            let kontrol = try world.client(try await world.kite("exp"))
            let query = KontrolQuery(username: "kontrol")
            try await running([kontrol]) {
                // Kontrol lets a connection have 64 at a time.
                for round in 0..<70 {
                    if round.isMultiple(of: 2) {
                        await #expect(throws: Enough.self) { try await kontrol.watch(query) { _ in throw Enough() } }
                    } else {
                        let told = AsyncStream<Void>.makeStream()
                        let watching = Task { try await kontrol.watch(query) { _ in told.continuation.yield() } }
                        for await _ in told.stream { break }
                        watching.cancel()
                        await #expect(throws: CancellationError.self) { try await watching.value }
                    }
                    #expect(world.server.sessions.withLock { $0.count } == 0)
                }
            }
        }
    }

    /// Answers `getKites` as a test wants, and counts.
    func answering(
        _ world: World, at url: String, _ answer: @escaping @Sendable (KontrolQuery) throws -> GetKitesResponse
    ) -> KontrolQueries {
        let queries = KontrolQueries()
        let kontrol = Kite(name: "kontrol", version: "1.0.0", authenticator: .anyone, logger: quiet)
        kontrol.handle("getKites") { request in
            let arguments: KontrolQueries.Arguments = try request.argument(0)
            queries.all.withLock { $0.append(arguments.query) }
            return try answer(arguments.query)
        }
        world.network.add(kontrol, at: url)
        return queries
    }

    final class KontrolQueries: Sendable {
        struct Arguments: Decodable { let query: KontrolQuery }
        let all = Mutex<[KontrolQuery]>([])
    }

    @Test func anUnknownIDIsAskedForOnce() async throws {
        try await withWorld { world in
            let queries = answering(world, at: Self.url) { _ in GetKitesResponse(kites: []) }
            let kontrol = try world.client(try await world.kite("exp"))
            try await running([kontrol]) {
                let found = try await kontrol.kite(id: "nobody")
                #expect(found == nil)
                #expect(queries.all.withLock { $0 } == [KontrolQuery(id: "nobody")])
            }
        }
    }

    @Test func whereAnIDIsNoQueryTheUsersKitesAreSearched() async throws {
        for refusal in ["Empty username field", "internal error"] {
            try await withWorld { world in
                let queries = answering(world, at: Self.url) { query in
                    guard !query.username.isEmpty else { throw KiteError(.generic, refusal) }
                    return GetKitesResponse(
                        kites: ["a", "b"].map { KontrolKite(identity: identity($0), url: "http://\($0)/kite") })
                }
                let kontrol = try world.client(try await world.kite("exp"))
                try await running([kontrol]) {
                    let found = try await kontrol.kite(id: "id-of-b")
                    #expect(found?.url == "http://b/kite")
                    #expect(queries.all.withLock { $0.count } == 2)
                }
            }
        }
    }

    @Test func tokensNobodyNeedsAreForgottenThoughTheClientIsNotRun() async throws {
        try await withWorld { world in
            let kontrol = try world.client(try await world.kite("exp"))
            let token = try await TokenIssuer(issuer: "kontrol", keyPair: Keys.first)
                .token(for: "kontrol", audience: Audience(username: "kontrol"), now: world.clock.now)
            let math = KontrolKite(identity: identity("math"), url: "http://math/kite", token: token)
            let kept = (0..<100).map { _ in kontrol.credentials(for: math) }
            for _ in 0..<1000 { _ = kontrol.credentials(for: math) }
            #expect(kontrol.renewalCount <= 2 * kept.count)
            #expect(kontrol.renewalCount >= kept.count)
        }
    }

    @Test func saysWhatIsMissing() async throws {
        let kite = Kite(name: "x", version: "1.0.0", logger: quiet)
        #expect(throws: KontrolError.self) { try KontrolClient(kite: kite, connector: MemoryNetwork().connector) }
        let key = try await TokenIssuer(issuer: "kontrol", keyPair: Keys.first)
            .kiteKey(for: "ann", kontrolURL: "", now: 0)
        #expect(throws: KontrolError.self) {
            try KontrolClient(kite: kite, key: key, connector: MemoryNetwork().connector)
        }
    }

    @Test func errorsOfAKontrolElsewhereAreUnderstood() {
        let cases: [(KiteError, KontrolError.Code)] = [
            (KiteError(.timeout, "x"), .unavailable), (KiteError(.send, "x"), .unavailable),
            (KiteError(.disconnect, "x"), .unavailable), (KiteError(.invalidResponse, "x"), .invalidAnswer),
            (KiteError(.authentication, "kiteKey: kontrol key is not trusted"), .forbidden),
            (KiteError(.generic, "100: Key not found (/kites/kontrol/dev/nosuch) [776]"), .notFound),
            (KiteError(.generic, "no kites found"), .notFound),
            (KiteError(.generic, "query matches more than one kite"), .ambiguous),
            (KiteError(.generic, "Invalid query. Query option is not set: environment"), .invalidQuery),
            (KiteError(.generic, "internal error - register"), .refused),
        ]
        for (error, code) in cases { #expect((KontrolClient.error(error) as? KontrolError)?.code == code) }
        #expect(KontrolClient.error(CancellationError()) is CancellationError)
    }
}
