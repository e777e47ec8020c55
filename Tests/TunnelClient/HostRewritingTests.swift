/// How Host is replaced in requests that pass, however they are cut up.
import KiteHTTP
import NIOCore
import NIOEmbedded
import Testing

@testable import TunnelClient

private final class FakeStream: ByteTransport {
    let eventLoop: any EventLoop = EmbeddedEventLoop()
    var delegate: (any ByteTransportDelegate)?
    var isWritable = true
    var remoteAddress: SocketAddress?
    var aborted: TransportError?
    var written = ""
    var isReading = true
    func write(_ bytes: ByteBuffer) { written += String(buffer: bytes) }
    func closeOutput() {}
    func close() {}
    func abort(_ reason: TransportError) { aborted = reason }
    func setReading(_ wanted: Bool) { isReading = wanted }
}

private final class Sink: ByteTransportDelegate {
    var received = ""
    var inputClosed = 0
    func transportReceived(_ bytes: ByteBuffer) { received += String(buffer: bytes) }
    func transportInputClosed() { inputClosed += 1 }
    func transportClosed(_ error: TransportError?) {}
    func transportWritabilityChanged(_ isWritable: Bool) {}
}

@Suite("Rewriting Host")
struct HostRewritingTests {
    static let cases: [(String, String)] = [
        (
            "GET /a?b HTTP/1.1\r\nHost: public\r\nX: 1\r\nx: 2\r\n\r\n",
            "GET /a?b HTTP/1.1\r\nHost: own:1\r\nX: 1\r\nx: 2\r\n\r\n"
        ),
        (
            "POST / HTTP/1.1\r\nA: b\r\nHost: p\r\nContent-Length: 5\r\n\r\nHost:GET / HTTP/1.1\r\nHost: p\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: own:1\r\nA: b\r\nContent-Length: 5\r\n\r\nHost:GET / HTTP/1.1\r\nHost: own:1\r\n\r\n"
        ),
        (
            "POST / HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\nGET /2 HTTP/1.1\r\nHost: p\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: own:1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\nGET /2 HTTP/1.1\r\nHost: own:1\r\n\r\n"
        ),
    ]

    @Test("Only Host changes, at every split of the input", arguments: cases)
    func rewriting(input: String, expected: String) {
        let bytes = Array(input.utf8)
        for split in 0...bytes.count {
            let stream = FakeStream()
            let transport = HostRewritingTransport(stream, host: "own:1")
            let sink = Sink()
            transport.delegate = sink
            stream.delegate?.transportReceived(ByteBuffer(bytes: bytes[..<split]))
            stream.delegate?.transportReceived(ByteBuffer(bytes: bytes[split...]))
            #expect(sink.received == expected, "split at \(split)")
            #expect(stream.aborted == nil)
        }
    }

    @Test("Byte by byte", arguments: cases)
    func bytewise(input: String, expected: String) {
        let stream = FakeStream()
        let transport = HostRewritingTransport(stream, host: "own:1")
        let sink = Sink()
        transport.delegate = sink
        for byte in input.utf8 { stream.delegate?.transportReceived(ByteBuffer(bytes: [byte])) }
        #expect(sink.received == expected)
    }

    @Test("What is no HTTP breaks the stream", arguments: ["\u{0}\u{1}\r\n\r\n", "GET / HTTP/1.1\r\nHost : x\r\n\r\n"])
    func nonsense(input: String) {
        let stream = FakeStream()
        let transport = HostRewritingTransport(stream, host: "own:1")
        let sink = Sink()
        transport.delegate = sink
        stream.delegate?.transportReceived(ByteBuffer(string: input))
        #expect(stream.aborted?.code == .protocolViolation)
        #expect(sink.received.isEmpty)
    }

    // MARK: upgrades

    private static let upgrade = "GET /ws HTTP/1.1\r\nHost: p\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    private static let rewritten =
        "GET /ws HTTP/1.1\r\nHost: own:1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    private static let switching =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    private static let next = "GET /2 HTTP/1.1\r\nHost: p\r\n\r\n"
    private static let nextRewritten = "GET /2 HTTP/1.1\r\nHost: own:1\r\n\r\n"

