/// WebSockets over HTTP/2 (RFC 8441): the stream as a pipe.
import KiteHTTP
import NIOCore
import NIOHPACK
import Synchronization
import Testing

@testable import KiteHTTP2

@Suite(.timeLimit(.minutes(1))) struct HTTP2WebSocketTests {
    private func withServer(
        http2: HTTP2Limits = HTTP2Limits(), settings: [(UInt16, UInt32)] = [],
        _ body: (TestServer, RawClient) async throws -> Void
    ) async throws {
        let server = try await TestServer(http2: http2)
        let client = try await RawClient(server.port, settings: settings)
        try await body(server, client)
        await client.close()
        await server.stop()
    }

    private func connect(_ client: RawClient, _ stream: Int, _ path: String) throws -> RawFrame {
        try client.headers(
            stream,
            [
                (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":authority", "kite.test"),
                (":path", path), ("sec-websocket-version", "13"),
            ], end: false)
    }

    @Test func theSettingsOfferThem() async throws {
        try await withServer { _, client in
            let settings = try #require(await client.next(.settings))
            var payload = settings.payload
            var found: [UInt16: UInt32] = [:]
            while let number: UInt16 = payload.readInteger(), let value: UInt32 = payload.readInteger() {
                found[number] = value
            }
            #expect(found[8] == 1)
            #expect(found[3] == 128)
        }
    }

    @Test func bytesGoBothWaysUntilBothSidesHaveEnded() async throws {
        try await withServer { server, client in
            try await client.send(connect(client, 1, "/ws"))
            let head = try client.decode(try #require(await client.next(.headers)))
            #expect(head.first(name: ":status") == "200")
            #expect(!head.contains(name: "sec-websocket-accept"))
            #expect(!head.contains(name: "upgrade"))
            try await client.send(client.data(1, "one"))
            #expect(await client.next(.data)?.payload == ByteBuffer(string: "one"))
            try await client.send(client.data(1, "two", end: true))
            let answer = try #require(try await client.answer(1))
            #expect(answer.body == "two")
            #expect(answer.reset == nil)
            try await server.noted("input closed")
            try await server.noted("transport closed well")
        }
    }

    @Test func whatComesBeforeTheAnswerIsNotLost() async throws {
        try await withServer { _, client in
            try await client.send(connect(client, 1, "/ws"), client.data(1, "early"))
            _ = await client.next(.headers)
            #expect(await client.next(.data)?.payload == ByteBuffer(string: "early"))
        }
    }

    @Test func resetsAndAborts() async throws {
        try await withServer { server, client in
            try await client.send(connect(client, 1, "/ws"))
            _ = await client.next(.headers)
            try await client.send(RawFrame(.reset, stream: 1, ByteBuffer(integer: UInt32(8))))
            try await server.noted("transport closed cancelled")
            try await client.send(connect(client, 3, "/ws"), client.data(3, "abort"))
            #expect(await client.next(.reset, stream: 3)?.errorCode == 8)
            try await server.noted("transport closed reset")
            try await client.send(connect(client, 5, "/ws"), client.data(5, "close"))
            #expect(try await client.answer(5)?.reset == nil)
            try await server.noted("transport closed well")
        }
    }

    @Test func aSlowReaderStopsTheOtherSide() async throws {
        var http2 = HTTP2Limits()
        http2.initialStreamWindow = 100_000
        http2.streamWindow = 100_000
        try await withServer(http2: http2, settings: [(4, 1000)]) { _, client in
            try await client.send(connect(client, 1, "/ws"))
            // The echo has nowhere to go, so the server's window closes after what it holds.
            var granted = 100_000
            var sent = 0
            let part = String(repeating: "x", count: 10_000)
            while granted >= part.utf8.count {
                try await client.send(client.data(1, part), RawFrame(.ping, ByteBuffer(repeating: 1, count: 8)))
                sent += part.utf8.count
                granted -= part.utf8.count
                while let frame = await client.next(), frame.kind != RawFrame.Kind.ping.rawValue {
                    guard frame.kind == RawFrame.Kind.windowUpdate.rawValue, frame.stream == 1 else { continue }
                    granted += Int(frame.payload.getInteger(at: frame.payload.readerIndex, as: UInt32.self) ?? 0)
                }
            }
            #expect(sent <= 300_000)
            try await client.send(client.windowUpdate(1, 1 << 20), client.windowUpdate(0, 1 << 20))
            var received = 1000
            while received < sent, let frame = await client.next(.data) { received += frame.payload.readableBytes }
            #expect(received >= sent)
        }
    }

    @Test func anAnswerThatDoesNotOpenTheWebSocketIsRefused() async throws {
        try await withServer { server, client in
            try await client.send(connect(client, 1, "/ws-wrong"))
            #expect(try await client.answer(1)?.status == "502")
            #expect(server.log.withLock { !$0.contains("upgraded") })
            try await client.send(connect(client, 3, "/hello"))
            #expect(try await client.answer(3)?.status == "200")
            try await client.send(client.request(5, "/hello"))
            #expect(try await client.answer(5)?.body == "hello")
        }
    }
}
