/// The life of a stream, event by event.
import KiteHTTP
import NIOCore
import NIOHPACK
import Testing

@testable import KiteHTTP2

private func machine(
    _ body: BodyLength = .none, method: RequestMethod = .get, isEnded: Bool? = nil, isTunnel: Bool = false,
    expects: Bool = false, limits: HTTPLimits = HTTPLimits()
) -> HTTP2StreamStateMachine {
    var head = RequestHead(method: method, target: "/", authority: "a", bodyLength: body)
    head.expectsContinue = expects
    return HTTP2StreamStateMachine(
        head, isEnded: isEnded ?? (body == .none && !isTunnel), isTunnel: isTunnel, limits: limits)
}

private func response(_ status: UInt16 = 200, _ body: BodyLength = .unknown) -> ResponseHead {
    ResponseHead(status: status, bodyLength: body)
}

@Suite struct HTTP2StreamStateMachineTests {
    @Test func aRequestAndItsResponse() {
        var stream = machine()
        #expect(!stream.isInputOpen)
        #expect(stream.respond(response()) == .write(endsStream: false))
        #expect(stream.write(5) == .write(endsStream: false))
        #expect(stream.finish() == .end(mustEndStream: true, stopsUpload: false))
        #expect(stream.isOutputEnded)
        #expect(stream.finish() == .ignore)
        #expect(stream.write(5) == .ignore)
        #expect(stream.respond(response()) == .ignore)
    }

    @Test func aKnownLengthEndsTheStreamWithItsLastByte() {
        var stream = machine()
        #expect(stream.respond(response(200, .known(10))) == .write(endsStream: false))
        #expect(stream.write(4) == .write(endsStream: false))
        #expect(stream.write(6) == .write(endsStream: true))
        #expect(stream.finish() == .end(mustEndStream: false, stopsUpload: false))
    }

    @Test func lengthsThatAreNotKept() {
        var long = machine()
        _ = long.respond(response(200, .known(3)))
        guard case .abort = long.write(4) else { return _ = Issue.record("too long") }
        var short = machine()
        _ = short.respond(response(200, .known(3)))
        _ = short.write(2)
        guard case .abort = short.finish() else { return _ = Issue.record("too short") }
    }

    @Test(arguments: [(RequestMethod.head, UInt16(200)), (.get, 204), (.get, 304)])
    func responsesWithoutABody(method: RequestMethod, status: UInt16) {
        var stream = machine(method: method)
        #expect(stream.respond(response(status, .known(10))) == .write(endsStream: true))
        #expect(stream.write(10) == .ignore)
        #expect(stream.finish() == .end(mustEndStream: false, stopsUpload: false))
    }

    @Test func misuse() {
        var stream = machine()
        guard case .abort = stream.write(1) else { return _ = Issue.record("a body without a response") }
        guard case .abort = stream.finish() else { return _ = Issue.record("finished without a response") }
        guard case .abort = stream.respond(response(100)) else { return _ = Issue.record("informational") }
        _ = stream.respond(response())
        guard case .abort = stream.respond(response()) else { return _ = Issue.record("a second response") }
        #expect(stream.upgrade() == false)
    }

    @Test func informational() {
        var stream = machine()
        #expect(stream.mayInform(103) == true)
        #expect(stream.mayInform(101) == false)
        #expect(stream.mayInform(200) == false)
        _ = stream.respond(response())
        #expect(stream.mayInform(103) == false)
    }

    @Test func aBodyOfKnownLength() {
        var stream = machine(.known(10))
        #expect(stream.received(4, endsStream: false) == .take)
        #expect(stream.received(6, endsStream: true) == .take)
        #expect(!stream.isInputOpen)
        for (parts, isEnd) in [([11], false), ([4, 7], true), ([4, 4], true), ([10, 1], true)] {
            var stream = machine(.known(10))
            var last = HTTP2StreamStateMachine.InputAction.take
            for (index, part) in parts.enumerated() {
                last = stream.received(part, endsStream: isEnd && index == parts.count - 1)
            }
            guard case .malformed = last else { return _ = Issue.record("\(parts)") }
        }
        var trailers = machine(.known(10))
        _ = trailers.received(4, endsStream: false)
        guard case .malformed = trailers.ended() else { return _ = Issue.record("trailers come early") }
    }

