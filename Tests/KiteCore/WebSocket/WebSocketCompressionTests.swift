// Compressed messages on a WebSocket (RFC 7692 sections 6 and 7): which frames may say that they are, what is sent compressed, limits.
import KiteHTTP
import KiteSupport
import NIOCore
import NIOEmbedded
import Testing

@testable import KiteWebSocket

@Suite struct WebSocketCompressionTests {
    let loop = EmbeddedEventLoop()
    let transport: MemoryTransport
    let delegate = RecordingDelegate()
    let codec = DeflateCodec()

    init() { transport = MemoryTransport(loop) }

    func connect(limit: Int = 100_000, range: ClosedRange<Int> = 1024...1 << 20) throws -> WebSocketConnection {
        let agreement = try #require(WebSocketDeflate([WebSocketExtensionOffer(name: "permessage-deflate")]))
        let connection = WebSocketConnection(
            transport: transport, role: .server, limits: WebSocketLimits(messageBytes: limit),
            compression: .init(agreement: agreement, options: WebSocketCompression(messageBytes: range)),
            unfinished: nil, wheel: nil)
        connection.delegate = delegate
        return connection
    }

    static func frame(_ first: UInt8, _ payload: [UInt8]) -> [UInt8] {
        WebSocketStateMachineTests.frame(first, payload)
    }
    func compressed(_ text: String) throws -> [UInt8] {
        Array(try #require(codec.deflate(ByteBuffer(string: text), windowBits: 15)).readableBytesView)
    }

    static let long = String(repeating: "a kite in the wind, ", count: 100)

    @Test func compressedAndPlainMessagesInTurn() throws {
        _ = try connect()
        let bytes = try compressed(Self.long)
        transport.receive(
            Self.frame(0xC1, bytes) + Self.frame(0x81, Array("plain".utf8)) + Self.frame(0xC2, bytes)
                + Self.frame(0xC1, [0x00]))
        #expect(delegate.texts == [Self.long, "plain", ""])
        #expect(delegate.binaries == [Array(Self.long.utf8)])
    }

    @Test func fragmentsOfACompressedMessageAroundControlFramesCutAnywhere() throws {
        _ = try connect()
        let bytes = try compressed(Self.long)
        for cut in 0...bytes.count {
            transport.receive(
                Self.frame(0x41, Array(bytes[..<cut])) + Self.frame(0x89, [UInt8(cut & 0x7F)])
                    + Self.frame(0x80, Array(bytes[cut...])))
            #expect(transport.take() == [0x8A, 1, UInt8(cut & 0x7F)])
        }
        #expect(delegate.texts == Array(repeating: Self.long, count: bytes.count + 1))
        // Byte by byte, as well.
        for byte in Self.frame(0xC1, bytes) { transport.receive([byte]) }
        #expect(delegate.texts.count == bytes.count + 2)
    }

    @Test(
        arguments: [
            ("a continuation", frame(0x01, [65]) + frame(0xC0, [66]), 1002),
            ("a continuation of a compressed message", frame(0x41, [0xF2]) + frame(0xC0, [0x48]), 1002),
            ("a ping", frame(0xC9, []), 1002), ("a pong", frame(0xCA, []), 1002), ("a close", frame(0xC8, []), 1002),
            ("the second reserved bit", frame(0xE1, [0x00]), 1002), ("the third", frame(0xD1, [0x00]), 1002),
            ("what can't be decompressed", frame(0xC1, [0xFF, 0xFF]), 1007),
            ("a message cut off", frame(0xC1, [0xF2, 0x48]), 1007),
            // 0xFF, stored.
            ("text that is not UTF-8", frame(0xC1, [0x00, 0x01, 0x00, 0xFE, 0xFF, 0xFF, 0x00]), 1007),
        ] as [(String, [UInt8], UInt16)]) func violations(_ name: String, _ bytes: [UInt8], _ code: UInt16) throws
    {
        _ = try connect()
        transport.receive(bytes)
        #expect(delegate.closures.map(\.code.rawValue) == [code])
        #expect(transport.take().prefix(4).suffix(2) == [UInt8(code >> 8), UInt8(code & 0xFF)])
        #expect(transport.closed)
        #expect(delegate.texts.isEmpty)
    }

    @Test func reservedBitsMeanNothingWithoutAgreement() throws {
        let connection = WebSocketConnection(transport: transport, role: .server, wheel: nil)
        connection.delegate = delegate
        transport.receive(Self.frame(0xC1, try compressed(Self.long)))
        #expect(delegate.closures.map(\.code) == [.protocolError])
    }

    @Test func theLimitIsThatOfTheDecompressedMessage() throws {
        _ = try connect(limit: 2000)
        transport.receive(Self.frame(0xC1, try compressed(String(Self.long.prefix(2000)))))
        #expect(delegate.texts == [String(Self.long.prefix(2000))])
        transport.receive(Self.frame(0xC1, try compressed(Self.long + "!")))
        #expect(delegate.closures.map(\.code) == [.tooBig])
        #expect(transport.closed)
    }

    @Test func whatIsSent() throws {
        let connection = try connect(range: 100...5000)
        func sent() throws -> (first: UInt8, payload: ByteBuffer) {
            var decoder = WebSocketFrameDecoder(role: .client, maxFrameBytes: 1 << 20, allowsCompression: true)
            var bytes = ByteBuffer(bytes: transport.take())
            decoder.append(bytes)
            let frame = try #require(try decoder.next())
            #expect(try decoder.next() == nil)
            return (bytes.readInteger() ?? 0, frame.payload)
        }
        // Too short, too long, not to be made shorter.
        connection.sendText(ByteBuffer(repeating: 0x61, count: 99))
        #expect(try sent().first == 0x81)
        connection.sendText(ByteBuffer(repeating: 0x61, count: 5001))
        #expect(try sent().first == 0x81)
        var random = WebSocketFrameTests.Seeded(state: 3)
        let noise = ByteBuffer(bytes: (0..<1000).map { _ in UInt8.random(in: .min ... .max, using: &random) })
        connection.sendBinary(noise)
        let plain = try sent()
        #expect(plain.first == 0x82)
        #expect(plain.payload == noise)
        // Control frames never.
        connection.ping(ByteBuffer(repeating: 0x61, count: 125))
        #expect(try sent().first == 0x89)
        for count in [100, 5000] {
            let message = ByteBuffer(repeating: 0x61, count: count)
            connection.sendText(message)
            let (first, payload) = try sent()
            #expect(first == 0xC1)
            #expect(payload.readableBytes < 60)
            #expect(try codec.inflate(payload, limit: count, isText: true) == message)
        }
        connection.sendBinary(ByteBuffer(repeating: 0, count: 3000))
        #expect(try sent().first == 0xC2)
    }

    /// Each message stands for itself: in any order, with others between, it can be read.
    @Test func nothingIsKeptBetweenMessages() throws {
        let connection = try connect(range: 1...5000)
        connection.sendText(ByteBuffer(string: Self.long))
        let first = transport.take()
        connection.sendText(ByteBuffer(repeating: 0x62, count: 4000))
        _ = transport.take()
        connection.sendText(ByteBuffer(string: Self.long))
        #expect(transport.take() == first)
    }

    @Test func agreedInTheHandshakeWhereTheServerWantsIt() throws {
        for (offer, wanted, agreed) in [
            ("permessage-deflate; client_max_window_bits", true, true), ("permessage-deflate", false, false),
            ("x-other", true, false),
        ] {
            let exchange = UpgradingExchange(loop, offer)
            let connection = WebSocketHandshake.accept(
                exchange, compression: wanted ? WebSocketCompression() : nil, wheel: nil)
            #expect(connection != nil)
            #expect(exchange.answer?.status == 101)
            #expect(
                exchange.answer?.fields.text(.secWebSocketExtensions) == (agreed ? WebSocketExtensionTests.bare : nil))
        }
        let broken = UpgradingExchange(loop, "permessage-deflate; =")
        #expect(WebSocketHandshake.accept(broken, compression: WebSocketCompression(), wheel: nil) == nil)
        #expect(broken.answer?.status == 400)
    }
}

/// An exchange that asks for a WebSocket.
private final class UpgradingExchange: Exchange {
    let eventLoop: any EventLoop
    let request: RequestHead
    let peer = ExchangePeer()
    var handler: (any ExchangeHandler)?
    var isWritable: Bool { true }
    var isEnded: Bool { answer != nil }
    var answer: ResponseHead?
    private let loop: EmbeddedEventLoop

    init(_ loop: EmbeddedEventLoop, _ offer: String) {
        self.loop = loop
        eventLoop = loop
        var head = WebSocketHandshake.request(target: "/", authority: "h", key: WebSocketHandshake.makeKey())
        head.fields.append("Sec-WebSocket-Extensions", offer)
        request = head
    }
    func sendInformational(_ head: ResponseHead) {}
    func respond(_ head: ResponseHead) { answer = head }
    func write(_ bytes: ByteBuffer) {}
    func finish(trailers: HeaderBlock?) {}
    func upgrade(_ head: ResponseHead) -> (any ByteTransport)? {
        answer = head
        return MemoryTransport(loop)
    }
    func abort(_ reason: TransportError) {}
    func setReading(_ wanted: Bool) {}
}
