// The frame codec: every rule of RFC 6455 section 5, whole and cut at every byte.
import KiteSupport
import NIOCore
import Testing

@testable import KiteWebSocket

/// Builds frames by hand, independently of the encoder.
func rawFrame(
    _ first: UInt8, _ payload: [UInt8], key: [UInt8]? = nil, lengthBytes: Int? = nil, declared: UInt64? = nil
) -> [UInt8] {
    var bytes = [first]
    let length = declared ?? UInt64(payload.count)
    let width = lengthBytes ?? (length < 126 ? 0 : length <= 0xFFFF ? 2 : 8)
    let mask: UInt8 = key == nil ? 0 : 0x80
    switch width {
    case 0: bytes.append(mask | UInt8(length))
    case 2: bytes += [mask | 126] + [8, 0].map { UInt8(truncatingIfNeeded: length >> UInt64($0)) }
    default:
        bytes +=
            [mask | 127] + stride(from: 56, through: 0, by: -8).map { UInt8(truncatingIfNeeded: length >> UInt64($0)) }
    }
    guard let key else { return bytes + payload }
    return bytes + key + payload.enumerated().map { $1 ^ key[$0 % 4] }
}

struct Malformed: Sendable, CustomTestStringConvertible {
    var name: String
    var bytes: [UInt8]
    var code: UInt16
    var role = WebSocketRole.client
    var testDescription: String { name }
}

@Suite struct WebSocketFrameTests {
    static let key: [UInt8] = [0x37, 0xFA, 0x21, 0x3D]

