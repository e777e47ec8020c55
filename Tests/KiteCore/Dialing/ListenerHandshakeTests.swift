/// What a listener does until the TLS handshake of a connection is over.
import KiteHTTP
import NIOCore
import NIOPosix
import NIOSSL
import NIOTLS
import Synchronization
import Testing

private final class Seen: Sendable {
    let accepted = Mutex<[String?]>([])
    let failures = Mutex<[String]>([])
}

/// Keeps what a plain connection hears.
private final class Ended: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}

/// Closes with the end of the handshake.
private final class Negotiated: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    let promise: EventLoopPromise<String?>
    init(_ promise: EventLoopPromise<String?>) { self.promise = promise }
    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .handshakeCompleted(let name)? = event as? TLSUserEvent { promise.succeed(name) }
    }
    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        promise.fail(error)
        context.close(promise: nil)
    }
    func channelInactive(context: ChannelHandlerContext) { promise.fail(ChannelError.eof) }
}

@Suite(.timeLimit(.minutes(1))) struct ListenerHandshakeTests {
    private let loop = MultiThreadedEventLoopGroup.singleton.next()

    private func listen(_ seen: Seen, timeout: TimeAmount = .seconds(10)) async throws -> Listener {
        var configuration = Listener.Configuration()
        configuration.handshakeTimeout = timeout
        let context = try TestCertificates.serverContext()
        configuration.addSecurity = {
            try $0.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: context))
        }
        return try await Listener.bind(
            to: SocketAddress(ipAddress: "127.0.0.1", port: 0), loops: [loop], configuration: configuration,
            onEvent: { event in
                if case .handshakeFailed(_, let error) = event {
                    seen.failures.withLock { $0.append(error == nil ? "late" : "failed") }
                }
            },
            onAccept: { transport in
                seen.accepted.withLock { $0.append(transport.negotiatedProtocol) }
                transport.close()
            })
    }

    /// Connects, sends, and waits until the listener has closed the connection.
    private func connect(_ listener: Listener, sending bytes: String?) async throws {
        let channel = try await ClientBootstrap(group: loop)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Ended()) }
            }
            .connect(to: listener.address).get()
        if let bytes { try await channel.writeAndFlush(ByteBuffer(string: bytes)) }
        try await channel.closeFuture.get()
    }

    private func negotiate(_ listener: Listener, offering protocols: [String]) async throws -> String? {
        var settings = TLSConfiguration.makeClientConfiguration()
        settings.certificateVerification = .none
        settings.applicationProtocols = protocols
        let context = try NIOSSLContext(configuration: settings)
        let promise = loop.makePromise(of: String?.self)
        let channel = try await ClientBootstrap(group: loop)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandlers(
                        NIOSSLClientHandler(context: context, serverHostname: nil), Negotiated(promise))
                }
            }
            .connect(to: listener.address).get()
        let result = try await promise.futureResult.get()
        try? await channel.close().get()
        return result
    }

    @Test func aConnectionIsHandedOnWithItsProtocolWhenTheHandshakeIsOver() async throws {
        let seen = Seen()
        let listener = try await listen(seen)
        #expect(try await negotiate(listener, offering: ["http/1.1"]) == "http/1.1")
        #expect(try await negotiate(listener, offering: []) == nil)
        await listener.close()
        #expect(seen.accepted.withLock { $0 } == ["http/1.1", nil])
        #expect(seen.failures.withLock { $0 } == [])
    }

    @Test func whoSaysNothingIsClosedAtTheDeadline() async throws {
        let seen = Seen()
        let listener = try await listen(seen, timeout: .milliseconds(300))
        let began = NIODeadline.now()
        try await connect(listener, sending: nil)
        #expect(NIODeadline.now() - began >= .milliseconds(250))
        await listener.close()
        #expect(seen.accepted.withLock { $0 } == [])
        #expect(seen.failures.withLock { $0 } == ["late"])
    }

    @Test func whoSpeaksNoTLSIsClosedAndReported() async throws {
        let seen = Seen()
        let listener = try await listen(seen)
        try await connect(listener, sending: "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await listener.close()
        #expect(seen.accepted.withLock { $0 } == [])
        #expect(seen.failures.withLock { $0 } == ["failed"])
    }
}
