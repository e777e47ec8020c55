// Client against server over real sockets, each transport.
import KiteDialing
import KiteHTTP
import KiteSupport
import NIOCore
import NIOPosix
import Testing

@testable import KiteSockJS

@Suite(.timeLimit(.minutes(1))) struct SockJSSocketTests {
    @Test(arguments: SockJSClientTests.transports) func echoesOverSockets(_ transport: SockJSTransport) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        let service = SockJSService(prefix: "/kite", onSession: echo)
        let loops = Array(group.makeIterator())
        let listener = try await Listener.bind(to: SocketAddress(ipAddress: "127.0.0.1", port: 0), loops: loops) {
            HTTPServerConnection(
                transport: $0, acceptor: TestServer.Acceptor(service), peer: ExchangePeer(address: $0.remoteAddress),
                resources: HTTPLoopResources(eventLoop: $0.eventLoop))
        }
        let port = try #require(listener.address.port)
        let channel = try await SockJSClient.connect(
            url: "http://127.0.0.1:\(port)/kite", transport: transport, on: group.next(), dialer: Dialer())
        for text in ["hello", String(repeating: "long \"é\" ", count: 20_000)] {
            try await channel.send(ByteBuffer(string: text))
            let answer = try await channel.receive()
            #expect(answer.map { String(buffer: $0) } == text)
        }
        channel.close(code: 1000, reason: "")
        await listener.close()
        try await group.shutdownGracefully()
    }

    @Test func nobodyListens() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let error = await #expect(throws: TransportError.self) {
            _ = try await SockJSClient.connect(
                url: "http://127.0.0.1:1/kite", transport: .auto, on: group.next(), dialer: Dialer())
        }
        #expect(error?.code == .connectFailed)
        try await group.shutdownGracefully()
    }
}
