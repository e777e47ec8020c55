import KiteHTTP
import NIOCore
import Synchronization
import Testing

/// A connection of two kites: callbacks both ways, hostile messages, limits, the end.
@testable import KiteCore

@Suite(.timeLimit(.minutes(1))) struct KiteConnectionTests {
    /// What kills a Go kite, and other nonsense: the connection is closed in order, and the kite lives.
    @Test(arguments: [
        "", "not json", "5", "[]", "null", "{", "{}", #"{"method":null}"#, #"{"method":"kite.ping"}"#,
        #"{"method":"kite.ping","arguments":[],"callbacks":{}}"#,
        #"{"method":"kite.ping","arguments":["x"],"callbacks":{}}"#,
        #"{"method":"kite.ping","arguments":[{}],"callbacks":{"1":[5]}}"#,
        #"{"method":"kite.ping","arguments":[{}],"callbacks":{"1":[true]}}"#,
        #"{"method":"kite.ping","arguments":[{"withArgs":1e999}]}"#,
    ])
    func nonsenseClosesTheConnection(_ text: String) async throws {
        let kite = Kite.test(authenticator: .anyone)
        let (mine, theirs) = MemoryChannel.pair()
        async let served: Void = kite.serve(theirs)
        try await mine.send(text)
        #expect(try await mine.next() == nil)
        await served
        #expect(theirs.closedWith?.code == 1002)
        #expect(kite.connections.isEmpty)
    }

    @Test(arguments: [
        #"{"method":"kite.ping","arguments":[{}],"callbacks":{"7":[5,"responseCallback"]}}"#,
        #"{"method":"kite.ping","callbacks":{"7":[0,"responseCallback"]}}"#,
        #"{"method":"kite.ping","arguments":[{"responseCallback":0},{}],"callbacks":{"7":[0,"responseCallback"]}}"#,
        #"{"method":"kite.ping","arguments":[{"responseCallback":0,"withArgs":"x"}],"callbacks":{"7":[0,"responseCallback"]}}"#,
        #"{"method":"kite.ping","arguments":[{"responseCallback":0,"kite":5}],"callbacks":{"7":[0,"responseCallback"]}}"#,
        #"{"method":"kite.ping","arguments":[{"responseCallback":0,"kite":{"id":[]}}],"callbacks":{"7":[0,"responseCallback"]}}"#,
    ])
    func wrongCallsAreAnsweredWhereTheCallerCanBeTold(_ text: String) async throws {
        try await withPeer(of: Kite.test(authenticator: .anyone)) { peer in
            try await peer.send(text)
            let answer = try #require(try await peer.next())
            #expect(answer["method"] == 7)
            #expect(answer["arguments"]?[0]?["error"]?["type"] == "argumentError")
            // The connection still works.
            try await peer.send(
                #"{"method":"kite.ping","arguments":[{"responseCallback":"[Function]"}],"callbacks":{"8":["0","responseCallback"]},"links":[]}"#
            )
            #expect(try await peer.next()?["arguments"]?[0]?["result"] == "pong")
        }
    }

    @Test func messagesBeyondTheLimitCloseTheConnection() async throws {
        let kite = Kite.test(authenticator: .anyone) { $0.limits.dnode.maximumMessageSize = 1000 }
        try await withPeer(of: kite) { peer in
            try await peer.send(
                #"{"method":"kite.ping","arguments":[{"responseCallback":"[Function]","withArgs":["\#(String(repeating: "x", count: 1000))"]}],"callbacks":{"0":[0,"responseCallback"]}}"#
            )
            #expect(try await peer.next() == nil)
        }
    }

    @Test func functionsAreCalledInBothDirectionsAndInOrder() async throws {
        let kite = Kite.test(authenticator: .anyone)
        struct Subscription: Codable, Sendable {
            var n: Int
            var onEvent: DnodeFunction
        }
        kite.handle("subscribe") { (request, subscription: Subscription) in
            request.runAfterAnswer {
                for number in 0..<subscription.n { try? await subscription.onEvent.call(number, "event") }
            }
            return "subscribed"
        }
        try await MemoryServer.run(kite) { connector in
            try await KiteClient.withConnection(to: "memory", as: .test("exp2"), connector: connector) { client in
                let (events, continuation) = AsyncStream.makeStream(of: [DnodeValue].self)
                let result: String = try await client.tell(
                    "subscribe",
                    Subscription(
                        n: 100,
                        onEvent: DnodeFunction { arguments in
                            continuation.yield(arguments)
                            if arguments.first == 99 { continuation.finish() }
                        }))
                #expect(result == "subscribed")
                var received: [[DnodeValue]] = []
                for await event in events { received.append(event) }
                #expect(received == (0..<100).map { [.int($0), "event"] })
            }
        }
    }

    @Test func theKiteCallsItsCallerBack() async throws {
        let kite = Kite.test(authenticator: .anyone)
        kite.handle("callme") { (request, method: String) in
            let said: DnodeValue = try await request.remote.tell(method, "hello from \(kite.identity.id)")
            return ["youSaid": said]
        }
        let caller = Kite.test("exp2")
        caller.handle("hello") { (request, text: String) in "hi: \(text), \(request.caller.name)" }
        try await MemoryServer.run(kite) { connector in
            try await KiteClient.withConnection(to: "memory", as: caller, connector: connector) { client in
                let result = try await client.tell("callme", "hello")
                #expect(result == ["youSaid": .string("hi: hello from \(kite.identity.id), math")])
                await #expect(throws: KiteError(.methodNotFound, "Method not found: nosuch").self) {
                    do { try await client.tell("callme", "nosuch") } catch var error as KiteError {
                        #expect(error.id.count == 16)
                        error.id = ""
                        throw error
                    }
                }
            }
        }
    }

    /// kite.js answers with two arguments, or one.
    @Test func answersOfKiteJSAreUnderstood() async throws {
        let kite = Kite.test(authenticator: .anyone)
        kite.handle("callme", .anonymous) { request in try await request.remote.tell("hello") }
        for (arguments, result, error) in [
            (#"[null,"hi from js"]"#, "hi from js", nil), ("[null]", .null, nil),
            (#"[{"type":"t","message":"m"}]"#, nil, "t"), (#"[{"message":"m"},null]"#, nil, "genericError"),
            ("[5]", nil, "invalidResponse"), ("[]", nil, "invalidResponse"),
        ] as [(String, DnodeValue?, String?)] {
            try await withPeer(of: kite) { peer in
                try await peer.send(
                    #"{"arguments":[{"kite":{"name":"jskite"},"withArgs":[],"responseCallback":"[Function]"}],"callbacks":{"7":["0","responseCallback"]},"links":[],"method":"callme"}"#
                )
                let call = try #require(try await peer.next())
                #expect(call["method"] == "hello" && call["callbacks"] == ["0": [0, "responseCallback"]])
                #expect(call["arguments"]?[0]?["withArgs"] == .null)
                #expect(call["arguments"]?[0]?["authentication"] == .null)
                #expect(call["arguments"]?[0]?["kite"]?["name"] == "math")
                try await peer.send(#"{"method":0,"arguments":\#(arguments),"callbacks":{},"links":[]}"#)
                let answer = try #require(try await peer.next()?["arguments"]?[0])
                if let result { #expect(answer["result"] == result && answer["error"] == .null) }
                #expect(answer["error"]?["type"]?.string == error)
            }
        }
    }

    @Test func callsThatNobodyAnswersTimeOut() async throws {
        let (mine, theirs) = MemoryChannel.pair()
        try await KiteClient.withConnection(to: "memory", as: .test(), connector: { _, _ in mine }) { client in
            await #expect(throws: KiteError(.timeout, "No response to \"nosuch\" method in 0.02s")) {
                try await client.tell("nosuch", timeout: .milliseconds(20))
            }
            // The late answer is ignored.
            try await theirs.send(#"{"method":0,"arguments":[{"error":null,"result":1}],"callbacks":{}}"#)
            async let second = client.tell("later")
            while let call = try await theirs.next() {
                guard call["method"] == "later" else { continue }
                #expect(call["callbacks"] == ["1": [0, "responseCallback"]])
                try await theirs.send(#"{"method":1,"arguments":[{"error":null,"result":2}],"callbacks":{}}"#)
                break
            }
            #expect(try await second == 2)
        }
    }

    @Test func callsEndWithTheConnection() async throws {
        let (mine, theirs) = MemoryChannel.pair()
        var options = KiteClient.Options()
        options.reconnects = false
        try await KiteClient.withConnection(to: "memory", as: .test(), options: options, connector: { _, _ in mine }) {
            client in
            let call = Task { try await client.tell("slow", timeout: nil) }
            _ = try await theirs.next()
            theirs.close(code: 3000, reason: "Go away!")
            await #expect { try await call.value } throws: { ($0 as? KiteError)?.type == .disconnect }
            await #expect { try await client.tell("more", timeout: .seconds(1)) } throws: {
                ($0 as? KiteError)?.type == .send
            }
        }
    }

    @Test func methodsAreCancelledWhenTheCallerLeaves() async throws {
        let kite = Kite.test(authenticator: .anyone)
        let (started, startedContinuation) = AsyncStream.makeStream(of: Void.self)
        let wasCancelled = Mutex(false)
        kite.handle("sleep") { _ in
            startedContinuation.yield()
            do { try await Task.sleep(for: .seconds(3600)) } catch {
                wasCancelled.withLock { $0 = true }
                throw error
            }
        }
        let disconnected = Mutex(0)
        kite.onConnect { remote in remote.onDisconnect { disconnected.withLock { $0 += 1 } } }
        kite.onDisconnect { _ in disconnected.withLock { $0 += 1 } }
        try await withPeer(of: kite) { peer in
            try await peer.send(#"{"method":"sleep","arguments":[{}]}"#)
            for await _ in started { break }
            #expect(kite.connections.count == 1)
        }
        #expect(wasCancelled.withLock { $0 })
        #expect(disconnected.withLock { $0 } == 2)
        #expect(kite.connections.isEmpty)
    }

    @Test func callsThatRunAtATimeAreLimited() async throws {
        let kite = Kite.test(authenticator: .anyone) { $0.limits.maximumConcurrentCalls = 2 }
        kite.handle("sleep") { (_: KiteRequest) in try await Task.sleep(for: .seconds(3600)) }
        try await withPeer(of: kite) { peer in
            for id in 0..<3 {
                try await peer.send(
                    #"{"method":"sleep","arguments":[{"responseCallback":"[Function]"}],"callbacks":{"\#(id)":[0,"responseCallback"]}}"#
                )
            }
            let answer = try #require(try await peer.next())
            #expect(answer["method"] == 2)
            #expect(answer["arguments"]?[0]?["error"]?["type"] == "requestLimitError")
        }
    }

    @Test func callsThatHoldTooMuchAreRefusedWhileOthersAreAnswered() async throws {
        let kite = Kite.test(authenticator: .anyone) { $0.limits.maximumBytesInProgress = 1000 }
        kite.handle("hold") { request in try await request.remote.tell("go", timeout: nil) }
        try await withPeer(of: kite) { peer in
            func hold(_ id: Int) async throws {
                try await peer.send(
                    #"{"method":"hold","arguments":[{"responseCallback":"[Function]","withArgs":["\#(String(repeating: "x", count: 600))"]}],"callbacks":{"\#(id)":[0,"responseCallback"]}}"#
                )
            }
            for id in 0..<3 { try await hold(id) }
            var refused: [DnodeValue] = []
            var goes = 0
            while goes < 2 || refused.isEmpty {
                let message = try #require(try await peer.next())
                if message["method"] == "go" { goes += 1 } else { refused.append(message) }
            }
            #expect(refused.count == 1 && refused[0]["method"] == 2)
            #expect(refused[0]["arguments"]?[0]?["error"]?["type"] == "requestLimitError")
            // Answers still come through, and make room.
            for id in 0..<2 { try await peer.send(#"{"method":\#(id),"arguments":[null,"done"]}"#) }
            for _ in 0..<2 { #expect(try await peer.next()?["arguments"]?[0]?["result"] == "done") }
            // The room is there once the call has ended, a little after its answer has left.
            var message: DnodeValue?
            repeat {
                try await hold(9)
                message = try await peer.next()
            } while message?["arguments"]?[0]?["error"]?["type"] == "requestLimitError"
            #expect(message?["method"] == "go")
        }
    }

    @Test func slowFunctionsSlowTheirCallerDown() async throws {
        let kite = Kite.test(authenticator: .anyone) { $0.limits.maximumConcurrentCalls = 2 }
        let (gate, gateContinuation) = AsyncStream.makeStream(of: Void.self)
        let received = Mutex<[DnodeValue]>([])
        let (mine, theirs) = MemoryChannel.pair()
        async let served: Void = kite.serve(theirs, trustingPeer: true)
        let function = DnodeFunction { arguments in
            if received.withLock({ $0.isEmpty }) { for await _ in gate { break } }
            received.withLock { $0 += arguments }
        }
        kite.handle("give") { request in try await request.remote.tell("take", function, timeout: nil) }
        try await mine.send(
            #"{"method":"give","arguments":[{"responseCallback":"[Function]"}],"callbacks":{"0":[0,"responseCallback"]}}"#
        )
        let call = try #require(try await mine.next())
        #expect(call["callbacks"]?["1"] == [0, "withArgs", 0])
        // With a call pending the limit would be another one.
        try await mine.send(#"{"method":0,"arguments":[null]}"#)
        #expect(try await mine.next()?["method"] == 0)
        for number in 0..<20 { try await mine.send(#"{"method":1,"arguments":[\#(number)]}"#) }
        // Two are taken, the others wait in the channel until the function goes on.
        while theirs.waiting > 18 { await Task.yield() }
        #expect(theirs.waiting > 0)
        gateContinuation.yield()
        while received.withLock({ $0.count }) < 20 { await Task.yield() }
        #expect(received.withLock { $0 } == (0..<20).map { .int($0) })
        mine.close(code: 1000, reason: "")
        await served
    }

    /// A function that the peer calls may call the peer, however many calls of functions have been queued behind it.
    @Test func answersAreReadBehindCallsOfFunctions() async throws {
        let kite = Kite.test(authenticator: .anyone) { $0.limits.maximumConcurrentCalls = 2 }
        let answers = Mutex<[DnodeValue]>([])
        kite.handle("give") { request in
            let remote = request.remote
            request.runAfterAnswer {
                let function = DnodeFunction { arguments in
                    let answer = try await remote.tell("ask", arguments.first ?? .null, timeout: nil)
                    answers.withLock { $0.append(answer) }
                }
                _ = try? await remote.tell("take", function, timeout: nil)
            }
        }
        try await withPeer(of: kite) { peer in
            try await peer.send(
                #"{"method":"give","arguments":[{"responseCallback":"[Function]"}],"callbacks":{"0":[0,"responseCallback"]}}"#
            )
            #expect(try await peer.next()?["method"] == 0)
            #expect(try await peer.next()?["method"] == "take")
            try await peer.send(#"{"method":0,"arguments":[null]}"#)
            for number in 0..<100 { try await peer.send(#"{"method":1,"arguments":[\#(number)]}"#) }
            for number in 0..<100 {
                let ask = try #require(try await peer.next())
                #expect(ask["method"] == "ask" && ask["arguments"]?[0]?["withArgs"]?[0]?.int == number)
                let id = try #require(ask["callbacks"]?.object?.first?.key)
                try await peer.send(#"{"method":\#(id),"arguments":[null,\#(number)]}"#)
            }
            while answers.withLock({ $0.count }) < 100 { await Task.yield() }
            #expect(answers.withLock { $0 } == (0..<100).map { .int($0) })
        }
    }

    /// Where there is nowhere to put what comes before the answer, only closing ends the wait.
    @Test func tooManyCallsOfFunctionsBeforeAnAnswerCloseTheConnection() async throws {
        let kite = Kite.test(authenticator: .anyone) {
            $0.limits.maximumConcurrentCalls = 2
            $0.limits.maximumWaitingCallbacks = 10
        }
        let failures = Mutex(0)
        kite.handle("give") { request in
            let remote = request.remote
            let function = DnodeFunction { _ in
                do { try await remote.tell("ask", timeout: nil) } catch {
                    failures.withLock { $0 += 1 }
                }
            }
            try await remote.tell("take", function, timeout: nil)
        }
        let (mine, theirs) = MemoryChannel.pair()
        async let served: Void = kite.serve(theirs)
        try await mine.send(
            #"{"method":"give","arguments":[{"responseCallback":"[Function]"}],"callbacks":{"0":[0,"responseCallback"]}}"#
        )
        #expect(try await mine.next()?["method"] == "take")
        try await mine.send(#"{"method":1,"arguments":[]}"#)
        #expect(try await mine.next()?["method"] == "ask")
        for _ in 0..<9 { try await mine.send(#"{"method":1,"arguments":[]}"#) }
        while let message = try await mine.next() { Issue.record("unexpected: \(message)") }
        await served
        #expect(theirs.closedWith?.code == 1008)
        #expect(failures.withLock { $0 } == 1)
    }

    /// The answer came, then the end, and only then does the caller get to wait for it.
    @Test func answersBeforeTheEndAreNotLost() async throws {
        let kite = Kite.test(authenticator: .anyone)
        let (mine, theirs) = MemoryChannel.pair()
        let channel = SlowSender(theirs) {
            try await mine.send(#"{"method":0,"arguments":[{"error":null,"result":16}]}"#)
            mine.close(code: 3000, reason: "Go away!")
            while !kite.connections.isEmpty { await Task.yield() }
        }
        let (connections, connected) = AsyncStream.makeStream(of: RemoteKite.self)
        kite.onConnect { connected.yield($0) }
        async let served: Void = kite.serve(channel)
        for await remote in connections {
            #expect(try await remote.tell("square", 4) == 16)
            break
        }
        await served
    }

    @Test func whatIsNestedTooDeepIsRefusedAtOnceOnBothSides() async throws {
        let kite = Kite.test(authenticator: .anyone)
        kite.handle("echo") { (_, value: DnodeValue) in value }
        func nested(_ depth: Int) -> DnodeValue { (0..<depth).reduce(.null) { inner, _ in [inner] } }
        try await MemoryServer.run(kite) { connector in
            try await KiteClient.withConnection(to: "memory", connector: connector) { client in
                // 64 less what is around an argument.
                let echo: DnodeValue = try await client.tell("echo", nested(60))
                #expect(echo == nested(60))
                await #expect { try await client.tell("echo", nested(61)) } throws: {
                    ($0 as? KiteError)?.type == .send && "\($0)".contains("64")
                }
                let pong: String = try await client.tell("kite.ping")
                #expect(pong == "pong")
            }
        }
        try await withPeer(of: kite) { peer in
            for argument in [
                "1e400", String(repeating: "[", count: 61) + String(repeating: "]", count: 61), #"{"a":1,"a":2}"#,
            ] {
                try await peer.send(
                    #"{"method":"echo","arguments":[{"responseCallback":"[Function]","withArgs":[\#(argument)]}],"callbacks":{"7":[0,"responseCallback"]}}"#
                )
                let answer = try #require(try await peer.next())
                #expect(answer["method"] == 7)
                #expect(answer["arguments"]?[0]?["error"]?["type"] == "argumentError")
            }
        }
    }

    @Test func nothingOutlivesTheConnection() async throws {
        let kite = Kite.test(authenticator: .anyone)
        // Stores what it gets, gives it back, and never answers in time: everything that could hold on to the connection.
        kite.handle("circle") { (request, function: DnodeFunction) in
            request.runAfterAnswer {
                _ = try? await request.remote.tell("circle", function, DnodeFunction { _ in _ = request }, timeout: nil)
            }
        }
        weak var connection: KiteConnection?
        let (mine, theirs) = MemoryChannel.pair()
        async let served: Void = kite.serve(theirs)
        try await mine.send(
            #"{"method":"circle","arguments":[{"responseCallback":"[Function]","withArgs":["[Function]"]}],"callbacks":{"0":[0,"responseCallback"],"1":[0,"withArgs",0]}}"#
        )
        while let message = try await mine.next(), message["method"] != "circle" {}
        connection = kite.connections.first?.connection
        #expect(connection != nil)
        mine.close(code: 1000, reason: "")
        await served
        #expect(connection == nil)
    }

    /// A Kontrol asks for it with [10, callback].
    @Test func heartbeatCallsAtOnceAndAgain() async throws {
        try await withPeer(of: Kite.test(authenticator: .anyone)) { peer in
            try await peer.send(
                #"{"method":"kite.heartbeat","arguments":[{"authentication":null,"responseCallback":"[Function]","withArgs":[0.1,"[Function]"]}],"callbacks":{"0":[0,"responseCallback"],"1":[0,"withArgs",1]}}"#
            )
            #expect(
                try await peer.next() == [
                    "method": 0, "arguments": [["error": .null, "result": .null]], "callbacks": [:],
                ])
            for _ in 0..<2 {
                #expect(try await peer.next() == ["method": 1, "arguments": [], "callbacks": [:]])
            }
        }
    }

    @Test func strangersTextIsHarmlessInTheLog() {
        #expect(sanitized("a\u{1b}[2Jb\nc\u{202e}d") == "a\u{FFFD}[2Jb\u{FFFD}c\u{FFFD}d")
    }
}
