/// Whole sessions that a Go client had with a Go kite, played to ours: what it sends must be the same.
import KiteCore
import KiteHTTP
import NIOCore
import Testing

@Suite(.timeLimit(.minutes(1))) struct GoldenSessionTests {
    /// Believes everybody who brings a kite key.
    struct AnyKiteKey: KiteAuthenticator {
        func authenticate(_ authentication: Authentication?, for kite: KiteIdentity) async throws(KiteError) -> String {
            guard authentication?.type == "kiteKey" else {
                throw KiteError(.authentication, "No authentication information is provided")
            }
            return "kontrol"
        }
    }

    /// The kite of the transcripts.
    func labKite() -> Kite {
        var configuration = KiteConfiguration()
        configuration.username = "kontrol"
        configuration.id = "dc79f641-2493-4458-9c08-790481b37036"
        configuration.environment = "dev"
        configuration.region = "lo"
        configuration.hostname = "vm"
        let kite = Kite(name: "lab", version: "1.0.0", configuration: configuration, authenticator: AnyKiteKey())
        struct Failure: Error, CustomStringConvertible { let description: String }
        struct Subscription: Decodable {
            var n: Int
            var onEvent: DnodeFunction
        }
        kite.handle("square") { (_, number: Double) in number * number }
        kite.handle("open", .anonymous) { _ in "open!" }
        kite.handle("echo") { request in request.arguments.first ?? .null }
        kite.handle("whoami") { request -> DnodeValue in
            [
                "auth": try DnodeEncoder().encode(request.authentication),
                "clientKite": try DnodeEncoder().encode(request.caller), "remote": "", "reqid": .string(request.id),
                "username": .string(request.username ?? "-"),
            ]
        }
        kite.handle("fail") { (_) throws -> String in throw Failure(description: "something failed") }
        kite.handle("failtyped") { (_) throws -> String in throw KiteError("myType", "typed failure", code: "E42") }
        kite.handle("boom") { (_) throws -> String in throw Failure(description: "kaboom") }
        kite.handle("limited", .authenticated.limited(burst: 2, every: .seconds(3600))) { _ in "ok" }
        kite.handle("cb") { (_, name: String, function: DnodeFunction) in
            try await function.call("called back", name)
        }
        kite.handle("subscribe") { (request, subscription: Subscription) in
            request.runAfterAnswer {
                for number in 0..<subscription.n { try? await subscription.onEvent.call(number, "event") }
            }
            return "subscribed"
        }
        kite.handle("callme") { (request, method: String) -> DnodeValue in
            ["youSaid": try await request.remote.tell(method, "hello from \(kite.identity.id)")]
        }
        kite.handle("sleep") { (_, seconds: Double) in seconds }
        return kite
    }

    /// The kite of Go's example, which writes into its caller's log before it answers.
    func mathKite() -> Kite {
        var configuration = KiteConfiguration()
        configuration.username = "kontrol"
        configuration.id = "4695c4bd-e2bd-4ba9-ab7c-4a160349ac62"
        configuration.environment = "dev"
        configuration.region = "lo"
        configuration.hostname = "vm"
        let kite = Kite(name: "math", version: "1.0.0", configuration: configuration, authenticator: .anyone)
        kite.handle("square") { (request, number: Double) -> Double in
            let message = "Message from math: \"You have requested square of \(Int(number))\""
            let remote = request.remote
            request.runAfterAnswer { _ = try? await remote.tell("kite.log", message) }
            return number * number
        }
        return kite
    }

    @Test(
        "A kite sends what Go's does",
        arguments: ["session-with-kite-key.txt", "session-anonymous.txt", "kite-polled.txt"])
    func lab(_ name: String) async throws {
        let folder = name.hasPrefix("session") ? "KiteCore/Dnode/Fixtures" : "Fixtures/Golden"
        let session = try GoldenSession("\(folder)/\(name)")
        try await withPeer(of: labKite()) { peer in try await session.play(asDialler: true, on: peer) }
    }

    @Test("A kite calls its caller as Go's does")
    func math() async throws {
        let session = try GoldenSession("Fixtures/Golden/kite-calls.txt")
        try await withPeer(of: mathKite()) { peer in try await session.play(asDialler: true, on: peer) }
    }

    /// What the lab of transcript 16 sent by hand, with Go's answers; nothing where Go says nothing. What kills Go's kites is another test's
    /// (`KiteConnectionTests`), and so is what is no JSON: Go ignores it, we end the connection.
    @Test(
        "Calls at the edge of the protocol are answered as Go answers them",
        arguments: [
            (
                #"{"method":"open","arguments":[{"kite":{},"authentication":null,"withArgs":null,"responseCallback":"[Function]"}],"callbacks":{"900":["0","responseCallback"]}}"#,
                #"{"method":900,"arguments":[{"error":null,"result":"open!"}],"callbacks":{}}"#
            ),
            (#"{"method":"open","arguments":[{"withArgs":null}],"callbacks":{}}"#, nil),
            (
                #"{"method":"open","arguments":[{"responseCallback":"[Function]"}],"callbacks":{"901":[0,"responseCallback"]}}"#,
                #"{"method":901,"arguments":[{"error":null,"result":"open!"}],"callbacks":{}}"#
            ),
            (
                #"{"method":"open","arguments":[{"responseCallback":"[Function]"}],"callbacks":{"901":[0,"responseCallback"]},"links":[]}"#,
                #"{"method":901,"arguments":[{"error":null,"result":"open!"}],"callbacks":{}}"#
            ),
            (#"{"method":77,"arguments":[],"callbacks":{}}"#, nil),
            (
                #"{"method":"nosuch","arguments":[{"responseCallback":"[Function]"}],"callbacks":{"907":[0,"responseCallback"]}}"#,
                #"{"method":907,"arguments":[{"error":{"type":"methodNotFound","message":"Method not found: nosuch","code":"","id":""},"result":null}],"callbacks":{}}"#
            ),
            (#"{"method":"nosuch","arguments":[{}],"callbacks":{}}"#, nil),
        ] as [(String, String?)])
    func edges(message: String, answer: String?) async throws {
        try await withPeer(of: labKite()) { peer in
            try await peer.send(message)
            if let answer {
                let expected = try DnodeValue(parsing: ByteBuffer(string: answer))
                let found = try #require(try await peer.next())
                #expect(GoldenSession.normalised(found) == GoldenSession.normalised(expected))
            }
            // The connection still works, and nothing else has come.
            try await peer.send(
                #"{"method":"open","arguments":[{"responseCallback":"[Function]"}],"callbacks":{"5":[0,"responseCallback"]}}"#
            )
            #expect(try await peer.next()?["method"] == 5)
        }
    }

    @Test(
        "Arguments that do not fit are an argumentError, as with Go", arguments: ["5", #"["a","b"]"#, #"["str"]"#])
    func arguments(_ arguments: String) async throws {
        try await withPeer(of: labKite()) { peer in
            try await peer.send(
                #"{"method":"square","arguments":[{"authentication":{"type":"kiteKey","key":"k"},"withArgs":\#(arguments),"responseCallback":"[Function]"}],"callbacks":{"903":[0,"responseCallback"]}}"#
            )
            let answer = try #require(try await peer.next())
            #expect(answer["method"] == 903)
            guard case .array(let values)? = answer["arguments"], let error = values.first?["error"] else {
                Issue.record("\(answer)")
                return
            }
            #expect(error["type"] == "argumentError")
        }
    }
}
