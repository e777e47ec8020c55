/// Connections over real sockets, frame by frame.
import KiteHTTP
import NIOCore
import NIOHPACK
import Synchronization
import Testing

@testable import KiteHTTP2

/// Error codes of RFC 9113 section 7.
private enum Code {
    static let none: UInt32 = 0
    static let protocolError: UInt32 = 1
    static let streamClosed: UInt32 = 5
    static let refused: UInt32 = 7
    static let cancel: UInt32 = 8
    static let calm: UInt32 = 11
}

private func withServer(
    limits: HTTPLimits = HTTPLimits(), http2: HTTP2Limits = HTTP2Limits(), settings: [(UInt16, UInt32)] = [],
    _ body: (TestServer, RawClient) async throws -> Void
) async throws {
    let server = try await TestServer(limits: limits, http2: http2)
    let client = try await RawClient(server.port, settings: settings)
    do {
        try await body(server, client)
    } catch {
        await client.close()
        await server.stop()
        throw error
    }
    await client.close()
    await server.stop()
}

@Suite(.timeLimit(.minutes(1))) struct HTTP2ServerConnectionTests {
    // MARK: Requests and responses

    @Test func answersRequests() async throws {
        try await withServer { _, client in
            try await client.send(client.request(1, "/hello"))
            let answer = try #require(try await client.answer(1))
            #expect(answer.status == "200")
            #expect(answer.body == "hello")
            #expect(answer.heads.first?.first(name: "content-length") == "5")
            #expect(answer.heads.first?.contains(name: "date") == true)
            try await client.send(client.request(3, "HEAD", "/hello"))
            let head = try #require(try await client.answer(3))
            #expect(head.body == "")
            #expect(head.heads.first?.first(name: "content-length") == "5")
        }
    }

    @Test func echoesBodiesOfAnySizeAndTheirTrailers() async throws {
        try await withServer { _, client in
            let text = String(repeating: "0123456789abcdef", count: 1000)
            // Each part fits the windows, which open as the server takes them.
            try await client.send(client.request(1, "POST", "/echo", end: false))
            var expected = ""
            for _ in 0..<4 {
                try await client.send(client.data(1, text))
                expected += text
            }
            try await client.send(client.headers(1, [("x-sum", "1")]))
            let answer = try #require(try await client.answer(1))
            #expect(answer.body == expected)
            #expect(answer.heads.last?.first(name: "x-sum") == "1")
            #expect(answer.reset == nil)
        }
    }

    @Test func informationalResponsesAndTrailers() async throws {
        try await withServer { _, client in
            try await client.send(client.request(1, "/hints"))
            let hints = try #require(try await client.answer(1))
            #expect(hints.heads.map { $0.first(name: ":status") } == ["103", "200"])
            #expect(hints.heads.first?.first(name: "link") == "</a>")
            try await client.send(client.request(3, "/trailers"))
            let trailers = try #require(try await client.answer(3))
            #expect(trailers.body == "body")
            #expect(trailers.heads.last?.first(name: "x-sum") == "7")
        }
    }

    @Test func expectationsAreAnsweredWhenTheBodyIsWanted() async throws {
        try await withServer { _, client in
            try await client.send(
                client.request(1, "POST", "/echo", [("expect", "100-continue"), ("content-length", "2")], end: false))
            let first = try #require(await client.next(.headers))
            #expect(try client.decode(first).first(name: ":status") == "100")
            try await client.send(client.data(1, "hi", end: true))
            #expect(try await client.answer(1)?.body == "hi")
        }
    }

    @Test func aResponseThatBreaksOffIsReset() async throws {
        try await withServer { server, client in
            try await client.send(client.request(1, "/broken"))
            let answer = try #require(try await client.answer(1))
            #expect(answer.reset == 2)
            try await client.send(client.request(3, "/nobody"))
            #expect(try await client.answer(3)?.status == "503")
            #expect(server.faults.withLock { $0 } == [])
        }
    }

    @Test func requestsAreAnsweredSideBySide() async throws {
        try await withServer { server, client in
            try await client.send(client.request(1, "/wait"), client.request(3, "/hello"))
            #expect(try await client.answer(3)?.body == "hello")
            try await server.withWaiting { $0.respond(ResponseHead(status: 204), body: ByteBuffer()) }
            #expect(try await client.answer(1)?.status == "204")
        }
    }

    @Test func aTableOfFieldsThatIsTooLargeIsNotFilled() async throws {
        try await withServer(settings: [(1, UInt32.max)]) { _, client in
            var sizes: [Int] = []
            for stream in [1, 3, 5] {
                try await client.send(client.request(stream, "/hello"))
                // Not decoded: this client's own table is smaller.
                sizes.append(try #require(await client.next(.headers, stream: stream)).payload.readableBytes)
            }
            // What the first response said is said again, but for the six bytes that announce the size of the table.
            #expect(sizes.allSatisfy { $0 + 10 >= sizes[0] }, "\(sizes)")
        }
    }

    // MARK: Malformed requests

    @Test(arguments: [
        [(":method", "GET"), (":scheme", "https"), (":path", "/")] + [("transfer-encoding", "chunked")],
        [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/ x")],
        [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/"), ("host", "b")],
        [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/"), ("x", "a\r\nb: c")],
        [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/"), ("content-length", "3")],
    ])
    func malformedRequestsAreReset(fields: [(String, String)]) async throws {
        try await withServer { server, client in
            try await client.send(client.headers(1, fields))
            #expect(try await client.answer(1)?.reset == Code.protocolError)
            #expect(server.faults.withLock { $0 } == [.malformedRequest])
            // The connection goes on.
            try await client.send(client.request(3, "/hello"))
            #expect(try await client.answer(3)?.body == "hello")
        }
    }

    @Test func refusalsAreAnswers() async throws {
        var limits = HTTPLimits()
        limits.bodyBytes = 10
        limits.headBytes = 2000
        try await withServer(limits: limits) { _, client in
            try await client.send(client.request(1, "/hello", [("x", String(repeating: "a", count: 2000))]))
            #expect(try await client.answer(1)?.status == "431")
            try await client.send(client.headers(3, [(":method", "CONNECT"), (":authority", "a:1")], end: false))
            #expect(try await client.answer(3)?.status == "501")
            try await client.send(
                client.request(5, "POST", "/wait", end: false), client.data(5, "01234567890", end: false))
            #expect(try await client.answer(5)?.status == "413")
            try await client.send(client.request(7, "POST", "/wait", [("content-length", "11")], end: false))
            #expect(try await client.answer(7)?.status == "413")
        }
    }

    @Test func aBodyMustHaveItsLength() async throws {
        try await withServer { server, client in
            for (stream, text) in [(1, "1234"), (3, "123456")] {
                try await client.send(
                    client.request(stream, "POST", "/wait", [("content-length", "5")], end: false),
                    client.data(stream, text, end: true))
                #expect(try await client.answer(stream)?.reset == Code.protocolError)
            }
            #expect(server.faults.withLock { $0 } == [.malformedRequest, .malformedRequest])
            #expect(server.log.withLock { $0.filter { $0.hasPrefix("ended") } }.count == 2)
        }
    }

    @Test func aFrameAfterTheEndOfItsStream() async throws {
        try await withServer { _, client in
            try await client.send(client.request(1, "/wait"), client.request(1, "/wait"))
            #expect(try await client.answer(1)?.reset == Code.streamClosed)
        }
    }

    // MARK: Flow control

    @Test func aSlowReaderStopsItsSource() async throws {
        try await withServer(settings: [(4, 20_000)]) { server, client in
            try await client.send(client.request(1, "/size/500000"))
            var received = 0
            while received < 20_000, let frame = await client.next(.data) { received += frame.payload.readableBytes }
            #expect(received == 20_000)
            try await server.noted("paused at 70000")
            // Others are not held up.
            try await client.send(client.request(3, "/hello"))
            #expect(try await client.answer(3)?.body == "hello")
            try await client.send(client.windowUpdate(0, 1 << 20), client.windowUpdate(1, 1 << 20))
            while received < 500_000, let frame = await client.next(.data) { received += frame.payload.readableBytes }
            #expect(received == 500_000)
            try await server.noted("sent")
        }
    }

    @Test func aReceiverThatDoesNotReadStopsItsUpload() async throws {
        var http2 = HTTP2Limits()
        http2.initialStreamWindow = 40_000
        http2.streamWindow = 40_000
        try await withServer(http2: http2) { server, client in
            let part = String(repeating: "x", count: 10_000)
            try await client.send(client.request(1, "POST", "/stall", end: false))
            for _ in 0..<4 { try await client.send(client.data(1, part)) }
            try await client.send(RawFrame(.ping, ByteBuffer(repeating: 1, count: 8)))
            while let frame = await client.next(), frame.kind != RawFrame.Kind.ping.rawValue {
                #expect(!(frame.kind == RawFrame.Kind.windowUpdate.rawValue && frame.stream == 1))
            }
            #expect(server.log.withLock { $0 } == [])
            try await server.withWaiting { $0.setReading(true) }
            let update = try #require(await client.next(.windowUpdate, stream: 1))
            #expect(
                update.payload.getInteger(at: update.payload.readerIndex, as: UInt32.self).map { $0 <= 40_000 } == true)
            try await server.noted("received 40000")
            try await client.send(client.data(1, "", end: true))
            try await server.noted("request ended")
        }
    }

    @Test func smallFramesThatWaitArePutTogether() async throws {
        try await withServer { server, client in
            try await client.send(client.request(1, "POST", "/stall", end: false))
            for _ in 0..<100 { try await client.send(client.data(1, "x")) }
            try await client.send(RawFrame(.ping, ByteBuffer(repeating: 1, count: 8)))
            #expect(await client.next(.ping) != nil)
            try await server.withWaiting { $0.setReading(true) }
            try await server.noted("received 100")
            #expect(server.log.withLock { $0 } == ["received 100"])
        }
    }

    @Test func whoSendsMoreThanTheWindowIsCutOff() async throws {
        var http2 = HTTP2Limits()
        http2.initialStreamWindow = 10_000
        http2.streamWindow = 10_000
        try await withServer(http2: http2) { _, client in
            try await client.send(
                client.request(1, "POST", "/stall", end: false), client.data(1, String(repeating: "x", count: 10_001)))
            #expect(try await client.answer(1)?.reset == 3)
        }
    }

    // MARK: Early answers

    @Test func anUploadMayGoOnForAWhileAfterItsAnswer() async throws {
        try await withServer { _, client in
            try await client.send(client.request(1, "POST", "/early", end: false))
            #expect(try await client.answer(1)?.status == "401")
            try await client.send(client.data(1, String(repeating: "x", count: 10_000), end: true))
            try await client.send(client.request(3, "/hello"))
            #expect(try await client.answer(3)?.body == "hello")
        }
    }

    @Test func anUploadThatGoesOnForTooLongIsStoppedWithoutAnError() async throws {
        var limits = HTTPLimits()
        limits.drainBytes = 20_000
        limits.lingerTimeout = .milliseconds(300)
        try await withServer(limits: limits) { _, client in
            try await client.send(client.request(1, "POST", "/early", end: false))
            #expect(try await client.answer(1)?.status == "401")
            for _ in 0..<3 { try await client.send(client.data(1, String(repeating: "x", count: 10_000))) }
            #expect(await client.next(.reset, stream: 1)?.errorCode == Code.none)
            // One that is larger by its own word is stopped at once.
            try await client.send(client.request(3, "POST", "/early", [("content-length", "20001")], end: false))
            #expect(try await client.answer(3)?.status == "401")
            #expect(await client.next(.reset, stream: 3)?.errorCode == Code.none)
            // And one that stops without an end after a while.
            try await client.send(client.request(5, "POST", "/early", end: false))
            #expect(try await client.answer(5)?.status == "401")
            #expect(await client.next(.reset, stream: 5)?.errorCode == Code.none)
        }
    }

    // MARK: Time

    @Test func aBodyThatStopsIsAnsweredWith408() async throws {
        var limits = HTTPLimits()
        limits.bodyIdleTimeout = .milliseconds(300)
        try await withServer(limits: limits) { server, client in
            try await client.send(client.request(1, "POST", "/wait", end: false), client.data(1, "part"))
            #expect(try await client.answer(1)?.status == "408")
            try await server.noted("ended idleTimeout")
        }
    }

    @Test func aReaderThatTakesNothingIsGivenUp() async throws {
        var limits = HTTPLimits()
        limits.stalledWriteTimeout = .milliseconds(300)
        try await withServer(limits: limits, settings: [(4, 1000)]) { server, client in
            try await client.send(client.request(1, "/size/500000"))
            #expect(await client.next(.reset, stream: 1) != nil)
            try await server.noted("broken")
            // Also when all was written, but has not left.
            try await client.send(client.request(3, "/size/5000"))
            #expect(await client.next(.reset, stream: 3) != nil)
            try await server.noted("sent")
        }
    }

    @Test func aReaderThatDoesNotReadAtAllIsCutOff() async throws {
        var limits = HTTPLimits()
        limits.stalledWriteTimeout = .milliseconds(300)
        try await withServer(limits: limits, settings: [(4, 0x7FFF_FFFF)]) { server, client in
            try await client.channel.setOption(.autoRead, value: false).get()
            try await client.send(
                client.windowUpdate(0, 0x7FFF_FFFF - 65535), client.request(1, "/size/100000000"))
            try await server.noted("broken")
            try await server.noted("closed")
        }
    }

    @Test func anEndThatTheWindowHoldsBackIsGivenUp() async throws {
        var limits = HTTPLimits()
        limits.stalledWriteTimeout = .milliseconds(300)
        try await withServer(limits: limits, settings: [(4, 1 << 20)]) { server, client in
            // The rest of the connection's window, to the byte.
            try await client.send(client.request(1, "POST", "/echo", end: false))
            for part in [16_383, 16_384, 16_384, 16_384] {
                try await client.send(client.data(1, String(repeating: "x", count: part)))
            }
            var received = 0
            while received < 65_535, let frame = await client.next(.data) { received += frame.payload.readableBytes }
            #expect(received == 65_535)
            try await client.send(client.data(1, "", end: true))
            // Either it leaves, for it takes nothing of the window, or the stream is reset.
            while let frame = await client.next() {
                if frame.stream == 1, frame.isEnd || frame.kind == RawFrame.Kind.reset.rawValue { break }
            }
            #expect(!client.isClosed)
        }
    }

    @Test func anIdleConnectionIsClosed() async throws {
        var limits = HTTPLimits()
        limits.keepAliveTimeout = .milliseconds(300)
        try await withServer(limits: limits) { server, client in
            #expect(await client.end() == Code.none)
            try await server.noted("closed")
        }
    }

    // MARK: The end

    @Test func whoResetsAStreamEndsItsExchange() async throws {
        try await withServer { server, client in
            try await client.send(
                client.request(1, "/wait"), RawFrame(.reset, stream: 1, ByteBuffer(integer: Code.cancel)))
            try await server.noted("ended cancelled")
            try await client.send(client.request(3, "/hello"))
            #expect(try await client.answer(3)?.body == "hello")
        }
    }

    @Test func whoGoesAwayEndsAllExchanges() async throws {
        try await withServer { server, client in
            try await client.send(client.request(1, "/wait"), client.request(3, "/size/10000000"))
            try await server.noted("request ended")
            await client.close()
            try await server.noted("closed")
            // As an end of stream or as a reset, whichever is seen first.
            let log = server.log.withLock { $0 }
            #expect(log.contains("ended cancelled") || log.contains("ended reset"))
            #expect(log.contains("broken"))
        }
    }

    @Test func drainingAnswersWhatIsUnderWayAndNothingElse() async throws {
        try await withServer { server, client in
            try await client.send(client.request(1, "/wait"))
            try await server.noted("request ended")
            try await server.drain()
            let goodbye = try #require(await client.next(.goAway))
            #expect(goodbye.errorCode == Code.none)
            #expect(goodbye.payload.getInteger(at: goodbye.payload.readerIndex, as: UInt32.self) == 1)
            try await client.send(client.request(3, "/hello"))
            try await server.withWaiting { $0.respond(ResponseHead(status: 200), body: ByteBuffer(string: "last")) }
            #expect(try await client.answer(1)?.body == "last")
            #expect(await client.end() == Code.none)
            try await server.noted("closed")
        }
    }

    @Test func whoBreaksTheProtocolIsCutOffAlsoWhileDraining() async throws {
        try await withServer { server, client in
            try await client.send(client.request(1, "/wait"))
            try await server.noted("request ended")
            try await server.drain()
            #expect(await client.next(.goAway) != nil)
            try await client.send(RawFrame(.data, stream: 0, ByteBuffer(string: "data of no stream")))
            try await server.noted("closed")
            #expect(server.faults.withLock { $0 } == [.protocolError])
        }
    }

    @Test func drainingAnIdleConnectionClosesIt() async throws {
        try await withServer { server, client in
            try await client.send(client.request(1, "/hello"))
            #expect(try await client.answer(1)?.body == "hello")
            try await server.drain()
            #expect(await client.end() == Code.none)
        }
    }
}
