/// TLS servers that close their connection without saying so in TLS, as many do after the last byte of a response.
import KiteHTTP
import NIOCore
import NIOPosix
import NIOSSL
import Testing

@testable import KiteDialing

@Suite(.timeLimit(.minutes(1))) struct TLSEndTests {
    private let loop = MultiThreadedEventLoopGroup.singleton.next()
    private static let size = 3 << 20

    /// A server that answers the first bytes with `size` bytes and then closes the socket under TLS.
    private func listen() async throws -> any Channel {
        let context = try TestCertificates.serverContext()
        return try await ServerBootstrap(group: loop)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let bottom = Bottom()
                    try channel.pipeline.syncOperations.addHandlers(
                        bottom, NIOSSLServerHandler(context: context), Answerer(bottom, Self.size))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
    }

    private func dial(_ server: any Channel, _ use: @escaping @Sendable (any ByteTransport) -> Void) throws {
        let endpoint = Endpoint(
            .tcp(host: "127.0.0.1", port: server.localAddress?.port ?? 0), isSecure: true, serverName: "kite.test")
        let dialer = try TestCertificates.withRootFile { try Dialer(tls: Dialer.tlsContext(trusting: $0)) }
        let loop = loop
        loop.execute { dialer.dial(endpoint, on: loop) { if case .success(let transport) = $0 { use(transport) } } }
    }

    @Test(arguments: [false, true], [false, true])
    func deliversAllAndSaysThatItWasCut(paused: Bool, halfClosed: Bool) async throws {
        let server = try await listen()
        let done = loop.makePromise(of: Reader.Outcome.self)
        try dial(server) { transport in
            transport.delegate = Reader(transport, pausesFor: paused ? .milliseconds(300) : nil, done)
            transport.write(ByteBuffer(string: "GET"))
            if halfClosed { transport.closeOutput() }
        }
        let outcome = try await done.futureResult.get()
        #expect(outcome.count == Self.size)
        #expect(outcome.error == nil)
        #expect(outcome.isTruncated)
        try await server.close().get()
    }

    @Test func aRelayPassesOnAllBytesAndThenTheEnd() async throws {
        let server = try await listen()
        let front = try await Listener.bind(to: SocketAddress(ipAddress: "127.0.0.1", port: 0), loops: [loop]) {
            visitor in
            visitor.setReading(false)
            let visitor = NIOLoopBound(visitor, eventLoop: visitor.eventLoop)
            do {
                try self.dial(server) { upstream in
                    visitor.value.setReading(true)
                    TransportRelay(visitor.value, upstream)
                }
            } catch {
                visitor.value.close()
            }
        }
        let done = loop.makePromise(of: Reader.Outcome.self)
        let loop = loop
        _ = try await ClientBootstrap(group: loop).channelInitializer { channel in
            channel.eventLoop.makeCompletedFuture {
                let transport = try SocketTransport.install(on: channel)
                loop.assumeIsolated().execute {
                    transport.delegate = Reader(transport, pausesFor: .milliseconds(300), done)
                    transport.write(ByteBuffer(string: "GET"))
                }
            }
        }.connect(to: front.address).get()
        let outcome = try await done.futureResult.get()
        #expect(outcome.count == Self.size)
        #expect(outcome.error == nil)
        await front.close()
        try await server.close().get()
    }
}

/// Counts; pauses after the first bytes; closes when the peer has ended.
private final class Reader: ByteTransportDelegate {
    typealias Outcome = (count: Int, isTruncated: Bool, error: TransportError?)
    private let transport: any ByteTransport
    private var pause: TimeAmount?
    private let done: EventLoopPromise<Outcome>
    private var count = 0

    init(_ transport: any ByteTransport, pausesFor pause: TimeAmount?, _ done: EventLoopPromise<Outcome>) {
        self.transport = transport
        self.pause = pause
        self.done = done
    }

    func transportReceived(_ bytes: ByteBuffer) {
        count += bytes.readableBytes
        guard let pause else { return }
        self.pause = nil
        transport.setReading(false)
        transport.eventLoop.assumeIsolated().scheduleTask(in: pause) { self.transport.setReading(true) }
    }
    func transportInputClosed() { transport.close() }
    func transportClosed(_ error: TransportError?) { done.succeed((count, transport.isInputTruncated, error)) }
    func transportWritabilityChanged(_ isWritable: Bool) {}
}

/// Where the socket is closed without TLS knowing.
private final class Bottom: ChannelOutboundHandler {
    typealias OutboundIn = ByteBuffer
    private var context: ChannelHandlerContext?
    func handlerAdded(context: ChannelHandlerContext) { self.context = context }
    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }
    func closeSocket() { context?.close(promise: nil) }
}

private final class Answerer: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer
    private let bottom: Bottom
    private let size: Int
    private var hasAnswered = false

    init(_ bottom: Bottom, _ size: Int) {
        self.bottom = bottom
        self.size = size
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !hasAnswered else { return }
        hasAnswered = true
        let bytes = wrapOutboundOut(ByteBuffer(repeating: 0x61, count: size))
        context.writeAndFlush(bytes).assumeIsolated().whenComplete { _ in self.bottom.closeSocket() }
    }
}
