/// An agent vanishes while it has requests, and another one serves the same route.
import KiteHTTP
import KiteSupport
import KiteTunnel
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import KiteGateway

/// Answers when told to.
private final class PatientAcceptor: ExchangeAcceptor, Sendable {
    struct Held: Sendable {
        let method: String
        let exchange: NIOLoopBound<any Exchange>
    }
    let held = Mutex<[Held]>([])

    func accept(_ exchange: any Exchange) {
        exchange.handler = Mirror()
        held.withLock {
            $0.append(
                Held(
                    method: exchange.request.method.name,
                    exchange: NIOLoopBound(exchange, eventLoop: exchange.eventLoop)))
        }
    }

    func answer() {
        for held in held.withLock({ $0 }) {
            held.exchange.eventLoop.execute {
                held.exchange.value.respond(
                    ResponseHead(status: 200, fields: HeaderBlock()), body: ByteBuffer(string: "late"))
            }
        }
    }
}

@Suite("Failover", .timeLimit(.minutes(1)))
struct FailoverTests {
    @Test(
        "A request to an agent that vanished is given to another one if it may be made twice, and others wait for the agent",
        arguments: [1, 2])
    func vanished(threads: Int) async throws {
        let (mirror, mirrorPort) = try await startMirror()
        let patient = PatientAcceptor()
        let target = try await Listener.bind(
            to: SocketAddress(ipAddress: "127.0.0.1", port: 0), loops: Array(testGroup.makeIterator().prefix(1))
        ) { transport in
            HTTPServerConnection(
                transport: transport, acceptor: patient, peer: ExchangePeer(),
                resources: HTTPLoopResources(eventLoop: transport.eventLoop))
        }
        let targetPort = target.address.port ?? 0
        try await withGateway({ $0.threads = threads }) { gateway, port async throws in
            let breaker = Breaker()
            let first = try makeAgent(
                gateway: try await breaker.start(to: port), target: targetPort,
                tunnels: [TunnelRequest(name: "shop", kind: .http)])
            try await withAgent(first) { _ async throws in
                let fetched = Task { try await (0..<4).asyncMap { try await get("/proxy/shop/a\($0)", port: port) } }
                let posted = Task {
                    try await send(
                        "POST /proxy/shop/b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
                        to: port)
                }
                try await eventually { patient.held.withLock { $0.count } == 5 }
                let second = try makeAgent(
                    gateway: port, target: mirrorPort, tunnels: [TunnelRequest(name: "shop", kind: .http)])
                try await withAgent(second) { _ async throws in
                    breaker.setOpen(false)
                    breaker.cut()
                    let began = ContinuousClock.now
                    for answer in try await fetched.value {
                        #expect(answer.hasPrefix("HTTP/1.1 200"))
                        #expect(answer.contains("X-Mirror: 1"))
                    }
                    #expect(began.duration(to: .now) < .seconds(5))
                }
                // The agent comes back: what waited is answered, and what was given away is not answered again.
                breaker.setOpen(true)
                try await eventually { await gateway.metrics().reconnects >= 1 }
                patient.answer()
                let late = try await posted.value
                #expect(late.hasPrefix("HTTP/1.1 200"))
                #expect(late.hasSuffix("late"))
                #expect(patient.held.withLock { $0.count } == 5)
            }
            await breaker.stop()
        }
        await target.close()
        await mirror.close()
    }
}

extension Sequence where Element: Sendable {
    /// All at the same time.
    fileprivate func asyncMap<Value: Sendable>(
        _ body: @escaping @Sendable (Element) async throws -> Value
    ) async throws -> [Value] {
        try await withThrowingTaskGroup(of: Value.self) { tasks in
            for element in self { tasks.addTask { try await body(element) } }
            return try await tasks.reduce(into: []) { $0.append($1) }
        }
    }
}
