/// Whole sessions that a Go client had with Go's kites and Kontrol, played to our clients: what they send must be the same.
import KiteCore
import KiteDnode
import KiteHTTP
import NIOCore
import Synchronization
import Testing

@Suite("Golden sessions of clients", .timeLimit(.minutes(1)))
struct GoldenClientTests {
    /// The client of the transcripts.
    private func caller(_ name: String, _ id: String) -> Kite {
        var configuration = KiteConfiguration()
        configuration.username = "kontrol"
        configuration.id = id
        configuration.environment = "dev"
        configuration.region = "lo"
        configuration.hostname = "vm"
        let kite = Kite(name: name, version: "1.0.0", configuration: configuration, authenticator: .anyone)
        kite.handle("hello") { _ in "hi from client" }
        return kite
    }

    /// Plays the other side of a session while `body` calls.
    private func play(
        _ session: GoldenSession, to kite: Kite, _ credentials: KiteCredentials,
        _ body: @Sendable (KiteClient) async throws -> Void
    ) async throws {
        let (mine, theirs) = MemoryChannel.pair()
        let client = try await KiteClient.connect(to: "memory", as: kite, credentials: credentials) { _, _ in mine }
        async let played: Void = session.play(asDialler: false, on: theirs)
        try await body(client)
        try await played
        await client.close()
    }