    @Test func aBodyThatIsTooLarge() {
        var limits = HTTPLimits()
        limits.bodyBytes = 10
        var stream = machine(.unknown, limits: limits)
        #expect(stream.received(10, endsStream: false) == .take)
        #expect(stream.received(1, endsStream: false) == .refuse(.largeBody))
        var answered = machine(.unknown, limits: limits)
        _ = answered.respond(response())
        guard case .abort = answered.received(11, endsStream: false) else { return _ = Issue.record("answered") }
    }

    @Test func aBodyThatStops() {
        var stream = machine(.unknown)
        #expect(stream.bodyTimedOut() == .refuse(.bodyTimeout))
        _ = stream.respond(response())
        guard case .abort(let error) = stream.bodyTimedOut() else { return _ = Issue.record("no abort") }
        #expect(error.code == .idleTimeout)
    }

    @Test func continuing() {
        var stream = machine(.known(5), expects: true)
        #expect(stream.takeContinue() == true)
        #expect(stream.takeContinue() == false)
        var unasked = machine(.known(5), expects: true)
        _ = unasked.received(5, endsStream: true)
        #expect(unasked.takeContinue() == false)
        var answered = machine(.known(5), expects: true)
        _ = answered.respond(response())
        #expect(answered.takeContinue() == false)
    }

    @Test func anUploadThatGoesOnAfterItsAnswer() {
        var limits = HTTPLimits()
        limits.drainBytes = 100
        var stream = machine(.unknown, limits: limits)
        _ = stream.respond(response(401, .known(0)))
        #expect(stream.finish() == .end(mustEndStream: false, stopsUpload: false))
        #expect(stream.received(60, endsStream: false) == .drop)
        #expect(stream.received(60, endsStream: false) == .stop)
        #expect(stream.received(60, endsStream: false) == .drop)
        #expect(stream.received(60, endsStream: true) == .drop)
        #expect(!stream.isInputOpen)
        var large = machine(.known(101), limits: limits)
        _ = large.respond(response(401, .known(0)))
        #expect(large.finish() == .end(mustEndStream: false, stopsUpload: true))
    }

    @Test func webSockets() {
        var stream = machine(isTunnel: true)
        #expect(!stream.isBodyExpected)
        #expect(stream.received(5, endsStream: false) == .take)
        #expect(stream.upgrade() == true)
        #expect(stream.upgrade() == false)
        #expect(stream.respond(response()) == .ignore)
        #expect(stream.write(5) == .write(endsStream: false))
        #expect(stream.closeTunnelOutput() == true)
        #expect(stream.closeTunnelOutput() == false)
        #expect(stream.write(5) == .ignore)
        #expect(stream.received(5, endsStream: true) == .take)
        #expect(!stream.isInputOpen)
        var refused = machine(isTunnel: true)
        #expect(refused.respond(response(404, .known(3))) == .write(endsStream: false))
        #expect(refused.write(3) == .write(endsStream: true))
        #expect(refused.finish() == .end(mustEndStream: false, stopsUpload: true))
    }

    @Test func windowsOpenOnlyAsBytesAreTaken() {
        var window = ReceiveWindow(window: 100, target: 100, fullTarget: 400)
        #expect(window.increment() == 0)
        window.changed(to: 20)
        window.hold(80)
        #expect(window.increment() == 0)
        window.take(20)
        #expect(window.increment() == 0)
        window.take(60)
        #expect(window.increment() == 80)
        #expect(window.window == 100)
        window.changed(to: 80)
        window.hold(20)
        window.take(20)
        // As much as the first target has been taken.
        #expect(window.increment() == 320)
        #expect(window.window == 400)
        window.changed(to: 0)
        window.hold(400)
        for _ in 0..<400 {
            window.take(1)
            _ = window.increment()
            #expect(window.window + window.held <= 400)
        }
        #expect(window.held == 0)
        #expect(window.window > 200)
    }

