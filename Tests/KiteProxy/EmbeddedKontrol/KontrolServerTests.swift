import Foundation
import KiteCore
import KiteSockJS
import NIOCore
import Synchronization
import Testing

@testable import EmbeddedKontrol

@Suite(.timeLimit(.minutes(1)))
struct KontrolServerTests {
    static let math = identity("math", id: "4695c4bd-e2bd-4ba9-ab7c-4a160349ac62")

    /// A Kontrol with a connection to it.
    func withServer(
        policy: MachinePolicy = .deny, limits: Registry.Limits = Registry.Limits(),
        _ body: (KontrolService, TestClock, MemoryChannel, KontrolServer) async throws -> Void
    ) async throws {
        try await withService(policy: policy, limits: limits) { service, clock, _ in
            let server = KontrolServer(service: service, logger: quiet)
            let (mine, theirs) = MemoryChannel.pair()
            async let served: Void = server.kite.serve(theirs)
            do {
                try await body(service, clock, mine, server)
            } catch {
                mine.close(code: 1000, reason: "")
                await served
                throw error
            }
            mine.close(code: 1000, reason: "")
            await served
        }
    }

    func authentication(_ kind: String, user: String = "kontrol") async throws -> String {
        guard kind == "kiteKey" else { return "null" }
        let key = try await TokenIssuer(issuer: "kontrol", keyPair: Keys.first)
            .kiteKey(for: user, kontrolURL: "http://127.0.0.1:4000/kite", now: 0)
        return #"{"type":"kiteKey","key":"\#(key.text)"}"#
    }

