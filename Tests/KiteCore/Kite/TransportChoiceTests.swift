import KiteHTTP
import KiteSockJS
import KiteSupport
import NIOCore
import Synchronization
import Testing

/// Which transport a client takes that was not told one.
@testable import KiteCore

@Suite(.timeLimit(.minutes(1))) struct TransportChoiceTests {
    let start = ContinuousClock.now

    @Test func whatWorkedIsTriedFirstForAWhile() {
        var memory = TransportMemory()
        let best: [SockJSTransport] = [.webSocket, .xhrStreaming, .xhrPolling]
        #expect(memory.order(for: "a", now: start) == best)
        memory.opened("a", by: .xhrPolling, now: start)
        #expect(memory.order(for: "a", now: start) == [.xhrPolling, .webSocket, .xhrStreaming])
        #expect(memory.order(for: "b", now: start) == best)
        // Using it does not put off the next try of the others.
        memory.opened("a", by: .xhrPolling, now: start + .seconds(599))
        #expect(memory.order(for: "a", now: start + .seconds(599)).first == .xhrPolling)
        #expect(memory.order(for: "a", now: start + .seconds(600)) == best)
        memory.opened("a", by: .xhrStreaming, now: start + .seconds(600))
        #expect(memory.order(for: "a", now: start + .seconds(601)) == [.xhrStreaming, .webSocket, .xhrPolling])
        memory.opened("a", by: .webSocket, now: start + .seconds(601))
        #expect(memory.order(for: "a", now: start + .seconds(602)) == best)
    }

    @Test func whatIsRememberedIsBounded() {
        var memory = TransportMemory()
        for number in 0..<1000 {
            memory.opened("\(number)", by: .xhrPolling, now: start + .milliseconds(number))
        }
        let end = start + .seconds(1)
        let known = (0..<1000).filter { memory.order(for: "\($0)", now: end).first == .xhrPolling }
        #expect(known == Array(1000 - TransportMemory.capacity..<1000))
    }

    @Test func eachTransportHasItsShareOfTheTime() async throws {
        let choice = TransportChoice()
        var tried: [SockJSTransport] = []
        let channel = MemoryChannel()
        for _ in 0..<2 {
            let opened = try await choice.open("a", timeout: .seconds(30)) { transport, time in
                tried.append(transport)
                guard transport == .xhrPolling else {
                    #expect(time > .seconds(5) && time < .seconds(16))
                    throw TransportError(.idleTimeout, "no answer")
                }
                return channel
            }
            #expect(opened === channel)
        }
        #expect(tried == [.webSocket, .xhrStreaming, .xhrPolling, .xhrPolling])
    }

    @Test func whatEveryTransportWouldMeetIsToldAtOnce() async {
        var tried = 0
        await #expect(throws: TransportError.self) {
            _ = try await TransportChoice().open("a", timeout: .seconds(30)) { _, _ in
                tried += 1
                throw TransportError(.connectFailed, "nobody listens")
            }
        }
        #expect(tried == 1)
        await #expect {
            _ = try await TransportChoice().open("a", timeout: .seconds(30)) { transport, _ in
                throw TransportError(.refused, "\(transport)")
            }
        } throws: { "\($0)".contains("xhrPolling") }
    }

    /// Something on the way takes WebSocket handshakes and says nothing.
    @Test func handshakesThatNobodyAnswersAreGivenUpInTime() async throws {
        let kite = Kite.test(authenticator: .anyone)
        let front = Front(kite)
        let server = try await kite.listen(host: "127.0.0.1", port: 0, path: "/elsewhere") { _ in front.acceptor() }
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await server.run() }
            group.addTask { try await front.sessions.run() }
            let url = server.url.replacing("/elsewhere", with: "/kite")
            let caller = Kite.test("exp2") { $0.handshakeTimeout = .seconds(6) }
            let start = ContinuousClock.now
            for attempt in 0..<2 {
                defer { if attempt == 0 { #expect(ContinuousClock.now - start >= .milliseconds(1900)) } }
                try await KiteClient.withConnection(to: url, as: caller) { client in
                    #expect(client.remote?.peer.transport == "xhr_streaming")
                    let pong: String = try await client.tell("kite.ping")
                    #expect(pong == "pong")
                }
            }
            group.cancelAll()
            try? await group.waitForAll()
        }
        #expect(front.handshakes.withLock { $0 } == 1)
    }

    @Test(
        arguments: [
            (.webSocket, "websocket"), (.rawWebSocket, "rawwebsocket"), (.xhrPolling, "xhr"),
            (.xhrStreaming, "xhr_streaming"), (.eventSource, "eventsource"), (.auto, "websocket"),
        ] as [(KiteConfiguration.Transport, String)])
    func kitesAreCalledByTheTransportThatIsChosen(_ transport: KiteConfiguration.Transport, _ name: String) async throws
    {
        let kite = Kite.test(authenticator: .anyone)
        let transports = Mutex<[String]>([])
        kite.onConnect { remote in transports.withLock { $0.append(remote.peer.transport) } }
        let server = try await kite.listen(host: "127.0.0.1", port: 0)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await server.run() }
            try await KiteClient.withConnection(to: server.url, as: .test("exp2") { $0.transport = transport }) {
                let pong: String = try await $0.tell("kite.ping")
                #expect(pong == "pong")
            }
            group.cancelAll()
            try? await group.waitForAll()
        }
        #expect(transports.withLock { $0 } == [name])
    }
}

/// Serves a kite, but holds back WebSocket handshakes.
private final class Front: Sendable {
    let sessions = TaskPool()
    let handshakes = Mutex(0)
    private let service: SockJSService

    init(_ kite: Kite) {
        service = SockJSService(prefix: "/kite") { [sessions] channel in
            _ = sessions.spawn { await kite.serve(channel) }
        }
    }

    func acceptor() -> any ExchangeAcceptor { Acceptor(self) }

    private final class Acceptor: ExchangeAcceptor, ExchangeHandler {
        private let front: Front

        init(_ front: Front) { self.front = front }

        func accept(_ exchange: any Exchange) {
            let path = exchange.request.path
            if path.hasSuffix("/websocket") {
                front.handshakes.withLock { $0 += 1 }
                exchange.handler = self
            } else {
                front.service.serve(exchange, path: path.dropFirst("/kite".count))
            }
        }

        func exchangeReceived(_ exchange: any Exchange, body: ByteBuffer) {}
        func exchangeRequestEnded(_ exchange: any Exchange, trailers: HeaderBlock?) {}
        func exchangeWritabilityChanged(_ exchange: any Exchange, isWritable: Bool) {}
        func exchangeEnded(_ exchange: any Exchange, error: TransportError?) {}
    }
}
