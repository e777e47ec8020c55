/// How connections end: slowly, in the middle, and against the wishes of one side.
import KiteSupport
import NIOCore
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

    @Test(.disabled("Its client, which reads by hand, is suspected of an assertion of NIO in debug builds"))
    func aCloseWaitsForAPeerThatGoesOnTaking() async throws {
        let outcome = loop.makePromise(of: Outcome.self)
        let size = 24 << 20
        let listener = try await listen { transport in
            transport.closeTime = .milliseconds(400)
            transport.delegate = Witness(outcome)
            transport.write(ByteBuffer(repeating: 7, count: size))
            transport.close()
        }
        let client = try await slowClient(of: listener, reading: 1 << 20)
        let reader = client.eventLoop.scheduleRepeatedTask(initialDelay: .zero, delay: .milliseconds(100)) { _ in
            client.read()
        }
        let result = try await outcome.futureResult.get()
        #expect(result.error == nil)
        reader.cancel()
        try? await client.close().get()
        await listener.close()
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
