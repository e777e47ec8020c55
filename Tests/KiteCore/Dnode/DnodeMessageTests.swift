/// Messages as real peers send them, and as nobody should.
import KiteDnode
import NIOCore
import Testing

@Suite struct DnodeMessageTests {
    /// Everything Go sent is read, and written again it is the same, numbers and paths included.
    @Test func goMessagesSurviveReadingAndWriting() throws {
        for line in try Fixtures.lines("go.jsonl") {
            let message = try DnodeMessage(parsing: ByteBuffer(string: line), function: PeerFunctions().callAsFunction)
            let written = try DnodeValue(parsing: message.serialized())
            #expect(try written == parse(line))
        }
    }

    @Test func kiteJSMessagesAreReadAndWrittenAsGoWould() throws {
        for line in try Fixtures.lines("kitejs.jsonl") {
            let functions = PeerFunctions()
            let message = try DnodeMessage(parsing: ByteBuffer(string: line), function: functions.callAsFunction)
            for (id, path) in message.callbacks {
                var place: DnodeValue = .array(message.arguments)
                for step in path {
                    switch step {
                    case .position(let position): place = try #require(place[position])
                    case .key(let key): place = try #require(place[key] ?? Int(key).flatMap { place[$0] })
                    }
                }
                #expect(place == .function(functions(id)))
            }
            let original = try parse(line)
            let written = try DnodeValue(parsing: message.serialized())
            #expect(written["method"] == original["method"])
            #expect(written["arguments"] == original["arguments"])
            #expect(written["links"] == nil)
        }
    }

