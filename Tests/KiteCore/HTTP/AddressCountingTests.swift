/// Whose connection it is that is counted: IPv4 and IPv6, and IPv4 as a listener for both sees it.
import NIOCore
import NIOPosix
import Testing

@testable import KiteHTTP

@Suite(.timeLimit(.minutes(1))) struct AddressCountingTests {
    private let group = MultiThreadedEventLoopGroup.singleton

    @Test(arguments: [
        ("192.0.2.1", "::ffff:192.0.2.1", true), ("192.0.2.1", "::ffff:192.0.2.2", false),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false), ("::1", "::ffff:0.0.0.1", false),
        ("::1", "0.0.0.0", false), ("::1", "0.0.0.1", false), ("2001:db8::1", "2001:db8::2", true),
        ("2001:db8::1", "2001:db8:0:1::1", false),
    ])
    func countsEachVisitorByHisOwnAddress(one: String, other: String, isSame: Bool) throws {
        let keys = try [one, other].map { AddressKey(try SocketAddress(ipAddress: $0, port: 80)) }
        #expect((keys[0] == keys[1]) == isSame)
    }

    @Test func countsVisitorsOfAListenerForBothFamiliesApart() async throws {
        let configuration = Listener.Configuration(
            limiter: ConnectionLimiter(connections: 100, connectionsPerAddress: 1))
        let listener: Listener
        do {
            listener = try await Listener.bind(
                to: SocketAddress(ipAddress: "::", port: 0), loops: [group.next()], configuration: configuration
            ) { $0.delegate = Greeter($0) }
        } catch {
            // A machine without IPv6.
            return
        }
        let port = listener.address.port ?? 0
        let target = try SocketAddress(ipAddress: "127.0.0.1", port: port)
        var clients: [any Channel] = []
        for source in ["127.0.0.1", "127.0.0.2", "127.0.0.3"] {
            let greeted = group.next().makePromise(of: Void.self)
            let client = try await ClientBootstrap(group: group)
                .bind(to: SocketAddress(ipAddress: source, port: 0))
                .channelInitializer { $0.pipeline.addHandler(GreetingHandler(greeted)) }
                .connect(to: target).get()
            clients.append(client)
            await #expect(throws: Never.self, "from \(source)") { try await greeted.futureResult.get() }
        }
        for client in clients { try? await client.close().get() }
        await listener.close()
    }
}

/// Says a byte at once.
private final class Greeter: ByteTransportDelegate {
    init(_ transport: any ByteTransport) { transport.write(ByteBuffer(string: "!")) }
    func transportReceived(_ bytes: ByteBuffer) {}
    func transportInputClosed() {}
    func transportClosed(_ error: TransportError?) {}
    func transportWritabilityChanged(_ isWritable: Bool) {}
}

/// Completes with the first byte, fails when there is none.
private final class GreetingHandler: ChannelInboundHandler, Sendable {
    typealias InboundIn = ByteBuffer
    private let greeted: EventLoopPromise<Void>
    init(_ greeted: EventLoopPromise<Void>) { self.greeted = greeted }
    func channelRead(context: ChannelHandlerContext, data: NIOAny) { greeted.succeed() }
    func channelInactive(context: ChannelHandlerContext) { greeted.fail(ChannelError.eof) }
}
