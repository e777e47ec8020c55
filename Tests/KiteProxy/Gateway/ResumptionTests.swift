/// The connection under a lane breaks again and again while a visitor's connection goes on.
import KiteDialing
import KiteHTTP
import KiteTunnel
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import KiteGateway

/// Passes connections on to a port and breaks them all when told to.
final class Breaker: Sendable {
    private let relays = Mutex<[@Sendable () -> Void]>([])
    private let listener = Mutex<Listener?>(nil)
    private let isOpen = Atomic<Bool>(true)

    func start(to port: Int) async throws -> Int {
        let dialer = try Dialer()
        let listener = try await Listener.bind(
            to: SocketAddress(ipAddress: "127.0.0.1", port: 0), loops: Array(testGroup.makeIterator().prefix(1))
        ) { agent in
            guard self.isOpen.load(ordering: .relaxed) else {
                return agent.abort(TransportError(.connectFailed, "closed"))
            }
            agent.setReading(false)
            let loop = agent.eventLoop
            dialer.dial(Endpoint(.tcp(host: "127.0.0.1", port: port)), on: loop) { result in
                guard case .success(let gateway) = result else {
                    return agent.abort(TransportError(.connectFailed, "no gateway"))
                }
                let relay = NIOLoopBound(TransportRelay(agent, gateway), eventLoop: loop)
                agent.setReading(true)
                self.relays.withLock { relays in
                    relays.append { loop.execute { relay.value.abort(TransportError(.reset, "cut")) } }
                }
            }
        }
        self.listener.withLock { $0 = listener }
        return listener.address.port ?? 0
    }

    /// Lets nobody through, or again.
    func setOpen(_ isOpen: Bool) { self.isOpen.store(isOpen, ordering: .relaxed) }

    func cut() {
        let all = relays.withLock { relays in
            defer { relays = [] }
            return relays
        }
        for relay in all { relay() }
    }

    func stop() async { await listener.withLock { $0 }?.close() }
}

/// Sends the next number when the one before has come back, and cuts the tunnel's connections after each.
private final class CountingVisitor: ByteTransportDelegate {
    private let transport: any ByteTransport
    private let breaker: Breaker
    private let last: Int
    private let done: EventLoopPromise<String>
    private var received = ""
    private var next = 0

    init(_ transport: any ByteTransport, breaker: Breaker, last: Int, done: EventLoopPromise<String>) {
        self.transport = transport
        self.breaker = breaker
        self.last = last
        self.done = done
    }

    func transportReceived(_ bytes: ByteBuffer) {
        received += String(buffer: bytes)
        guard received.contains("\r\n\r\n"), received.hasSuffix(next == 0 ? "\r\n\r\n" : "\(next);") else { return }
        if next == last {
            done.succeed(received)
            return transport.close()
        }
        next += 1
        if next > 1 { breaker.cut() }
        transport.write(ByteBuffer(string: "\(next);"))
    }
    func transportInputClosed() { transport.close() }
    func transportClosed(_ error: TransportError?) { done.succeed(received) }
    func transportWritabilityChanged(_ isWritable: Bool) {}
}

@Suite("Resumption", .timeLimit(.minutes(1)))
struct ResumptionTests {
    @Test("A visitor's connection outlives the connections under its lane", arguments: [1, 2])
    func cuts(threads: Int) async throws {
        let (mirror, target) = try await startMirror()
        try await withGateway({ $0.threads = threads }) { gateway, port async throws in
            let breaker = Breaker()
            let agent = try makeAgent(
                gateway: try await breaker.start(to: port), target: target,
                tunnels: [TunnelRequest(name: "shop", kind: .http)])
            try await withAgent(agent) { _ async throws in
                let loop = testGroup.next()
                let done = loop.makePromise(of: String.self)
                let dialer = try Dialer()
                loop.execute {
                    dialer.dial(Endpoint(.tcp(host: "127.0.0.1", port: port)), on: loop) { result in
                        switch result {
                        case .failure(let error): done.fail(error)
                        case .success(let transport):
                            transport.delegate = CountingVisitor(transport, breaker: breaker, last: 20, done: done)
                            transport.write(
                                ByteBuffer(
                                    string:
                                        "GET /proxy/shop/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
                                ))
                        }
                    }
                }
                let received = try await done.futureResult.get()
                #expect(received.hasSuffix("\r\n\r\n" + (1...20).map { "\($0);" }.joined()))
                #expect(await gateway.metrics().reconnects >= 10)
            }
            await breaker.stop()
        }
        await mirror.close()
    }
}
