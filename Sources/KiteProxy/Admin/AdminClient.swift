/// Asks another process's admin listener: what `kiteproxy routes` needs of HTTP.
import KiteDialing
import KiteHTTP
import NIOCore
import NIOPosix

enum AdminClient {
    /// Sends a request that closes its connection and returns everything that comes back, at most 64 MiB.
    static func exchange(host: String, port: Int, request: String) async throws -> String {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let dialer = try Dialer()
        let promise = loop.makePromise(of: ByteBuffer.self)
        loop.execute {
            dialer.dial(Endpoint(.tcp(host: host, port: port)), on: loop) { result in
                switch result {
                case .success(let transport):
                    transport.delegate = Collector(transport, promise)
                    transport.write(ByteBuffer(string: request))
                case .failure(let error): promise.fail(error)
                }
            }
        }
        return String(buffer: try await promise.futureResult.get())
    }

    /// The body of `GET path`.
    /// - Throws: ``UnexpectedAnswer`` unless the answer is 200.
    static func get(_ path: String, host: String, port: Int) async throws -> String {
        let answer = try await exchange(
            host: host, port: port,
            request: "GET \(path) HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        guard let end = answer.firstRange(of: "\r\n\r\n") else { throw UnexpectedAnswer(description: "no HTTP") }
        guard answer.hasPrefix("HTTP/1.1 200 ") else {
            throw UnexpectedAnswer(description: String(answer.prefix { $0 != "\r\n" }))
        }
        return String(answer[end.upperBound...])
    }

    struct UnexpectedAnswer: Error, CustomStringConvertible { let description: String }

    private final class Collector: ByteTransportDelegate {
        private var transport: (any ByteTransport)?
        private let promise: EventLoopPromise<ByteBuffer>
        private var received = ByteBuffer()
        private var timeout: Scheduled<Void>?

        init(_ transport: any ByteTransport, _ promise: EventLoopPromise<ByteBuffer>) {
            self.transport = transport
            self.promise = promise
            timeout = transport.eventLoop.assumeIsolated().scheduleTask(in: .seconds(10)) {
                self.transport?.abort(TransportError(.idleTimeout, "No answer in time"))
            }
        }

        func transportReceived(_ bytes: ByteBuffer) {
            received.writeImmutableBuffer(bytes)
            if received.readableBytes > 64 << 20 {
                transport?.abort(TransportError(.limitExceeded, "The answer is too long"))
            }
        }
        func transportInputClosed() { transport?.close() }
        func transportClosed(_ error: TransportError?) {
            timeout?.cancel()
            transport = nil
            if let error { promise.fail(error) } else { promise.succeed(received) }
        }
        func transportWritabilityChanged(_ isWritable: Bool) {}
    }
}
