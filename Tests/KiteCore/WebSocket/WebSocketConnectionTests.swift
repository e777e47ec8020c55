// The connection over a transport in memory: back pressure, deadlines, pings, closing; and bytes carried in messages.
import KiteHTTP
import KiteSupport
import NIOCore
import NIOEmbedded
import Testing

@testable import KiteWebSocket

/// One end of a pair of transports in memory. What is written waits until ``deliver()``.
final class MemoryTransport: ByteTransport {
    let loop: EmbeddedEventLoop
    var eventLoop: any EventLoop { loop }
    var delegate: (any ByteTransportDelegate)?
    var isWritable = true
    var remoteAddress: SocketAddress? { nil }
    var written: [ByteBuffer] = []
    var outputClosed = false
    var closed = false
    var aborted: TransportError?
    var reading = true
    var queuedBytes = 0

    init(_ loop: EmbeddedEventLoop) { self.loop = loop }
    func write(_ bytes: ByteBuffer) { if !closed && aborted == nil { written.append(bytes) } }
    func closeOutput() { outputClosed = true }
    func close() { closed = true }
    func abort(_ reason: TransportError) { aborted = reason }
    func setReading(_ wanted: Bool) { reading = wanted }

    /// What was written since the last call.
    func take() -> [UInt8] {
        defer { written = [] }
        return written.flatMap { Array($0.readableBytesView) }
    }
    func receive(_ bytes: [UInt8]) { delegate?.transportReceived(ByteBuffer(bytes: bytes)) }
}

final class RecordingDelegate: WebSocketConnectionDelegate {
    var texts: [String] = []
    var binaries: [[UInt8]] = []
    var closures: [WebSocketClosure] = []
    var writability: [Bool] = []
    var onText: ((WebSocketConnection) -> Void)?
    func webSocket(_ connection: WebSocketConnection, receivedText message: ByteBuffer) {
        texts.append(String(buffer: message))
        onText?(connection)
    }
    func webSocket(_ connection: WebSocketConnection, receivedBinary message: ByteBuffer) {
        binaries.append(Array(message.readableBytesView))
    }
    func webSocket(_ connection: WebSocketConnection, writabilityChanged isWritable: Bool) {
        writability.append(isWritable)
    }
    func webSocket(_ connection: WebSocketConnection, closed closure: WebSocketClosure) { closures.append(closure) }
}

private final class EndRecorder: ByteTransportDelegate {
    var received = ""
    var ends: [TransportError.Code?] = []
    func transportReceived(_ bytes: ByteBuffer) { received += String(buffer: bytes) }
    func transportInputClosed() {}
    func transportClosed(_ error: TransportError?) { ends.append(error?.code) }
    func transportWritabilityChanged(_ isWritable: Bool) {}
}

@Suite struct WebSocketConnectionTests {
    let loop = EmbeddedEventLoop()
    let transport: MemoryTransport
    let delegate = RecordingDelegate()
    let wheel: TimerWheel

    init() {
        transport = MemoryTransport(loop)
        wheel = TimerWheel(eventLoop: loop)
    }

    func connect(_ role: WebSocketRole = .server, ping: TimeAmount? = nil) -> WebSocketConnection {
        let connection = WebSocketConnection(
            transport: transport, role: role, limits: WebSocketLimits(pingInterval: ping), wheel: wheel)
        connection.delegate = delegate
        return connection
    }

    func frame(_ first: UInt8, _ text: String) -> [UInt8] { WebSocketStateMachineTests.frame(first, text) }

    @Test func deliversAndSends() {
        let connection = connect()
        transport.receive(frame(0x81, "hi") + frame(0x82, "b"))
        #expect(delegate.texts == ["hi"])
        #expect(delegate.binaries == [[98]])
        connection.sendText(ByteBuffer(string: "yo"))
        connection.sendBinary(ByteBuffer(repeating: 7, count: 3000))
        #expect(transport.take() == [0x81, 2, 121, 111, 0x82, 126, 0x0B, 0xB8] + [UInt8](repeating: 7, count: 3000))
    }

    @Test func nothingIsDeliveredWhilePausedEvenWithinOneRead() {
        let connection = connect()
        delegate.onText = { $0.setReading(false) }
        transport.receive(frame(0x81, "1") + frame(0x81, "2") + frame(0x81, "3"))
        #expect(delegate.texts == ["1"])
        #expect(!transport.reading)
        connection.setReading(true)
        #expect(delegate.texts == ["1", "2"])
        delegate.onText = nil
        connection.setReading(true)
        #expect(delegate.texts == ["1", "2", "3"])
        #expect(transport.reading)
    }

