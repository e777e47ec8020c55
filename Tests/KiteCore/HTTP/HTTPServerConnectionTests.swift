/// The server connection as a visitor sees it, over a transport without a socket.
import KiteSupport
import NIOCore
import NIOEmbedded
import Testing

@testable import KiteHTTP

@Suite struct HTTPServerConnectionTests {
    /// A connection with its surroundings.
    final class Fixture {
        let transport = MockTransport()
        let acceptor = RecordingAcceptor()
        let connection: HTTPServerConnection
        var endings = 0

        init(_ change: (inout HTTPLimits) -> Void = { _ in }) {
            var limits = HTTPLimits()
            change(&limits)
            connection = HTTPServerConnection(
                transport: transport, acceptor: acceptor, limits: limits, peer: ExchangePeer(),
                resources: HTTPLoopResources(eventLoop: transport.loop))
        }

        /// What was written, without the date.
        func answer() -> String {
            transport.take().split(separator: "\r\n", omittingEmptySubsequences: false)
                .filter { !$0.hasPrefix("Date: ") }.joined(separator: "\r\n")
        }
        func exchange(_ index: Int = 0) throws -> any Exchange {
            try #require(acceptor.exchanges.indices.contains(index) ? acceptor.exchanges[index] : nil)
        }
        func handler(_ index: Int = 0) throws -> RecordingHandler {
            try #require(acceptor.handlers.indices.contains(index) ? acceptor.handlers[index] : nil)
        }
        func pass(_ time: TimeAmount) { transport.loop.advanceTime(by: time) }
    }

    static let get = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"

    @Test func answersRequestAfterRequest() throws {
        let it = Fixture()
        it.acceptor.onAccept = { exchange, _ in
            exchange.respond(ResponseHead(status: 200), body: exchange.request.target)
        }
        for _ in 0..<3 {
            it.transport.receive(Self.get)
            #expect(it.answer() == "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n/x")
        }
        #expect(it.acceptor.exchanges.count == 3)
        #expect(try it.handler().isOver)
        #expect(try it.handler().error == nil)
        #expect(!it.transport.isClosed)
        #expect(it.connection.isIdle)
    }

    @Test func usesTheExchangeAgainOnlyWhenNobodyHoldsIt() throws {
        final class Once: ExchangeAcceptor {
            var identities: [ObjectIdentifier] = []
            var kept: (any Exchange)?
            var keeps = false
            func accept(_ exchange: any Exchange) {
                identities.append(ObjectIdentifier(exchange))
                if keeps { kept = exchange }
                exchange.refuse(status: 404, reason: "no")
            }
        }
        let transport = MockTransport()
        let acceptor = Once()
        _ = HTTPServerConnection(
            transport: transport, acceptor: acceptor, peer: ExchangePeer(),
            resources: HTTPLoopResources(eventLoop: transport.loop))
        transport.receive(Self.get)
        acceptor.keeps = true
        transport.receive(Self.get)
        transport.receive(Self.get)
        #expect(acceptor.identities.count == 3)
        #expect(acceptor.identities[0] == acceptor.identities[1])
        let kept = try #require(acceptor.kept)
        #expect(kept.isEnded)
        #expect(acceptor.identities[2] != acceptor.identities[1])
    }

    @Test func answersPipelinedRequestsInOrder() throws {
        let it = Fixture()
        it.transport.receive(
            "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHo")
        #expect(it.acceptor.exchanges.count == 1)
        for index in 0..<3 {
            let exchange = try it.exchange(index)
            exchange.respond(ResponseHead(status: 200), body: exchange.request.target)
            #expect(it.answer().hasSuffix("/\(index + 1)"))
            if index == 1 { it.transport.receive("st: a\r\n\r\n") }
        }
    }