    func message(
        _ method: String, _ arguments: String, authentication: String, id: Int = 0,
        callbacks: String = "", kite: KiteIdentity = math
    ) throws -> String {
        let identity = String(decoding: try JSONEncoder().encode(kite), as: UTF8.self)
        return #"""
            {"method":"\#(method)","arguments":[{"kite":\#(identity),"authentication":\#(authentication),\#
            "responseCallback":"[Function]","withArgs":\#(arguments)}],"callbacks":{"\#(id)":[0,"responseCallback"]\#(callbacks)}}
            """#
    }

    /// The answer to a call, as (error, result).
    func answer(_ reply: [String: Any]) -> (error: [String: Any]?, result: Any?) {
        let answer = (reply["arguments"] as? [[String: Any]])?.first ?? [:]
        return (answer["error"] as? [String: Any], answer["result"])
    }

    @Test func answersAsGoDoes() async throws {
        try await withServer { service, _, channel, _ in
            try await service.enter(Self.math)
            try await service.enter(identity("labhttp"))
            for line in try fixture("rpc.tsv") {
                let text = try message(line[0], line[2], authentication: await authentication(line[1]))
                try await channel.send(text)
                let reply = try await channel.next()
                #expect(reply["method"] as? Int == 0)
                let (error, result) = answer(reply)
                #expect(error?["type"] as? String ?? "-" == line[3], "\(line)")
                #expect(error?["message"] as? String ?? "-" == line[4], "\(line)")
                #expect((error == nil) == (result is String || result is [String: Any]), "\(line)")
            }
        }
    }

    @Test func answersKitesAsGoWritesThem() async throws {
        try await withServer { service, _, channel, _ in
            try await service.enter(Self.math, url: "http://localhost:6667/kite")
            let query = #"[{"query":{"username":"kontrol","environment":"dev","name":"math"}}]"#
            try await channel.send(message("getKites", query, authentication: await authentication("kiteKey")))
            let result = answer(try await channel.next()).result as? [String: Any]
            #expect(result?.keys.sorted() == ["kites"])
            let kite = try #require((result?["kites"] as? [[String: Any]])?.first)
            #expect(kite.keys.sorted() == ["keyId", "kite", "token", "url"])
            #expect(kite["url"] as? String == "http://localhost:6667/kite")
            #expect(kite["keyId"] as? String == (try await Keys.first.id))
            let expected = [
                "name": "math", "username": "kontrol", "id": Self.math.id, "environment": "dev", "region": "lo",
                "version": "1.0.0", "hostname": "vm",
            ]
            #expect(kite["kite"] as? [String: String] == expected)
        }
    }

    /// Registers as in transcript 02 and takes the answer and the request for heartbeats, in whichever order they come.
    func register(
        _ channel: MemoryChannel, id: Int = 0, kite: KiteIdentity = math, user: String = "kontrol"
    ) async throws -> (answer: [String: Any], heartbeat: [String: Any]) {
        try await channel.send(
            message(
                "register", #"[{"url":"http://localhost:6667/kite"}]"#,
                authentication: await authentication("kiteKey", user: user), id: id, kite: kite))
        let replies = [try await channel.next(), try await channel.next()]
        let answer = try #require(replies.first { $0["method"] as? Int == id })
        let heartbeat = try #require(replies.first { $0["method"] as? String == "kite.heartbeat" })
        return (answer, heartbeat)
    }

    @Test func registersAndAsksForHeartbeats() async throws {
        try await withServer { service, clock, channel, _ in
            let (reply, heartbeat) = try await register(channel)
            let result = answer(reply).result as? [String: Any]
            #expect(result?["url"] as? String == "http://localhost:6667/kite")
            #expect(result?["heartbeatInterval"] as? Int == 0)
            #expect(result?["kiteKey"] == nil && result?["publicKey"] == nil)
            let options = try #require((heartbeat["arguments"] as? [[String: Any]])?.first)
            let arguments = try #require(options["withArgs"] as? [Any])
            #expect(arguments[0] as? Int == 10 && arguments.count == 2)
            #expect(options["authentication"] is NSNull)
            let callbacks = try #require(heartbeat["callbacks"] as? [String: [Any]])
            let ping = try #require(callbacks.first { $0.value.count == 3 })
            #expect(ping.value[1] as? String == "withArgs" && ping.value[2] as? Int == 1)
            #expect(try await service.kite(id: Self.math.id)?.url == "http://localhost:6667/kite")

            // Heartbeats keep it alive for much longer than 30 s.
            for _ in 0..<5 {
                clock.advance(20)
                let beat = #"{"method":\#(ping.key),"arguments":[],"callbacks":{}}"#
                try await channel.send(beat)
                let limit = clock.now + 30
                try await eventually { await service.registry.registrations(id: Self.math.id).first?.deadline == limit }
                await service.expire()
            }
            #expect(await service.kiteCount == 1)

            // Dropped for silence, it is back with its next heartbeat.
            clock.advance(31)
            await service.expire()
            #expect(await service.kiteCount == 0)
            try await channel.send(#"{"method":\#(ping.key),"arguments":[],"callbacks":{}}"#)
            try await eventually { await service.kiteCount == 1 }
        }
    }

    @Test func theEndOfAConnectionEndsItsRegistrationOnly() async throws {
        var limits = Registry.Limits()
        limits.heartbeatTimeout = 1_000_000
        try await withServer(limits: limits) { service, clock, first, server in
            _ = try await register(first)
            _ = try await register(first, id: 1, kite: identity("other"))
            let (second, theirs) = MemoryChannel.pair()
            async let served: Void = server.kite.serve(theirs)
            _ = try await register(second)
            #expect(await service.kiteCount == 2)
            first.close(code: 1000, reason: "")
            try await eventually {
                clock.advance(5)
                await service.expire()
                return await service.kiteCount == 1
            }
            #expect(try await service.kite(id: Self.math.id) != nil)
            second.close(code: 1000, reason: "")
            await served
            clock.advance(5)
            await service.expire()
            #expect(await service.kiteCount == 0)
            #expect(server.sessions.withLock { $0.count } == 0)
        }
    }

    @Test func nobodyTakesAnothersID() async throws {
        try await withServer { service, _, channel, _ in
            _ = try await register(channel)
            try await channel.send(
                message(
                    "register", #"[{"url":"http://evil/kite"}]"#,
                    authentication: await authentication("kiteKey", user: "eve"), id: 5))
            var reply = try await channel.next()
            while reply["method"] as? Int != 5 { reply = try await channel.next() }
            #expect((answer(reply).error?["message"] as? String)?.contains("another user") == true)
            #expect(try await service.kite(id: Self.math.id)?.url == "http://localhost:6667/kite")
        }
    }

    @Test func tokensDoNotRegister() async throws {
        try await withServer { service, _, channel, _ in
            let token = try await TokenIssuer(issuer: "kontrol", keyPair: Keys.first)
                .token(for: "ann", audience: Audience(username: "kontrol"), now: 1_795_475_000)
            for method in ["register", "getKey"] {
                let text = try message(
                    method, #"[{"url":"http://a/kite"}]"#, authentication: #"{"type":"token","key":"\#(token)"}"#)
                try await channel.send(text)
                let error = answer(try await channel.next()).error
                #expect(error?["message"] as? String == "Unexpected authentication type: token", "\(method)")
            }
            #expect(await service.kiteCount == 0)
        }
    }

    @Test func watchersHearOverTheirConnection() async throws {
        try await withServer { service, _, channel, server in
            let arguments = #"[{"query":{"username":"kontrol"},"watchHandler":"[Function]"}]"#
            let authentication = try await authentication("kiteKey")
            try await channel.send(
                message(
                    "getKites", arguments, authentication: authentication,
                    callbacks: #","7":["0","withArgs","0","watchHandler"]"#))
            let result = answer(try await channel.next()).result as? [String: Any]
            #expect((result?["kites"] as? [Any])?.isEmpty == true)
            let watcher = try #require(result?["watcherID"] as? String)

            let kite = try await service.enter(Self.math)
            let came = try await channel.next()
            #expect(came["method"] as? Int == 7)
            let event = answer(came).result as? [String: Any]
            #expect(event?["action"] as? String == "REGISTER")
            #expect((event?["kite"] as? [String: String])?["id"] == Self.math.id)
            #expect(event?["url"] as? String == "http://127.0.0.1:7000/kite")
            #expect(event?["token"] is String)
            await service.deregister(kite.receipt)
            let left = answer(try await channel.next()).result as? [String: Any]
            #expect(left?["action"] as? String == "DEREGISTER")
            // kite.js makes a kite of it, and fails where there is no text.
            #expect(left?["url"] as? String == "" && left?["token"] as? String == "")

            // Another connection cannot end it, this one can, once.
            let (other, theirs) = MemoryChannel.pair()
            async let served: Void = server.kite.serve(theirs)
            let cancel = try message("cancelWatcher", #"["\#(watcher)"]"#, authentication: authentication, id: 1)
            try await other.send(cancel)
            #expect(answer(try await other.next()).error?["message"] as? String == "Watcher not found")
            other.close(code: 1000, reason: "")
            await served
            try await channel.send(cancel)
            #expect(answer(try await channel.next()).error == nil)
            try await channel.send(cancel)
            #expect(answer(try await channel.next()).error?["message"] as? String == "Watcher not found")
        }
    }

    @Test func connectionsHaveABoundedNumberOfWatchers() async throws {
        try await withServer { _, _, channel, server in
            let authentication = try await authentication("kiteKey")
            for number in 0..<65 {
                try await channel.send(
                    message(
                        "watchKites", #"[{"query":{"username":"kontrol"},"watchHandler":"[Function]"}]"#,
                        authentication: authentication, id: 2 * number,
                        callbacks: #","\#(2 * number + 1)":[0,"withArgs",0,"watchHandler"]"#))
                let error = answer(try await channel.next()).error
                #expect((error == nil) == (number < 64))
            }
            channel.close(code: 1000, reason: "")
            try await eventually { server.sessions.withLock { $0.count } == 0 }
        }
    }

    @Test func malformedArgumentsAreRefused() async throws {
        try await withServer { service, _, channel, _ in
            let authentication = try await authentication("kiteKey")
            for method in ["register", "getKites", "watchKites", "getToken", "cancelWatcher", "registerMachine"] {
                for arguments in [
                    "[]", "[null]", "[1]", "[[]]", #"[{"url":1,"query":1,"username":1,"authType":1}]"#, "[{},{}]", "5",
                ] {
                    try await channel.send(message(method, arguments, authentication: authentication))
                    let error = answer(try await channel.next()).error
                    #expect(error?["message"] is String, "\(method) \(arguments)")
                }
            }
            #expect(await service.kiteCount == 0)
        }
    }

    /// As kites ask for it, and as kitectl does.
    @Test(arguments: [#"[{"authType":""}]"#, "[{}]", #"["ann"]"#, #"["somebody else, who is not looked at"]"#])
    func machinesGetTheirKeyOverTheWire(arguments: String) async throws {
        try await withServer(policy: .open) { service, _, channel, _ in
            let kite = identity("cli", user: "ann")
            let text = try message("registerMachine", arguments, authentication: "null", kite: kite)
            try await channel.send(text)
            let key = try #require(answer(try await channel.next()).result as? String)
            #expect(try service.verifier.verify(kiteKey: key).username == "ann")
        }
    }
}
