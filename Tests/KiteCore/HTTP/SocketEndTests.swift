/// How connections end: slowly, in the middle, and against the wishes of one side.
import KiteSupport
import NIOCore
import NIOEmbedded
import NIOPosix
import Testing

@testable import KiteHTTP

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// Gives what happened to a promise when the transport has closed.
private final class Witness: ByteTransportDelegate {
    private let promise: EventLoopPromise<(count: Int, sawEnd: Bool, error: TransportError?)>
    private let onEnd: () -> Void
    private var count = 0
    private var sawEnd = false

    init(
        _ promise: EventLoopPromise<(count: Int, sawEnd: Bool, error: TransportError?)>,
        onEnd: @escaping () -> Void = {}
    ) {
        self.promise = promise
        self.onEnd = onEnd
    }
    func transportReceived(_ bytes: ByteBuffer) {
        count += bytes.readableBytes
    }
    func transportInputClosed() {
        sawEnd = true
        onEnd()
    }
    func transportClosed(_ error: TransportError?) { promise.succeed((count, sawEnd, error)) }
    func transportWritabilityChanged(_ isWritable: Bool) {}
}

/// Remembers how a transport ended.
private final class Ending: ByteTransportDelegate {
    private(set) var hasEnded = false
    private(set) var error: TransportError?
    func transportReceived(_ bytes: ByteBuffer) {}
    func transportInputClosed() {}
    func transportClosed(_ error: TransportError?) {
        hasEnded = true
        self.error = error
    }
    func transportWritabilityChanged(_ isWritable: Bool) {}
}

/// Stands where the socket is: nothing leaves before the test says so. The channel counts as queued what it has been given and not told
/// to flush, so what waits is kept there byte by byte.
private final class Dam: ChannelOutboundHandler {
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private var context: ChannelHandlerContext?
    private var waiting = 0
    private var closing: EventLoopPromise<Void>?

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }
    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        waiting += unwrapOutboundIn(data).readableBytes
        context.write(data, promise: promise)
    }
    func flush(context: ChannelHandlerContext) {}
    func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        if mode == .output { closing = promise } else { context.close(mode: mode, promise: promise) }
    }

    /// The peer takes something.
    func take(_ count: Int) {
        waiting = max(waiting - count, 0)
        context?.flush()
        if waiting > 0 { context?.write(wrapOutboundOut(ByteBuffer(repeating: 7, count: waiting)), promise: nil) }
    }

    func releaseClose() { closing?.succeed() }
}

@Suite(.timeLimit(.minutes(1))) struct SocketEndTests {
    typealias Outcome = (count: Int, sawEnd: Bool, error: TransportError?)

    private let group = MultiThreadedEventLoopGroup.singleton
    private var loop: any EventLoop { group.next() }

    private func listen(_ accept: @escaping @Sendable (SocketTransport) -> Void) async throws -> Listener {
        try await Listener.bind(to: SocketAddress(ipAddress: "127.0.0.1", port: 0), loops: [loop], onAccept: accept)
    }

    /// A client that reads only when it is told to.
    private func slowClient(of listener: Listener, reading bytes: Int) async throws -> any Channel {
        try await ClientBootstrap(group: group)
            .channelOption(.autoRead, value: false)
            .channelOption(.maxMessagesPerRead, value: 1)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: bytes))
            .connect(to: listener.address).get()
    }

    /// A connection whose peer takes something whenever the test says so, and a clock that the test moves.
    private func closing(_ outcome: Ending) throws -> (channel: EmbeddedChannel, dam: Dam) {
        let channel = EmbeddedChannel()
        try channel.connect(to: SocketAddress(ipAddress: "192.0.2.1", port: 1)).wait()
        let dam = Dam()
        try channel.pipeline.syncOperations.addHandler(dam)
        let transport = try SocketTransport.install(on: channel)
        transport.delegate = outcome
        transport.write(ByteBuffer(repeating: 7, count: 1 << 20))
        transport.close()
        channel.embeddedEventLoop.run()
        return (channel, dam)
    }

    @Test func aCloseWaitsForAPeerThatGoesOnTaking() throws {
        let outcome = Ending()
        let (channel, dam) = try closing(outcome)
        for _ in 0..<10 {
            channel.embeddedEventLoop.advanceTime(by: .seconds(29))
            dam.take(100_000)
            #expect(!outcome.hasEnded)
        }
        dam.take(1 << 20)
        dam.releaseClose()
        channel.embeddedEventLoop.run()
        #expect(outcome.hasEnded)
        #expect(outcome.error == nil)
    }

    @Test func aCloseIsCutOffWhenThePeerStopsTaking() throws {
        let outcome = Ending()
        let (channel, dam) = try closing(outcome)
        channel.embeddedEventLoop.advanceTime(by: .seconds(20))
        dam.take(100_000)
        channel.embeddedEventLoop.advanceTime(by: .seconds(39))
        #expect(!outcome.hasEnded)
        channel.embeddedEventLoop.advanceTime(by: .seconds(2))
        #expect(outcome.hasEnded)
        #expect(outcome.error?.code == .idleTimeout)
        dam.releaseClose()
    }

    @Test func aCloseGivesUpOnAPeerThatTakesNothing() async throws {
        let outcome = loop.makePromise(of: Outcome.self)
        let listener = try await listen { transport in
            transport.closeTime = .milliseconds(300)
            transport.delegate = Witness(outcome)
            transport.write(ByteBuffer(repeating: 7, count: 24 << 20))
            transport.close()
        }
        let client = try await slowClient(of: listener, reading: 1024)
        #expect(try await outcome.futureResult.get().error?.code == .idleTimeout)
        try? await client.close().get()
        await listener.close()
    }

    @Test func aPeerThatEndedItsOutputAndIsThenLostIsNoOrderlyEnd() async throws {
        let outcome = loop.makePromise(of: Outcome.self)
        let ended = loop.makePromise(of: Void.self)
        let listener = try await listen { transport in
            // More than fits between the two.
            transport.delegate = Witness(outcome) {
                transport.write(ByteBuffer(repeating: 7, count: 24 << 20))
                ended.succeed()
            }
        }
        let client = try await ClientBootstrap(group: group).channelOption(.autoRead, value: false)
            .channelOption(.allowRemoteHalfClosure, value: true).connect(to: listener.address).get()
        try await client.close(mode: .output).get()
        try await ended.futureResult.get()
        try await client.close().get()
        let result = try await outcome.futureResult.get()
        #expect(result.sawEnd)
        #expect(result.error?.code == .reset)
        await listener.close()
    }

    @Test func whatArrivedBeforeABreakIsDelivered() async throws {
        let outcome = loop.makePromise(of: Outcome.self)
        let listener = try await listen { transport in
            transport.delegate = Witness(outcome)
            transport.setReading(false)
        }
        let client = try await ClientBootstrap(group: group).connect(to: listener.address).get()
        try await client.writeAndFlush(ByteBuffer(string: "hello")).get()
        // The bytes must have been taken from the system before the reset comes.
        try await Task.sleep(for: .milliseconds(100))
        try await (client as? any SocketOptionProvider)?.setSoLinger(linger(l_onoff: 1, l_linger: 0)).get()
        try await client.close().get()
        let result = try await outcome.futureResult.get()
        #expect(result.count == 5)
        #expect(result.error?.code == .reset)
        await listener.close()
    }
}