    /// A deterministic generator, so that a failure can be repeated.
    struct Seeded: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            var mixed = state
            mixed ^= mixed >> 33
            mixed = mixed &* 0xFF51_AFD7_ED55_8CCD
            return mixed ^ mixed >> 29
        }
    }

    static func frames(
        _ bytes: [UInt8], role: WebSocketRole, limit: Int = 1 << 20, cuts: [Int] = []
    ) throws(WebSocketError) -> [WebSocketFrame] {
        var decoder = WebSocketFrameDecoder(role: role, maxFrameBytes: limit)
        var result: [WebSocketFrame] = []
        var start = 0
        for end in cuts + [bytes.count] {
            decoder.append(ByteBuffer(bytes: bytes[start..<end]))
            start = end
            while let frame = try decoder.next() { result.append(frame) }
        }
        return result
    }

    @Test(arguments: [
        Malformed(name: "RSV1", bytes: [0xC1, 0], code: 1002),
        Malformed(name: "RSV2", bytes: [0xA1, 0], code: 1002),
        Malformed(name: "RSV3", bytes: [0x91, 0], code: 1002),
        Malformed(name: "RSV before the length arrives", bytes: [0xF1], code: 1002),
        Malformed(name: "opcode 3", bytes: [0x83, 0], code: 1002),
        Malformed(name: "opcode 7", bytes: [0x87, 0], code: 1002),
        Malformed(name: "opcode 11", bytes: [0x8B, 0], code: 1002),
        Malformed(name: "opcode 15", bytes: [0x8F, 0], code: 1002),
        Malformed(name: "fragmented ping", bytes: [0x09, 0], code: 1002),
        Malformed(name: "fragmented close", bytes: [0x08, 0], code: 1002),
        Malformed(name: "long pong", bytes: [0x8A, 126, 0, 126], code: 1002),
        Malformed(name: "long close with 64-bit length", bytes: [0x88, 127], code: 1002),
        Malformed(name: "masked frame of a server", bytes: [0x81, 0x80, 1, 2, 3, 4], code: 1002),
        Malformed(name: "unmasked frame of a client", bytes: [0x81, 0], code: 1002, role: .server),
        Malformed(name: "16-bit length of 125", bytes: [0x82, 126, 0, 125], code: 1002),
        Malformed(name: "16-bit length of 0", bytes: [0x82, 126, 0, 0], code: 1002),
        Malformed(name: "64-bit length of 65535", bytes: [0x82, 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF], code: 1002),
        Malformed(name: "64th bit of the length", bytes: [0x82, 127, 0x80, 0, 0, 0, 0, 1, 0, 0], code: 1002),
        Malformed(name: "63-bit length", bytes: [0x82, 127, 0x7F] + [UInt8](repeating: 0xFF, count: 7), code: 1009),
        Malformed(name: "just over the limit", bytes: [0x82, 127, 0, 0, 0, 0, 0, 0x10, 0, 1], code: 1009),
    ])
    func refuses(_ malformed: Malformed) {
        let error = #expect(throws: WebSocketError.self) {
            try Self.frames(malformed.bytes, role: malformed.role)
        }
        #expect(error?.code.rawValue == malformed.code)
        // The same when it arrives byte by byte, behind a good frame.
        let good = rawFrame(0x81, [65], key: malformed.role == .server ? Self.key : nil)
        let bytes = good + malformed.bytes
        var decoder = WebSocketFrameDecoder(role: malformed.role, maxFrameBytes: 1 << 20)
        var seen = 0
        var code: UInt16?
        do throws(WebSocketError) {
            for byte in bytes {
                decoder.append(ByteBuffer(bytes: [byte]))
                while try decoder.next() != nil { seen += 1 }
            }
        } catch { code = error.code.rawValue }
        #expect(seen == 1)
        #expect(code == malformed.code)
    }

    @Test func acceptsThePublishedExamples() throws {
        let hello = Array("Hello".utf8)
        let masked: [UInt8] = [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58]
        #expect(
            try Self.frames(masked, role: .server)
                == [WebSocketFrame(opcode: .text, payload: ByteBuffer(bytes: hello))])
        #expect(
            try Self.frames([0x81, 0x05] + hello, role: .client)
                == [WebSocketFrame(opcode: .text, payload: ByteBuffer(bytes: hello))])
        #expect(
            try Self.frames([0x01, 0x03, 0x48, 0x65, 0x6C, 0x80, 0x02, 0x6C, 0x6F], role: .client) == [
                WebSocketFrame(isFinal: false, opcode: .text, payload: ByteBuffer(string: "Hel")),
                WebSocketFrame(opcode: .continuation, payload: ByteBuffer(string: "lo")),
            ])
    }

    @Test(arguments: [0, 1, 124, 125, 126, 127, 1000, 65535, 65536, 100_000])
    func lengthsSurviveTheRoundTrip(_ length: Int) throws {
        let payload = ByteBuffer(bytes: (0..<length).map { UInt8(truncatingIfNeeded: $0 &* 31) })
        for role in [WebSocketRole.client, .server] {
            var encoder = WebSocketFrameEncoder(role: role)
            var output = ByteBuffer()
            encoder.encode(.binary, payload: payload, into: &output)
            encoder.encode(.ping, payload: ByteBuffer(string: "x"), into: &output)
            let bytes = Array(output.readableBytesView)
            #expect((bytes[1] & 0x80 != 0) == (role == .client))
            let decoded = try Self.frames(bytes, role: role == .client ? .server : .client, cuts: [min(3, length)])
            #expect(
                decoded == [
                    WebSocketFrame(opcode: .binary, payload: payload),
                    WebSocketFrame(opcode: .ping, payload: ByteBuffer(string: "x")),
                ])
        }
    }

    @Test func anyCutGivesTheSameFrames() throws {
        let bytes =
            rawFrame(0x01, Array("Grüße, ".utf8), key: Self.key) + rawFrame(0x89, [1, 2, 3], key: [9, 8, 7, 6])
            + rawFrame(0x80, Array(repeating: 0xC3, count: 300), key: [0xFF, 0, 0xAA, 0x55])
            + rawFrame(0x82, [], key: Self.key) + rawFrame(0x88, [3, 0xE8], key: Self.key)
        let whole = try Self.frames(bytes, role: .server)
        #expect(whole.count == 5)
        for first in 0..<bytes.count {
            #expect(try Self.frames(bytes, role: .server, cuts: [first]) == whole)
        }
        #expect(try Self.frames(bytes, role: .server, cuts: Array(1..<bytes.count)) == whole)
        var random = Seeded(state: 7)
        for _ in 0..<300 {
            let cuts = (0..<Int.random(in: 1...9, using: &random))
                .map { _ in Int.random(in: 0...bytes.count, using: &random) }.sorted()
            #expect(try Self.frames(bytes, role: .server, cuts: cuts) == whole)
        }
    }

    @Test func slicesHandedOutKeepTheirBytesWhileMoreArrives() throws {
        var decoder = WebSocketFrameDecoder(role: .server, maxFrameBytes: 1000)
        let frame = rawFrame(0x82, [1, 2, 3, 4, 5], key: Self.key)
        decoder.append(ByteBuffer(bytes: frame + frame + frame[..<7]))
        let first = try #require(try decoder.next())
        decoder.append(ByteBuffer(bytes: frame[7...]))
        let second = try #require(try decoder.next())
        let third = try #require(try decoder.next())
        for frame in [first, second, third] { #expect(Array(frame.payload.readableBytesView) == [1, 2, 3, 4, 5]) }
        #expect(decoder.bufferedBytes == 0)
    }

    @Test func masksAtEveryOffsetAndLength() {
        for offset in 0..<9 {
            for count in 0..<40 {
                var bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7) }
                let expected = bytes.enumerated().map { $1 ^ Self.key[(offset + $0) % 4] }
                bytes.withUnsafeMutableBytes { WebSocketMask(key: 0x37FA_213D).apply(to: $0, offset: offset) }
                #expect(bytes == expected)
            }
        }
    }

    @Test(.timeLimit(.minutes(1))) func noiseNeverCrashesAndIsBounded() {
        var random = Seeded(state: 42)
        let start = ContinuousClock.now
        var rounds = 0
        var accepted = 0
        while ContinuousClock.now - start < .seconds(1) && rounds < 20_000 {
            rounds += 1
            var machine = WebSocketStateMachine(
                role: rounds % 2 == 0 ? .client : .server, limits: WebSocketLimits(messageBytes: 512, fragments: 8))
            for _ in 0..<Int.random(in: 1...6, using: &random) {
                var piece: [UInt8]
                if Bool.random(using: &random) {
                    let opcode: UInt8 = [0, 1, 2, 8, 9, 10][Int.random(in: 0..<6, using: &random)]
                    let body = (0..<Int.random(in: 0...140, using: &random))
                        .map { _ in UInt8.random(in: 0...127, using: &random) }
                    piece = rawFrame(
                        opcode | (Bool.random(using: &random) ? 0x80 : 0), body, key: rounds % 2 == 0 ? nil : Self.key)
                } else {
                    piece = (0..<Int.random(in: 0...30, using: &random)).map { _ in .random(in: 0...255, using: &random)
                    }
                }
                if !piece.isEmpty && Int.random(in: 0..<4, using: &random) == 0 {
                    piece[Int.random(in: 0..<piece.count, using: &random)] ^=
                        1 << UInt8.random(in: 0...7, using: &random)
                }
                machine.receive(ByteBuffer(bytes: piece))
                actions: while true {
                    switch machine.next() {
                    case .none: break actions
                    case .deliver(.text(let message)), .deliver(.binary(let message)):
                        accepted += 1
                        #expect(message.readableBytes <= 512)
                    default: break
                    }
                }
            }
        }
        #expect(rounds > 100)
        #expect(accepted > 0)
    }
}

