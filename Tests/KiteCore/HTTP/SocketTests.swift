import KiteSupport
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import KiteHTTP

/// Sends everything back; half-closes when the peer does.
private final class Echo: ByteTransportDelegate {
    private let transport: any ByteTransport
    init(_ transport: any ByteTransport) { self.transport = transport }
    func transportReceived(_ bytes: ByteBuffer) {
        transport.write(bytes)
        if !transport.isWritable { transport.setReading(false) }
    }
    func transportInputClosed() { transport.closeOutput() }
    func transportClosed(_ error: TransportError?) {}
    func transportWritabilityChanged(_ isWritable: Bool) { transport.setReading(isWritable) }
}

/// Breaks the connection off when something arrives.
private final class Aborter: ByteTransportDelegate {
    private let transport: any ByteTransport
    init(_ transport: any ByteTransport) { self.transport = transport }
    func transportReceived(_ bytes: ByteBuffer) { transport.abort(TransportError(.cancelled, "not today")) }
    func transportInputClosed() {}
    func transportClosed(_ error: TransportError?) {}
    func transportWritabilityChanged(_ isWritable: Bool) {}
}

/// Bytes that differ from their neighbours, twice, so that a window of 64 KiB can begin at each of the first 65,521.
private enum Pattern {
    static let period = 65_521
    static let bytes = ByteBuffer(bytes: (0..<2 * period).map { UInt8(truncatingIfNeeded: ($0 % period) &* 7919 >> 3) })
}

/// Sends `total` bytes, half-closes, and completes with what came back when the transport has closed.
private final class Blaster: ByteTransportDelegate {
    private let transport: any ByteTransport
    private var left: Int
    private var sent = 0
    private var isEqual = true
    private var count = 0
    private let done: EventLoopPromise<(count: Int, isEqual: Bool, error: TransportError?)>

    init(
        _ transport: any ByteTransport, total: Int,
        done: EventLoopPromise<(count: Int, isEqual: Bool, error: TransportError?)>
    ) {
        self.transport = transport
        left = total
        self.done = done
        pump()
    }

    private func pump() {
        while left > 0, transport.isWritable {
            let length = min(left, 10_000)
            if let bytes = Pattern.bytes.getSlice(at: sent % Pattern.period, length: length) { transport.write(bytes) }
            left -= length
            sent += length
            if left == 0 { transport.closeOutput() }
        }
    }

    func transportReceived(_ bytes: ByteBuffer) {
        var bytes = bytes
        while let part = bytes.readSlice(length: min(bytes.readableBytes, Pattern.period)), part.readableBytes > 0 {
            if part != Pattern.bytes.getSlice(at: count % Pattern.period, length: part.readableBytes) {
                isEqual = false
            }
            count += part.readableBytes
        }
    }
    func transportInputClosed() {}
    func transportClosed(_ error: TransportError?) { done.succeed((count, isEqual, error)) }
    func transportWritabilityChanged(_ isWritable: Bool) { if isWritable { pump() } }
}

/// Counts what a transport hands to its channel.
private final class WriteCounter: ChannelOutboundHandler {
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer
    private(set) var sizes: [Int] = []
    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        sizes.append(unwrapOutboundIn(data).readableBytes)
        context.write(data, promise: promise)
    }
}

/// Collects what comes back until it has all.
private final class Collector: ByteTransportDelegate {
    private var received = ByteBuffer()
    private let count: Int
    private let done: EventLoopPromise<ByteBuffer>
    init(count: Int, done: EventLoopPromise<ByteBuffer>) { (self.count, self.done) = (count, done) }
    func transportReceived(_ bytes: ByteBuffer) {
        received.writeImmutableBuffer(bytes)
        if received.readableBytes >= count { done.succeed(received) }
    }
    func transportInputClosed() {}
    func transportClosed(_ error: TransportError?) { done.fail(error ?? TransportError(.reset, "closed early")) }
    func transportWritabilityChanged(_ isWritable: Bool) {}
}