    @Test func stopsReadingWhenTooMuchIsSentAhead() throws {
        let it = Fixture { $0.pipelinedBytes = 50 }
        it.transport.receive(Self.get)
        #expect(it.transport.isReading)
        it.transport.receive(Self.get + Self.get)
        #expect(!it.transport.isReading)
        try it.exchange().respond(ResponseHead(status: 204), body: ByteBuffer())
        #expect(it.transport.isReading)
    }

    @Test func framesResponses() throws {
        let cases: [(String, UInt16, BodyLength, String)] = [
            (
                "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200, .unknown,
                "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            ),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200, .known(3), "Content-Length: 3\r\n\r\nabc"),
            ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", 200, .known(3), "Content-Length: 3\r\n\r\n"),
            ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", 200, .unknown, "200 OK\r\n\r\n"),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 204, .known(3), "204 No Content\r\n\r\n"),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 304, .unknown, "304 Not Modified\r\n\r\n"),
            ("GET / HTTP/1.0\r\n\r\n", 200, .unknown, "Connection: close\r\n\r\nabc"),
            ("GET / HTTP/1.0\r\n\r\n", 200, .known(3), "Content-Length: 3\r\nConnection: close\r\n\r\nabc"),
            (
                "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200, .known(3),
                "Content-Length: 3\r\nConnection: keep-alive\r\n\r\nabc"
            ),
        ]
        for (request, status, length, expected) in cases {
            let it = Fixture()
            it.transport.receive(request)
            let exchange = try it.exchange()
            exchange.respond(ResponseHead(status: status, bodyLength: length))
            exchange.write(ByteBuffer(string: "abc"))
            exchange.finish(trailers: nil)
            let answer = it.answer()
            #expect(answer.hasSuffix(expected), "\(answer)")
            #expect(it.transport.isClosed == answer.contains("Connection: close"))
        }
    }

    @Test func leavesOutHopByHopFieldsAndWritesItsOwn() throws {
        let it = Fixture()
        it.transport.receive(Self.get)
        let fields = HeaderBlock([
            "X-A": "1", "Connection": "X-Gone, keep-alive, Set-Cookie", "X-Gone": "1", "Keep-Alive": "3",
            "Transfer-Encoding": "chunked", "Set-Cookie": "a=b", "Content-Length": "77", "Upgrade": "h2c", "X-B": "2",
        ])
        try it.exchange().respond(ResponseHead(status: 200, fields: fields), body: ByteBuffer(string: "hi"))
        #expect(
            it.answer() == "HTTP/1.1 200 OK\r\nX-A: 1\r\nSet-Cookie: a=b\r\nX-B: 2\r\nContent-Length: 2\r\n\r\nhi")
    }