@Suite struct UTF8ValidatorTests {
    @Test func agreesWithTheStandardLibraryAtEveryCut() {
        var random = WebSocketFrameTests.Seeded(state: 3)
        let leads: [UInt8] = [
            0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xDF, 0xE0, 0xE1, 0xED, 0xEF, 0xF0, 0xF1,
            0xF4, 0xF5, 0xFF,
        ]
        var valid = 0
        for _ in 0..<20_000 {
            let bytes = (0..<Int.random(in: 0...6, using: &random)).map { _ in leads.randomElement(using: &random) ?? 0
            }
            let expected = String(validating: bytes, as: UTF8.self) != nil
            valid += expected ? 1 : 0
            let cut = Int.random(in: 0...bytes.count, using: &random)
            var validator = UTF8Validator()
            let isValid = [Array(bytes[..<cut]), Array(bytes[cut...])].allSatisfy { part in
                part.withUnsafeBytes { validator.validate($0) }
            }
            #expect((isValid && validator.isComplete) == expected, "\(bytes)")
        }
        #expect(valid > 100)
    }

    @Test func findsAWrongByteBehindLongASCII() {
        for length in 0..<40 {
            var validator = UTF8Validator()
            let bytes = [UInt8](repeating: 0x61, count: length) + [0xC0]
            #expect(!bytes.withUnsafeBytes { validator.validate($0) })
        }
    }
}

@Suite struct SHA1Tests {
    private func hex(_ text: String) -> String {
        SHA1.digest(Array(text.utf8)).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    @Test func digestsThePublishedExamples() {
        #expect(hex("") == "da39a3ee5e6b4b0d3255bfef95601890afd80709")
        #expect(hex("abc") == "a9993e364706816aba3e25717850c26c9cd0d89d")
        #expect(
            hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")
                == "84983e441c3bd26ebaae4aa1f95129e5e54670f1")
        #expect(hex(String(repeating: "a", count: 1000)) == "291e9a6c66994949b57ba5e650361e98fc36b1ba")
    }

    @Test func acceptValuesOfRealHandshakes() {
        #expect(WebSocketHandshake.acceptValue(for: "dGhlIHNhbXBsZSBub25jZQ==".utf8) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        #expect(WebSocketHandshake.acceptValue(for: "g/DqU1QkXXAxnoJQoe3okQ==".utf8) == "1dLahacQeG46hXqpnfoV+L8r2XY=")
        #expect(WebSocketHandshake.acceptValue(for: "x3JJHMbDL1EzLkh9GBhXDw==".utf8) == "HSmrc0sMlYUkAGmm5OPpG2HaGWk=")
    }

    @Test func base64() {
        #expect(Base64.encode([]) == "")
        #expect(Base64.encode(Array("f".utf8)) == "Zg==")
        #expect(Base64.encode(Array("fo".utf8)) == "Zm8=")
        #expect(Base64.encode(Array("foo".utf8)) == "Zm9v")
        #expect(Base64.encode(Array("foobar".utf8)) == "Zm9vYmFy")
        #expect(WebSocketHandshake.isKey(WebSocketHandshake.makeKey().utf8))
        for text in ["", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAA=", "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAA-AAAAAAAAAA=="] {
            #expect(!WebSocketHandshake.isKey(text.utf8))
        }
    }
}
