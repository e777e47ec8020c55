/// Headers of the PROXY protocol, right and wrong, and what a listener makes of them.
import KiteHTTP
import NIOCore
import NIOPosix
import Synchronization
import Testing

/// A header of version 2.
private func binary(
    _ command: UInt8 = 0x21, family: UInt8 = 0x11, _ body: [UInt8] = [1, 2, 3, 4, 5, 6, 7, 8, 0x10, 0, 1, 0xBB],
    size: Int? = nil
) -> [UInt8] {
    let size = size ?? body.count
    return [
        13, 10, 13, 10, 0, 13, 10, 0x51, 0x55, 0x49, 0x54, 10, command, family, UInt8(size >> 8), UInt8(size & 255),
    ]
        + body
}

private func header(_ source: String?, _ sourcePort: Int = 0, _ destination: String? = nil, _ port: Int = 0) throws
    -> ProxyHeader
{
    ProxyHeader(
        source: try source.map { try SocketAddress(ipAddress: $0, port: sourcePort) },
        destination: try destination.map { try SocketAddress(ipAddress: $0, port: port) })
}

private func parse(_ bytes: [UInt8]) -> ProxyHeaderParser.Outcome { ProxyHeaderParser.parse(ByteBuffer(bytes: bytes)) }

@Suite(.timeLimit(.minutes(1))) struct ProxyHeaderTests {
    private static let version6 = Array(repeating: UInt8(0), count: 15)

    private func good() throws -> [([UInt8], ProxyHeader)] {
        let longAddress = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
        let six = Self.version6 + [1] + Self.version6 + [2] + [0x10, 0, 1, 0xBB]
        return [
            (Array("PROXY TCP4 1.2.3.4 5.6.7.8 4096 443\r\n".utf8), try header("1.2.3.4", 4096, "5.6.7.8", 443)),
            (Array("PROXY TCP6 ::1 2001:db8::2 65535 0\r\n".utf8), try header("::1", 65535, "2001:db8::2", 0)),
            (
                Array("PROXY TCP6 \(longAddress) \(longAddress) 65535 65535\r\n".utf8),
                try header(longAddress, 65535, longAddress, 65535)
            ),
            (Array("PROXY UNKNOWN\r\n".utf8), try header(nil)),
            (Array("PROXY UNKNOWN \(longAddress) \(longAddress) 65535 65535\r\n".utf8), try header(nil)),
            (binary(), try header("1.2.3.4", 4096, "5.6.7.8", 443)),
            (binary(family: 0x21, six), try header("::1", 4096, "::2", 443)),
            // Additions are skipped, whatever they are.
            (
                binary(0x21, family: 0x11, [1, 2, 3, 4, 5, 6, 7, 8, 0x10, 0, 1, 0xBB, 4, 255, 255, 0]),
                try header("1.2.3.4", 4096, "5.6.7.8", 443)
            ),
            (binary(0x20), try header(nil)), (binary(0x20, family: 0, []), try header(nil)),
            (binary(0x20, family: 0x77, []), try header(nil)), (binary(0x21, family: 0, []), try header(nil)),
            (binary(0x21, family: 0, [1, 2, 3]), try header(nil)),
            (binary(0x21, family: 0x31, Array(repeating: 47, count: 216)), try header(nil)),
            (
                binary(
                    0x21, family: 0x11, [1, 2, 3, 4, 5, 6, 7, 8, 0x10, 0, 1, 0xBB] + Array(repeating: 0, count: 4068)),
                try header("1.2.3.4", 4096, "5.6.7.8", 443)
            ),
        ]
    }

    @Test func readsHeadersHoweverTheyAreCut() throws {
        for (bytes, expected) in try good() {
            #expect(parse(bytes) == .header(expected, length: bytes.count))
            #expect(parse(bytes + [71, 69, 84]) == .header(expected, length: bytes.count))
            for count in 0..<bytes.count { #expect(parse(Array(bytes[..<count])) == .incomplete) }
        }
    }

    @Test(arguments: [
        "GET / HTTP/1.1\r\n", "PROXX", "proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n", "PROXY TCP4\r\n",
        "PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r\n",
        "PROXY\tTCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n", "PROXY TCP4 1.2.3.256 5.6.7.8 1 2\r\n",
        "PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 ::1 ::2 1 2\r\n", "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n", "PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n", "PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n", "PROXY TCP4 1.2.3.4 5.6.7.8 1 \r\n",
        "PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", "PROXY TCP4 host 5.6.7.8 1 2\r\n", "PROXY TCP4 1.2.3.4\0 5.6.7.8 1 2\r\n",
        "PROXY UNKNOWN" + String(repeating: "x", count: 100) + "\r\n", "PROXY TCP4 ٣.2.3.4 5.6.7.8 1 2\r\n",
    ]) func refusesMalformedLines(line: String) {
        guard case .failed = parse(Array(line.utf8)) else {
            Issue.record("\(parse(Array(line.utf8)))")
            return
        }
    }

    @Test func refusesMalformedBinaryHeaders() {
        let bad: [[UInt8]] = [
            binary(0x11), binary(0x31), binary(0x01), binary(0x22), binary(0x2F), binary(family: 0x12),
            binary(family: 0x22),
            binary(family: 0x32), binary(family: 0x13), binary(family: 0x41), binary(family: 0xFF),
            binary(size: 11), binary(family: 0x11, []), binary(family: 0x21),
            binary(family: 0x31, Array(repeating: 0, count: 215)),
            binary(size: 4081), binary(size: 65535), [13, 10, 13, 10, 0, 13, 10, 0x51, 0x55, 0x49, 0x54, 13],
            [13, 10, 13, 11],
        ]
        for bytes in bad {
            guard case .failed = parse(bytes) else {
                Issue.record("\(bytes): \(parse(bytes))")
                continue
            }
        }
    }

    @Test func linesWithoutEndAreRefusedInTime() {
        let endless = Array("PROXY UNKNOWN ".utf8) + Array(repeating: UInt8(ascii: "x"), count: 93)
        #expect(endless.count == 107)
        #expect(parse(Array(endless.dropLast())) == .incomplete)
        guard case .failed = parse(endless) else { return #expect(Bool(false)) }
    }
}

/// Reads until the peer closes.
private final class Collector: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private var text = ""
    private let promise: EventLoopPromise<String>
    init(_ promise: EventLoopPromise<String>) { self.promise = promise }
    func channelRead(context: ChannelHandlerContext, data: NIOAny) { text += String(buffer: unwrapInboundIn(data)) }
    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    func channelInactive(context: ChannelHandlerContext) { promise.succeed(text) }
}

/// Answers what it gets first with the address that it knows, and closes.
private final class Echo: ByteTransportDelegate {
    private let transport: SocketTransport
    init(_ transport: SocketTransport) { self.transport = transport }
    func transportReceived(_ bytes: ByteBuffer) {
        transport.write(ByteBuffer(string: "\(transport.remoteAddress?.ipAddress ?? "-") \(String(buffer: bytes))"))
        transport.close()
    }
    func transportInputClosed() { transport.close() }
    func transportWritabilityChanged(_ isWritable: Bool) {}
    func transportClosed(_ error: TransportError?) {}
}

@Suite(.timeLimit(.minutes(1))) struct ProxyHeaderListenerTests {
    private let loop = MultiThreadedEventLoopGroup.singleton.next()
    private final class Seen: Sendable { let events = Mutex<[String]>([]) }

    private func listen(
        _ seen: Seen, limiter: ConnectionLimiter? = nil, timeout: TimeAmount = .seconds(10), isTrusted: Bool = true
    ) async throws -> Listener {
        var configuration = Listener.Configuration(limiter: limiter)
        configuration.handshakeTimeout = timeout
        configuration.expectsProxyHeader = { _ in isTrusted }
        return try await Listener.bind(
            to: SocketAddress(ipAddress: "127.0.0.1", port: 0), loops: [loop], configuration: configuration,
            onEvent: { event in
                seen.events.withLock { events in
                    switch event {
                    case .proxyHeaderFailed(_, let error): events.append(error == nil ? "late" : "malformed")
                    case .refused(let address, _): events.append("refused \(address?.ipAddress ?? "-")")
                    default: events.append("other")
                    }
                }
            }, onAccept: { $0.delegate = Echo($0) })
    }

    /// What is answered to pieces that are sent one after the other.
    private func send(_ pieces: [[UInt8]], to listener: Listener) async throws -> String {
        let promise = loop.makePromise(of: String.self)
        let channel = try await ClientBootstrap(group: loop)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Collector(promise))
                }
            }
            .connect(to: listener.address).get()
        for piece in pieces { try? await channel.writeAndFlush(ByteBuffer(bytes: piece)) }
        return try await promise.futureResult.get()
    }

    @Test func theAddressInTheHeaderIsTheVisitors() async throws {
        let listener = try await listen(Seen())
        let line = Array("PROXY TCP4 9.8.7.6 5.6.7.8 4096 443\r\n".utf8)
        #expect(try await send([line + Array("hello".utf8)], to: listener) == "9.8.7.6 hello")
        #expect(try await send([line, Array("hello".utf8)], to: listener) == "9.8.7.6 hello")
        #expect(try await send(line.map { [$0] } + [Array("hello".utf8)], to: listener) == "9.8.7.6 hello")
        #expect(try await send([binary() + Array("hello".utf8)], to: listener) == "1.2.3.4 hello")
        // The load balancer itself.
        #expect(try await send([binary(0x20) + Array("hello".utf8)], to: listener) == "127.0.0.1 hello")
        await listener.close()
    }

    @Test func headersOfOthersAreNotBelieved() async throws {
        let listener = try await listen(Seen(), isTrusted: false)
        let line = "PROXY TCP4 9.8.7.6 5.6.7.8 4096 443\r\n"
        #expect(try await send([Array(line.utf8)], to: listener) == "127.0.0.1 \(line)")
        await listener.close()
    }

    @Test func connectionsWithoutAHeaderAreClosed() async throws {
        let seen = Seen()
        let listener = try await listen(seen)
        #expect(try await send([Array("GET / HTTP/1.1\r\n\r\n".utf8)], to: listener) == "")
        await listener.close()
        #expect(seen.events.withLock { $0 } == ["malformed"])
    }

    @Test func headersMustComeInTime() async throws {
        let seen = Seen()
        let listener = try await listen(seen, timeout: .milliseconds(200))
        #expect(try await send([Array("PROXY TC".utf8)], to: listener) == "")
        await listener.close()
        #expect(seen.events.withLock { $0 } == ["late"])
    }

    @Test func connectionsAreCountedByTheVisitorsAddress() async throws {
        let seen = Seen()
        let limiter = ConnectionLimiter(connections: 10, connectionsPerAddress: 1)
        let listener = try await listen(seen, limiter: limiter)
        let held = try await ClientBootstrap(group: loop).connect(to: listener.address).get()
        let line = "PROXY TCP4 9.8.7.6 5.6.7.8 4096 443\r\n"
        try await held.writeAndFlush(ByteBuffer(string: line))
        // The limit is that of the address in the header, once it is there; the load balancer may have any number.
        #expect(try await send([Array((line + "x").utf8)], to: listener) == "")
        let other = "PROXY TCP4 9.8.7.5 5.6.7.8 4096 443\r\n"
        #expect(try await send([Array((other + "x").utf8)], to: listener) == "9.8.7.5 x")
        #expect(seen.events.withLock { $0 } == ["refused 9.8.7.6"])
        try await held.close()
        while limiter.count > 0 { await Task.yield() }
        #expect(try await send([Array((line + "x").utf8)], to: listener) == "9.8.7.6 x")
        await listener.close()
    }
}
