/// A gateway, an agent and a private service in one process, on free ports of the loopback interface.
import KiteCore
import KiteDialing
import KiteHTTP
import KiteSupport
import KiteTunnel
import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle
import Synchronization

@testable import KiteGateway

/// Accepts the names of users as credentials.
struct NameAuthenticator: GatewayAuthenticator {
    func user(presenting credential: String) throws(CredentialRefusal) -> String {
        guard credential.hasPrefix("user-") else { throw CredentialRefusal("it is unknown") }
        return credential
    }
}

/// Knows what a test tells it.
final class ScriptedResolver: KiteResolver {
    let urls = Mutex<[String: String]>([:])
    /// Further kites of a name.
    let others = Mutex<[String: [String]]>([:])
    /// Ids of kites that are asked for by name.
    let ids = Mutex<[String: String]>([:])
    let questions = Atomic<Int>(0)
    let isDown = Atomic<Bool>(false)

    func kites(matching query: KontrolQuery) async throws -> [KontrolKite] {
        guard let first = try await kite(id: query.name) else { return [] }
        return [first]
            + others.withLock { $0[query.name] ?? [] }.map { KontrolKite(identity: first.identity, url: $0) }
    }
    func kite(id: String) async throws -> KontrolKite? {
        questions.add(1, ordering: .relaxed)
        if isDown.load(ordering: .relaxed) { throw CancellationError() }
        let identifier = ids.withLock { $0[id] } ?? id
        return urls.withLock { $0[id] }.map {
            KontrolKite(
                identity: KiteIdentity(
                    name: "k", username: "user-a", id: identifier, environment: "e", region: "r", version: "1.0.0",
                    hostname: "h"),
                url: $0)
        }
    }
}

/// Answers with what it was asked: request line and fields, then the body.
final class MirrorAcceptor: ExchangeAcceptor {
    func accept(_ exchange: any Exchange) {
        let path = exchange.request.path
        if path.hasSuffix("/silent") { return exchange.handler = Mirror() }
        if path.hasSuffix("/break") {
            exchange.handler = Mirror()
            return exchange.abort(TransportError(.cancelled, "as asked"))
        }
        if exchange.request.wantsUpgrade, !path.hasSuffix("/mirror") {
            let transport = exchange.upgrade(ResponseHead(status: 101, fields: HeaderBlock(["Upgrade": "echo"])))
            transport?.delegate = transport.map(EchoDelegate.init)
            return
        }
        let mirror = Mirror()
        mirror.isAnswering = true
        exchange.handler = mirror
    }
}

final class Mirror: ExchangeHandler {
    var isAnswering = false
    private var body = ByteBuffer()
    func exchangeReceived(_ exchange: any Exchange, body: ByteBuffer) { self.body.writeImmutableBuffer(body) }
    func exchangeRequestEnded(_ exchange: any Exchange, trailers: HeaderBlock?) {
        guard isAnswering else { return }
        let head = exchange.request
        var text = "\(head.method.name) \(String(buffer: head.target)) \(String(buffer: head.authority))\n"
        for position in 0..<head.fields.count {
            text += String(decoding: head.fields.name(at: position), as: UTF8.self) + ": "
            text += String(decoding: head.fields.value(at: position), as: UTF8.self) + "\n"
        }
        text += "\n"
        var answer = ByteBuffer(string: text)
        answer.writeBuffer(&body)
        exchange.respond(ResponseHead(status: 200, fields: HeaderBlock(["X-Mirror": "1"])), body: answer)
    }
    func exchangeWritabilityChanged(_ exchange: any Exchange, isWritable: Bool) {}
    func exchangeEnded(_ exchange: any Exchange, error: TransportError?) {}
}

final class EchoDelegate: ByteTransportDelegate {
    private let transport: any ByteTransport
    init(_ transport: any ByteTransport) { self.transport = transport }
    func transportReceived(_ bytes: ByteBuffer) { transport.write(bytes) }
    func transportInputClosed() { transport.closeOutput() }
    func transportClosed(_ error: TransportError?) {}
    func transportWritabilityChanged(_ isWritable: Bool) {}
}

/// Sends bytes and collects what comes back until the other side closes, or until it has seen enough.
final class RawVisitor: ByteTransportDelegate {
    private let transport: any ByteTransport
    private var received = ""
    private let until: String?
    private let done: EventLoopPromise<String>

    init(_ transport: any ByteTransport, until: String?, done: EventLoopPromise<String>) {
        self.transport = transport
        self.until = until
        self.done = done
    }
    func transportReceived(_ bytes: ByteBuffer) {
        received += String(buffer: bytes)
        if let until, received.contains(until) {
            done.succeed(received)
            transport.close()
        }
    }
    func transportInputClosed() { transport.close() }
    func transportClosed(_ error: TransportError?) { done.succeed(received) }
    func transportWritabilityChanged(_ isWritable: Bool) {}
}

let testLogger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
let testGroup = MultiThreadedEventLoopGroup.singleton

