/// The machine of a connection: numbers, answers, callbacks, and what is let go of.
import KiteDnode
import NIOCore
import Testing

@Suite struct DnodeSessionTests {
    let functions = PeerFunctions()
    let kite: DnodeValue = ["name": "exp2"]

    func session(_ limits: DnodeLimits = DnodeLimits()) -> DnodeSession {
        DnodeSession(limits: limits)
    }

    /// As Go calls `square` and `subscribe`.
    @Test func callsAreWrittenAsGoWritesThem() throws {
        var session = session()
        let key: DnodeValue = ["type": "token", "key": "k"]
        let first = try session.call("square", kite: kite, authentication: key, arguments: [5])
        #expect(
            String(buffer: try first.message.serialized())
                == #"{"method":"square","arguments":[{"kite":{"name":"exp2"},"authentication":{"type":"token","key":"k"},"responseCallback":"[Function]","withArgs":[5]}],"callbacks":{"0":[0,"responseCallback"]}}"#
        )
        let second = try session.call("open", kite: kite, arguments: [])
        #expect(
            String(buffer: try second.message.serialized())
                == #"{"method":"open","arguments":[{"kite":{"name":"exp2"},"authentication":null,"responseCallback":"[Function]","withArgs":null}],"callbacks":{"1":[0,"responseCallback"]}}"#
        )
        let event = DnodeFunction { _ in }
        let third = try session.call("subscribe", kite: kite, arguments: [["n": 3, "onEvent": .function(event)]])
        #expect(
            String(buffer: try third.message.serialized())
                == #"{"method":"subscribe","arguments":[{"kite":{"name":"exp2"},"authentication":null,"responseCallback":"[Function]","withArgs":[{"n":3,"onEvent":"[Function]"}]}],"callbacks":{"2":[0,"responseCallback"],"3":[0,"withArgs",0,"onEvent"]}}"#
        )
        #expect(
            receive(#"{"method":3,"arguments":[0,"event"],"callbacks":{}}"#, &session)
                == .function(event, arguments: [0, "event"]))
    }

    @Test func answersAndInvocationsAreWrittenAsGoWritesThem() throws {
        var session = session()
        let answer = try session.answer(DnodeCallbackID(0), error: .null, result: .double(25))
        #expect(
            String(buffer: try answer.serialized())
                == #"{"method":0,"arguments":[{"error":null,"result":25}],"callbacks":{}}"#)
        let invocation = try session.invoke(DnodeCallbackID(15), arguments: [0, "event"])
        #expect(
            String(buffer: try invocation.serialized()) == #"{"method":15,"arguments":[0,"event"],"callbacks":{}}"#)
    }

    private func receive(_ text: String, _ session: inout DnodeSession) -> DnodeEvent {
        session.receive(DnodeMessage.parse(ByteBuffer(string: text), function: functions.callAsFunction))
    }

    @Test(
        arguments: [
            (#"[{"error":null,"result":25}]"#, .null, 25), (#"[{"result":25}]"#, .null, 25),
            (#"[{"error":{"type":"x"},"result":null}]"#, ["type": "x"], .null),
            (#"[{"error":{"type":"x"}}]"#, ["type": "x"], .null),
            (#"[null,"hi from js"]"#, .null, "hi from js"), (#"[{"message":"m"},null]"#, ["message": "m"], .null),
            ("[null]", .null, .null), (#"[{"message":"m"}]"#, ["message": "m"], .null),
        ] as [(String, DnodeValue, DnodeValue)])
    func bothShapesOfAnswersAreTaken(_ arguments: String, _ error: DnodeValue, _ result: DnodeValue) throws {
        var session = session()
        let id = try session.call("square", kite: kite, arguments: []).id
        #expect(
            receive(#"{"method":0,"arguments":\#(arguments),"callbacks":{}}"#, &session)
                == .answer(to: id, error: error, result: result))
        #expect(session.liveCallbacks == 0)
        // A response callback is good for one answer.
        #expect(receive(#"{"method":0,"arguments":\#(arguments)}"#, &session) == .ignore)
    }

    @Test(arguments: ["[]", "[5]", "[\"x\"]", "[[null,1]]", "[null,1,2]"])
    func whatIsNoAnswerEndsTheCall(_ arguments: String) throws {
        var session = session()
        _ = try session.call("square", kite: kite, arguments: [])
        guard case .invalidAnswer = receive(#"{"method":0,"arguments":\#(arguments)}"#, &session) else {
            Issue.record("taken as an answer")
            return
        }
        #expect(session.liveCallbacks == 0)
    }

    @Test func callsAreReadWithEveryMemberAbsent() {
        var session = session()
        #expect(receive(#"{"method":"open","arguments":[{}]}"#, &session) == .call(DnodeCall(method: "open")))
        #expect(
            receive(
                #"{"arguments":[{"kite":{"id":"1"},"withArgs":[4],"responseCallback":"[Function]"}],"callbacks":{"2":["0","responseCallback"]},"links":[],"method":"square"}"#,
                &session)
                == .call(
                    DnodeCall(method: "square", kite: ["id": "1"], arguments: [4], answerTo: DnodeCallbackID(2))))
        #expect(
            receive(
                #"{"method":"cb","arguments":[{"kite":null,"authentication":null,"responseCallback":"[Function]","withArgs":["a","[Function]"]}],"callbacks":{"12":[0,"responseCallback"],"13":[0,"withArgs",1]}}"#,
                &session)
                == .call(
                    DnodeCall(
                        method: "cb", arguments: ["a", .function(functions(DnodeCallbackID(13)))],
                        answerTo: DnodeCallbackID(12))))
    }

    /// What kills a Go kite.
    @Test(
        arguments: [
            (#"{"method":"kite.ping","arguments":[],"callbacks":{}}"#, nil),
            (#"{"method":"open","callbacks":{}}"#, nil),
            (#"{"method":"open","callbacks":{"902":[0,"responseCallback"]}}"#, 902),
            (
                #"{"method":"open","arguments":[{},{"responseCallback":"[Function]"}],"callbacks":{"902":[1,"responseCallback"]}}"#,
                902
            ),
            (#"{"method":"open","arguments":[{}],"callbacks":{"902":[5,"responseCallback"]}}"#, 902),
            (#"{"method":"open","arguments":[{}],"callbacks":{"902":[true]}}"#, nil),
            (#"{"method":"open","arguments":["x"],"callbacks":{}}"#, nil),
            (
                #"{"method":"open","arguments":[{"withArgs":5,"responseCallback":"[Function]"}],"callbacks":{"3":[0,"responseCallback"]}}"#,
                3
            ),
            (#"{"method":"open","arguments":[{"withArgs":{}}]}"#, nil), ("not json", nil), (#"{"method":"#, nil),
        ] as [(String, Int?)])
    func wrongCallsAreRefusedOrEndTheConnection(_ text: String, _ answerTo: Int?) {
        var session = session()
        switch receive(text, &session) {
        case .refuse(let id, _): #expect(id.rawValue == answerTo)
        case .violation: #expect(answerTo == nil)
        case let event: Issue.record("taken as \(event)")
        }
    }

    @Test func lateAnswersAndUnknownCallbacksAreIgnored() throws {
        var session = session()
        let call = try session.call("slow", kite: kite, arguments: [])
        session.forget(call.id)
        #expect(receive(#"{"method":0,"arguments":[{"error":null,"result":1}]}"#, &session) == .ignore)
        #expect(receive(#"{"method":77,"arguments":[]}"#, &session) == .ignore)
    }

    @Test func functionsAreLimitedAndGivenBack() throws {
        var limits = DnodeLimits()
        limits.maximumFunctions = 2
        var session = session(limits)
        let function = DnodeFunction { _ in }
        let call = try session.call("a", kite: kite, arguments: [.function(function)])
        #expect(session.liveCallbacks == 2)
        // The same function again is the same callback.
        _ = try session.invoke(DnodeCallbackID(0), arguments: [.function(function)])
        #expect(session.liveCallbacks == 2)
        #expect(throws: DnodeError.self) {
            try session.call(
                "b", kite: kite, arguments: [.function(DnodeFunction { _ in }), .function(DnodeFunction { _ in })])
        }
        #expect(session.liveCallbacks == 2)
        session.withdraw(call.message)
        #expect(session.liveCallbacks == 0)
        // Twice in one message it has two numbers, here and in the next message.
        let twice: [DnodeValue] = [.function(function), .function(function)]
        for _ in 0..<2 { #expect(try session.invoke(DnodeCallbackID(0), arguments: twice).callbacks.count == 2) }
        #expect(session.liveCallbacks == 2)
        session.release(function)
        #expect(session.liveCallbacks == 0)
    }

    /// However many functions the peer holds, calls are still made, and the other way round.
    @Test func callsAndFunctionsHaveBudgetsOfTheirOwn() throws {
        var limits = DnodeLimits()
        limits.maximumFunctions = 3
        limits.maximumPendingCalls = 3
        var session = session(limits)
        for _ in 0..<3 {
            _ = try session.invoke(DnodeCallbackID(0), arguments: [.function(DnodeFunction { _ in })])
        }
        let calls = try (0..<3).map { _ in try session.call("kite.ping", kite: kite, arguments: []).id }
        #expect(throws: DnodeError.self) { try session.call("kite.ping", kite: kite, arguments: []) }
        #expect(
            receive(#"{"method":\#(calls[0]),"arguments":[null,"pong"]}"#, &session)
                == .answer(to: calls[0], error: .null, result: "pong"))
        let withFunction: [DnodeValue] = [.function(DnodeFunction { _ in })]
        #expect(throws: DnodeError.self) { try session.call("a", kite: kite, arguments: withFunction) }
        // Refused for its function, it does not count as a call.
        let call = try session.call("kite.ping", kite: kite, arguments: [])
        session.forget(call.id)
        #expect(session.liveCallbacks == 5)
    }

    @Test func functionsOfACallEndWithIt() throws {
        var limits = DnodeLimits()
        limits.maximumFunctions = 3
        var session = session(limits)
        let function = DnodeFunction(lifetime: .call) { _ in }
        // Two calls at a time with the same function: each has a number for it.
        let first = try session.call("a", kite: kite, arguments: [.function(function)])
        let second = try session.call("a", kite: kite, arguments: [.function(function)])
        #expect(first.message.callbacks.keys.contains(DnodeCallbackID(1)))
        #expect(second.message.callbacks.keys.contains(DnodeCallbackID(3)))
        #expect(receive(#"{"method":1,"arguments":[1]}"#, &session) == .function(function, arguments: [1]))
        #expect(
            receive(#"{"method":0,"arguments":[null,5]}"#, &session)
                == .answer(to: first.id, error: .null, result: 5))
        #expect(receive(#"{"method":1,"arguments":[2]}"#, &session) == .ignore)
        #expect(receive(#"{"method":3,"arguments":[3]}"#, &session) == .function(function, arguments: [3]))
        // Given to a function of the peer it belongs to no call.
        let given = try session.invoke(DnodeCallbackID(9), arguments: [.function(function)])
        session.forget(second.id)
        #expect(receive(#"{"method":3,"arguments":[4]}"#, &session) == .ignore)
        let number = try #require(given.callbacks.keys.first)
        #expect(
            receive(#"{"method":\#(number),"arguments":[5]}"#, &session) == .function(function, arguments: [5]))
        #expect(session.liveCallbacks == 1)
        // For ever so many calls.
        for _ in 0..<100 { session.forget(try session.call("a", kite: kite, arguments: [.function(function)]).id) }
        let last = try session.call("a", kite: kite, arguments: [.function(function), .function(function)])
        #expect(session.liveCallbacks == 4)
        session.withdraw(last.message)
        #expect(session.liveCallbacks == 1)
    }

    /// An answer that cannot be held ends its call, and a late one nothing.
    @Test func answersThatCannotBeHeldEndTheirCall() throws {
        var session = session()
        let call = try session.call("a", kite: kite, arguments: [])
        let function = DnodeFunction { _ in }
        _ = try session.invoke(DnodeCallbackID(9), arguments: [.function(function)])
        let answer = #"{"method":0,"arguments":[{"error":null,"result":1e400}],"callbacks":{}}"#
        guard case .invalidAnswer(call.id, _) = receive(answer, &session) else {
            Issue.record("taken as an answer")
            return
        }
        #expect(receive(answer, &session) == .ignore)
        guard case .violation = receive(#"{"method":1,"arguments":[1e400]}"#, &session) else {
            Issue.record("an event was lost")
            return
        }
        #expect(session.liveCallbacks == 1)
    }

    /// Mutated real messages, and noise: an event for each, never a trap.
    @Test func survivesWhateverArrives() throws {
        let seeds = try (Fixtures.lines("go.jsonl") + Fixtures.lines("kitejs.jsonl")).map { Array($0.utf8) }
        let alphabet = Array(#"{}[]",:0123456789-+.eE\u"tfn "#.utf8)
        var generator = SeededGenerator(seed: 20_261_124)
        var session = session()
        let clock = ContinuousClock()
        let end = clock.now + .milliseconds(1500)
        var rounds = 0
        var counts = (violations: 0, calls: 0)
        while clock.now < end, rounds < 20_000 {
            rounds += 1
            var bytes = seeds[Int.random(in: seeds.indices, using: &generator)]
            for _ in 0..<Int.random(in: 0...4, using: &generator) where !bytes.isEmpty {
                let place = Int.random(in: bytes.indices, using: &generator)
                switch Int.random(in: 0..<5, using: &generator) {
                case 0: bytes[place] = UInt8.random(in: 0...255, using: &generator)
                case 1: bytes[place] = alphabet.randomElement(using: &generator) ?? 0
                case 2: bytes.remove(at: place)
                case 3: bytes.insert(alphabet.randomElement(using: &generator) ?? 0, at: place)
                default: bytes.removeSubrange(place...)
                }
            }
            if session.liveCallbacks < 100 {
                _ = try session.call("x", kite: .null, arguments: [.function(DnodeFunction { _ in })])
            }
            switch session.receive(
                DnodeMessage.parse(ByteBuffer(bytes: bytes), function: functions.callAsFunction))
            {
            case .violation: counts.violations += 1
            case .call: counts.calls += 1
            default: break
            }
        }
        #expect(rounds > 50 && counts.violations > 0 && counts.calls > 0)
    }
}