    /// Calls a method that fails.
    private func fail(_ client: KiteClient, _ method: String, _ arguments: any Encodable & Sendable...) async throws {
        let arguments = try arguments.map { try DnodeEncoder().encode($0) }
        await #expect(throws: KiteError.self) {
            _ = try await client.call(method, arguments: arguments, timeout: .seconds(30))
        }
    }

    private struct Subscription: Encodable, Sendable {
        var n: Int
        var onEvent: DnodeFunction
    }

    @Test("Calls over a WebSocket (transcript 03)")
    func direct() async throws {
        let session = try GoldenSession("KiteCore/Dnode/Fixtures/session-with-kite-key.txt")
        let kite = caller("labclient", "402c82e6-efe8-4db5-98f1-0dd636804ae3")
        let events = Mutex(0)
        let calls = Mutex(0)
        try await play(session, to: kite, .kiteKey("<JWT#1 eyJhbGciOi…QUr5Xw>")) { client in
            let square: Int = try await client.tell("square", 4)
            #expect(square == 16)
            try await client.tell("open")
            let nested: DnodeValue = ["a": [1, 2, ["b": .null]]]
            #expect(try await client.tell("echo", nested) == nested)
            try await client.tell("whoami")
            for method in ["fail", "failtyped", "boom"] { try await fail(client, method) }
            for _ in 0..<2 { try await client.tell("limited") }
            for method in ["limited", "nosuch"] { try await fail(client, method) }
            try await fail(client, "square", "str")
            try await client.tell("cb", "argname", DnodeFunction { _ in calls.withLock { $0 += 1 } })
            try await client.tell(
                "subscribe", Subscription(n: 3, onEvent: DnodeFunction { _ in events.withLock { $0 += 1 } }))
            try await client.tell("callme", "hello")
            try await fail(client, "callme", "nosuch")
            try await client.tell("sleep", 0.4)
            try await client.tell("kite.ping")
            try await client.tell("kite.systemInfo")
        }
        #expect(events.withLock { $0 } == 3 && calls.withLock { $0 } == 1)
    }

    @Test("Calls without credentials (transcript 03)")
    func anonymous() async throws {
        let session = try GoldenSession("KiteCore/Dnode/Fixtures/session-anonymous.txt")
        let kite = caller("labclient", "93eca416-eeb7-4f0e-9ec5-680c642b531f")
        try await play(session, to: kite, .none) { client in
            try await fail(client, "square", 4)
            try await client.tell("kite.ping")
        }
    }

    @Test("Calls over XHR (transcript 04)")
    func polled() async throws {
        let session = try GoldenSession("Fixtures/Golden/kite-polled.txt")
        let kite = caller("labclient", "80fae4ae-c78c-4ae7-9af8-4824ad1fa75c")
        try await play(session, to: kite, .kiteKey("KEY")) { client in
            let square: Int = try await client.tell("square", 4)
            #expect(square == 16)
            try await client.tell("callme", "hello")
            try await client.tell("subscribe", Subscription(n: 2, onEvent: DnodeFunction { _ in }))
            try await client.tell("sleep", 0.4)
            try await fail(client, "nosuch")
        }
    }

    @Test("A kite that writes into its caller's log before it answers (transcript 02)")
    func calledBack() async throws {
        let session = try GoldenSession("Fixtures/Golden/kite-calls.txt")
        let kite = caller("exp2", "d337f74d-b67a-44a7-96de-2198296f62fa")
        try await play(session, to: kite, .token("TOKEN")) { client in
            for (number, square) in [(5, 25), (2, 4), (8, 64)] {
                let result: Int = try await client.tell("square", number)
                #expect(result == square)
            }
        }
    }

    /// A kite with a key of a Kontrol, whose side of a session is played while `body` runs.
    private func playKontrol(
        _ name: String, to kite: Kite, _ body: @Sendable (KontrolClient) async throws -> Void
    ) async throws {
        let issuer = TokenIssuer(issuer: "kontrol", keyPair: try await Keys.trusted)
        let key = try await issuer.kiteKey(for: "kontrol", kontrolURL: "http://kontrol/kite", now: 0)
        let token = try await issuer.token(for: "kontrol", audience: Audience(username: "kontrol"), now: testTime)
        let session = try GoldenSession("Fixtures/Golden/\(name)", ["KEY": key.text, "TOKEN": token])
        let (mine, theirs) = MemoryChannel.pair()
        let kontrol = try KontrolClient(kite: kite, url: "memory", key: key, connector: { _, _ in mine })
        try await withThrowingTaskGroup { tasks in
            tasks.addTask { try await kontrol.run() }
            async let played: Void = session.play(asDialler: false, on: theirs)
            try await body(kontrol)
            try await played
            tasks.cancelAll()
        }
    }

    @Test("A registration with Kontrol, with its heartbeat (transcript 02)")
    func registration() async throws {
        let kite = caller("math", "4695c4bd-e2bd-4ba9-ab7c-4a160349ac62")
        try await playKontrol("kontrol-register.txt", to: kite) { kontrol in
            let (registered, continuation) = AsyncStream.makeStream(of: String.self)
            let registration = KontrolRegistration(kontrol, url: "http://localhost:6667/kite") {
                continuation.yield($0)
            }
            let running = Task { try await registration.run() }
            for await url in registered {
                #expect(url == "http://localhost:6667/kite")
                break
            }
            running.cancel()
            try await running.value
        }
    }

    @Test("A question to Kontrol (transcript 02)")
    func finding() async throws {
        let kite = caller("exp2", "d337f74d-b67a-44a7-96de-2198296f62fa")
        try await playKontrol("kontrol-find.txt", to: kite) { kontrol in
            let found = try await kontrol.kites(
                matching: KontrolQuery(username: "kontrol", environment: "dev", name: "math"))
            #expect(found.map(\.url) == ["http://localhost:6667/kite"])
        }
    }

    @Test("The renewal of a token (transcript 15)")
    func renewal() async throws {
        let kite = caller("labclient", "bd59a80d-4cf2-4112-9fd1-f7ef9f600d01")
        try await playKontrol("kontrol-renew.txt", to: kite) { kontrol in
            let query = KontrolQuery(username: "kontrol", environment: "dev", name: "labk2")
            let found = try #require(try await kontrol.kites(matching: query).first)
            let token = try await kontrol.token(for: KontrolQuery(id: found.identity.id))
            #expect(token == found.token)
        }
    }
}
