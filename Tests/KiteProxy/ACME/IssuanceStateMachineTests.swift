import Foundation
import KiteDialing
import Testing

@testable import ACME

/// The machine against a server that says what it should not.
struct IssuanceStateMachineTests {
    typealias Machine = IssuanceStateMachine
    let now = Date(timeIntervalSince1970: 1_800_000_000)
    let directory = #"{"newNonce":"https://ca/n","newAccount":"https://ca/a","newOrder":"https://ca/o"}"#
    let order =
        #"{"status":"pending","identifiers":[{"type":"dns","value":"a.test"}],"authorizations":["https://ca/z"],"finalize":"https://ca/f"}"#
    let authorization =
        #"{"status":"pending","identifier":{"type":"dns","value":"a.test"},"challenges":[{"type":"http-01","url":"https://ca/c","token":"abc"}]}"#

    func machine(_ url: String = "https://ca/directory") throws -> Machine {
        Machine(
            directory: try #require(URLParts(url)), names: ["a.test"], key: AccountKey(), signingRequest: [1, 2, 3],
            terms: .init(isAgreed: true), deadline: now.addingTimeInterval(300))
    }

    func response(
        _ status: Int, _ body: String = "", nonce: String? = "n1", location: String? = nil, after: String? = nil
    )
        -> Machine.Response
    {
        Machine.Response(
            status: status, nonce: nonce, location: location, retryAfter: after, body: Array(body.utf8))
    }

    /// Answers requests one after the other and returns what the machine wants after the last.
    func drive(_ machine: inout Machine, _ responses: [Machine.Response]) -> Machine.Action {
        var action = machine.begin(at: now)
        for response in responses {
            if case .present = action { action = machine.presented(at: now) }
            guard case .send = action else { return action }
            action = machine.received(response, at: now)
        }
        return action
    }

    func failure(_ responses: [Machine.Response], url: String = "https://ca/directory") throws -> ACMEFailure.Code? {
        var machine = try machine(url)
        if case .failed(let failure) = drive(&machine, responses) { return failure.code }
        return nil
    }

    var begun: [Machine.Response] {
        [
            response(200, directory, nonce: nil), response(200),
            response(201, #"{"status":"valid"}"#, location: "https://ca/account/1"),
        ]
    }

    @Test func goesThroughTheStepsInOrder() throws {
        var machine = try machine()
        var urls: [String] = []
        var action = machine.begin(at: now)
        let answers =
            begun + [
                response(201, order, location: "https://ca/o/1"), response(200, authorization), response(200, "{}"),
                response(200, authorization.replacing("pending", with: "valid")),
                response(200, order.replacing("pending", with: "processing"), after: "3"),
                response(200, order.replacing("\"pending\",", with: "\"valid\",\"certificate\":\"https://ca/cert\",")),
                response(200, "PEM"),
            ]
        for answer in answers {
            if case .present(let list) = action {
                #expect(list.map(\.token) == ["abc"] && list[0].keyAuthorization.hasPrefix("abc."))
                action = machine.presented(at: now)
            }
            if case .wait(let until) = action {
                #expect(until == now.addingTimeInterval(3))
                action = machine.woke(at: until)
            }
            guard case .send(let request) = action else { break }
            urls.append("\(request.method) \(request.url.path)")
            action = machine.received(answer, at: now)
        }
        guard case .done("PEM") = action else { Issue.record("\(action)"); return }
        #expect(
            urls == [
                "get /directory", "head /n", "post /a", "post /o", "post /z", "post /c", "post /z", "post /f",
                "post /o/1", "post /cert",
            ])
        #expect(machine.session.accountURL == "https://ca/account/1")
    }

