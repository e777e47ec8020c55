import KiteSupport
import NIOCore
import NIOEmbedded
import Testing

@testable import KiteHTTP

/// Writes down what a client connection reports.
private final class Recorder: HTTPClientHandler {
    var heads: [UInt16] = []
    var informational: [UInt16] = []
    var body = ""
    var ended = false
    var trailers: HeaderBlock?
    var failure: HTTPClientFailure?
    var upgraded: (any ByteTransport)?

    func clientInformational(_ head: ResponseHead) { informational.append(head.status) }
    func clientResponded(_ head: ResponseHead) { heads.append(head.status) }
    func clientReceived(_ bytes: ByteBuffer) { body += String(buffer: bytes) }
    func clientEnded(trailers: HeaderBlock?) {
        ended = true
        self.trailers = trailers
    }
    func clientUpgraded(_ head: ResponseHead, transport: any ByteTransport) { upgraded = transport }
    func clientFailed(_ failure: HTTPClientFailure) { self.failure = failure }
    func clientWritabilityChanged(_ isWritable: Bool) {}
}

private final class Consumer: ByteTransportDelegate {
    var received = ""
    func transportReceived(_ bytes: ByteBuffer) { received += String(buffer: bytes) }
    func transportInputClosed() {}
    func transportClosed(_ error: TransportError?) {}
    func transportWritabilityChanged(_ isWritable: Bool) {}
}

@Suite("HTTP client connection")
struct HTTPClientConnectionTests {
    private let loop = EmbeddedEventLoop()
    private let transport: ScriptedTransport
    private let pool: ConnectionPool

    init() {
        transport = ScriptedTransport(loop: loop)
        pool = ConnectionPool(wheel: TimerWheel(eventLoop: loop))
    }

    private func get(
        _ connection: HTTPClientConnection, _ handler: Recorder, upgrade: Bool = false, timeout: TimeAmount? = nil
    ) {
        connection.send(
            head: ByteBuffer(string: "GET / HTTP/1.1\r\nHost: a\r\n\r\n"), method: .get, bodyLength: .none,
            wantsUpgrade: upgrade,
            timeout: timeout, handler: handler)
    }

