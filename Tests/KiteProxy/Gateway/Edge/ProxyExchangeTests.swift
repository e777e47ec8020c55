import KiteDialing
import KiteHTTP
import KiteTunnel
import NIOCore
import NIOPosix
import Testing

@testable import KiteGateway

/// A visitor's request that brings its body whether it is wanted or not, as one over another protocol than HTTP/1.1 may.
private final class EagerExchange: Exchange {
    let eventLoop: any EventLoop
    let request: RequestHead
    let peer = ExchangePeer()
    var handler: (any ExchangeHandler)?
    let isWritable = true
    private(set) var isEnded = false
    private(set) var status: UInt16 = 0

    init(_ request: RequestHead, on eventLoop: any EventLoop) {
        self.request = request
        self.eventLoop = eventLoop
    }
    func sendInformational(_ head: ResponseHead) {}
    func respond(_ head: ResponseHead) { status = head.status }
    func write(_ bytes: ByteBuffer) {}
    func finish(trailers: HeaderBlock?) { end(nil) }
    func upgrade(_ head: ResponseHead) -> (any ByteTransport)? { nil }
    func abort(_ reason: TransportError) { end(reason) }
    func setReading(_ wanted: Bool) {}
    private func end(_ error: TransportError?) {
        isEnded = true
        handler?.exchangeEnded(self, error: error)
    }
}

/// Receives until it has seen something, and never answers.
private final class Receiver: ByteTransportDelegate {
    private let transport: any ByteTransport
    private let until: String
    private let done: EventLoopPromise<String>
    private var received = ""

    init(_ transport: any ByteTransport, until: String, done: EventLoopPromise<String>) {
        self.transport = transport
        self.until = until
        self.done = done
    }
    func transportReceived(_ bytes: ByteBuffer) {
        received += String(buffer: bytes)
        guard received.contains(until) else { return }
        done.succeed(received)
        transport.close()
    }
    func transportInputClosed() {}
    func transportClosed(_ error: TransportError?) { done.succeed(received) }
    func transportWritabilityChanged(_ isWritable: Bool) {}
}

/// A way to an agent that is about to stop: what is sent there comes back, and then there is no way any more.
private final class LeavingUpstream: Upstream {
    enum Refusal: CaseIterable {
        case whenOpened
        case whenSent
    }
    private let refusal: Refusal
    private let code: TransportError.Code
    private let eventLoop: any EventLoop
    private var hasLeft = false

    init(_ refusal: Refusal, _ code: TransportError.Code, on eventLoop: any EventLoop, pool: ConnectionPool) {
        self.refusal = refusal
        self.code = code
        self.eventLoop = eventLoop
        super.init(pool: pool)
    }
    override var isConnected: Bool { !hasLeft }
    override func open(
        _ opening: StreamOpening, completion: @escaping (Result<any ByteTransport, TransportError>) -> Void
    ) {
        let error = TransportError(code, "the lane takes no more streams")
        hasLeft = true
        switch refusal {
        case .whenOpened: completion(.failure(error))
        case .whenSent: completion(.success(ResettingTransport(error, on: eventLoop)))
        }
    }
}

/// Breaks as soon as something is written to it.
private final class ResettingTransport: ByteTransport {
    let eventLoop: any EventLoop
    var delegate: (any ByteTransportDelegate)?
    let isWritable = true
    let remoteAddress: SocketAddress? = nil
    private let error: TransportError

    init(_ error: TransportError, on eventLoop: any EventLoop) {
        self.error = error
        self.eventLoop = eventLoop
    }
    func write(_ bytes: ByteBuffer) {
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        eventLoop.execute {
            let delegate = bound.value.delegate
            bound.value.delegate = nil
            delegate?.transportClosed(bound.value.error)
        }
    }
    func closeOutput() {}
    func close() { delegate = nil }
    func abort(_ reason: TransportError) { delegate = nil }
    func setReading(_ wanted: Bool) {}
}