private func connect(
    to address: SocketAddress, on loop: any EventLoop, _ use: @escaping @Sendable (SocketTransport) -> Void
) async throws {
    _ = try await ClientBootstrap(group: loop).channelInitializer { channel in
        channel.eventLoop.makeCompletedFuture { use(try SocketTransport.install(on: channel)) }
    }.connect(to: address).get()
}

@Suite("Sockets", .timeLimit(.minutes(1)))
struct SocketTests {
    private let group = MultiThreadedEventLoopGroup.singleton
    private var loops: [any EventLoop] { Array(group.makeIterator().prefix(2)) }
    private let anyPort = try? SocketAddress(ipAddress: "127.0.0.1", port: 0)

    private func blast(_ address: SocketAddress, total: Int) async throws -> (
        count: Int, isEqual: Bool, error: TransportError?
    ) {
        let loop = group.next()
        let done = loop.makePromise(of: (count: Int, isEqual: Bool, error: TransportError?).self)
        try await connect(to: address, on: loop) { transport in
            loop.assumeIsolated().execute { transport.delegate = Blaster(transport, total: total, done: done) }
        }
        return try await done.futureResult.get()
    }

    @Test("Megabytes come back equal over many connections, with half-close at the end")
    func echo() async throws {
        let listener = try await Listener.bind(to: #require(anyPort), loops: loops) { $0.delegate = Echo($0) }
        try await withThrowingTaskGroup { group in
            for _ in 0..<8 { group.addTask { try await self.blast(listener.address, total: 2_000_000) } }
            for try await outcome in group {
                #expect(outcome.count == 2_000_000)
                #expect(outcome.isEqual)
                #expect(outcome.error == nil)
            }
        }
        await listener.close()
    }

    @Test("Small pieces of one turn leave as one buffer, in their order, with large ones between them")
    func gathering() async throws {
        let listener = try await Listener.bind(to: #require(anyPort), loops: loops) { $0.delegate = Echo($0) }
        let loop = group.next()
        let returned = loop.makePromise(of: ByteBuffer.self)
        let sizes = loop.makePromise(of: [Int].self)
        let pieces = [10, 20, 5_000, 4_000, 96, 1, 30].enumerated().map { index, size in
            ByteBuffer(repeating: UInt8(index + 1), count: size)
        }
        let total = pieces.reduce(0) { $0 + $1.readableBytes }
        try await connect(to: listener.address, on: loop) { transport in
            let counter = WriteCounter()
            do {
                try transport.channel.pipeline.syncOperations.addHandler(counter, position: .first)
            } catch {
                sizes.fail(error)
            }
            loop.assumeIsolated().execute {
                transport.delegate = Collector(count: total, done: returned)
                for piece in pieces { transport.write(piece) }
                returned.futureResult.assumeIsolated().whenComplete { _ in
                    transport.close()
                    sizes.succeed(counter.sizes)
                }
            }
        }
        let expected = pieces.reduce(into: ByteBuffer()) { $0.writeImmutableBuffer($1) }
        #expect(try await returned.futureResult.get() == expected)
        #expect(try await sizes.futureResult.get() == [30, 5_000, 4_096, 31])
        await listener.close()
    }

    @Test("A successor accepts on the sockets of its predecessor, and nobody who waits in the queue is lost")
    func successor() async throws {
        let first = try await Listener.bind(to: #require(anyPort), loops: loops) { $0.delegate = Echo($0) }
        // As another process would get them: by descriptor.
        let sockets = try first.sockets.map { try ListeningSocket(adopting: $0.duplicate()) }
        #expect(sockets.map(\.address) == [first.address, first.address])
        await first.close()
        #expect(first.sockets.isEmpty)
        // Nobody accepts now, but connecting succeeds: the kernel keeps them in the queue.
        async let early = blast(first.address, total: 10_000)
        let second = try await Listener.listen(on: sockets, loops: [loops[0]]) { $0.delegate = Echo($0) }
        let outcome = try await early
        #expect(outcome.count == 10_000 && outcome.isEqual && outcome.error == nil)
        // One loop accepts from both sockets.
        for _ in 0..<16 { #expect(try await blast(second.address, total: 100).count == 100) }
        await second.close()
    }

    @Test("A port that is not shared belongs to one listener alone", arguments: [true, false])
    func exclusivePort(isOtherShared: Bool) async throws {
        var alone = Listener.Configuration()
        alone.sharesPort = false
        var other = Listener.Configuration()
        other.sharesPort = isOtherShared
        let first = try await Listener.bind(to: #require(anyPort), loops: loops, configuration: alone) {
            $0.delegate = Echo($0)
        }
        await #expect(throws: IOError.self) {
            try await Listener.bind(to: first.address, loops: self.loops, configuration: other) {
                $0.delegate = Echo($0)
            }
        }
        for _ in 0..<4 { #expect(try await blast(first.address, total: 100).count == 100) }
        await first.close()
    }

    @Test("A relay between two listeners passes bytes and ends of stream", arguments: [false, true])
    func relay(acrossLoops: Bool) async throws {
        let back = try await Listener.bind(to: #require(anyPort), loops: loops) { $0.delegate = Echo($0) }
        let outcomes = Mutex<[TransportRelay.Outcome]>([])
        let loops = loops
        let front = try await Listener.bind(to: #require(anyPort), loops: [loops[0]]) { visitor in
            visitor.setReading(false)
            let loop = visitor.eventLoop
            let box = NIOLoopBound(visitor, eventLoop: loop)
            let join: @Sendable (any ByteTransport) -> Void = { upstream in
                box.value.setReading(true)
                TransportRelay(box.value, upstream) { outcome in outcomes.withLock { $0.append(outcome) } }
            }
            let other = acrossLoops ? loops[1] : loop
            ClientBootstrap(group: other).channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let upstream = try SocketTransport.install(on: channel)
                    if acrossLoops {
                        CrossLoopTransport.bridge(upstream, to: loop) { join($0) }
                    } else {
                        join(upstream)
                    }
                }
            }.connect(to: back.address).whenFailure { _ in }
        }
        for _ in 0..<3 {
            let outcome = try await blast(front.address, total: 1_500_000)
            #expect(outcome.count == 1_500_000)
            #expect(outcome.isEqual)
        }
        await front.close()
        await back.close()
        #expect(outcomes.withLock { $0.allSatisfy { $0.error == nil } })
    }

    /// Counts what comes back and notes when it may write again.
    private final class FirstWriter: ByteTransportDelegate {
        let transport: any ByteTransport
        let total: Int
        let done: EventLoopPromise<Void>
        private var count = 0
        private var sawRoom = false

        init(_ transport: any ByteTransport, total: Int, done: EventLoopPromise<Void>) {
            self.transport = transport
            self.total = total
            self.done = done
        }
        func transportReceived(_ bytes: ByteBuffer) {
            count += bytes.readableBytes
            check()
        }
        func transportInputClosed() {}
        func transportClosed(_ error: TransportError?) { done.fail(error ?? TransportError(.reset, "closed")) }
        func transportWritabilityChanged(_ isWritable: Bool) {
            sawRoom = isWritable
            check()
        }
        private func check() {
            if count == total, sawRoom, transport.isWritable { done.succeed() }
        }
    }

    @Test(
        "What is written as soon as a transport comes to another loop counts as taken in the end",
        .timeLimit(.minutes(1)))
    func bridgedWrites() async throws {
        let back = try await Listener.bind(to: #require(anyPort), loops: [loops[0]]) { $0.delegate = Echo($0) }
        let total = 1_000_000
        let loop = loops[0]
        let done = loop.makePromise(of: Void.self)
        loop.scheduleTask(in: .seconds(20)) { done.fail(TransportError(.idleTimeout, "never writable again")) }
        _ = try await ClientBootstrap(group: loops[1]).channelInitializer { channel in
            channel.eventLoop.makeCompletedFuture {
                CrossLoopTransport.bridge(try SocketTransport.install(on: channel), to: loop) { near in
                    near.delegate = FirstWriter(near, total: total, done: done)
                    near.write(ByteBuffer(repeating: 7, count: total))
                }
            }
        }.connect(to: back.address).get()
        try await done.futureResult.get()
        await back.close()
    }

    @Test("A connection that was aborted is a reset for the peer")
    func abort() async throws {
        let listener = try await Listener.bind(to: #require(anyPort), loops: loops) { transport in
            transport.delegate = Aborter(transport)
        }
        let outcome = try await blast(listener.address, total: 1_000_000)
        #expect(outcome.error?.code == .reset)
        await listener.close()
    }

    @Test("Listeners with one limiter count together, whatever loop a connection comes to", arguments: [true, false])
    func sharedLimits(perAddress: Bool) async throws {
        let configuration = Listener.Configuration(
            limiter: ConnectionLimiter(connections: perAddress ? 10 : 3, connectionsPerAddress: perAddress ? 3 : 10))
        let refused = Atomic<Int>(0)
        var listeners: [Listener] = []
        for _ in 0..<2 {
            listeners.append(
                try await Listener.bind(
                    to: #require(anyPort), loops: loops, configuration: configuration,
                    onEvent: { event in
                        if case .refused(_, let isAddress) = event, isAddress == perAddress {
                            refused.add(1, ordering: .relaxed)
                        }
                    }, onAccept: { $0.delegate = Echo($0) }))
        }
        var open: [any Channel] = []
        for round in 0..<8 {
            open.append(try await ClientBootstrap(group: group).connect(to: listeners[round % 2].address).get())
        }
        while refused.load(ordering: .relaxed) < 5 { await Task.yield() }
        #expect(configuration.limiter.count == 3)
        #expect(listeners.map(\.connectionCount).reduce(0, +) == 3)
        for channel in open { try? await channel.close().get() }
        while configuration.limiter.count > 0 { await Task.yield() }
        #expect(refused.load(ordering: .relaxed) == 5)
        for listener in listeners { await listener.close() }
    }

    @Test("Exempt addresses count in all only")
    func exempt() throws {
        let limiter = ConnectionLimiter(connections: 3, connectionsPerAddress: 1) { $0.ipAddress == "192.0.2.1" }
        let proxy = try SocketAddress(ipAddress: "192.0.2.1", port: 1)
        let visitor = try SocketAddress(ipAddress: "2001:db8::1", port: 1)
        let neighbour = try SocketAddress(ipAddress: "2001:db8::2", port: 1)
        _ = try limiter.enter(proxy)
        _ = try limiter.enter(proxy)
        let admission = try limiter.enter(visitor)
        #expect(throws: ConnectionLimiter.Refusal.tooManyInAll) { try limiter.enter(neighbour) }
        limiter.leave(admission)
        _ = try limiter.enter(visitor)
        #expect(limiter.count == 3)
        #expect(throws: ConnectionLimiter.Refusal.tooManyInAll) { try limiter.enter(nil) }
        let other = ConnectionLimiter(connections: 3, connectionsPerAddress: 1)
        _ = try other.enter(visitor)
        #expect(throws: ConnectionLimiter.Refusal.tooManyFromAddress) { try other.enter(neighbour) }
        #expect(other.count == 1)
    }

    @Test("More connections than allowed are closed at once, and counted down again")
    func limits() async throws {
        let configuration = Listener.Configuration(
            limiter: ConnectionLimiter(connections: 2, connectionsPerAddress: 10))
        let refused = Atomic<Int>(0)
        let listener = try await Listener.bind(
            to: #require(anyPort), loops: [loops[0]], configuration: configuration,
            onEvent: { if case .refused = $0 { refused.add(1, ordering: .relaxed) } }
        ) { $0.delegate = Echo($0) }
        let address = listener.address
        let first = try await ClientBootstrap(group: group).connect(to: address).get()
        let second = try await ClientBootstrap(group: group).connect(to: address).get()
        let third = try await ClientBootstrap(group: group).connect(to: address).get()
        try await third.closeFuture.get()
        #expect(refused.load(ordering: .relaxed) == 1)
        try await first.close().get()
        while listener.connectionCount > 1 { await Task.yield() }
        let outcome = try await blast(address, total: 100_000)
        #expect(outcome.isEqual)
        try await second.close().get()
        await listener.close()
    }
}