    /// Each is refused; where the response callback (7) can be made out, it can be told.
    @Test(
        arguments: [
            ("", nil), ("5", nil), ("[]", nil), ("\"x\"", nil), ("null", nil), ("{", nil), ("{}", nil),
            (#"{"arguments":[],"callbacks":{}}"#, nil), (#"{"method":null,"arguments":[],"callbacks":{}}"#, nil),
            (#"{"method":true,"arguments":[]}"#, nil), (#"{"method":-1,"arguments":[]}"#, nil),
            (#"{"method":1.5,"arguments":[]}"#, nil), (#"{"method":1e300,"arguments":[]}"#, nil),
            (#"{"method":{},"arguments":[]}"#, nil), (#"{"method":9007199254740993,"arguments":[]}"#, nil),
            (#"{"method":"x","arguments":5}"#, nil), (#"{"method":"x","arguments":{}}"#, nil),
            (#"{"method":"x","arguments":"[]"}"#, nil), (#"{"method":"x","arguments":[],"callbacks":[]}"#, nil),
            (#"{"method":"x","arguments":[],"callbacks":5}"#, nil),
            (#"{"method":"x","arguments":[{}],"callbacks":{"a":[0]}}"#, nil),
            (#"{"method":"x","arguments":[{}],"callbacks":{"-1":[0]}}"#, nil),
            (#"{"method":"x","arguments":[{}],"callbacks":{"01":[0]}}"#, nil),
            (#"{"method":"x","arguments":[{}],"callbacks":{"":[0]}}"#, nil),
            (#"{"method":"x","arguments":[{}],"callbacks":{"99999999999999999999":[0]}}"#, nil),
            (#"{"method":"x","arguments":[{}],"callbacks":{"7":[]}}"#, nil),
            (#"{"method":"x","arguments":[{}],"callbacks":{"7":5}}"#, nil),
            (#"{"method":"x","arguments":[{}],"callbacks":{"7":null}}"#, nil),
            (#"{"method":"x","arguments":[{}],"callbacks":{"7":[true]}}"#, nil),
            (#"{"method":"x","arguments":[{}],"callbacks":{"7":[0.5]}}"#, nil),
            (#"{"method":"x","arguments":[{}],"callbacks":{"7":[-1]}}"#, nil),
            (#"{"method":"x","arguments":[{}],"callbacks":{"7":[[0]]}}"#, nil),
            (#"{"method":"x","arguments":[{}],"callbacks":{"7":[1]}}"#, nil),
            (#"{"method":"x","arguments":[{}],"callbacks":{"7":[9223372036854775807]}}"#, nil),
            (#"{"method":"x","arguments":[{}],"callbacks":{"7":["00"]}}"#, nil),
            (#"{"method":"x","arguments":[{}],"callbacks":{"7":["x"]}}"#, nil),
            (#"{"method":"x","arguments":[{"a":1}],"callbacks":{"7":[0,"b"]}}"#, nil),
            (#"{"method":"x","arguments":[{"a":1}],"callbacks":{"7":[0,0]}}"#, nil),
            (#"{"method":"x","arguments":[{"a":1}],"callbacks":{"7":[0,"a","b"]}}"#, nil),
            (#"{"method":"x","arguments":["y"],"callbacks":{"7":[0],"8":[0]}}"#, nil),
            (#"{"method":"x","arguments":[["y"]],"callbacks":{"7":[0],"8":[0,0]}}"#, nil),
            (#"{"method":"open","arguments":[{}],"callbacks":{"7":[5,"responseCallback"]}}"#, 7),
            (#"{"method":"open","callbacks":{"7":[0,"responseCallback"]}}"#, 7),
            (#"{"method":"open","arguments":[],"callbacks":{"7":["0","responseCallback"]}}"#, 7),
            (#"{"method":"x","arguments":7,"callbacks":{"7":[0,"responseCallback"]}}"#, 7),
            (
                #"{"method":null,"arguments":[{"responseCallback":"[Function]"}],"callbacks":{"7":[0,"responseCallback"]}}"#,
                7
            ),
            (#"{"arguments":[{"responseCallback":"[Function]"}],"callbacks":{"7":[0,"responseCallback"]}}"#, 7),
            (
                #"{"method":"x","arguments":[{"responseCallback":"[Function]"}],"callbacks":{"7":[0,"responseCallback"],"8":[0,"withArgs",9]}}"#,
                7
            ),
            (
                #"{"method":"x","arguments":[{"responseCallback":"[Function]"}],"callbacks":{"7":[0,"responseCallback"],"z":[0]}}"#,
                7
            ),
        ] as [(String, Int?)])
    func refuses(_ text: String, _ answerTo: Int?) throws {
        let refusal = #expect(throws: DnodeRefusal.self) {
            try DnodeMessage(parsing: ByteBuffer(string: text), function: PeerFunctions().callAsFunction)
        }
        #expect(refusal?.answerTo?.rawValue == answerTo)
        #expect(refusal?.reason.isEmpty == false)
    }

    /// What is wrong lies in the arguments alone, so the caller can be told, whatever the order of the members and however deep.
    @Test(
        arguments: [
            ("", 0, "1e400", ""), ("", 0, "[-1e999]", ""), ("[", 62, "", "]"), ("[", 200_000, "", "]"),
            (#"{"a":"#, 62, "0", "}"), ("", 0, #"{"a":1,"a":2}"#, ""),
            ("", 0, #"{"a":"\"\\\u00e9","a":[{}, [], { "b" : [true,false,null,-1.5e+3] , "c":"" }]}"#, ""),
            ("7", 2000, "0", ""), ("0,", 600_000, "0", ""),
        ] as [(String, Int, String, String)])
    func addressesTheCallerOfArgumentsThatCannotBeHeld(
        _ start: String, _ count: Int, _ middle: String, _ end: String
    ) {
        let argument = String(repeating: start, count: count) + middle + String(repeating: end, count: count)
        let arguments = #""arguments":[{"withArgs":[\#(argument)],"responseCallback":"[Function]"}]"#
        let callbacks = #""callbacks":{"7":["0","responseCallback"]}"#
        for text in [
            #"{"method":"x",\#(arguments),\#(callbacks)}"#,
            #" { "links":[],\#(callbacks) ,\#(arguments), "method" : "x" } "#,
        ] {
            let refusal = #expect(throws: DnodeRefusal.self) {
                try DnodeMessage(parsing: ByteBuffer(string: text), function: PeerFunctions().callAsFunction)
            }
            #expect(refusal?.answerTo?.rawValue == 7 && refusal?.callback == nil)
        }
        let answer = #"{"method":3,"arguments":[{"error":null,"result":[\#(argument)]}],"callbacks":{}}"#
        let refusal = #expect(throws: DnodeRefusal.self) {
            try DnodeMessage(parsing: ByteBuffer(string: answer), function: PeerFunctions().callAsFunction)
        }
        #expect(refusal?.callback?.rawValue == 3 && refusal?.answerTo == nil)
    }

    /// No JSON, or nobody who could be told.
    @Test(arguments: [
        #"{"a":1e400,"callbacks":{"7":[0,"responseCallback"]}"#,
        #"{"a":1e400,"callbacks":{"7":[0,"responseCallback"]}}}"#,
        #"{"a":[1e400,"callbacks":{"7":[0,"responseCallback"]}}"#,
        #"{"a":[1e400},"callbacks":{"7":[0,"responseCallback"]}}"#,
        #"{"a":{"b":1e400],"callbacks":{"7":[0,"responseCallback"]}}"#,
        #"{"a":1e400,,"callbacks":{"7":[0,"responseCallback"]}}"#,
        #"{"a":1e400e,"callbacks":{"7":[0,"responseCallback"]}}"#,
        #"{"a":[1e400,],"callbacks":{"7":[0,"responseCallback"]}}"#,
        #"{"a":{"x":1e400,},"callbacks":{"7":[0,"responseCallback"]}}"#,
        #"{"a":["\x",1e400],"callbacks":{"7":[0,"responseCallback"]}}"#,
        #"{"a":{"x" 1e400},"callbacks":{"7":[0,"responseCallback"]}}"#,
        #"{"a":{1:1e400},"callbacks":{"7":[0,"responseCallback"]}}"#,
        #"{"a":[nul,1e400],"callbacks":{"7":[0,"responseCallback"]}}"#,
        #"{"a":1e400,"callbacks":{"7":[0,"responseCallback"]},"b"}"#,
        #"{"a":1e400,"callbacks":{"7":[0,"responseCallback"]},"callbacks":{"8":[0,"responseCallback"]}}"#,
        #"{"a":1e400,"callbacks":{"7":[0,"responseCallback"],"8":[1e400]}}"#,
        #"{"a":1e400,"callbacks":{"7":[0,"withArgs"]}}"#,
        #"[1e400,{"callbacks":{"7":[0,"responseCallback"]}}]"#, #"{"a":1e400}"#,
        "{\"a\":\"\n\",\"callbacks\":{\"7\":[0,\"responseCallback\"]}}",
        #"{"method":1e400,"a":1e400}"#, #"{"method":"3","a":1e400}"#, #"{"method":3,"method":3,"a":1e400}"#,
    ])
    func addressesNobodyWhereTheRestIsNoMessage(_ text: String) {
        let refusal = #expect(throws: DnodeRefusal.self) {
            try DnodeMessage(parsing: ByteBuffer(string: text), function: PeerFunctions().callAsFunction)
        }
        #expect(refusal?.answerTo == nil && refusal?.callback == nil)
    }

    /// Two spellings of the same letters are two names, as in JavaScript and Go.
    @Test func namesAreTheirBytes() throws {
        let text = #"{"method":"x","arguments":[{"\u00e9":1,"e\u0301":2}]}"#
        let message = try DnodeMessage(parsing: ByteBuffer(string: text), function: PeerFunctions().callAsFunction)
        #expect(message.arguments.first?.object?.count == 2)
        #expect(message.arguments.first?["\u{e9}"] == 1 && message.arguments.first?["e\u{301}"] == 2)
    }

    /// What one side may send the other one takes.
    @Test func depthIsLimitedAlikeBothWays() throws {
        var limits = DnodeLimits()
        limits.maximumDepth = 10
        func message(_ depth: Int) -> DnodeMessage {
            let value = (0..<depth).reduce(DnodeValue.null) { inner, _ in [inner] }
            return DnodeMessage(method: .name("x"), arguments: [value])
        }
        // The message and its arguments are two levels.
        let longest = try message(8).serialized(limits: limits)
        let received = try DnodeMessage(parsing: longest, limits: limits, function: PeerFunctions().callAsFunction)
        #expect(received == message(8))
        #expect { try message(9).serialized(limits: limits) } throws: { ($0 as? DnodeError)?.code == .limitExceeded }
    }

    @Test(arguments: [
        #"{"method":1}"#, #"{"method":1,"arguments":null,"callbacks":null,"links":[]}"#,
        #"{"method":"x","links":[[1]],"other":{}}"#,
    ])
    func toleratesWhatIsAbsent(_ text: String) throws {
        let message = try DnodeMessage(parsing: ByteBuffer(string: text), function: PeerFunctions().callAsFunction)
        #expect(message.arguments.isEmpty && message.callbacks.isEmpty)
    }

    @Test func callbacksPerMessageAreLimited() throws {
        var limits = DnodeLimits()
        limits.maximumCallbacksPerMessage = 2
        func message(_ count: Int) -> ByteBuffer {
            let paths = (0..<count).map { "\"\($0)\":[\($0)]" }.joined(separator: ",")
            let arguments = (0..<count).map { _ in "\"[Function]\"" }.joined(separator: ",")
            return ByteBuffer(string: "{\"method\":0,\"arguments\":[\(arguments)],\"callbacks\":{\(paths)}}")
        }
        _ = try DnodeMessage(parsing: message(2), limits: limits, function: PeerFunctions().callAsFunction)
        #expect(throws: DnodeRefusal.self) {
            try DnodeMessage(parsing: message(3), limits: limits, function: PeerFunctions().callAsFunction)
        }
    }
}