    @Test func pingsAreAnsweredAndOneIsKeptWhileThePeerDoesNotRead() {
        let connection = connect()
        transport.receive(frame(0x89, "a"))
        #expect(transport.take() == [0x8A, 1, 97])
        transport.isWritable = false
        transport.receive(frame(0x89, "b") + frame(0x89, "c"))
        #expect(transport.take() == [])
        transport.isWritable = true
        transport.delegate?.transportWritabilityChanged(true)
        #expect(transport.take() == [0x8A, 1, 99])
        #expect(delegate.writability == [true])
        #expect(connection.isOpen)
    }

    @Test func peerClosesAndServerEndsTheConnection() {
        _ = connect()
        transport.receive(frame(0x88, "\u{3}"))
        #expect(delegate.closures.map(\.code) == [.protocolError])
        #expect(transport.closed)
    }

    @Test func closingHandshakeBegunByThePeer() {
        _ = connect()
        transport.receive(WebSocketStateMachineTests.frame(0x88, [0x03, 0xE8]))
        #expect(transport.take() == [0x88, 2, 0x03, 0xE8])
        #expect(transport.closed)
        #expect(delegate.closures == [WebSocketClosure(code: .normal, reason: "", isClean: true)])
        transport.delegate?.transportClosed(nil)
        #expect(delegate.closures.count == 1)
    }

    @Test func aPeerThatNeverAnswersACloseIsCutOff() {
        let connection = connect()
        connection.close(WebSocketCloseCode(rawValue: 3000), reason: "Go away!")
        #expect(transport.take() == [0x88, 10, 0x0B, 0xB8] + Array("Go away!".utf8))
        loop.advanceTime(by: .seconds(4))
        #expect(delegate.closures.isEmpty)
        loop.advanceTime(by: .seconds(2))
        #expect(transport.aborted?.code == .idleTimeout)
        #expect(delegate.closures == [.lost])
    }

    @Test func aCloseWaitsForWhatIsQueuedBeforeItAsLongAsThePeerTakesIt() {
        let connection = connect()
        connection.sendBinary(ByteBuffer(repeating: 7, count: 4 << 20))
        connection.close()
        // With TLS it is known only later how much there is.
        transport.queuedBytes = 4 << 20
        loop.advanceTime(by: .seconds(2))
        for megabytes in [3, 2, 1, 0] {
            transport.queuedBytes = megabytes << 20
            loop.advanceTime(by: .seconds(4))
            #expect(transport.aborted == nil, "\(megabytes)")
        }
        // All has left; now the peer has to answer.
        loop.advanceTime(by: .seconds(11))
        #expect(transport.aborted?.code == .idleTimeout)
        #expect(delegate.closures == [.lost])
    }

    @Test func aCloseIsCutOffWhenThePeerTakesNothingMore() {
        let connection = connect()
        transport.queuedBytes = 4 << 20
        connection.close()
        loop.advanceTime(by: .seconds(4))
        transport.queuedBytes = 3 << 20
        loop.advanceTime(by: .seconds(5))
        #expect(transport.aborted == nil)
        loop.advanceTime(by: .seconds(2))
        #expect(transport.aborted?.code == .idleTimeout)
    }

    @Test func aDelegateThatComesLateHearsOfTheEnd() {
        let connection = WebSocketConnection(transport: transport, role: .server, wheel: wheel)
        transport.receive(frame(0x81, "first"))
        transport.delegate?.transportClosed(TransportError(.reset, "gone"))
        connection.delegate = delegate
        #expect(delegate.texts == ["first"])
        #expect(delegate.closures == [WebSocketClosure(code: .abnormal, reason: "gone", isClean: false)])
        #expect(!connection.isOpen)
        #expect(connection.delegate == nil)
        #expect(wheel.count == 0)
    }

    @Test func aDelegateThatComesAfterAnAbortHearsOfItOnce() {
        let connection = WebSocketConnection(transport: transport, role: .server, wheel: wheel)
        connection.abort(TransportError(.cancelled, "enough"))
        transport.delegate?.transportClosed(nil)
        connection.delegate = delegate
        connection.delegate = delegate
        #expect(delegate.closures.map(\.reason) == ["enough"])
    }

