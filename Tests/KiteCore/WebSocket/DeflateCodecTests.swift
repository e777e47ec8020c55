// Messages compressed and decompressed: the examples of RFC 7692, hostile input, limits.
import NIOCore
import Testing

@testable import KiteWebSocket

@Suite struct DeflateCodecTests {
    let codec = DeflateCodec()

    static func inflate(
        _ codec: DeflateCodec, _ bytes: [UInt8], limit: Int = 1 << 20, isText: Bool = false
    ) throws(WebSocketError) -> String {
        String(buffer: try codec.inflate(ByteBuffer(bytes: bytes), limit: limit, isText: isText))
    }

    /// RFC 7692 section 7.2.3.
    @Test(
        arguments: [
            ("fixed Huffman codes", [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00]),
            ("stored", [0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00]),
            ("a last block", [0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00]),
            ("a last block and no more", [0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00]),
            ("two blocks", [0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00]),
            (
                "a stream after a stream",
                [0x01, 0x02, 0x00, 0xFD, 0xFF, 0x48, 0x65, 0x00, 0x03, 0x00, 0xFC, 0xFF, 0x6C, 0x6C, 0x6F, 0x00]
            ),
        ] as [(String, [UInt8])]) func examples(_ name: String, _ bytes: [UInt8]) throws
    {
        #expect(try Self.inflate(codec, bytes, isText: true) == "Hello")
        // The stream can be used again.
        #expect(try Self.inflate(codec, bytes, limit: 5) == "Hello")
        let error = #expect(throws: WebSocketError.self) { try Self.inflate(codec, bytes, limit: 4) }
        #expect(error?.code == .tooBig)
    }

    @Test func nothing() throws {
        #expect(try Self.inflate(codec, []) == "")
        #expect(try Self.inflate(codec, [0x00]) == "")
        #expect(try Self.inflate(codec, [0x02, 0x00]) == "")
        #expect(try Self.inflate(codec, [0x00], limit: 0) == "")
    }

    @Test(
        arguments: [
            ("a reserved block type", [0xFF, 0xFF, 0xFF, 0xFF]),
            ("a stored block with a wrong length", [0x00, 0x05, 0x00, 0x00, 0x00, 0x48]),
            ("a distance before the beginning", [0x02, 0x02, 0x00]),
            ("cut within a stored block", [0x00, 0x40, 0x00, 0xBF, 0xFF, 0x48]),
            ("cut within a code", [0xF2, 0x48, 0xCD]),
        ] as [(String, [UInt8])]) func broken(_ name: String, _ bytes: [UInt8]) throws
    {
        let error = #expect(throws: WebSocketError.self) { try Self.inflate(codec, bytes) }
        #expect(error?.code == .invalidPayload)
        #expect(try Self.inflate(codec, [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00]) == "Hello")
    }

    @Test(arguments: [9, 10, 12, 15] as [Int32]) func roundTrips(_ windowBits: Int32) throws {
        var random = WebSocketFrameTests.Seeded(state: UInt64(windowBits))
        let peer = DeflateCodec(inflatingWindowBits: windowBits)
        for count in [1, 2, 100, 1023, 1024, 5000, 70_000] {
            for alphabet in [1, 3, 60, 256] {
                let text = (0..<count).map { _ in UInt8(Int.random(in: 0..<alphabet, using: &random)) }
                guard let compressed = codec.deflate(ByteBuffer(bytes: text), windowBits: windowBits) else {
                    #expect(count < 100 || alphabet > 3)
                    continue
                }
                #expect(compressed.readableBytes < count)
                let back = try codec.inflate(compressed, limit: count, isText: false)
                #expect(Array(back.readableBytesView) == text)
                // No more than the window that was agreed on is used: a peer with just that can follow.
                #expect(try peer.inflate(compressed, limit: count, isText: false) == back)
            }
        }
    }

    /// 4 MiB of zeros are less than 20 KB on the wire.
    @Test func bombsAreDefused() throws {
        let bomb = try #require(codec.deflate(ByteBuffer(repeating: 0, count: 4 << 20), windowBits: 15))
        #expect(bomb.readableBytes < 20_000)
        let error = #expect(throws: WebSocketError.self) { try codec.inflate(bomb, limit: 1 << 20, isText: true) }
        #expect(error?.code == .tooBig)
        #expect(try codec.inflate(bomb, limit: 4 << 20, isText: true).readableBytes == 4 << 20)
    }

    @Test func textIsCheckedWhileItComes() throws {
        var text = ByteBuffer(bytes: [0xC3, 0x28])
        text.writeRepeatingByte(0x20, count: 8 << 20)
        let compressed = try #require(codec.deflate(text, windowBits: 15))
        // The wrong byte comes first, long before the limit.
        let error = #expect(throws: WebSocketError.self) { try codec.inflate(compressed, limit: 1 << 20, isText: true) }
        #expect(error == .notUTF8)
        let cut = try #require(
            codec.deflate(ByteBuffer(bytes: [UInt8](repeating: 0x41, count: 200) + [0xE2, 0x82]), windowBits: 15))
        #expect(throws: WebSocketError.notUTF8) { try codec.inflate(cut, limit: 1000, isText: true) }
        #expect(try codec.inflate(cut, limit: 1000, isText: false).readableBytes == 202)
    }

    @Test func noiseEndsInAnErrorOrWithinTheLimit() throws {
        var random = WebSocketFrameTests.Seeded(state: 7)
        let sound = try #require(
            codec.deflate(ByteBuffer(string: String(repeating: "kite ", count: 400)), windowBits: 15))
        for _ in 0..<4000 {
            var bytes =
                Bool.random(using: &random)
                ? Array(sound.readableBytesView)
                : (0..<Int.random(in: 0..<40, using: &random)).map { _ in
                    UInt8.random(in: .min ... .max, using: &random)
                }
            if !bytes.isEmpty {
                for _ in 0..<3 {
                    bytes[Int.random(in: 0..<bytes.count, using: &random)] = .random(in: .min ... .max, using: &random)
                }
            }
            do throws(WebSocketError) {
                #expect(try codec.inflate(ByteBuffer(bytes: bytes), limit: 3000, isText: false).readableBytes <= 3000)
            } catch {
                #expect(error.code == .invalidPayload || error.code == .tooBig)
            }
        }
    }
}
