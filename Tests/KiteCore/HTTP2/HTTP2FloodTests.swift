/// What visitors may not do with a connection: each kind of flood ends it, is counted, and is told apart.
import KiteHTTP
import NIOCore
import NIOHPACK
import Synchronization
import Testing

@testable import KiteHTTP2

/// ENHANCE_YOUR_CALM.
private let calm: UInt32 = 11

@Suite(.timeLimit(.minutes(1))) struct HTTP2FloodTests {
    private var limits: HTTP2Limits {
        var limits = HTTP2Limits()
        limits.concurrentStreams = 10
        limits.resets = 20
        limits.malformedRequests = 20
        limits.controlFrames = 20
        limits.windowUpdates = 20
        limits.emptyDataFrames = 5
        limits.continuationFrames = 3
        return limits
    }

    /// Sends until the server says goodbye; returns its error code and the last fault.
    private func flood(
        http: HTTPLimits = HTTPLimits(), _ frames: (RawClient) throws -> [RawFrame]
    ) async throws -> (code: UInt32?, fault: HTTP2Fault?) {
        let server = try await TestServer(limits: http, http2: limits)
        let client = try await RawClient(server.port)
        // The server may have closed before all has been written.
        try? await client.send(frames(client))
        let code = await client.end()
        try await server.noted("closed")
        await client.close()
        await server.stop()
        return (code, server.faults.withLock { $0.last })
    }

    @Test func rapidResets() async throws {
        let (code, fault) = try await flood { client in
            try (0..<30).flatMap { number in
                [
                    try client.request(2 * number + 1, "/wait"),
                    RawFrame(.reset, stream: 2 * number + 1, ByteBuffer(integer: UInt32(8))),
                ]
            }
        }
        #expect(code == calm)
        #expect(fault == .resetFlood)
    }

    @Test func malformedRequests() async throws {
        let (code, fault) = try await flood { client in
            try (0..<30).map { try client.request(2 * $0 + 1, "/a b") }
        }
        #expect(code == calm)
        #expect(fault == .malformedFlood)
    }

    @Test(arguments: [RawFrame.Kind.ping, .settings, .priority])
    func controlFrames(kind: RawFrame.Kind) async throws {
        let (code, fault) = try await flood { _ in
            (0..<30).map { _ in
                switch kind {
                case .ping: RawFrame(.ping, ByteBuffer(repeating: 0, count: 8))
                case .priority: RawFrame(.priority, stream: 1, ByteBuffer(repeating: 0, count: 5))
                default: RawFrame(.settings)
                }
            }
        }
        #expect(code == calm)
        #expect(fault == .controlFlood)
    }

    @Test func windowUpdates() async throws {
        let (code, fault) = try await flood { client in (0..<30).map { _ in client.windowUpdate(0, 1) } }
        #expect(code == calm)
        #expect(fault == .windowUpdateFlood)
    }

    @Test func emptyData() async throws {
        let (code, fault) = try await flood { client in
            [try client.request(1, "POST", "/wait", end: false)] + (0..<10).map { _ in client.data(1, "") }
        }
        #expect(code == calm)
        #expect(fault == .emptyDataFlood)
    }

    @Test func continuations() async throws {
        let (code, fault) = try await flood { client in
            var first = try client.request(1, "/hello")
            first.flags &= ~RawFrame.endHeaders
            return [first] + (0..<10).map { _ in RawFrame(.continuation, stream: 1) }
        }
        #expect(code == calm)
        #expect(fault == .continuationFlood)
    }

    @Test func headerLists() async throws {
        var http = HTTPLimits()
        http.headBytes = 1000
        let (code, fault) = try await flood(http: http) { client in
            // Small on the wire: the same field again and again, by its index.
            [try client.request(1, "/hello", (0..<200).map { _ in ("x-padding", "0123456789") })]
        }
        // Nothing is unpacked beyond the limit; the framing layer does not tell that from a block that cannot be unpacked.
        #expect(code != nil && code != 0)
        #expect(fault == .protocolError)
    }

    @Test func headerBlocks() async throws {
        var http = HTTPLimits()
        http.headBytes = 1000
        let (code, fault) = try await flood(http: http) { client in
            [try client.request(1, "/hello", [("x", String(repeating: "\u{1F}", count: 3000))])]
        }
        #expect(code != nil && code != 0)
        #expect(fault == .headerList || fault == .protocolError)
    }

    @Test func streamsBeyondTheLimitAreRefused() async throws {
        let server = try await TestServer(http2: limits)
        let client = try await RawClient(server.port)
        let requests = try (0..<11).map { try client.request(2 * $0 + 1, "/wait") }
        try? await client.send(requests)
        // Either the one stream or, for those who had acknowledged the limit, the connection.
        let frame = await client.next()
        #expect(frame != nil)
        while let frame = await client.next() {
            if frame.kind == RawFrame.Kind.reset.rawValue {
                #expect(frame.errorCode == 7 && frame.stream == 21)
                break
            }
            if frame.kind == RawFrame.Kind.goAway.rawValue { break }
        }
        // The frame leaves within the turn that then tells of the fault.
        try await server.turnEnded()
        #expect(server.faults.withLock { $0 } == [.tooManyStreams])
        await client.close()
        await server.stop()
    }

    @Test func whoSpeaksSomethingElse() async throws {
        let (code, fault) = try await flood { _ in
            [RawFrame(.data, stream: 0, ByteBuffer(string: "data of no stream"))]
        }
        #expect(code == 1)
        #expect(fault == .protocolError)
    }
}
