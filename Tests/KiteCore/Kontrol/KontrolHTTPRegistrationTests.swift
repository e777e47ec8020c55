import KiteCore
import KiteHTTP
import KiteSupport
import Logging
import NIOCore
import NIOPosix
import Synchronization
import Testing

/// Answers registrations and heartbeats as a Kontrol that soon wants a new registration.
private final class SmallKontrol: ExchangeAcceptor {
    let requests: Requests
    init(_ requests: Requests) { self.requests = requests }

    final class Requests: Sendable {
        let lines = Mutex<[String]>([])
        let connections = Atomic<Int>(0)
    }

    func accept(_ exchange: any Exchange) { exchange.handler = Answer(requests) }

    private final class Answer: ExchangeHandler {
        private let requests: Requests
        private var length = 0
        init(_ requests: Requests) { self.requests = requests }
        func exchangeReceived(_ exchange: any Exchange, body: ByteBuffer) { length += body.readableBytes }
        func exchangeRequestEnded(_ exchange: any Exchange, trailers: HeaderBlock?) {
            let head = exchange.request
            let type = head.fields.text("Content-Type") ?? "-"
            let line = "\(head.method.name) \(String(buffer: head.target)) \(type) \(length > 0)"
            requests.lines.withLock { $0.append(line) }
            let answer =
                head.path == "/register" ? #"{"url":"http://math/kite","heartbeatInterval":1}"# : "registeragain"
            exchange.respond(ResponseHead(status: 200), body: ByteBuffer(string: answer))
        }
        func exchangeWritabilityChanged(_ exchange: any Exchange, isWritable: Bool) {}
        func exchangeEnded(_ exchange: any Exchange, error: TransportError?) {}
    }
}

@Suite("HTTP registration", .timeLimit(.minutes(1)))
struct KontrolHTTPRegistrationTests {
    @Test("A kite registers by itself, over one connection, and again when told to")
    func registers() async throws {
        let requests = SmallKontrol.Requests()
        let loops = Array(MultiThreadedEventLoopGroup.singleton.makeIterator().prefix(1))
        let listener = try await Listener.bind(to: SocketAddress(ipAddress: "127.0.0.1", port: 0), loops: loops) {
            transport in
            requests.connections.add(1, ordering: .relaxed)
            _ = HTTPServerConnection(
                transport: transport, acceptor: SmallKontrol(requests), peer: ExchangePeer(),
                resources: HTTPLoopResources(eventLoop: transport.eventLoop))
        }
        let url = "http://127.0.0.1:\(listener.address.port ?? 0)/kite"
        let key = try await TokenIssuer(issuer: "kontrol", keyPair: Keys.trusted)
            .kiteKey(for: "ann", kontrolURL: url, now: 0)
        var configuration = KiteConfiguration()
        configuration.apply(key)
        configuration.id = "o n&e"
        let kite = Kite(
            name: "math", version: "1.0.0", configuration: configuration,
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        let client = try KontrolClient(kite: kite, connector: KiteClient.sockJS)
        let (registered, continuation) = AsyncStream.makeStream(of: String.self)
        let registration = KontrolHTTPRegistration(
            client, url: "http://math/kite", onRegistered: { continuation.yield($0) })
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { try await registration.run() }
            var urls = registered.makeAsyncIterator()
            for _ in 0..<2 { #expect(await urls.next() == "http://math/kite") }
            tasks.cancelAll()
            try await tasks.waitForAll()
        }
        let register = "POST /register application/json true"
        #expect(
            requests.lines.withLock { Array($0.prefix(3)) } == [
                register, "GET /heartbeat?id=o%20n%26e - false", register,
            ])
        #expect(requests.connections.load(ordering: .relaxed) == 1)
        await listener.close()
    }
}
