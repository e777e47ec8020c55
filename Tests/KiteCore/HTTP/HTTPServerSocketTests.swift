/// The server connection over real sockets, asked by an independent client.
import KiteSupport
import NIOCore
import NIOHTTP1
import NIOPosix
import Testing

@testable import KiteHTTP

/// Sends bodies back as they come; answers without a body with the target.
private final class Mirror: ExchangeAcceptor, ExchangeHandler {
    func accept(_ exchange: any Exchange) {
        exchange.handler = self
        if exchange.request.bodyLength == .none {
            exchange.respond(ResponseHead(status: 200), body: exchange.request.target)
        } else {
            exchange.respond(ResponseHead(status: 200, bodyLength: exchange.request.bodyLength))
        }
    }
    func exchangeReceived(_ exchange: any Exchange, body: ByteBuffer) {
        exchange.write(body)
        if !exchange.isWritable { exchange.setReading(false) }
    }
    func exchangeRequestEnded(_ exchange: any Exchange, trailers: HeaderBlock?) { exchange.finish(trailers: trailers) }
    func exchangeWritabilityChanged(_ exchange: any Exchange, isWritable: Bool) { exchange.setReading(isWritable) }
    func exchangeEnded(_ exchange: any Exchange, error: TransportError?) {}
}

@Suite struct HTTPServerSocketTests {
    private static func serve() async throws -> Listener {
        try await Listener.bind(
            to: SocketAddress(ipAddress: "127.0.0.1", port: 0), loops: [MultiThreadedEventLoopGroup.singleton.next()]
        ) { transport in
            HTTPServerConnection(
                transport: transport, acceptor: Mirror(), peer: ExchangePeer(address: transport.remoteAddress),
                resources: HTTPLoopResources(eventLoop: transport.eventLoop))
        }
    }

    private static func connect(_ listener: Listener) async throws -> NIOAsyncChannel<
        HTTPClientResponsePart, HTTPClientRequestPart
    > {
        try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton).connect(to: listener.address) {
            channel in
            channel.eventLoop.makeCompletedFuture {
                try channel.pipeline.syncOperations.addHTTPClientHandlers()
                return try NIOAsyncChannel(wrappingChannelSynchronously: channel)
            }
        }
    }

    @Test(.timeLimit(.minutes(1))) func answersRequestAfterRequest() async throws {
        let listener = try await Self.serve()
        try await Self.connect(listener).executeThenClose { inbound, outbound in
            var parts = inbound.makeAsyncIterator()
            for number in 0..<200 {
                let head = HTTPRequestHead(version: .http1_1, method: .GET, uri: "/\(number)", headers: ["Host": "a"])
                try await outbound.write(.head(head))
                try await outbound.write(.end(nil))
                guard case .head(let answer)? = try await parts.next() else {
                    Issue.record("no head")
                    return
                }
                #expect(answer.status == .ok)
                #expect(answer.headers.contains(name: "Date"))
                guard case .body(let body)? = try await parts.next() else {
                    Issue.record("no body")
                    return
                }
                #expect(String(buffer: body) == "/\(number)")
                guard case .end(nil)? = try await parts.next() else {
                    Issue.record("no end")
                    return
                }
            }
        }
        await listener.close()
    }

    @Test(.timeLimit(.minutes(1)), arguments: [true, false])
    func mirrorsALargeBodyUnderBackPressure(isChunked: Bool) async throws {
        let listener = try await Self.serve()
        let piece = ByteBuffer(bytes: (0..<50_000).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) })
        let pieces = 200
        try await Self.connect(listener).executeThenClose { inbound, outbound in
            async let sending: Void = {
                var head = HTTPRequestHead(version: .http1_1, method: .POST, uri: "/", headers: ["Host": "a"])
                if isChunked {
                    head.headers.add(name: "Transfer-Encoding", value: "chunked")
                } else {
                    head.headers.add(name: "Content-Length", value: "\(piece.readableBytes * pieces)")
                }
                try await outbound.write(.head(head))
                for _ in 0..<pieces { try await outbound.write(.body(.byteBuffer(piece))) }
                try await outbound.write(.end(isChunked ? ["X-Sum": "1"] : nil))
            }()
            var received = ByteBuffer()
            var trailers: HTTPHeaders?
            loop: for try await part in inbound {
                switch part {
                case .head(let head): #expect(head.status == .ok)
                case .body(let bytes): received.writeImmutableBuffer(bytes)
                case .end(let found):
                    trailers = found
                    break loop
                }
            }
            try await sending
            #expect(received.readableBytes == piece.readableBytes * pieces)
            var isEqual = true
            while let slice = received.readSlice(length: piece.readableBytes) { isEqual = isEqual && slice == piece }
            #expect(isEqual)
            #expect(trailers?.first(name: "X-Sum") == (isChunked ? "1" : nil))
        }
        await listener.close()
    }

    /// Sends a text as it is and returns everything that comes back until the server closes.
    private static func ask(_ text: String, _ listener: Listener) async throws -> String {
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connect(to: listener.address) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
                }
            }
        return try await channel.executeThenClose { inbound, outbound in
            try await outbound.write(ByteBuffer(string: text))
            var answer = ByteBuffer()
            for try await bytes in inbound { answer.writeImmutableBuffer(bytes) }
            return String(buffer: answer)
        }
    }

    @Test(.timeLimit(.minutes(1))) func refusalsArriveWholeAndTheConnectionCloses() async throws {
        let listener = try await Self.serve()
        let upload = String(repeating: "x", count: 100_000)
        for (text, status) in [
            ("GET / HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n\(upload)", "400 Bad Request"),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 100000\r\n\r\n\(upload)",
                "417 Expectation Failed"
            ),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: \(upload)", "431 Request Header Fields Too Large"),
            ("GET /\(upload)", "414 URI Too Long"), ("GET / HTTP/3.0\r\n\r\n", "505 HTTP Version Not Supported"),
        ] {
            let answer = try await Self.ask(text, listener)
            #expect(answer.hasPrefix("HTTP/1.1 \(status)\r\n"))
            #expect(answer.contains("\r\nConnection: close\r\n"))
            #expect(answer.hasSuffix(".\n"))
        }
        #expect(try await Self.ask("GET /old HTTP/1.0\r\n\r\n", listener).hasSuffix("\r\n\r\n/old"))
        await listener.close()
    }
}