/// Sends a request as it stands and returns everything that came back.
func send(_ wire: String, to port: Int, until: String? = nil) async throws -> String {
    let loop = testGroup.next()
    let done = loop.makePromise(of: String.self)
    let dialer = try Dialer()
    loop.execute {
        dialer.dial(Endpoint(.tcp(host: "127.0.0.1", port: port)), on: loop) { result in
            switch result {
            case .success(let transport):
                transport.delegate = RawVisitor(transport, until: until, done: done)
                transport.write(ByteBuffer(string: wire))
            case .failure(let error): done.fail(error)
            }
        }
    }
    return try await done.futureResult.get()
}

/// A GET with `Connection: close`.
func get(_ path: String, port: Int, fields: String = "", host: String = "gw.test") async throws -> String {
    try await send("GET \(path) HTTP/1.1\r\nHost: \(host)\r\nConnection: close\r\n\(fields)\r\n", to: port)
}

/// A private service; its port.
func startMirror() async throws -> (Listener, Int) {
    let loops = Array(testGroup.makeIterator().prefix(1))
    let listener = try await Listener.bind(to: SocketAddress(ipAddress: "127.0.0.1", port: 0), loops: loops) {
        transport in
        HTTPServerConnection(
            transport: transport, acceptor: MirrorAcceptor(), peer: ExchangePeer(isTrustedProxy: true),
            resources: HTTPLoopResources(eventLoop: transport.eventLoop))
    }
    return (listener, listener.address.port ?? 0)
}

/// An agent that joins each stream with a connection to a port.
func makeAgent(
    gateway port: Int, target: Int, tunnels: [TunnelRequest], user: String = "user-a",
    wantsNotes: Bool = false
) throws
    -> TunnelAgentSession
{
    let dialer = try Dialer()
    let configuration = TunnelAgentConfiguration(
        gateway: "http://127.0.0.1:\(port)", tunnels: tunnels, wantsNotes: wantsNotes
    ) { user }
    return TunnelAgentSession(configuration: configuration, dialer: dialer, logger: testLogger) { incoming in
        let stream = incoming.stream
        stream.setReading(false)
        dialer.dial(Endpoint(.tcp(host: "127.0.0.1", port: target)), on: stream.eventLoop) { result in
            switch result {
            case .success(let transport):
                TransportRelay(stream, transport)
                stream.setReading(transport.isWritable)
            case .failure(let error): stream.abort(error)
            }
        }
    }
}

/// Runs a gateway for the length of `body`, then shuts it down gracefully.
func withGateway(
    _ change: (inout GatewayOptions) -> Void = { _ in }, resolver: (any KiteResolver)? = nil,
    visitors: any KiteAuthenticator = RefusingAuthenticator(),
    kite: (@Sendable (any EventLoop) -> any ExchangeAcceptor)? = nil, logger: Logger = testLogger,
    _ body: @escaping @Sendable (Gateway, Int) async throws -> Void
) async throws {
    var options = GatewayOptions()
    options.listeners = [GatewayOptions.Listener(host: "127.0.0.1", port: 0)]
    options.timeouts.drain = .seconds(2)
    change(&options)
    let gateway = Gateway(
        options: options, resolver: resolver, authenticator: NameAuthenticator(), visitors: visitors, kite: kite,
        logger: logger
    )
    let group = ServiceGroup(configuration: .init(services: [.init(service: gateway)], logger: testLogger))
    try await withThrowingTaskGroup { tasks in
        tasks.addTask { try await group.run() }
        do {
            let port = try await gateway.boundAddresses().first?.port ?? 0
            try await body(gateway, port)
        } catch {
            await group.triggerGracefulShutdown()
            throw error
        }
        await group.triggerGracefulShutdown()
        try await tasks.waitForAll()
    }
}

/// A worker without a gateway around it, on a loop of the tests.
func makeWorker(options: GatewayOptions, board: RouteBoard) async throws -> WorkerReference {
    let settings = WorkerSettings(
        options: options, directory: Directory(domain: options.domain), http: HTTPLimits(), viaName: "test",
        authenticator: NameAuthenticator(), resolver: nil, dialer: try Dialer(), board: board,
        kiteTunnels: KiteTunnels(
            options: options.kiteTunnels, parkingTime: options.parking.time, authenticator: RefusingAuthenticator(),
            logger: testLogger),
        pool: TaskPool(limit: 8), logger: testLogger,
        limiter: ConnectionLimiter(connections: 100, connectionsPerAddress: 100), mount: nil,
        pressure: Pressure(options.limits, logger: testLogger),
        laneBudget: SharedByteBudget(limit: options.limits.laneBytes))
    let loop = testGroup.next()
    return try await loop.submit { WorkerReference(Worker(index: 0, eventLoop: loop, settings: settings)) }.get()
}

/// Runs an agent for the length of `body`, once its first tunnel is granted.
func withAgent(_ agent: TunnelAgentSession, _ body: @escaping @Sendable ([TunnelGrant]) async throws -> Void)
    async throws
{
    try await withThrowingTaskGroup { tasks in
        tasks.addTask { try await agent.run() }
        for await event in agent.events {
            if case .connected(let grants) = event {
                try await body(grants)
                break
            }
            if case .refused(let refusal) = event { throw refusal }
        }
        tasks.cancelAll()
        while true { do { if try await tasks.next() == nil { break } } catch is CancellationError {} }
    }
}