    private func opened() -> (FakeStream, HostRewritingTransport, Sink) {
        let stream = FakeStream()
        let transport = HostRewritingTransport(stream, host: "own:1")
        let sink = Sink()
        transport.delegate = sink
        return (stream, transport, sink)
    }

    private func say(_ stream: FakeStream, _ text: String) {
        stream.delegate?.transportReceived(ByteBuffer(string: text))
    }

    @Test("After a 101 bytes pass as they are, at every split of the response")
    func upgraded() {
        let answer = Array((Self.switching + "frames").utf8)
        for split in 0...answer.count {
            let (stream, transport, sink) = opened()
            say(stream, Self.upgrade)
            #expect(sink.received == Self.rewritten)
            transport.write(ByteBuffer(bytes: answer[..<split]))
            transport.write(ByteBuffer(bytes: answer[split...]))
            say(stream, Self.next)
            #expect(sink.received == Self.rewritten + Self.next, "split at \(split)")
            #expect(stream.written == Self.switching + "frames")
            #expect(stream.isReading)
        }
    }

    @Test(
        "A request for an upgrade that is answered otherwise is one like any other",
        arguments: [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\n\r\n",
        ])
    func notUpgraded(answer: String) {
        let bytes = Array(answer.utf8)
        for split in 0...bytes.count {
            let (stream, transport, sink) = opened()
            say(stream, Self.upgrade)
            transport.write(ByteBuffer(bytes: bytes[..<split]))
            transport.write(ByteBuffer(bytes: bytes[split...]))
            say(stream, Self.next)
            #expect(sink.received == Self.rewritten + Self.nextRewritten, "split at \(split)")
            // The next one may be upgraded all the same.
            transport.write(ByteBuffer(string: "HTTP/1.1 204 No Content\r\n\r\n"))
            say(stream, Self.upgrade)
            transport.write(ByteBuffer(string: Self.switching))
            say(stream, Self.next)
            #expect(sink.received == Self.rewritten + Self.nextRewritten + Self.rewritten + Self.next)
            #expect(stream.aborted == nil)
        }
    }

    @Test("What follows a request for an upgrade waits for the answer", arguments: [true, false])
    func early(isUpgraded: Bool) {
        let (stream, transport, sink) = opened()
        say(stream, Self.upgrade + Self.next)
        stream.delegate?.transportInputClosed()
        #expect(sink.received == Self.rewritten)
        #expect(sink.inputClosed == 0)
        #expect(!stream.isReading)
        transport.setReading(false)
        transport.setReading(true)
        #expect(!stream.isReading)
        transport.write(
            ByteBuffer(string: isUpgraded ? Self.switching : "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"))
        #expect(sink.received == Self.rewritten + (isUpgraded ? Self.next : Self.nextRewritten))
        #expect(sink.inputClosed == 1)
        #expect(stream.isReading)
    }

    @Test("The answers to requests before it are not taken for the answer to a request for an upgrade")
    func pipelined() {
        let (stream, transport, sink) = opened()
        say(stream, "HEAD / HTTP/1.1\r\nHost: p\r\n\r\n" + Self.next + Self.upgrade)
        transport.write(ByteBuffer(string: "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"))
        transport.write(ByteBuffer(string: "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nHTTP/1.1 101"))
        say(stream, Self.next)
        let before = "HEAD / HTTP/1.1\r\nHost: own:1\r\n\r\n" + Self.nextRewritten + Self.rewritten
        #expect(sink.received == before)
        transport.write(ByteBuffer(string: "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"))
        #expect(sink.received == before + Self.nextRewritten)
    }

    @Test(
        "Where the target's answers cannot be followed, no further request passes",
        arguments: [
            "HTTP/1.1 101 Switching Protocols\r\n\r\n", "garbage\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ])
    func lost(answer: String) {
        let (stream, transport, sink) = opened()
        say(stream, Self.next)
        transport.write(ByteBuffer(string: answer))
        #expect(stream.written == answer)
        say(stream, Self.next)
        #expect(sink.received == Self.nextRewritten)
        #expect(stream.aborted?.code == .protocolViolation)
    }
}
