/// Taking a connection apart into frames, whatever pieces it arrives in and whatever is wrong with it.
import KiteHTTP
import KiteTunnel
import NIOCore
import Testing

@Suite struct TunnelFrameDecoderTests {
    @Test func everySplitGivesTheSameFrames() throws {
        let frames = try WireDocumentTests.frames().sorted { $0.key < $1.key }.map(\.value)
        var all = ByteBuffer()
        for frame in frames { all.writeTunnelFrame(frame) }
        for split in 1..<all.readableBytes {
            var decoder = TunnelFrameDecoder()
            var found: [TunnelFrame] = []
            for piece in [
                all.getSlice(at: 0, length: split), all.getSlice(at: split, length: all.readableBytes - split),
            ] {
                decoder.receive(piece ?? ByteBuffer())
                while let frame = try decoder.next() { found.append(frame) }
            }
            #expect(found == frames, "split at \(split)")
        }
    }

    @Test func byteByByte() throws {
        let frames = try WireDocumentTests.frames().sorted { $0.key < $1.key }.map(\.value)
        var decoder = TunnelFrameDecoder()
        var found: [TunnelFrame] = []
        for frame in frames {
            var bytes = ByteBuffer()
            bytes.writeTunnelFrame(frame)
            while let byte = bytes.readSlice(length: 1) {
                decoder.receive(byte)
                while let frame = try decoder.next() { found.append(frame) }
            }
        }
        #expect(found == frames)
        #expect(decoder.remaining.readableBytes == 0)
    }

    static let malformed: [(String, [UInt8])] = [
        ("type 0", [0, 0, 0, 0, 0, 0, 0, 0]),
        ("unknown type", [0x15, 0, 0, 0, 0, 0, 0, 0]),
        ("type 7f", [0x7F, 0, 0, 0, 0, 0, 0, 0]),
        ("payload of 16,385", [0x11, 0, 0x40, 0x01, 0, 0, 0, 0]),
        ("payload of 65,535", [0x80, 0, 0xFF, 0xFF, 0, 0, 0, 0]),
        ("unknown flag on DATA", [0x11, 2, 0, 1, 0, 0, 0, 0, 1]),
        ("flag on CREDIT", [0x12, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1]),
        ("PING on a stream", [0x03, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("short PING", [0x03, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("long ACK", [0x05, 0, 0, 9, 0, 0, 0, 0]),
        ("GOAWAY on a stream", [0x14, 0, 0, 3, 0, 0, 0, 1, 8, 0, 0]),
        ("empty DATA without END", [0x11, 0, 0, 0, 0, 0, 0, 0]),
        ("CREDIT of 0", [0x12, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("CREDIT of 3 bytes", [0x12, 0, 0, 3, 0, 0, 0, 0, 0, 0, 1]),
        ("RESET without code", [0x13, 0, 0, 0, 0, 0, 0, 0]),
        ("RESET with a long reason", [0x13, 0, 1, 2, 0, 0, 0, 0]),
        ("OPEN too short", [0x10, 0, 0, 3, 0, 0, 0, 0, 1, 0, 0]),
        ("OPEN of kind 0", [0x10, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("OPEN of kind 9", [0x10, 0, 0, 4, 0, 0, 0, 0, 9, 0, 0, 0]),
        ("OPEN of family 5", [0x10, 0, 0, 4, 0, 0, 0, 0, 1, 0, 0, 5]),
        ("OPEN with half an address", [0x10, 0, 0, 8, 0, 0, 0, 0, 1, 0, 0, 6, 1, 2, 3, 4]),
        ("OPEN with a long host", [0x10, 0, 1, 4, 0, 0, 0, 0, 1, 0, 0, 0] + [UInt8](repeating: 97, count: 256)),
        ("GOAWAY with a reason beyond its end", [0x14, 0, 0, 3, 0, 0, 0, 0, 8, 0, 9]),
        ("NOTE with a method beyond its end", [0x06, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]),
        ("NOTE with a long method", [0x06, 0, 0, 60, 0, 0, 0, 0] + [UInt8](repeating: 40, count: 60)),
        ("empty HELLO", [0x01, 0, 0, 0, 0, 0, 0, 0]),
    ]

    @Test(arguments: malformed.indices) func refuses(_ index: Int) {
        let (name, bytes) = Self.malformed[index]
        var decoder = TunnelFrameDecoder()
        decoder.receive(ByteBuffer(bytes: bytes))
        #expect(throws: TransportError.self, "\(name)") { try decoder.next() }
        // The same in single bytes.
        var slow = TunnelFrameDecoder()
        #expect(throws: TransportError.self, "\(name)") {
            for byte in bytes {
                slow.receive(ByteBuffer(bytes: [byte]))
                _ = try slow.next()
            }
        }
    }

    @Test func extensionsAreReadOver() throws {
        var decoder = TunnelFrameDecoder()
        decoder.receive(ByteBuffer(bytes: [0x80, 0xFF, 0, 2, 0, 0, 0, 9, 1, 2, 0x11, 1, 0, 0, 0, 0, 0, 3]))
        do {
            let next = try decoder.next()
            #expect(next == .unknown(0x80))
        }
        do {
            let next = try decoder.next()
            #expect(next == .data(TunnelStreamID(rawValue: 3), ByteBuffer(), isEnd: true))
        }
    }

    @Test func unknownResetCodesMeanBroken() throws {
        var decoder = TunnelFrameDecoder()
        decoder.receive(ByteBuffer(bytes: [0x13, 0, 0, 1, 0, 0, 0, 0, 200]))
        do {
            let next = try decoder.next()
            #expect(next == .reset(TunnelStreamID(rawValue: 0), .reset, reason: ByteBuffer()))
        }
    }

    @Test func textsAreCutAtWholeCharacters() throws {
        var bytes = ByteBuffer()
        bytes.writeTunnelFrame(.goAway(TunnelGoAway(reason: String(repeating: "€", count: 100))))
        var decoder = TunnelFrameDecoder()
        decoder.receive(bytes)
        do {
            let next = try decoder.next()
            #expect(next == .goAway(TunnelGoAway(reason: String(repeating: "€", count: 85))))
        }
    }

    @Test(.timeLimit(.minutes(1))) func noiseNeverCrashesADecoderOrALane() throws {
        let seed: UInt64 = 20_261_124
        var random = SeededGenerator(seed: seed)
        let frames = try WireDocumentTests.frames().map(\.value)
        let end = ContinuousClock.now + .milliseconds(1_500)
        while ContinuousClock.now < end {
            var bytes = ByteBuffer()
            for _ in 0..<Int.random(in: 1...6, using: &random) {
                if let frame = frames.randomElement(using: &random) { bytes.writeTunnelFrame(frame) }
            }
            for _ in 0..<Int.random(in: 0...4, using: &random) {
                bytes.setInteger(
                    UInt8.random(in: .min ... .max, using: &random),
                    at: Int.random(in: 0..<bytes.readableBytes, using: &random))
            }
            let pair = LanePair()
            pair.agentEnd.setReading(true)
            pair.gatewayEnd.write(bytes)
            var decoder = TunnelFrameDecoder()
            decoder.receive(bytes)
            var count = 0
            do { while try decoder.next() != nil { count += 1 } } catch { #expect(error.code == .protocolViolation) }
            #expect(count <= bytes.readableBytes / TunnelWire.headerLength, "seed \(seed)")
            pair.settle()
            #expect(!pair.agent.isClosed || pair.agentDelegate.closed.count == 1)
        }
    }
}