    @Test func sendsTrailersThatMayBeSent() throws {
        let it = Fixture()
        it.transport.receive(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-T: 1\r\nHost: b\r\n\r\n")
        #expect(try it.handler().body == "ab")
        #expect(try it.handler().hasEnded)
        #expect(try it.handler().trailers?.count == 1)
        let exchange = try it.exchange()
        exchange.respond(ResponseHead(status: 200, bodyLength: .unknown))
        exchange.finish(trailers: HeaderBlock(["X-U": "2", "Content-Length": "9"]))
        #expect(it.answer().hasSuffix("0\r\nX-U: 2\r\n\r\n"))
    }

    @Test func asksForABodyWhenTheHandlerWantsIt() throws {
        let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        let willing = Fixture()
        willing.transport.receive(request)
        #expect(willing.answer() == "HTTP/1.1 100 Continue\r\n\r\n")
        willing.transport.receive("abc")
        #expect(try willing.handler().body == "abc")

        let late = Fixture()
        late.acceptor.onAccept = { exchange, _ in exchange.setReading(false) }
        late.transport.receive(request)
        #expect(late.answer() == "")
        try late.exchange().setReading(true)
        late.transport.loop.run()
        #expect(late.answer() == "HTTP/1.1 100 Continue\r\n\r\n")

        let eager = Fixture()
        eager.transport.receive(request + "abc")
        #expect(eager.answer() == "")
        #expect(try eager.handler().hasEnded)

        let refusing = Fixture()
        refusing.acceptor.onAccept = { exchange, _ in exchange.refuse(status: 403, reason: "no") }
        refusing.transport.receive(request)
        let answer = refusing.answer()
        #expect(answer.hasPrefix("HTTP/1.1 403 Forbidden\r\n"))
        #expect(answer.contains("Connection: close\r\n"))
        #expect(refusing.transport.isOutputClosed)
    }

    @Test func dropsTheRestOfASmallUploadThatWasAnsweredEarly() throws {
        let it = Fixture()
        it.acceptor.onAccept = { exchange, _ in exchange.refuse(status: 403, reason: "no") }
        it.transport.receive("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        #expect(!it.answer().contains("Connection"))
        it.transport.receive("def" + Self.get)
        #expect(it.acceptor.exchanges.count == 2)
        #expect(!it.transport.isClosed)
    }

    @Test func closesAfterALargeUploadThatWasAnsweredEarly() throws {
        let it = Fixture { $0.drainBytes = 10 }
        it.acceptor.onAccept = { exchange, _ in exchange.refuse(status: 403, reason: "no") }
        it.transport.receive("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 600\r\n\r\nabc")
        #expect(it.answer().contains("Connection: close"))
        #expect(it.transport.isOutputClosed)
        #expect(!it.transport.isClosed)
        it.transport.receive("0123456789a")
        #expect(it.transport.isClosed)
    }

    @Test func aLingeringConnectionClosesInTime() throws {
        let it = Fixture()
        it.transport.receive("BAD\r\n\r\n")
        #expect(it.answer().hasPrefix("HTTP/1.1 400 Bad Request\r\n"))
        #expect(it.transport.isOutputClosed)
        it.pass(.seconds(1))
        #expect(!it.transport.isClosed)
        it.pass(.seconds(2))
        #expect(it.transport.isClosed)
    }

    @Test func refusesInTheFormThatTheVisitorAccepts() throws {
        let it = Fixture { $0.bodyBytes = 4 }
        it.transport.receive(
            "POST / HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n")
        let answer = it.answer()
        #expect(answer.hasPrefix("HTTP/1.1 413 Content Too Large\r\nContent-Type: application/json\r\n"))
        #expect(answer.hasSuffix(",\"status\":413}\n"))
        #expect(try it.handler().error?.code == .limitExceeded)
    }

    @Test func refusesAMalformedHEADWithoutABody() throws {
        for wire in ["HEAD * HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD /\u{7f} HTTP/1.1\r\n", "\r\nHEAD / HTTP/1.1\r\n\r\n"] {
            let it = Fixture()
            it.transport.receive(wire)
            let answer = it.answer()
            #expect(answer.hasPrefix("HTTP/1.1 400 Bad Request\r\n"))
            #expect(answer.hasSuffix("\r\n\r\n"))
            #expect(it.transport.isOutputClosed)
        }
    }

    @Test func refusesABodyThatIsAnnouncedTooLarge() throws {
        let it = Fixture { $0.bodyBytes = 4 }
        it.transport.receive("POST / HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\nContent-Length: 5\r\n\r\nabcde")
        #expect(it.answer().hasSuffix(",\"status\":413}\n"))
        #expect(it.acceptor.exchanges.isEmpty)
        #expect(it.transport.isOutputClosed)
    }

    @Test func lingersWhenTheRestOfAnUploadTakesTooLong() throws {
        let it = Fixture()
        it.acceptor.onAccept = { exchange, _ in exchange.refuse(status: 403, reason: "no") }
        it.transport.receive("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        it.pass(.seconds(3))
        #expect(it.transport.isOutputClosed)
        #expect(!it.transport.isClosed)
        it.pass(.seconds(3))
        #expect(it.transport.isClosed)
    }

    @Test func aBrokenBodyAfterTheResponseBeganBreaksTheConnection() throws {
        let it = Fixture()
        it.transport.receive("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        try it.exchange().respond(ResponseHead(status: 200, bodyLength: .unknown))
        it.transport.receive("zz\r\n")
        #expect(it.transport.aborted?.code == .protocolViolation)
        #expect(try it.handler().error?.code == .protocolViolation)
    }

    @Test func deadlines() throws {
        let idle = Fixture()
        idle.pass(.seconds(74))
        #expect(!idle.transport.isClosed)
        idle.pass(.seconds(2))
        #expect(idle.transport.isClosed)
        #expect(idle.answer() == "")

        let slowHead = Fixture()
        slowHead.transport.receive("GET / HT")
        slowHead.pass(.seconds(6))
        slowHead.transport.receive("TP/1.1\r\n")
        slowHead.pass(.seconds(5))
        #expect(slowHead.answer().hasPrefix("HTTP/1.1 408 Request Timeout\r\n"))

        let slowBody = Fixture()
        slowBody.transport.receive("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
        slowBody.pass(.seconds(59))
        slowBody.transport.receive("a")
        slowBody.pass(.seconds(59))
        #expect(slowBody.answer() == "")
        slowBody.pass(.seconds(2))
        #expect(slowBody.answer().hasPrefix("HTTP/1.1 408 Request Timeout\r\n"))
        #expect(try slowBody.handler().error?.code == .idleTimeout)

        let longPoll = Fixture()
        longPoll.transport.receive(Self.get)
        longPoll.pass(.minutes(10))
        #expect(!longPoll.transport.isClosed)
        try longPoll.exchange().respond(ResponseHead(status: 204), body: ByteBuffer())
        longPoll.pass(.seconds(70))
        longPoll.transport.receive(Self.get)
        try longPoll.exchange(1).respond(ResponseHead(status: 204), body: ByteBuffer())
        longPoll.pass(.seconds(70))
        #expect(!longPoll.transport.isClosed)
        longPoll.pass(.seconds(6))
        #expect(longPoll.transport.isClosed)

        let stalled = Fixture()
        stalled.transport.receive(Self.get)
        try stalled.exchange().respond(ResponseHead(status: 200, bodyLength: .unknown))
        stalled.transport.setWritable(false)
        stalled.pass(.minutes(6))
        #expect(stalled.transport.aborted?.code == .idleTimeout)
    }

    @Test func aVisitorThatClosedItsSideStillGetsAPromptAnswer() throws {
        let prompt = Fixture()
        prompt.transport.receive(Self.get)
        prompt.connection.transportInputClosed()
        try prompt.exchange().respond(ResponseHead(status: 200), body: ByteBuffer(string: "x"))
        #expect(prompt.answer().hasSuffix("Connection: close\r\n\r\nx"))
        #expect(prompt.transport.isClosed)

        let gone = Fixture()
        gone.transport.receive(Self.get)
        gone.connection.transportInputClosed()
        gone.pass(.seconds(11))
        #expect(try gone.handler().error?.code == .cancelled)

        let flowing = Fixture()
        flowing.transport.receive(Self.get)
        flowing.connection.transportInputClosed()
        var head = ResponseHead(status: 200)
        head.bodyLength = .unknown
        try flowing.exchange().respond(head)
        for _ in 0..<20 {
            flowing.pass(.minutes(4))
            try flowing.exchange().write(ByteBuffer(string: "x"))
        }
        #expect(try !flowing.handler().isOver)
        // Written without room, it shows nothing of the visitor.
        flowing.transport.setWritable(false)
        flowing.pass(.minutes(4))
        try flowing.exchange().write(ByteBuffer(string: "x"))
        flowing.pass(.minutes(2))
        #expect(try flowing.handler().isOver)
        #expect(flowing.transport.aborted != nil)
        let halfway = Fixture()
        halfway.transport.receive("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na")
        halfway.connection.transportInputClosed()
        #expect(try halfway.handler().error?.code == .reset)
    }

    @Test func tellsTheHandlerThatTheVisitorClosedItsSide() throws {
        let waiting = Fixture()
        waiting.transport.receive(Self.get)
        #expect(try waiting.handler().inputClosings == 0)
        waiting.connection.transportInputClosed()
        #expect(try waiting.handler().inputClosings == 1)
        #expect(try !waiting.handler().isOver)

        // With the request, and for each of several requests that were sent ahead.
        let ahead = Fixture()
        ahead.transport.receive(Self.get + Self.get)
        ahead.connection.transportInputClosed()
        #expect(try ahead.handler().inputClosings == 1)
        try ahead.exchange().respond(ResponseHead(status: 200), body: ByteBuffer(string: "x"))
        #expect(ahead.acceptor.handlers.allSatisfy { $0.inputClosings == 1 })

        let halfway = Fixture()
        halfway.transport.receive("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na")
        halfway.connection.transportInputClosed()
        #expect(try halfway.handler().inputClosings == 0)
    }

    @Test func backPressureReachesBothSides() throws {
        let it = Fixture()
        it.transport.receive("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\na")
        let exchange = try it.exchange()
        exchange.setReading(false)
        #expect(!it.transport.isReading)
        it.transport.receive("bcdef")
        #expect(try it.handler().body == "a")
        exchange.setReading(true)
        it.transport.loop.run()
        #expect(it.transport.isReading)
        #expect(try it.handler().body == "abcdef")
        #expect(try it.handler().hasEnded)
        it.transport.setWritable(false)
        #expect(!exchange.isWritable)
        it.transport.setWritable(true)
        #expect(try it.handler().writability == [false, true])
    }

    @Test func upgradesAndHandsOverWhatCameAfterTheHead() throws {
        final class Consumer: ByteTransportDelegate {
            var text = ""
            func transportReceived(_ bytes: ByteBuffer) { text += String(buffer: bytes) }
            func transportInputClosed() {}
            func transportClosed(_ error: TransportError?) {}
            func transportWritabilityChanged(_ isWritable: Bool) {}
        }
        let it = Fixture()
        it.transport.receive("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nearly")
        var head = ResponseHead(status: 101)
        head.fields.append("Upgrade", "websocket")
        head.fields.append("X-A", "b")
        let transport = try #require(try it.exchange().upgrade(head))
        #expect(
            it.transport.take()
                == "HTTP/1.1 101 Switching Protocols\r\nX-A: b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        let consumer = Consumer()
        transport.delegate = consumer
        it.transport.loop.run()
        it.transport.receive(" late")
        #expect(consumer.text == "early late")
        #expect(try it.exchange().isEnded)
        it.pass(.minutes(10))
        #expect(!it.transport.isClosed)
    }

    @Test func doesNotUpgradeWhatDidNotAskForIt() throws {
        let it = Fixture()
        it.transport.receive(Self.get)
        #expect(try it.exchange().upgrade(ResponseHead(status: 101)) == nil)
        #expect(it.transport.aborted != nil)
    }

    @Test func misuseBreaksTheConnectionAndNeverTraps() throws {
        let uses: [(any Exchange) -> Void] = [
            { $0.write(ByteBuffer(string: "x")) },
            { $0.finish(trailers: nil) },
            {
                $0.respond(ResponseHead(status: 200, bodyLength: .known(1)))
                $0.finish(trailers: nil)
            },
            {
                $0.respond(ResponseHead(status: 200, bodyLength: .known(1)))
                $0.write(ByteBuffer(string: "xx"))
            },
            {
                $0.respond(ResponseHead(status: 200, bodyLength: .unknown))
                $0.respond(ResponseHead(status: 200))
            },
            { $0.respond(ResponseHead(status: 100)) },
        ]
        for use in uses {
            let it = Fixture()
            it.transport.receive(Self.get)
            let exchange = try it.exchange()
            use(exchange)
            #expect(it.transport.aborted?.code == .protocolViolation)
            #expect(try it.handler().isOver)
            exchange.respond(ResponseHead(status: 200))
            exchange.write(ByteBuffer(string: "x"))
            exchange.finish(trailers: nil)
            exchange.setReading(true)
            exchange.abort(TransportError(.cancelled, "x"))
            #expect(exchange.upgrade(ResponseHead(status: 101)) == nil)
        }
    }

    @Test func drainsGracefully() throws {
        let idle = Fixture()
        idle.connection.drain()
        #expect(idle.transport.isClosed)

        let busy = Fixture()
        busy.transport.receive(Self.get)
        busy.connection.drain()
        #expect(!busy.transport.isClosed)
        try busy.exchange().respond(ResponseHead(status: 200), body: ByteBuffer(string: "x"))
        #expect(busy.answer().contains("Connection: close"))
        #expect(busy.transport.isClosed)
    }

    @Test("While draining, one more request is answered on a connection that the visitor was told stays open")
    func keepsItsWordWhileDraining() throws {
        let idle = Fixture()
        idle.connection.drain(idleTime: .seconds(5))
        #expect(!idle.transport.isClosed)
        idle.transport.receive(Self.get)
        try idle.exchange().respond(ResponseHead(status: 200), body: ByteBuffer(string: "x"))
        #expect(idle.answer().contains("Connection: close"))
        #expect(idle.transport.isClosed)

        let promised = Fixture()
        promised.transport.receive(Self.get)
        var exchange = try promised.exchange()
        exchange.respond(ResponseHead(status: 200, bodyLength: .known(1)))
        #expect(!promised.answer().contains("Connection: close"))
        promised.connection.drain(idleTime: .seconds(5))
        exchange.write(ByteBuffer(string: "x"))
        exchange.finish(trailers: nil)
        #expect(!promised.transport.isClosed)
        promised.transport.receive(Self.get)
        exchange = try promised.exchange(1)
        exchange.respond(ResponseHead(status: 200), body: ByteBuffer(string: "y"))
        #expect(promised.answer().contains("Connection: close"))
        #expect(promised.transport.isClosed)
    }

    @Test("While draining, a connection at rest waits for one more request only so long")
    func closesIdleConnectionsInTimeWhileDraining() {
        let it = Fixture()
        it.connection.drain(idleTime: .seconds(5))
        it.pass(.seconds(4))
        #expect(!it.transport.isClosed)
        it.pass(.seconds(2))
        #expect(it.transport.isClosed)
    }

    @Test func informsBeforeItResponds() throws {
        let it = Fixture()
        it.transport.receive(Self.get)
        let exchange = try it.exchange()
        exchange.sendInformational(ResponseHead(status: 103, fields: HeaderBlock(["Link": "</x>"])))
        exchange.sendInformational(ResponseHead(status: 101))
        #expect(it.transport.take() == "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        let old = Fixture()
        old.transport.receive("GET / HTTP/1.0\r\n\r\n")
        try old.exchange().sendInformational(ResponseHead(status: 103))
        #expect(old.transport.take() == "")
    }

    @Test func survivesAnythingInAnyPieces() {
        var random = SeededGenerator(seed: 11)
        let clock = ContinuousClock()
        let end = clock.now + .milliseconds(900)
        var rounds = 0
        var answered = 0
        while rounds < 5000, clock.now < end {
            rounds += 1
            let it = Fixture()
            it.acceptor.onAccept = { exchange, handler in
                if random.below(3) == 0 { return exchange.refuse(status: 404, reason: "no") }
                handler.onEnd = { exchange.respond(ResponseHead(status: 200), body: exchange.request.target) }
            }
            var bytes: [UInt8] = []
            for _ in 0..<(1 + random.below(3)) { bytes += DifferentialTests.request(&random) }
            var rest = bytes[...]
            while !rest.isEmpty {
                let piece = 1 + random.below(60)
                it.transport.receive(String(decoding: rest.prefix(piece), as: UTF8.self))
                rest = rest.dropFirst(piece)
            }
            it.connection.transportInputClosed()
            it.pass(.minutes(20))
            #expect(it.transport.isClosed)
            // Every exchange has ended, once, and nothing but answers was written.
            #expect(it.acceptor.exchanges.map(\.isEnded) == it.acceptor.handlers.map { _ in true })
            #expect(it.acceptor.handlers.map(\.isOver) == it.acceptor.handlers.map { _ in true })
            let answer = it.transport.take()
            #expect(answer.isEmpty || answer.hasPrefix("HTTP/1.1 "))
            answered += it.acceptor.exchanges.count
        }
        #expect(answered > 50)
    }

    @Test func saysHowTheConnectionEnded() {
        final class Log { var endings: [String] = [] }
        let log = Log()
        func open(_ acceptor: RecordingAcceptor) -> MockTransport {
            let transport = MockTransport()
            HTTPServerConnection(
                transport: transport, acceptor: acceptor, peer: ExchangePeer(),
                resources: HTTPLoopResources(eventLoop: transport.loop)
            ) { _, ending in
                switch ending {
                case .closed(let error): log.endings.append("closed \(error.map { "\($0.code)" } ?? "")")
                case .upgraded: log.endings.append("upgraded")
                }
            }
            return transport
        }
        let acceptor = RecordingAcceptor()
        open(acceptor).end(nil)
        open(acceptor).end(TransportError(.reset, "x"))
        acceptor.onAccept = { exchange, _ in _ = exchange.upgrade(ResponseHead(status: 101)) }
        open(acceptor).receive("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
        #expect(log.endings == ["closed ", "closed reset", "upgraded"])
    }

    @Test func tellsTheHandlerWhenTheVisitorIsGone() throws {
        let it = Fixture()
        it.transport.receive(Self.get)
        it.transport.end(TransportError(.reset, "gone"))
        #expect(try it.handler().error?.code == .reset)
        #expect(try it.exchange().isEnded)
    }

    @Test func answersForAnAcceptorThatDoesNot() throws {
        final class Silent: ExchangeAcceptor {
            func accept(_ exchange: any Exchange) {}
        }
        let transport = MockTransport()
        let acceptor = Silent()
        _ = HTTPServerConnection(
            transport: transport, acceptor: acceptor, peer: ExchangePeer(),
            resources: HTTPLoopResources(eventLoop: transport.loop))
        transport.receive(Self.get)
        #expect(transport.take().hasPrefix("HTTP/1.1 503 "))
    }

    @Test func doesNotCareWhereBytesAreSplit() throws {
        let text =
            "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n"
            + "POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nfgh\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n"
        for split in 0...text.utf8.count {
            let it = Fixture()
            it.acceptor.onAccept = { exchange, handler in
                handler.onEnd = { exchange.respond(ResponseHead(status: 200), body: exchange.request.target) }
            }
            it.transport.receive(String(decoding: text.utf8.prefix(split), as: UTF8.self))
            it.transport.receive(String(decoding: text.utf8.dropFirst(split), as: UTF8.self))
            #expect(it.acceptor.handlers.map(\.body) == ["abcde", "fgh", ""])
            #expect(it.acceptor.handlers.map(\.isOver) == [true, true, true])
            let answers = it.answer().components(of: "HTTP/1.1 200 OK")
            #expect(answers == 3)
        }
    }
}

extension String {
    /// How often a text occurs.
    fileprivate func components(of text: String) -> Int {
        var count = 0
        var rest = self[...]
        while let range = rest.firstRange(of: text) {
            count += 1
            rest = rest[range.upperBound...]
        }
        return count
    }
}