    @Test func bytesInMessagesEndAlsoWhenTheConnectionEndsBeforeAnybodyListens() {
        let bytes = WebSocketByteTransport(WebSocketConnection(transport: transport, role: .server, wheel: wheel))
        let end = EndRecorder()
        bytes.delegate = end
        transport.receive(frame(0x82, "abc"))
        transport.delegate?.transportClosed(TransportError(.reset, "gone"))
        loop.run()
        #expect(end.received == "abc")
        #expect(end.ends == [.reset])
    }

    @Test func aPausedReaderCanClose() {
        let connection = connect()
        connection.setReading(false)
        transport.receive(frame(0x81, "dropped"))
        connection.close()
        #expect(transport.reading)
        #expect(delegate.texts.isEmpty)
        transport.receive(WebSocketStateMachineTests.frame(0x88, [0x03, 0xE8]))
        #expect(delegate.closures.count == 1)
        #expect(transport.closed)
    }

    @Test func endOfInputWithoutACloseFrameEndsTheWebSocketAfterWhatCameBefore() {
        let connection = connect()
        connection.setReading(false)
        transport.receive(frame(0x81, "last"))
        transport.delegate?.transportInputClosed()
        #expect(delegate.closures.isEmpty)
        connection.setReading(true)
        #expect(delegate.texts == ["last"])
        #expect(delegate.closures == [.lost])
        #expect(transport.closed)
    }

    @Test func theClientLeavesClosingTheConnectionToTheServer() {
        let connection = connect(.client)
        connection.close()
        _ = transport.take()
        transport.receive([0x88, 2, 0x03, 0xE8])
        #expect(delegate.closures.count == 1)
        #expect(!transport.closed)
        transport.delegate?.transportInputClosed()
        #expect(transport.closed)
    }

    @Test func theClientDoesNotWaitForEver() {
        let connection = connect(.client)
        connection.close()
        transport.receive([0x88, 2, 0x03, 0xE8])
        loop.advanceTime(by: .seconds(6))
        #expect(transport.aborted != nil)
    }

    @Test func aSilentPeerIsPingedAndGivenUp() {
        _ = connect(ping: .seconds(10))
        loop.advanceTime(by: .seconds(11))
        #expect(transport.take() == [0x89, 0])
        transport.receive(frame(0x8A, ""))
        loop.advanceTime(by: .seconds(10))
        #expect(transport.take() == [0x89, 0])
        loop.advanceTime(by: .seconds(10))
        #expect(transport.aborted?.code == .idleTimeout)
        #expect(delegate.closures.count == 1)
        #expect(wheel.count == 0)
    }

    @Test func abortTellsOnce() {
        let connection = connect()
        connection.abort(TransportError(.cancelled, "enough"))
        connection.abort(TransportError(.cancelled, "enough"))
        transport.delegate?.transportClosed(nil)
        #expect(transport.aborted?.code == .cancelled)
        #expect(delegate.closures.map(\.reason) == ["enough"])
        connection.sendText(ByteBuffer(string: "x"))
        #expect(transport.take() == [])
    }
}

@Suite struct WebSocketHandshakeTests {
    static func request(_ change: (inout RequestHead) -> Void = { _ in }) -> RequestHead {
        var head = WebSocketHandshake.request(target: "/", authority: "h", key: "dGhlIHNhbXBsZSBub25jZQ==")
        change(&head)
        return head
    }

