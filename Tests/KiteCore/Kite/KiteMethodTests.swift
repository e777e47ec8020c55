/// Calling the methods of a kite: arguments, results, refusals, conditions.
import KiteCore
import KiteHTTP
import NIOCore
import Synchronization
import Testing

@Suite(.timeLimit(.minutes(1))) struct KiteMethodTests {
    /// Accepts the token `good` of `alice`.
    struct OneToken: KiteAuthenticator {
        func authenticate(_ authentication: Authentication?, for kite: KiteIdentity) async throws(KiteError) -> String {
            guard let authentication else {
                throw KiteError(.authentication, "No authentication information is provided")
            }
            guard authentication == .token("good") else { throw KiteError(.authentication, "token: token is expired") }
            return "alice"
        }
    }

    /// Calls a method as Go does and returns what is answered.
    func call(
        _ kite: Kite, _ method: String, _ arguments: String = "null", authentication: String = "null",
        trusting: Bool = false
    ) async throws -> DnodeValue {
        var answer = DnodeValue.null
        try await withPeer(of: kite, trusting: trusting) { peer in
            try await peer.send(
                #"{"method":"\#(method)","arguments":[{"kite":{"name":"exp2","username":"bob"},"authentication":\#(authentication),"responseCallback":"[Function]","withArgs":\#(arguments)}],"callbacks":{"0":[0,"responseCallback"]}}"#
            )
            let message = try #require(try await peer.next())
            #expect(message["method"] == 0 && message["callbacks"] == [:])
            answer = try #require(message["arguments"]?[0])
        }
        return answer
    }

    func mathKite() -> Kite {
        let kite = Kite.test(authenticator: .anyone)
        kite.handle("square") { (_, number: Double) in number * number }
        kite.handle("add") { (_, left: Int, right: Int?) in left + (right ?? 0) }
        kite.handle("echo") { request in request.arguments.first ?? .null }
        kite.handle("nothing") { (_: KiteRequest) in }
        kite.handle("fail") { (_) throws -> String in throw KiteError("myType", "typed failure", code: "E42") }
        struct Broken: Error, CustomStringConvertible { let description = "something failed" }
        kite.handle("broken") { (_) throws -> String in throw Broken() }
        kite.handle("unsendable") { _ in Double.nan }
        return kite
    }

    @Test(
        arguments: [
            ("square", "[4]", 16), ("square", "[0.5]", .double(0.25)), ("add", "[1,2]", 3), ("add", "[1]", 1),
            ("add", "[1,null]", 1), ("echo", #"[{"a":[1,2,{"b":null}]}]"#, ["a": [1, 2, ["b": .null]]]),
            ("nothing", "[1,2,3]", .null), ("kite.ping", "null", "pong"),
        ] as [(String, String, DnodeValue)])
    func answers(_ method: String, _ arguments: String, _ result: DnodeValue) async throws {
        let answer = try await call(mathKite(), method, arguments)
        #expect(answer["error"] == .null)
        #expect(answer["result"]?.double ?? .nan == result.double ?? .nan || answer["result"] == result)
        #expect(answer.object?.count == 2)
    }

    @Test(
        arguments: [
            ("nosuch", "[]", "methodNotFound", "Method not found: nosuch"), ("square", "[\"x\"]", "argumentError", nil),
            ("square", "[]", "argumentError", nil), ("square", "null", "argumentError", nil),
            ("square", "[1,2]", "argumentError", nil), ("square", "5", "argumentError", nil),
            ("add", "[1.5]", "argumentError", nil), ("fail", "null", "myType", "typed failure"),
            ("broken", "null", "genericError", "something failed"), ("unsendable", "null", "genericError", nil),
            ("kite.prompt", "[\"?\"]", "genericError", nil), ("kite.getPass", "[\"?\"]", "genericError", nil),
            ("kite.tunnel", "[{}]", "methodNotFound", nil), ("kite.heartbeat", "[0,1]", "argumentError", nil),
        ] as [(String, String, String, String?)])
    func refuses(_ method: String, _ arguments: String, _ type: String, _ message: String?) async throws {
        let answer = try await call(mathKite(), method, arguments)
        let error = try #require(answer["error"])
        #expect(answer["result"] == .null)
        #expect(error["type"] == .string(type))
        if let message { #expect(error["message"] == .string(message)) }
        #expect(error["code"] == (type == "myType" ? "E42" : ""))
        #expect(error["id"]?.string?.count == (type == "methodNotFound" ? 0 : 16))
    }

    @Test func callersMustProveWhoTheyAre() async throws {
        let kite = Kite.test(authenticator: OneToken())
        kite.handle("whoami") { request in [request.username ?? "-", request.caller.username, request.caller.name] }
        kite.handle("open", .anonymous) { request in request.username ?? "-" }
        let none = try await call(kite, "whoami")
        #expect(none["error"]?["type"] == "authenticationError")
        #expect(none["error"]?["message"] == "No authentication information is provided")
        let bad = try await call(kite, "whoami", authentication: #"{"type":"token","key":"bad"}"#)
        #expect(bad["error"]?["message"] == "token: token is expired")
        for wrong in ["5", "\"x\"", "[]", #"{"type":5,"key":"x"}"#, #"{"type":"token"}"#] {
            #expect(try await call(kite, "whoami", authentication: wrong)["error"]?["type"] == "authenticationError")
        }
        let good = try await call(kite, "whoami", authentication: #"{"type":"token","key":"good"}"#)
        #expect(good["result"] == ["alice", "alice", "exp2"])
        #expect(try await call(kite, "open")["result"] == "-")
        #expect(try await call(kite, "kite.ping")["result"] == "pong")
        for method in ["kite.systemInfo", "kite.log", "kite.print", "kite.heartbeat", "kite.prompt"] {
            #expect(try await call(kite, method, "[\"x\"]")["error"]?["type"] == "authenticationError")
        }
        // A peer that we dialled is trusted.
        #expect(try await call(kite, "whoami", trusting: true)["result"] == ["bob", "bob", "exp2"])
        // Without keys nobody is accepted.
        let keyless = Kite.test()
        keyless.handle("square") { (_, number: Double) in number * number }
        let refused = try await call(keyless, "square", "[4]", authentication: #"{"type":"token","key":"x"}"#)
        #expect(refused["error"]?["type"] == "authenticationError")
    }

    @Test func limitedMethodsRefuseWhatIsTooMuch() async throws {
        let kite = Kite.test(authenticator: .anyone)
        kite.handle("limited", .authenticated.limited(burst: 2, every: .seconds(3600))) { _ in "ok" }
        #expect(try await call(kite, "limited")["result"] == "ok")
        #expect(try await call(kite, "limited")["result"] == "ok")
        let third = try await call(kite, "limited")
        #expect(third["error"]?["type"] == "requestLimitError")
        #expect(third["error"]?["message"] == "The maximum request rate is exceeded.")
    }

    @Test func handlersBeforeAndAfterSeeEveryCall() async throws {
        let kite = mathKite()
        kite.before { request in if request.arguments == [13] { throw KiteError("unlucky", "no") } }
        kite.after { _, result in ["wrapped": result] }
        kite.handle("own", .anonymous.before { _ in throw KiteError("closed", "closed") }) { _ in "never" }
        kite.handle("changed", .anonymous.after { _, _ in 1 }) { _ in 0 }
        #expect(try await call(kite, "square", "[13]")["error"]?["type"] == "unlucky")
        #expect(try await call(kite, "square", "[4]")["result"] == ["wrapped": 16])
        #expect(try await call(kite, "own")["error"]?["type"] == "closed")
        #expect(try await call(kite, "changed")["result"] == ["wrapped": 1])
    }

    @Test func systemInfoHasTheMembersOfGo() async throws {
        let info = try #require(try await call(mathKite(), "kite.systemInfo")["result"]?.object)
        #expect(
            info.map(\.key) == [
                "state", "diskUsage", "diskTotal", "memoryUsage", "totalMemoryLimit", "homeDir", "uname",
            ])
        #expect(info["state"] == "RUNNING")
        #expect(try #require(info["totalMemoryLimit"]?.int) > 0 && (info["diskTotal"]?.int ?? 0) > 0)
    }

    @Test func kiteWithoutNumbersRunsOnLongArguments() async throws {
        let text = String(repeating: "y", count: 100_000)
        #expect(try await call(mathKite(), "echo", "[\"\(text)\"]")["result"] == .string(text))
    }
}
