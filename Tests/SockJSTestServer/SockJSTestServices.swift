/// The services that the conformance tests of sockjs-protocol ask for, over real sockets.
import KiteHTTP
package import KiteSockJS
import KiteSupport
package import NIOCore
import NIOPosix

/// Serves `/echo`, `/close`, `/disabled_websocket_echo` and `/cookie_needed_echo`, and a WebSocket without SockJS at `/websocket_echo`.
package final class SockJSTestServices: Sendable {
    /// Streaming responses end after this many bytes, so that a test sees them end.
    package static let responseLimit = 4096

    /// Where it listens.
    package let address: SocketAddress
    private let listener: Listener
    private let group: MultiThreadedEventLoopGroup

    /// Finds the service that a path begins with.
    private final class Acceptor: ExchangeAcceptor {
        let services: [SockJSService]
        init(_ services: [SockJSService]) { self.services = services }

        func accept(_ exchange: any Exchange) {
            let path = exchange.request.path
            for service in services where path.hasPrefix(service.prefix) {
                let rest = path.dropFirst(service.prefix.count)
                if rest.isEmpty || rest.hasPrefix("/") { return service.serve(exchange, path: rest) }
            }
            if path == "/websocket_echo" { return WebSocketEcho.serve(exchange) }
            exchange.handler = IgnoringHandler()
            exchange.respond(ResponseHead(status: 404), body: ByteBuffer())
        }
    }

    /// Listens.
    /// - Parameters:
    ///   - port: 0 for any that is free.
    ///   - change: what is different from the options that the tests ask for, for all services.
    package init(
        host: String = "127.0.0.1", port: Int, loops: Int = 2,
        change: @Sendable (inout SockJSOptions) -> Void = { _ in }
    ) async throws {
        var options = SockJSOptions()
        options.responseLimit = Self.responseLimit
        change(&options)
        var withoutWebSocket = options
        withoutWebSocket.allowsWebSocket = false
        var withCookie = options
        withCookie.setsCookie = true
        let services = [
            SockJSService(prefix: "/echo", options: options, onSession: Self.echo),
            SockJSService(prefix: "/close", options: options) { $0.close(code: 3000, reason: "Go away!") },
            SockJSService(prefix: "/disabled_websocket_echo", options: withoutWebSocket, onSession: Self.echo),
            SockJSService(prefix: "/cookie_needed_echo", options: withCookie, onSession: Self.echo),
        ]
        group = MultiThreadedEventLoopGroup(numberOfThreads: loops)
        listener = try await Listener.bind(
            to: SocketAddress(ipAddress: host, port: port), loops: Array(group.makeIterator())
        ) {
            HTTPServerConnection(
                transport: $0, acceptor: Acceptor(services), peer: ExchangePeer(address: $0.remoteAddress),
                resources: HTTPLoopResources(eventLoop: $0.eventLoop))
        }
        address = listener.address
    }

    /// Stops listening and ends the connections.
    package func close() async throws {
        await listener.close()
        try await group.shutdownGracefully()
    }

    /// Ends with the channel, which ends with its client.
    private static func echo(_ channel: any MessageChannel) {
        Task {
            while let message = try await channel.receive() { try await channel.send(message) }
        }
    }
}