    @Test(
        "Responses of every framing arrive whole, split at every byte",
        arguments: [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", true),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nX-T: 1\r\n\r\n",
                "hello", true
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", "", true),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n", "", true),
            ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", "hello", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", false),
            ("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", true),
        ])
    func framings(wire: String, body: String, reusable: Bool) {
        for split in 0...wire.utf8.count {
            let transport = ScriptedTransport(loop: loop)
            let connection = pool.adopt(transport)
            let seen = Recorder()
            get(connection, seen)
            let bytes = Array(wire.utf8)
            transport.delegate?.transportReceived(ByteBuffer(bytes: bytes[..<split]))
            transport.delegate?.transportReceived(ByteBuffer(bytes: bytes[split...]))
            #expect(seen.ended)
            #expect(seen.heads.count == 1)
            #expect(seen.body == body)
            #expect(seen.failure == nil)
            #expect(connection.isIdle == reusable)
            #expect(transport.isClosed == !reusable)
            connection.close()
        }
    }

    @Test("A response without a length lasts until the upstream closes")
    func untilClose() {
        let connection = pool.adopt(transport)
        let seen = Recorder()
        get(connection, seen)
        transport.deliver("HTTP/1.1 200 OK\r\n\r\nhel")
        transport.deliver("lo")
        #expect(!seen.ended)
        transport.endInput()
        #expect(seen.ended)
        #expect(seen.body == "hello")
        #expect(!connection.isIdle)
    }

    @Test(
        "A broken answer fails the exchange and aborts the connection",
        arguments: [
            "nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "HTTP/1.1 200 OK\nContent-Length: 0\n\n", "HTTP/2.0 200 OK\r\n\r\n",
        ])
    func broken(wire: String) {
        let connection = pool.adopt(transport)
        let seen = Recorder()
        get(connection, seen)
        transport.deliver(wire)
        #expect(seen.failure?.cause.code == .protocolViolation)
        #expect(transport.aborted != nil)
        #expect(pool.count == 0)
    }

    @Test("An endless run of informational responses is cut off")
    func informationalFlood() {
        let connection = pool.adopt(transport)
        let seen = Recorder()
        get(connection, seen)
        for _ in 0..<100 { transport.deliver("HTTP/1.1 102 Processing\r\n\r\n") }
        // The upstream is at fault, not busy.
        #expect(seen.failure?.cause.code == .protocolViolation)
        #expect(seen.informational.count == HTTPClientConnectionStateMachine.maximumInformational)
    }

    @Test("A body that is cut off is a failure after the response has started")
    func truncated() {
        let connection = pool.adopt(transport)
        let seen = Recorder()
        get(connection, seen)
        transport.deliver("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
        transport.endInput()
        #expect(seen.failure?.responseStarted == true)
        #expect(seen.failure != nil)
        #expect(!seen.ended)
    }

    @Test("Only a reused connection that died before any byte allows an idempotent request again")
    func retry() {
        let connection = pool.adopt(transport)
        let first = Recorder()
        get(connection, first)
        transport.deliver("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        let second = Recorder()
        get(connection, second)
        transport.end(TransportError(.reset, "gone"))
        #expect(second.failure?.isRetryable(method: .get, bodyConsumed: false) == true)
        #expect(second.failure?.isRetryable(method: .post, bodyConsumed: false) == false)
        #expect(second.failure?.isRetryable(method: .put, bodyConsumed: true) == false)

        let fresh = ScriptedTransport(loop: loop)
        let third = Recorder()
        get(pool.adopt(fresh), third)
        fresh.endInput()
        #expect(third.failure?.isRetryable(method: .get, bodyConsumed: false) == false)
    }

    @Test("Chunked request bodies are framed, and the connection is reused only after the request is complete")
    func chunkedRequest() {
        let connection = pool.adopt(transport)
        let seen = Recorder()
        connection.send(
            head: ByteBuffer(string: "POST / HTTP/1.1\r\n\r\n"), method: .post, bodyLength: .unknown, handler: seen)
        _ = transport.takeWritten()
        connection.write(ByteBuffer(string: "hello"))
        connection.write(ByteBuffer())
        connection.write(ByteBuffer(string: String(repeating: "x", count: 4096)))
        connection.finish(trailers: HeaderBlock(["X-Sum": "1"]))
        #expect(
            transport.takeWritten()
                == "5\r\nhello\r\n1000\r\n" + String(repeating: "x", count: 4096) + "\r\n0\r\nX-Sum: 1\r\n\r\n")
        transport.deliver("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        #expect(connection.isIdle)

        let early = Recorder()
        connection.send(
            head: ByteBuffer(string: "POST / HTTP/1.1\r\n\r\n"), method: .post, bodyLength: .known(10), handler: early)
        transport.deliver("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        #expect(early.ended)
        #expect(transport.isClosed)
    }

    @Test("After 101 the transport is handed over and delivers what came with the head first")
    func upgrade() {
        let connection = pool.adopt(transport)
        let seen = Recorder()
        get(connection, seen, upgrade: true)
        transport.deliver("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nfirst ")
        let consumer = Consumer()
        seen.upgraded?.delegate = consumer
        loop.run()
        transport.deliver("second")
        #expect(consumer.received == "first second")
        #expect(pool.count == 0)
    }

    @Test(
        "Nothing is asked behind a request for an upgrade that was answered otherwise: many servers would not read it")
    func upgradeNotGranted() {
        for isUpgrade in [true, false] {
            let transport = ScriptedTransport(loop: loop)
            let connection = pool.adopt(transport)
            let seen = Recorder()
            get(connection, seen, upgrade: isUpgrade)
            transport.deliver("HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno")
            #expect(seen.ended)
            #expect(seen.body == "no")
            #expect(connection.isIdle == !isUpgrade)
            #expect(transport.isClosed == isUpgrade)
            connection.close()
        }
    }

    @Test("An upstream that stays silent fails the exchange after the timeout, not before")
    func silence() {
        let connection = pool.adopt(transport)
        let seen = Recorder()
        get(connection, seen, timeout: .seconds(10))
        loop.advanceTime(by: .seconds(9))
        #expect(seen.failure == nil)
        loop.advanceTime(by: .seconds(2))
        #expect(seen.failure?.cause.code == .idleTimeout)
    }

    @Test("A TLS connection cut without farewell ends only bodies that say where they end")
    func truncatedByTLS() {
        for (head, isComplete) in [
            ("Content-Length: 5\r\n", true), ("Transfer-Encoding: chunked\r\n", true), ("X: y\r\n", false),
        ] {
            let transport = ScriptedTransport(loop: loop)
            let seen = Recorder()
            get(pool.adopt(transport), seen)
            let body = head.hasPrefix("Transfer") ? "5\r\nhello\r\n0\r\n\r\n" : "hello"
            transport.deliver("HTTP/1.1 200 OK\r\n\(head)\r\n\(body)")
            transport.isInputTruncated = true
            transport.endInput()
            #expect(seen.body == "hello")
            #expect(seen.ended == isComplete)
            #expect((seen.failure?.cause.code == .reset) == !isComplete)
        }
    }

    private func limited(_ change: (inout HTTPLimits) -> Void) -> HTTPClientConnection {
        var limits = HTTPLimits()
        change(&limits)
        return HTTPClientConnection(transport: transport, wheel: TimerWheel(eventLoop: loop), limits: limits)
    }

    private func post(_ connection: HTTPClientConnection, _ handler: Recorder, timeout: TimeAmount? = nil) {
        connection.send(
            head: ByteBuffer(string: "POST / HTTP/1.1\r\n\r\n"), method: .post, bodyLength: .known(1_000_000),
            timeout: timeout, handler: handler)
        connection.write(ByteBuffer(repeating: 0x61, count: 1000))
    }

    @Test("An upload that the upstream does not take fails; one that it takes slowly does not")
    func stalledUpload() {
        let connection = limited { $0.bodyIdleTimeout = .seconds(20) }
        let seen = Recorder()
        post(connection, seen, timeout: .seconds(5))
        loop.advanceTime(by: .minutes(10))
        #expect(seen.failure == nil)
        for _ in 0..<5 {
            transport.setWritable(false)
            loop.advanceTime(by: .seconds(19))
            connection.write(ByteBuffer(repeating: 0x61, count: 1000))
            transport.setWritable(true)
            connection.write(ByteBuffer(repeating: 0x61, count: 1000))
        }
        #expect(seen.failure == nil)
        transport.isWritable = false
        connection.write(ByteBuffer(repeating: 0x61, count: 1000))
        loop.advanceTime(by: .seconds(19))
        connection.write(ByteBuffer(repeating: 0x61, count: 1000))
        #expect(seen.failure == nil)
        loop.advanceTime(by: .seconds(2))
        #expect(seen.failure?.cause.code == .idleTimeout)
        #expect(seen.failure?.responseStarted == false)
        #expect(transport.aborted?.code == .idleTimeout)
    }

    @Test("A response that stops in its body is broken off, counting only the time in which it was wanted")
    func stalledResponse() {
        let connection = limited { $0.responseIdleTimeout = .seconds(20) }
        let seen = Recorder()
        get(connection, seen)
        transport.deliver("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        for _ in 0..<5 {
            loop.advanceTime(by: .seconds(19))
            transport.deliver("x")
        }
        connection.setReading(false)
        loop.advanceTime(by: .minutes(10))
        #expect(seen.failure == nil)
        connection.setReading(true)
        loop.advanceTime(by: .seconds(19))
        #expect(seen.failure == nil)
        loop.advanceTime(by: .seconds(2))
        #expect(seen.failure?.cause.code == .idleTimeout)
        #expect(seen.failure?.responseStarted == true)
    }

    @Test("What an upstream takes of an upload counts for a response that waits for it")
    func movingUpload() {
        let connection = limited { $0.responseIdleTimeout = .seconds(20) }
        let seen = Recorder()
        post(connection, seen)
        transport.deliver("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        for _ in 0..<5 {
            loop.advanceTime(by: .seconds(19))
            connection.write(ByteBuffer(repeating: 0x61, count: 1000))
        }
        #expect(seen.failure == nil)
        loop.advanceTime(by: .seconds(21))
        #expect(seen.failure?.cause.code == .idleTimeout)
    }

    @Test(
        "Event streams may be silent, and after a response nothing is waited for",
        arguments: ["text/event-stream", "Text/Event-Stream; charset=utf-8"])
    func eventStream(type: String) {
        let connection = limited { $0.responseIdleTimeout = .seconds(20) }
        let seen = Recorder()
        get(connection, seen)
        transport.deliver("HTTP/1.1 200 OK\r\nContent-Type: \(type)\r\nTransfer-Encoding: chunked\r\n\r\n")
        loop.advanceTime(by: .hours(1))
        #expect(seen.failure == nil)
        transport.deliver("0\r\n\r\n")
        #expect(seen.ended)
        loop.advanceTime(by: .hours(1))
        #expect(connection.isIdle)
        let next = Recorder()
        get(connection, next)
        transport.deliver("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n")
        loop.advanceTime(by: .seconds(21))
        #expect(next.failure?.cause.code == .idleTimeout)
    }

    @Test("An informational response to an unfinished request starts no wait for the answer")
    func informationalDuringUpload() {
        let connection = pool.adopt(transport)
        let seen = Recorder()
        post(connection, seen, timeout: .seconds(10))
        transport.deliver("HTTP/1.1 103 Early Hints\r\n\r\n")
        loop.advanceTime(by: .seconds(60))
        #expect(seen.failure == nil)
        connection.finish(trailers: nil)
        loop.advanceTime(by: .seconds(9))
        transport.deliver("HTTP/1.1 102 Processing\r\n\r\n")
        loop.advanceTime(by: .seconds(9))
        #expect(seen.failure == nil)
        loop.advanceTime(by: .seconds(2))
        #expect(seen.failure?.cause.code == .idleTimeout)
    }

    @Test("A connection whose owner is gone closes when it becomes idle; one that never had an owner stays")
    func ownerless() {
        let own = ScriptedTransport(loop: loop)
        var pool: ConnectionPool? = ConnectionPool(wheel: TimerWheel(eventLoop: loop))
        let owned = pool?.adopt(own)
        let first = Recorder()
        if let owned { get(owned, first) }
        pool = nil
        own.deliver("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        #expect(first.ended)
        #expect(own.isClosed)

        let free = HTTPClientConnection(transport: transport, wheel: TimerWheel(eventLoop: loop))
        get(free, Recorder())
        transport.deliver("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        #expect(free.isIdle)
        #expect(!transport.isClosed)
    }

    @Test("A pooled connection that is closed or speaks unasked leaves the pool")
    func idleClosed() {
        let connection = pool.adopt(transport)
        get(connection, Recorder())
        transport.deliver("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        #expect(pool.idleCount == 1)
        transport.deliver("HTTP/1.1 408 Timeout\r\n\r\n")
        #expect(pool.idleCount == 0)
        #expect(pool.count == 0)
        #expect(pool.takeIdle() == nil)
    }

    @Test("Idle connections expire, the longest idle first")
    func expiry() {
        let transports = (0..<3).map { _ in ScriptedTransport(loop: loop) }
        let connections = transports.map { pool.adopt($0) }
        for (transport, connection) in zip(transports, connections) {
            get(connection, Recorder())
            transport.deliver("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            loop.advanceTime(by: .seconds(15))
        }
        #expect(pool.idleCount == 3)
        loop.advanceTime(by: .seconds(17))
        #expect(transports.map(\.isClosed) == [true, false, false])
        #expect(pool.takeIdle() === connections[2])
        loop.advanceTime(by: .seconds(60))
        #expect(transports.map(\.isClosed) == [true, true, false])
        #expect(pool.count == 1)
    }
}