    @Test func acceptsWhatTheClientSends() throws {
        let key = WebSocketHandshake.makeKey()
        let head = WebSocketHandshake.request(
            target: "/x?y", authority: "h",
            fields: HeaderBlock(["Origin": "http://h", "Upgrade": "h2c", "Sec-WebSocket-Extensions": "x"]), key: key)
        #expect(head.fields.text(.origin) == "http://h")
        #expect(head.fields.occurrences(.upgrade) == 1)
        #expect(head.fields.occurrences(.secWebSocketExtensions) == 0)
        let response = try WebSocketHandshake.accept(head)
        #expect(response.status == 101)
        try WebSocketHandshake.verify(response, key: key)
        #expect(throws: TransportError.self) {
            try WebSocketHandshake.verify(response, key: WebSocketHandshake.makeKey())
        }
    }

    @Test func aListOfProtocolsMayHoldOthers() throws {
        let request = Self.request {
            $0.fields = HeaderBlock([
                "Upgrade": "foo, WebSocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            ])
        }
        #expect(try WebSocketHandshake.accept(request).fields.text(.upgrade) == "websocket")
    }

    @Test(arguments: [
        ("POST", 405, request { $0.method = .post }),
        ("no upgrade", 400, request { $0.wantsUpgrade = false }),
        ("HTTP/1.0", 400, request { $0.minorVersion = 0 }),
        ("other protocol", 400, request { $0.fields = HeaderBlock(["Upgrade": "h2c", "Connection": "Upgrade"]) }),
        ("body", 400, request { $0.bodyLength = .known(3) }),
        ("chunked body", 400, request { $0.bodyLength = .unknown }),
        ("no version", 426, request { $0.fields = HeaderBlock(["Upgrade": "websocket", "Connection": "Upgrade"]) }),
        (
            "version 8", 426,
            request {
                $0.fields = HeaderBlock(["Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "8"])
            }
        ),
        ("two versions", 426, request { $0.fields.append("Sec-WebSocket-Version", "13") }),
        ("two keys", 400, request { $0.fields.append("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==") }),
        (
            "no key", 400,
            request {
                $0.fields = HeaderBlock([
                    "Upgrade": "websocket", "Connection": "keep-alive, Upgrade", "Sec-WebSocket-Version": "13",
                ])
            }
        ),
        (
            "short key", 400,
            request {
                $0.fields = HeaderBlock([
                    "Upgrade": "WebSocket", "Connection": "upgrade", "Sec-WebSocket-Version": "13",
                    "Sec-WebSocket-Key": "AAAA",
                ])
            }
        ),
    ])
    func refuses(_ name: String, _ status: Int, _ head: RequestHead) {
        let refusal = #expect(throws: WebSocketHandshake.Refusal.self) { try WebSocketHandshake.accept(head) }
        #expect(refusal?.status == UInt16(status))
        #expect((refusal?.fields.text("Sec-WebSocket-Version") == "13") == (status == 426))
    }

    @Test func theClientRefusesWrongAnswers() throws {
        let key = "dGhlIHNhbXBsZSBub25jZQ=="
        let good =
            ["Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]
            as KeyValuePairs
        try WebSocketHandshake.verify(ResponseHead(status: 101, fields: HeaderBlock(good)), key: key)
        #expect(throws: TransportError.self) {
            try WebSocketHandshake.verify(ResponseHead(status: 200, fields: HeaderBlock(good)), key: key)
        }
        for extra in ["Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol", "Sec-WebSocket-Accept"] {
            var fields = HeaderBlock(good)
            fields.append(extra, "permessage-deflate")
            #expect(throws: TransportError.self) {
                try WebSocketHandshake.verify(ResponseHead(status: 101, fields: fields), key: key)
            }
        }
    }
}

@Suite struct WebSocketByteTransportTests {
    final class Bytes: ByteTransportDelegate {
        var received: [UInt8] = []
        var inputClosed = false
        var ends: [TransportError?] = []
        var writability: [Bool] = []
        func transportReceived(_ bytes: ByteBuffer) { received += Array(bytes.readableBytesView) }
        func transportInputClosed() { inputClosed = true }
        func transportClosed(_ error: TransportError?) { ends.append(error) }
        func transportWritabilityChanged(_ isWritable: Bool) { writability.append(isWritable) }
    }

    let loop = EmbeddedEventLoop()
    let clientWire: MemoryTransport
    let serverWire: MemoryTransport
    let client: WebSocketByteTransport
    let server: WebSocketByteTransport
    let clientBytes = Bytes()
    let serverBytes = Bytes()

    init() {
        clientWire = MemoryTransport(loop)
        serverWire = MemoryTransport(loop)
        let wheel = TimerWheel(eventLoop: loop)
        client = WebSocketByteTransport(WebSocketConnection(transport: clientWire, role: .client, wheel: wheel))
        server = WebSocketByteTransport(WebSocketConnection(transport: serverWire, role: .server, wheel: wheel))
        client.delegate = clientBytes
        server.delegate = serverBytes
        loop.run()
    }

    /// Carries what was written to the other side until nothing moves.
    func exchange() {
        while true {
            loop.run()
            let up = clientWire.take()
            let down = serverWire.take()
            if up.isEmpty && down.isEmpty { return }
            if !up.isEmpty { serverWire.receive(up) }
            if !down.isEmpty { clientWire.receive(down) }
        }
    }

    @Test func writesOfOneTurnLeaveInOneMessage() {
        server.write(ByteBuffer(string: "ab"))
        server.write(ByteBuffer())
        server.write(ByteBuffer(string: "cd"))
        #expect(serverWire.take() == [])
        loop.run()
        #expect(serverWire.take() == [0x82, 4, 97, 98, 99, 100])
    }

    @Test func longWritesAreCutInto64KiB() {
        let bytes = (0..<200_000).map { UInt8(truncatingIfNeeded: $0) }
        server.write(ByteBuffer(bytes: bytes))
        #expect(!server.isWritable)
        loop.run()
        #expect(server.isWritable)
        let wire = serverWire.take()
        #expect(Array(wire[..<10]) == [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0])
        clientWire.receive(wire)
        #expect(clientBytes.received == bytes)
    }

    @Test func halfCloseBothWays() {
        client.write(ByteBuffer(string: "request"))
        client.closeOutput()
        exchange()
        #expect(serverBytes.received == Array("request".utf8))
        #expect(serverBytes.inputClosed)
        server.write(ByteBuffer(string: "answer"))
        server.closeOutput()
        exchange()
        #expect(clientBytes.received == Array("answer".utf8))
        #expect(clientBytes.inputClosed)
        #expect(clientBytes.ends.count == 1 && clientBytes.ends[0] == nil)
        #expect(serverBytes.ends.count == 1 && serverBytes.ends[0] == nil)
    }

    @Test func closeSendsWhatWasWritten() {
        client.write(ByteBuffer(string: "bye"))
        client.close()
        exchange()
        #expect(serverBytes.received == Array("bye".utf8))
        #expect(serverBytes.ends.count == 1 && serverBytes.ends[0] == nil)
        #expect(clientBytes.ends.count == 1 && clientBytes.ends[0] == nil)
    }

    @Test(arguments: TransportError.Code.allCases) func abortCarriesItsReason(_ code: TransportError.Code) {
        server.write(ByteBuffer(string: "lost"))
        server.abort(TransportError(code, "because"))
        exchange()
        #expect(clientBytes.received.isEmpty)
        #expect(clientBytes.ends == [TransportError(code, "because")])
        #expect(serverBytes.ends == [TransportError(code, "because")])
    }

    @Test func textAndBytesAfterTheEndAreRefused() {
        serverWire.receive(WebSocketStateMachineTests.frame(0x81, "text"))
        #expect(serverBytes.ends.first??.code == .protocolViolation)
        clientWire.receive([0x82, 0, 0x82, 1, 65])
        #expect(clientBytes.inputClosed)
        #expect(clientBytes.ends.first??.code == .protocolViolation)
    }

    /// Takes the first bytes, then leaves; somebody else comes later.
    final class Handover: ByteTransportDelegate {
        unowned let transport: WebSocketByteTransport
        var received: [UInt8] = []
        init(_ transport: WebSocketByteTransport) { self.transport = transport }
        func transportReceived(_ bytes: ByteBuffer) {
            received += Array(bytes.readableBytesView)
            transport.delegate = nil
        }
        func transportInputClosed() {}
        func transportClosed(_ error: TransportError?) {}
        func transportWritabilityChanged(_ isWritable: Bool) {}
    }

    @Test func nothingIsLostBetweenTwoDelegates() {
        let first = Handover(client)
        client.delegate = first
        loop.run()
        // Three messages of one read, then one of another, then the end of bytes and of the connection.
        clientWire.receive([0x82, 1, 65, 0x82, 1, 66, 0x82, 1, 67])
        clientWire.receive([0x82, 1, 68])
        clientWire.receive([0x82, 0])
        loop.run()
        #expect(first.received == [65])
        client.delegate = clientBytes
        // Not from within the setter: what the first has kept goes ahead.
        #expect(clientBytes.received.isEmpty)
        loop.run()
        #expect(clientBytes.received == [66, 67, 68])
        #expect(clientBytes.inputClosed)
        clientWire.delegate?.transportInputClosed()
        loop.run()
        #expect(clientBytes.ends.count == 1)
    }

    @Test func anEndBetweenTwoDelegatesIsTold() {
        client.delegate = nil
        clientWire.receive([0x82, 1, 65])
        clientWire.delegate?.transportInputClosed()
        loop.run()
        client.delegate = clientBytes
        loop.run()
        #expect(clientBytes.ends.count == 1)
    }

    @Test func aLostConnectionIsAReset() {
        clientWire.delegate?.transportInputClosed()
        #expect(clientBytes.ends.first??.code == .reset)
    }
}
