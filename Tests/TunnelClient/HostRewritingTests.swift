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
    func write(_ bytes: ByteBuffer) {}
    func closeOutput() {}
    func close() {}
    func abort(_ reason: TransportError) { aborted = reason }
    func setReading(_ wanted: Bool) {}
}

private final class Sink: ByteTransportDelegate {
    var received = ""
    func transportReceived(_ bytes: ByteBuffer) { received += String(buffer: bytes) }
    func transportInputClosed() {}
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
        (
            "GET /ws HTTP/1.1\r\nHost: p\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\u{1}GET / HTTP/1.1\r\nHost: p\r\n\r\n",
            "GET /ws HTTP/1.1\r\nHost: own:1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\u{1}GET / HTTP/1.1\r\nHost: p\r\n\r\n"
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
}
