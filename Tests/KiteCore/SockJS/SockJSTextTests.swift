// SockJS's JSON: what is understood, what is refused, what is escaped; and noise.
import NIOCore
import Testing

@testable import KiteSockJS

@Suite struct SockJSTextTests {
    static func parse(
        _ text: String, _ shape: SockJSText.Shape = .arrayOrString, max: Int = 100
    ) throws(SockJSFormatError) -> [String] {
        try SockJSText.messages(in: ByteBuffer(string: text), shape: shape, maxMessages: max).map { String(buffer: $0) }
    }

    @Test(arguments: [
        ("[]", []),
        (" [ ] ", []),
        ("[\"a\"]", ["a"]),
        ("\n[\t\"a\" , \"\",\"b\"\r]\n", ["a", "", "b"]),
        ("\"single\"", ["single"]),
        (#"["{\"method\":\"x\"}"]"#, [#"{"method":"x"}"#]),
        (#"["\"\\\/\b\f\n\r\t"]"#, ["\"\\/\u{8}\u{C}\n\r\t"]),
        (#"["\u0041\u00e9\u20AC\ud83D\uDe00"]"#, ["Aé€😀"]),
        (#"["\ud83d"]"#, ["\u{FFFD}"]),
        (#"["\ud83dx\ude00\ud83d\u0041"]"#, ["\u{FFFD}x\u{FFFD}\u{FFFD}A"]),
        (#"["é€😀"]"#, ["é€😀"]),
        (#"["\\"]"#, ["\\"]),
        (#"["\\\""]"#, ["\\\""]),
    ])
    func understands(_ text: String, _ expected: [String]) throws {
        #expect(try Self.parse(text) == expected)
    }

    @Test(
        arguments: [
            ("", .payloadExpected), ("  ", .payloadExpected), ("{}", .payloadExpected), ("[", .brokenJSON),
            ("[\"a", .brokenJSON), ("[\"a\"", .brokenJSON), ("[\"a\",", .brokenJSON), ("[\"a\",]", .brokenJSON),
            ("[,\"a\"]", .brokenJSON), ("[\"a\"]x", .brokenJSON), ("[\"a\"][", .brokenJSON), ("[1]", .brokenJSON),
            ("[null]", .brokenJSON), ("[[\"a\"]]", .brokenJSON), ("[\"a\" \"b\"]", .brokenJSON), ("x", .brokenJSON),
            ("12", .brokenJSON), ("\"a", .brokenJSON), ("\"a\\", .brokenJSON), ("\"a\\\"", .brokenJSON),
            (#"["\x"]"#, .brokenJSON), (#"["\u12"]"#, .brokenJSON), (#"["\u12g4"]"#, .brokenJSON),
            (#"["\ud83d\u12"]"#, .brokenJSON), ("[\"a\nb\"]", .brokenJSON), ("[\"\u{0}\"]", .brokenJSON),
            ("[\"1\",\"2\",\"3\"]", .tooManyMessages),
        ] as [(String, SockJSFormatError)])
    func refuses(_ text: String, _ error: SockJSFormatError) {
        #expect(throws: error) { try Self.parse(text, max: 2) }
    }

    @Test func aSingleStringIsNoArray() {
        #expect(throws: SockJSFormatError.payloadExpected) { try Self.parse("\"a\"", .array) }
    }

    @Test(arguments: [
        ("plain", #""plain""#),
        ("\"\\/\u{8}\u{C}\n\r\t\u{0}\u{1F}", #""\"\\/\b\f\n\r\t\u0000\u001f""#),
        ("é€<", #""é€<""#),
        ("\u{200B}\u{200C}\u{200F}\u{2010}", "\"\u{200B}\\u200c\\u200f\u{2010}\""),
        ("\u{2027}\u{2028}\u{202F}\u{2030}", "\"\u{2027}\\u2028\\u202f\u{2030}\""),
        ("\u{205F}\u{2060}\u{206F}\u{2070}", "\"\u{205F}\\u2060\\u206f\u{2070}\""),
        ("\u{FFEF}\u{FFF0}\u{FFFF}", "\"\u{FFEF}\\ufff0\\uffff\""),
        ("😀\u{10FFFF}", #""\ud83d\ude00\udbff\udfff""#),
    ])
    func escapes(_ text: String, _ expected: String) throws {
        var output = ByteBuffer()
        SockJSText.writeString(ByteBuffer(string: text), into: &output)
        #expect(String(buffer: output) == expected)
        #expect(try Self.parse(expected) == [text])
    }

    @Test func scriptCannotBeEnded() {
        var output = ByteBuffer()
        SockJSText.writeString(ByteBuffer(string: "</script>é"), escaping: .script, into: &output)
        #expect(String(buffer: output) == #""\u003c/script>é""#)
    }

    @Test(arguments: [
        (SockJSFrame.open, "o"), (.heartbeat, "h"),
        (.messages([ByteBuffer(string: "x\"y"), ByteBuffer()]), #"a["x\"y",""]"#),
        (.close(code: 3000, reason: "Go away!"), #"c[3000,"Go away!"]"#),
    ])
    func frames(_ frame: SockJSFrame, _ text: String) throws {
        var output = ByteBuffer()
        frame.write(into: &output)
        #expect(String(buffer: output) == text)
        #expect(try SockJSFrame(output, maxMessages: 10) == frame)
    }

    @Test(arguments: [
        "", "x", "a", "a\"x\"", "c", "c[]", "c[3000]", "c[-1,\"\"]", "c[70000,\"\"]", "c[1,\"x\"", "c[1,2]",
    ])
    func framesRefused(_ text: String) {
        #expect(throws: SockJSFormatError.self) { try SockJSFrame(ByteBuffer(string: text), maxMessages: 10) }
    }

    @Test(.timeLimit(.minutes(1))) func noiseIsRefusedOrSurvivesTheRoundTrip() throws {
        var state: UInt64 = 99
        func random(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % bound
        }
        let alphabet = Array("[]\",\\u0dD8e{} nx\u{7F}é€😀\u{2028}".utf8)
        var understood = 0
        for _ in 0..<20_000 {
            var bytes = (0..<random(12)).map { _ in alphabet[random(alphabet.count)] }
            if random(2) == 0 { bytes = Array("[\"".utf8) + bytes + Array("\"]".utf8) }
            guard String(validating: bytes, as: UTF8.self) != nil else { continue }
            for shape in [SockJSText.Shape.array, .arrayOrString] {
                guard
                    let messages = try? SockJSText.messages(
                        in: ByteBuffer(bytes: bytes), shape: shape, maxMessages: 8)
                else { continue }
                understood += 1
                var again = ByteBuffer()
                SockJSFrame.writeClientMessages(messages, into: &again)
                #expect(try SockJSText.messages(in: again, shape: .array, maxMessages: 8) == messages)
                for message in messages { #expect(String(validating: message.readableBytesView, as: UTF8.self) != nil) }
            }
            _ = try? SockJSFrame(ByteBuffer(bytes: bytes), maxMessages: 4)
        }
        #expect(understood > 100)
    }
}

@Suite struct SockJSSessionStateMachineTests {
    typealias Machine = SockJSSessionStateMachine
    let goAway = SockJSFrame.close(code: 3000, reason: "Go away!")

    @Test func pollsFollowEachOther() {
        var machine = Machine(endsWithReceiver: false)
        #expect(machine.attach(1) == .send(.open, isNew: true))
        #expect(machine.isOpen)
        #expect(machine.finished(1) == .await(wasInterrupted: false))
        #expect(machine.flush(hasMessages: true, close: nil) == .nothing)
        #expect(machine.attach(2) == .flush)
        #expect(machine.flush(hasMessages: true, close: nil) == .sendMessages)
        #expect(machine.flush(hasMessages: true, close: nil) == .nothing)
        #expect(machine.finished(2) == .await(wasInterrupted: false))
        #expect(machine.disconnectFired() == .end)
        #expect(machine.isEnded)
        #expect(machine.disconnectFired() == .nothing)
    }

    @Test func oneFrameAtATimeOnAStream() {
        var machine = Machine(endsWithReceiver: false)
        _ = machine.attach(1)
        #expect(machine.flush(hasMessages: true, close: nil) == .nothing)
        #expect(machine.acknowledged(9) == .nothing)
        #expect(machine.acknowledged(1) == .flush)
        #expect(machine.flush(hasMessages: false, close: nil) == .nothing)
        machine.heartbeatFired()
        #expect(machine.flush(hasMessages: false, close: nil) == .send(.heartbeat))
        #expect(machine.acknowledged(1) == .flush)
        #expect(machine.acknowledged(1) == .nothing)
        machine.heartbeatFired()
        #expect(machine.flush(hasMessages: true, close: nil) == .sendMessages)
        #expect(machine.acknowledged(1) == .flush)
        #expect(machine.flush(hasMessages: false, close: nil) == .nothing)
    }

    @Test func aSecondReceiverIsRefused() {
        var machine = Machine(endsWithReceiver: false)
        _ = machine.attach(1)
        #expect(machine.attach(2) == .refused(.close(code: 2010, reason: "Another connection still open")))
        #expect(machine.finished(2) == .nothing)
        #expect(machine.lost(2) == .nothing)
        #expect(machine.finished(1) == .await(wasInterrupted: false))
        #expect(machine.attach(3) == .flush)
    }

    @Test func closingComesAfterWhatIsQueuedAndIsRepeated() {
        var machine = Machine(endsWithReceiver: false)
        _ = machine.attach(1)
        _ = machine.finished(1)
        #expect(machine.flush(hasMessages: false, close: (3000, "Go away!")) == .nothing)
        #expect(machine.attach(2) == .flush)
        #expect(machine.flush(hasMessages: true, close: (3000, "Go away!")) == .sendMessages)
        _ = machine.finished(2)
        #expect(machine.attach(3) == .flush)
        #expect(machine.flush(hasMessages: false, close: (3000, "Go away!")) == .send(goAway))
        #expect(!machine.isOpen)
        #expect(machine.finished(3) == .await(wasInterrupted: false))
        #expect(machine.attach(4) == .send(goAway, isNew: false))
        #expect(machine.finished(4) == .await(wasInterrupted: false))
        #expect(machine.disconnectFired() == .end)
        #expect(machine.attach(5) == .refused(goAway))
    }

    @Test func aBrokenReceiverInterruptsTheSession() {
        var machine = Machine(endsWithReceiver: false)
        _ = machine.attach(1)
        #expect(machine.lost(1) == .await(wasInterrupted: true))
        #expect(!machine.isOpen)
        #expect(machine.attach(2) == .send(.close(code: 1002, reason: "Connection interrupted"), isNew: false))
        #expect(machine.lost(2) == .await(wasInterrupted: false))
        #expect(machine.disconnectFired() == .end)
    }

    @Test func aWebSocketEndsItsSession() {
        for breaks in [true, false] {
            var machine = Machine(endsWithReceiver: true)
            _ = machine.attach(1)
            #expect((breaks ? machine.lost(1) : machine.finished(1)) == .end)
            #expect(machine.isEnded)
        }
    }

    @Test func theDisconnectTimerMeansNothingWhileAReceiverIsThere() {
        var machine = Machine(endsWithReceiver: false)
        _ = machine.attach(1)
        #expect(machine.disconnectFired() == .nothing)
        #expect(machine.isOpen)
    }
}
