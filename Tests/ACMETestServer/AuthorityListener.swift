/// The test authority on a real socket.
import Foundation
import KiteHTTP
import NIOCore
import NIOPosix

package final class AuthorityListener: Sendable {
    package let authority: TestAuthority
    package let port: Int
    private let listener: Listener
    private let group: MultiThreadedEventLoopGroup

    /// - Parameter make: makes the authority for its base URL.
    package init(port: Int = 0, make: @Sendable (_ base: String) throws -> TestAuthority) async throws {
        group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let later = group.next().makePromise(of: TestAuthority.self)
        listener = try await Listener.bind(
            to: SocketAddress(ipAddress: "127.0.0.1", port: port), loops: Array(group.makeIterator())
        ) {
            HTTPServerConnection(
                transport: $0, acceptor: Acceptor(later.futureResult), peer: ExchangePeer(address: $0.remoteAddress),
                resources: HTTPLoopResources(eventLoop: $0.eventLoop))
        }
        self.port = listener.address.port ?? 0
        do {
            authority = try make("http://127.0.0.1:\(self.port)")
            later.succeed(authority)
        } catch {
            later.fail(error)
            throw error
        }
    }

    /// Where clients begin.
    package var directory: String { "http://127.0.0.1:\(port)/directory" }

    package func close() async {
        await listener.close()
        try? await group.shutdownGracefully()
    }

    private final class Acceptor: ExchangeAcceptor {
        let authority: EventLoopFuture<TestAuthority>
        init(_ authority: EventLoopFuture<TestAuthority>) { self.authority = authority }
        func accept(_ exchange: any Exchange) { exchange.handler = Handler(authority) }
    }

    /// Takes the body, then asks the authority.
    private final class Handler: ExchangeHandler {
        private let authority: EventLoopFuture<TestAuthority>
        private var body = ByteBuffer()

        init(_ authority: EventLoopFuture<TestAuthority>) { self.authority = authority }

        func exchangeReceived(_ exchange: any Exchange, body: ByteBuffer) {
            self.body.writeImmutableBuffer(body)
            if self.body.readableBytes > 1 << 20 { exchange.abort(TransportError(.limitExceeded, "too long")) }
        }

        func exchangeRequestEnded(_ exchange: any Exchange, trailers: HeaderBlock?) {
            let head = exchange.request
            let request = TestAuthority.Request(
                method: head.method.name, path: head.path, contentType: head.fields.text(.contentType),
                userAgent: head.fields.text(.userAgent), body: Data(body.readableBytesView))
            let loop = exchange.eventLoop
            let bound = NIOLoopBound(exchange, eventLoop: loop)
            authority.flatMap { authority in
                loop.makeFutureWithTask { await authority.handle(request) }
            }.whenComplete { result in
                guard case .success(let response) = result else {
                    return bound.value.abort(TransportError(.cancelled, "no authority"))
                }
                var fields = HeaderBlock()
                for (name, value) in response.fields { fields.append(name, value) }
                bound.value.respond(
                    ResponseHead(status: UInt16(response.status), fields: fields),
                    body: ByteBuffer(bytes: response.body))
            }
        }

        func exchangeWritabilityChanged(_ exchange: any Exchange, isWritable: Bool) {}
        func exchangeEnded(_ exchange: any Exchange, error: TransportError?) {}
    }
}
