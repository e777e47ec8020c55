import KiteCore
import KiteDnode
import NIOCore
import Testing

@testable import KiteGateway

@Suite("Admission of visitors")
struct VisitorAdmissionTests {
    private func describe(_ action: VisitorAdmissionStateMachine.Action) -> String {
        switch action {
        case .judge(nil, let call): "judge nothing for \(call.method)"
        case .judge(let shown?, let call): "judge \(shown.type) \(shown.key) for \(call.method)"
        case .answer(let bytes): "answer " + String(buffer: bytes)
        case .ignore: "ignore"
        case .close: "close"
        }
    }

    private static let callback = #""callbacks":{"0":[0,"responseCallback"]}"#

    @Test(arguments: [
        // A call of a Go kite, of kite.js, and of one that has nothing to show.
        (
            #"{"method":"square","arguments":[{"kite":{"name":"c"},"authentication":{"type":"token","key":"T"},"responseCallback":"[Function]","withArgs":[4]}],"#
                + callback + "}", "judge token T for square"
        ),
        (
            #"{"arguments":[{"kite":{"name":"c"},"withArgs":[],"responseCallback":"[Function]","authentication":{"type":"kiteKey","key":"K"}}],"callbacks":{"0":["0","responseCallback"]},"links":[],"method":"open"}"#,
            "judge kiteKey K for open"
        ),
        (
            #"{"method":"square","arguments":[{"kite":null,"authentication":null,"responseCallback":"[Function]","withArgs":null}],"#
                + callback + "}", "judge nothing for square"
        ),
        (#"{"method":"square","arguments":[{}],"callbacks":{}}"#, "judge nothing for square"),
        (#"{"method":"kite.ping","arguments":[{}],"callbacks":{}}"#, "ignore"),
        // Everybody may ask whether a kite lives.
        (
            #"{"method":"kite.ping","arguments":[{"responseCallback":"[Function]"}],"# + callback + "}",
            #"answer {"method":0,"arguments":[{"error":null,"result":"pong"}],"callbacks":{}}"#
        ),
        // Go kites die of these.
        (#"{"method":"kite.ping","arguments":[],"callbacks":{}}"#, "close"),
        (#"{"method":"x","arguments":[{}],"callbacks":{"1":[7,"f"]}}"#, "close"),
        // Nobody has handed these out.
        (#"{"method":0,"arguments":[{"error":null,"result":1}],"callbacks":{}}"#, "close"),
        (#"{"method":-1,"arguments":[],"callbacks":{}}"#, "close"),
        ("", "close"), ("nonsense", "close"), ("[]", "close"), ("{}", "close"), (#"{"method":null}"#, "close"),
        (#"{"method":"x","arguments":7}"#, "close"),
    ])
    func firstMessages(message: String, expected: String) {
        var machine = VisitorAdmissionStateMachine()
        #expect(describe(machine.receive(ByteBuffer(string: message))) == expected)
    }

    @Test(arguments: [#""secret""#, "7", "{}", #"{"type":"token"}"#, #"{"key":"k"}"#, "[]", #"{"type":7,"key":true}"#])
    func brokenCredentialsNeverPass(authentication: String) {
        var machine = VisitorAdmissionStateMachine()
        let action = machine.receive(
            ByteBuffer(
                string:
                    #"{"method":"x","arguments":[{"authentication":\#(authentication),"responseCallback":"[Function]"}],\#(Self.callback)}"#
            ))
        switch action {
        case .answer(let bytes): #expect(String(buffer: bytes).contains(#""type":"authenticationError""#))
        // Members that are missing count as empty, and no authenticator takes those.
        case .judge(let shown?, _): #expect(shown.type.isEmpty || shown.key.isEmpty)
        default: Issue.record("\(describe(action))")
        }
    }

    @Test func aRefusalIsWhatTheKiteWouldSayAndTheNextCallIsHeard() {
        var machine = VisitorAdmissionStateMachine()
        let call = DnodeCall(method: "x", answerTo: DnodeCallbackID(3))
        guard
            case .answer(let bytes) = machine.refuse(
                call, KiteError(.authentication, "token: token is expired", id: "0123456789abcdef"))
        else {
            Issue.record("no answer")
            return
        }
        #expect(
            String(buffer: bytes)
                == #"{"method":3,"arguments":[{"error":{"type":"authenticationError","message":"token: token is expired","code":"","id":"0123456789abcdef"},"result":null}],"callbacks":{}}"#
        )
        let next = machine.receive(
            ByteBuffer(
                string: #"{"method":"x","arguments":[{"authentication":{"type":"token","key":"new"}}],"callbacks":{}}"#)
        )
        #expect(describe(next) == "judge token new for x")
    }

    @Test func whoNeverHasTheRightThingIsSentAway() {
        var machine = VisitorAdmissionStateMachine()
        let call = DnodeCall(method: "x", answerTo: DnodeCallbackID(0))
        for _ in 0..<VisitorAdmissionStateMachine.toleratedRefusals {
            #expect(describe(machine.refuse(call, KiteError(.authentication, "no"))).hasPrefix("answer"))
        }
        #expect(describe(machine.refuse(call, KiteError(.authentication, "no"))) == "close")
    }

    @Test func endlessPingsAreNoReasonToStay() {
        var machine = VisitorAdmissionStateMachine()
        let ping = ByteBuffer(
            string: #"{"method":"kite.ping","arguments":[{"responseCallback":"[Function]"}],\#(Self.callback)}"#)
        var answered = 0
        while case .answer = machine.receive(ping), answered < 10_000 { answered += 1 }
        #expect(answered == VisitorAdmissionStateMachine.toleratedPings)
    }
}
