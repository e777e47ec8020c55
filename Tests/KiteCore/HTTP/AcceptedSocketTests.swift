/// What an accepted socket is like: it does not wait to fill segments, and its receive buffers don't stay behind.
import NIOCore
import NIOPosix
import Testing

@testable import KiteHTTP

@Suite(.timeLimit(.minutes(1))) struct AcceptedSocketTests {
    private let group = MultiThreadedEventLoopGroup.singleton

    @Test func inheritsThatSmallWritesLeaveAtOnce() async throws {
        let accepted = group.next().makePromise(of: Bool.self)
        let listener = try await Listener.bind(
            to: SocketAddress(ipAddress: "127.0.0.1", port: 0), loops: [group.next()]
        ) { transport in
            let option = try? transport.channel.syncOptions?.getOption(.tcpOption(.tcp_nodelay))
            accepted.succeed(option != 0 && option != nil)
            transport.close()
        }
        let client = try await ClientBootstrap(group: group).connect(to: listener.address).get()
        #expect(try await accepted.futureResult.get())
        try? await client.close().get()
        await listener.close()
    }

    @Test(arguments: [1, 15, 16, 17, 40, 2063, 2064, 2065, 9000, 100_000])
    func receivesWhateverTheFirstPieceIs(count: Int) async throws {
        let loop = group.next()
        let done = loop.makePromise(of: (ByteBuffer, UInt).self)
        let listener = try await Listener.bind(to: SocketAddress(ipAddress: "127.0.0.1", port: 0), loops: [loop]) {
            $0.delegate = Collector($0, done)
        }
        let sent = ByteBuffer(bytes: (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31) })
        let client = try await ClientBootstrap(group: group).connect(to: listener.address).get()
        try await client.writeAndFlush(sent).get()
        // A second piece, so that the socket is read more than once whatever the first was.
        try await client.writeAndFlush(sent).get()
        try await client.close(mode: .output).get()
        let (received, readsAtOnce) = try await done.futureResult.get()
        var expected = sent
        expected.writeImmutableBuffer(sent)
        #expect(received == expected)
        // The channel keeps as many buffers as it may read at once. What fits into the tiny first one may be all that it read.
        if count * 2 > 16 { #expect(readsAtOnce == 1) }
        try? await client.close().get()
        await listener.close()
    }
}

/// Puts together what arrives, and looks at the channel at the end.
private final class Collector: ByteTransportDelegate {
    private let transport: SocketTransport
    private let done: EventLoopPromise<(ByteBuffer, UInt)>
    private var received = ByteBuffer()

    init(_ transport: SocketTransport, _ done: EventLoopPromise<(ByteBuffer, UInt)>) {
        self.transport = transport
        self.done = done
    }
    func transportReceived(_ bytes: ByteBuffer) { received.writeImmutableBuffer(bytes) }
    func transportInputClosed() {
        done.succeed((received, (try? transport.channel.syncOptions?.getOption(.maxMessagesPerRead)) ?? 0))
        transport.close()
    }
    func transportClosed(_ error: TransportError?) {
        done.fail(error ?? TransportError(.cancelled, "closed without an end"))
    }
    func transportWritabilityChanged(_ isWritable: Bool) {}
}