@Suite("A request on its way", .timeLimit(.minutes(1)))
struct ProxyExchangeTests {
    /// Sends a request to an agent that is leaving, whose successor has come when it is refused.
    /// - Returns: the status.
    private func statusAtRestart(
        _ refusal: LeavingUpstream.Refusal, _ code: TransportError.Code, method: RequestMethod = .get,
        body: String? = nil, successors: Int = 1
    ) async throws -> UInt16 {
        let (mirror, target) = try await startMirror()
        let endpoint = Endpoint(.tcp(host: "127.0.0.1", port: target))
        var options = GatewayOptions()
        options.parking.time = successors > 0 ? .seconds(30) : .milliseconds(300)
        let board = RouteBoard(options: options, claims: MemoryClaimStore(), logger: testLogger)
        let worker = try await makeWorker(options: options, board: board)
        let exchange = try await worker.eventLoop.submit {
            let worker = worker.here
            let key = RouteKey("shop")
            worker.install(RouteSpec(key: key, kind: .tunnel, owner: "a", path: ""))
            for _ in 0..<4 {
                worker.routes.find(key)?.add(
                    LeavingUpstream(refusal, code, on: worker.eventLoop, pool: worker.makePool()))
            }
            let exchange = EagerExchange(
                RequestHead(
                    method: method, target: "/proxy/shop/a", authority: "x", fields: HeaderBlock(),
                    bodyLength: body.map { .known(Int64($0.utf8.count)) } ?? .none), on: worker.eventLoop)
            worker.takeExchange().begin(
                exchange, origin: ForwardedOrigin(peer: exchange.peer, gateway: "t"), key: key,
                route: worker.routes.find(key), droppedPathBytes: 11,
                byHost: false)
            if let body { exchange.handler?.exchangeReceived(exchange, body: ByteBuffer(string: body)) }
            exchange.handler?.exchangeRequestEnded(exchange, trailers: nil)
            return NIOLoopBound(exchange, eventLoop: worker.eventLoop)
        }.get()
        if successors > 0 {
            // It is waited for.
            try await eventually {
                await worker.ask { worker in worker.metrics.parkedRequests == 1 || exchange.value.status != 0 } == true
            }
            worker.run { worker in
                worker.install(
                    RouteSpec(key: RouteKey("shop"), kind: .direct, owner: "a", path: ""),
                    target: DirectTarget(endpoint: endpoint, path: ""))
            }
        }
        try await eventually { await worker.ask { _ in exchange.value.isEnded } == true }
        try await eventually { await worker.ask { $0.metrics.activeRequests } == 0 }
        let status = await worker.ask { _ in exchange.value.status } ?? 0
        await mirror.close()
        return status
    }

    @Test("A request that crosses its agent's going away waits for the next agent, however often that happens")
    func restart() async throws {
        #expect(try await statusAtRestart(.whenSent, .goingAway) == 200)
        #expect(try await statusAtRestart(.whenOpened, .goingAway) == 200)
        #expect(try await statusAtRestart(.whenOpened, .laneLost) == 200)
        #expect(try await statusAtRestart(.whenOpened, .laneLost, method: .post, body: "hello") == 200)
        #expect(try await statusAtRestart(.whenSent, .goingAway, method: .post) == 200)
        #expect(try await statusAtRestart(.whenSent, .goingAway, successors: 0) == 503)
    }

    @Test("A request that an agent may have served before it went is not sent again")
    func served() async throws {
        #expect(try await statusAtRestart(.whenSent, .laneLost, method: .post) == 503)
        #expect(try await statusAtRestart(.whenSent, .laneLost, method: .put, body: "hello") == 503)
        #expect(try await statusAtRestart(.whenSent, .goingAway, method: .put, body: "hello") == 503)
    }

    @Test("Body and trailers that arrive before there is an upstream are kept for it")
    func earlyTrailers() async throws {
        let done = testGroup.next().makePromise(of: String.self)
        let target = try await Listener.bind(
            to: SocketAddress(ipAddress: "127.0.0.1", port: 0), loops: [done.futureResult.eventLoop]
        ) { $0.delegate = Receiver($0, until: "X-Sum: 7\r\n\r\n", done: done) }
        let endpoint = Endpoint(.tcp(host: "127.0.0.1", port: target.address.port ?? 0))
        let options = GatewayOptions()
        let board = RouteBoard(options: options, claims: MemoryClaimStore(), logger: testLogger)
        let worker = try await makeWorker(options: options, board: board)
        worker.run { worker in
            let key = RouteKey("shop")
            worker.install(RouteSpec(key: key, kind: .tunnel, owner: "a", path: ""))
            let exchange = EagerExchange(
                RequestHead(
                    method: .post, target: "/proxy/shop/a", authority: "x",
                    fields: HeaderBlock(["Transfer-Encoding": "chunked"]), bodyLength: .unknown), on: worker.eventLoop)
            worker.takeExchange().begin(
                exchange, origin: ForwardedOrigin(peer: exchange.peer, gateway: "t"), key: key,
                route: worker.routes.find(key), droppedPathBytes: 11,
                byHost: false)
            exchange.handler?.exchangeReceived(exchange, body: ByteBuffer(string: "hello"))
            exchange.handler?.exchangeRequestEnded(exchange, trailers: HeaderBlock(["X-Sum": "7"]))
            worker.install(
                RouteSpec(key: key, kind: .direct, owner: "a", path: ""),
                target: DirectTarget(endpoint: endpoint, path: ""))
        }
        let received = try await done.futureResult.get()
        #expect(received.hasPrefix("POST /a HTTP/1.1\r\n"))
        #expect(received.hasSuffix("\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n"))
        await target.close()
        // The request ends when the target's connection has; its worker must be there until then.
        try await eventually { await worker.ask { $0.metrics.activeRequests } == 0 }
    }
}