    @Test func budgets() {
        var limits = HTTP2Limits()
        limits.malformedRequests = 2
        limits.windowUpdates = 2
        limits.floodTime = .nanoseconds(100)
        var budget = FrameBudget(limits)
        #expect(budget.receivedMalformedRequest(now: 0) == nil)
        #expect(budget.receivedMalformedRequest(now: 0) == nil)
        #expect(budget.receivedMalformedRequest(now: 99) == .malformedFlood)
        #expect(budget.receivedMalformedRequest(now: 100) == nil)
        #expect(budget.receivedWindowUpdate(now: 100) == nil)
        budget.sentData()
        for _ in 0..<9 { #expect(budget.receivedWindowUpdate(now: 150) == nil) }
        #expect(budget.receivedWindowUpdate(now: 150) == .windowUpdateFlood)
        #expect(budget.receivedWindowUpdate(now: 300) == nil)
    }
}

@Suite struct ResponseTranslatorTests {
    private func fields(_ headers: HPACKHeaders) -> [String] { headers.map { "\($0.name): \($0.value)" } }

    @Test func whatConcernsTheConnectionIsLeftOut() {
        var head = ResponseHead(
            status: 200,
            fields: HeaderBlock([
                "Connection": "close, X-Private", "X-Private": "1", "Keep-Alive": "timeout=5",
                "Transfer-Encoding": "chunked", "Upgrade": "h2c", "Proxy-Connection": "x", "Content-Length": "7",
                "X-Kept": "2", "Set-Cookie": "a=1", "Date": "then",
            ]))
        head.bodyLength = .unknown
        #expect(
            fields(ResponseTranslator.translate(head, method: .get, date: "now")) == [
                ":status: 200", "x-kept: 2", "set-cookie: a=1", "date: then",
            ])
        head.bodyLength = .known(9)
        #expect(
            fields(ResponseTranslator.translate(head, method: .get, date: "now")) == [
                ":status: 200", "x-kept: 2", "set-cookie: a=1", "date: then", "content-length: 9",
            ])
    }

    @Test func lengths() {
        let said = HeaderBlock(["Content-Length": "7"])
        func made(_ status: UInt16, _ method: RequestMethod, _ length: BodyLength) -> [String] {
            fields(
                ResponseTranslator.translate(
                    ResponseHead(status: status, fields: said, bodyLength: length), method: method, date: nil))
        }
        #expect(made(200, .get, .none) == [":status: 200", "content-length: 0"])
        #expect(made(200, .head, .none) == [":status: 200", "content-length: 7"])
        #expect(made(200, .head, .known(7)) == [":status: 200", "content-length: 7"])
        #expect(made(304, .get, .none) == [":status: 304", "content-length: 7"])
        #expect(made(204, .get, .none) == [":status: 204"])
        #expect(made(103, .get, .none) == [":status: 103"])
    }

    @Test func upgrades() {
        let head = ResponseHead(
            status: 101,
            fields: HeaderBlock([
                "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": "x",
                "Sec-WebSocket-Protocol": "a",
            ]))
        #expect(
            fields(ResponseTranslator.translateUpgrade(head, date: "now")) == [
                ":status: 200", "sec-websocket-protocol: a", "date: now",
            ])
    }

    @Test func trailers() {
        #expect(ResponseTranslator.trailers(HeaderBlock(["Content-Length": "1"])) == nil)
        #expect(
            ResponseTranslator.trailers(HeaderBlock(["X-Sum": "1", "Connection": "close"])).map(fields) == [
                "x-sum: 1"
            ])
    }
}