    @Test func aSignedRequestHasWhatTheRFCWants() throws {
        var machine = try machine()
        guard case .send(let request) = drive(&machine, Array(begun.prefix(2))), let body = request.body else {
            Issue.record("no request"); return
        }
        let object = try #require(
            try JSONSerialization.jsonObject(with: Data(body.utf8)) as? [String: String])
        #expect(Set(object.keys) == ["protected", "payload", "signature"])
        let protected = try #require(Base64URL.decode(object["protected"] ?? "?"))
        let header = try #require(try JSONSerialization.jsonObject(with: protected) as? [String: Any])
        #expect(Set(header.keys) == ["alg", "jwk", "nonce", "url"])
        #expect(header["url"] as? String == "https://ca/a" && header["nonce"] as? String == "n1")
    }

    @Test(arguments: [
        "", "[]", "{}", "null", "{\"newNonce\":1}", "not json", #"{"newNonce":"https://ca/n"}"#,
        String(repeating: "[", count: 100_000),
    ])
    func refusesBrokenDirectories(body: String) throws {
        #expect(try failure([response(200, body)]) == .malformed)
    }

    @Test(arguments: [
        "http://ca/n", "ftp://ca/n", "//ca/n", "/n", "", "https://user@ca/n", "https://ca/n#x", "https://ca /n",
        "https://ca/\u{1}", "https://" + String(repeating: "a", count: 3000) + "/",
    ])
    func refusesURLsThatAreNoneOrLeadOutOfTLS(url: String) throws {
        let body = directory.replacing("https://ca/n", with: url)
        #expect(try failure([response(200, body, nonce: nil)]) == .malformed)
    }

    @Test(arguments: [nil, "", "a b", "ä", "n1\r\nX: y", String(repeating: "n", count: 513)])
    func refusesNoncesThatAreNone(nonce: String?) throws {
        #expect(try failure([response(200, directory, nonce: nil), response(200, nonce: nonce)]) == .malformed)
    }

    @Test func refusesAccountsWithoutAPlaceOrStanding() throws {
        let first = Array(begun.prefix(2))
        #expect(try failure(first + [response(201, #"{"status":"valid"}"#)]) == .malformed)
        #expect(
            try failure(first + [response(201, #"{"status":"valid"}"#, location: "http://ca/account")]) == .malformed)
        #expect(
            try failure(first + [response(200, #"{"status":"revoked"}"#, location: "https://ca/account")]) == .rejected
        )
        #expect(try failure(first + [response(302, location: "https://ca/account")]) == .malformed)
    }

    @Test func refusesOrdersThatAreIncompleteOrForOthers() throws {
        let many = (0...Machine.Limits.authorizations).map { "\"https://ca/z\($0)\"" }.joined(separator: ",")
        for body in [
            "", "{}", order.replacing("a.test", with: "b.test"), order.replacing("\"dns\"", with: "\"ip\""),
            order.replacing("\"https://ca/z\"", with: ""), order.replacing("\"https://ca/z\"", with: many),
            order.replacing("https://ca/z", with: "http://ca/z"), order.replacing("\"finalize\"", with: "\"other\""),
        ] {
            #expect(try failure(begun + [response(201, body, location: "https://ca/o/1")]) == .malformed, "\(body)")
        }
        #expect(try failure(begun + [response(201, order)]) == .malformed)
        let invalid = order.replacing("pending", with: "invalid")
        #expect(try failure(begun + [response(201, invalid, location: "https://ca/o/1")]) == .rejected)
    }

    @Test func refusesAuthorizationsThatAreBrokenOrForOthers() throws {
        let ordered = begun + [response(201, order, location: "https://ca/o/1")]
        for body in ["", "{}", authorization.replacing("a.test", with: "b.test")] {
            #expect(try failure(ordered + [response(200, body)]) == .malformed, "\(body)")
        }
        for body in [
            authorization.replacing("http-01", with: "dns-01"), authorization.replacing("abc", with: "../x"),
            authorization.replacing("abc", with: ""), authorization.replacing("\"token\":\"abc\"", with: "\"x\":1"),
            authorization.replacing("abc", with: String(repeating: "a", count: 257)),
            authorization.replacing("https://ca/c", with: "http://ca/c"),
        ] {
            #expect(try failure(ordered + [response(200, body)]) == .noUsableChallenge, "\(body)")
        }
        let expired = authorization.replacing("pending", with: "expired")
        #expect(try failure(ordered + [response(200, expired)]) == .validationFailed)
    }

    @Test func whatTheServerSaysIsBoundedAndPlainInErrors() throws {
        var machine = try machine()
        let text = "bad\\u001b[31m\\n" + String(repeating: "x", count: 5000)
        let body = #"{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"\#(text)"}"#
        guard case .failed(let failure) = drive(&machine, begun + [response(403, body)]) else {
            Issue.record("no failure"); return
        }
        #expect(failure.code == .rejected && failure.message.utf8.count < 500)
        #expect(failure.message.contains("rejectedIdentifier: bad [31m "))
        #expect(!failure.message.unicodeScalars.contains { $0.value < 0x20 })
    }

    @Test func badNoncesComeToAnEnd() throws {
        let bad = response(400, #"{"type":"urn:ietf:params:acme:error:badNonce"}"#)
        var machine = try machine()
        var action = drive(&machine, begun)
        for _ in 0..<Machine.Limits.nonceRetries { action = machine.received(bad, at: now) }
        guard case .send = action else { Issue.record("\(action)"); return }
        guard case .failed(let failure) = machine.received(bad, at: now) else { Issue.record("goes on"); return }
        #expect(failure.code == .malformed)
    }

    @Test func faultsAreTriedAgainAfterAWhileAndNotForEver() throws {
        var machine = try machine()
        var action = drive(&machine, begun)
        for attempt in 1...Machine.Limits.faultRetries {
            action =
                attempt % 2 == 0 ? machine.transportFailed("cut", at: now) : machine.received(response(502), at: now)
            guard case .wait(let until) = action else { Issue.record("\(action)"); return }
            #expect(until > now && until <= now.addingTimeInterval(10))
            action = machine.woke(at: now)
            guard case .send = action else { Issue.record("\(action)"); return }
        }
        guard case .failed(let failure) = machine.transportFailed("cut", at: now) else {
            Issue.record("goes on"); return
        }
        #expect(failure.code == .transport)
    }

    @Test func aServerThatWantsALongRestGetsIt() throws {
        var machine = try machine()
        guard case .failed(let failure) = drive(&machine, begun + [response(503, after: "7200")]) else {
            Issue.record("no failure"); return
        }
        #expect(failure.code == .server && failure.retryAfter == now.addingTimeInterval(7200))
        var second = try self.machine()
        guard case .failed(let limited) = drive(&second, begun + [response(429)]) else {
            Issue.record("no failure"); return
        }
        #expect(limited.code == .rateLimited && limited.retryAfter == now.addingTimeInterval(3600))
    }

    @Test func endsAtTheDeadline() throws {
        var machine = try machine()
        var action = drive(
            &machine,
            begun + [
                response(201, order, location: "https://ca/o/1"), response(200, authorization), response(200, "{}"),
            ])
        var time = now
        var polls = 0
        while polls < 1000 {
            switch action {
            case .wait(let until):
                time = until
                action = machine.woke(at: time)
            case .send:
                polls += 1
                action = machine.received(response(200, authorization, after: "1"), at: time)
            case .failed(let failure):
                #expect(failure.code == .timeout && polls > 10 && polls <= Machine.Limits.polls + 1)
                return
            default: Issue.record("\(action)"); return
            }
        }
        Issue.record("goes on")
    }

    @Test func inputsOutOfTurnEndIt() throws {
        var machine = try machine()
        _ = machine.begin(at: now)
        guard case .failed = machine.presented(at: now) else { Issue.record("goes on"); return }
        guard case .failed = machine.received(response(200), at: now) else { Issue.record("goes on"); return }
        guard case .failed = machine.woke(at: now) else { Issue.record("goes on"); return }
    }

    /// Whatever comes, the machine neither traps nor goes on without end.
    @Test func randomAnswersEndIt() throws {
        var generator = Seeded(state: 7)
        let bodies = [
            "", "{}", directory, order, authorization, order.replacing("pending", with: "ready"),
            authorization.replacing("pending", with: "valid"), #"{"status":"valid"}"#, "null",
            order.replacing("pending", with: "processing"),
            #"{"type":"urn:ietf:params:acme:error:badNonce"}"#, #"{"type":"urn:ietf:params:acme:error:orderNotReady"}"#,
            #"{"type":"urn:ietf:params:acme:error:accountDoesNotExist"}"#,
        ]
        for _ in 0..<500 {
            var machine = try machine()
            var action = machine.begin(at: now)
            var time = now
            var steps = 0
            loop: while true {
                steps += 1
                #expect(steps < 2000)
                if steps >= 2000 { break }
                switch action {
                case .send:
                    let status = [200, 200, 200, 201, 400, 403, 500, 302].randomElement(using: &generator) ?? 200
                    action = machine.received(
                        response(
                            status, bodies.randomElement(using: &generator) ?? "",
                            nonce: Bool.random(using: &generator) ? "n2" : nil,
                            location: Bool.random(using: &generator) ? "https://ca/x" : nil), at: time)
                case .present: action = machine.presented(at: time)
                case .wait(let until):
                    time = until
                    action = machine.woke(at: time)
                case .done, .failed: break loop
                }
            }
        }
    }
}

/// The same numbers each time.
struct Seeded: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return state ^ (state >> 29)
    }
}
