/// The chunked framing: what is taken off, what is refused.
import NIOCore
import Testing

@testable import KiteHTTP

@Suite struct ChunkDecoderTests {
    /// Decodes a text that arrives in pieces of a size; nil when it is incomplete.
    static func decode(_ text: String, limits: HTTPLimits = HTTPLimits(), piece: Int = .max) throws(HTTPError)
        -> (body: String, trailers: HeaderBlock?, rest: String)?
    {
        var decoder = ChunkDecoder(limits: limits, bodyLimit: limits.bodyBytes ?? .max)
        var buffer = ByteBuffer()
        var body = ""
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            buffer.writeBytes(rest.prefix(piece))
            rest = rest.dropFirst(piece)
            while let part = try decoder.next(from: &buffer) {
                switch part {
                case .bytes(let bytes): body += String(buffer: bytes)
                case .end(let trailers):
                    return (body, trailers, String(buffer: buffer) + String(decoding: rest, as: UTF8.self))
                }
            }
        }
        return nil
    }

    @Test func decodes() throws {
        let text = "4\r\nabcd\r\n00a;x=\"y;\\\"\\r z\";b;c=d\r\n0123456789\r\nA\r\n9876543210\r\n0;last\r\n\r\nnext"
        for piece in [1, 2, 3, 7, .max] {
            let result = try #require(try Self.decode(text, piece: piece))
            #expect(result.body == "abcd01234567899876543210")
            #expect(result.trailers == nil)
            #expect(result.rest == "next")
        }
    }

    @Test func dropsTrailersThatWouldMeanSomething() throws {
        let names = [
            "Content-Length", "Transfer-Encoding", "Host", "Connection", "Trailer", "TE", "Upgrade", "Authorization",
            "Cookie", "Set-Cookie", "Forwarded", "X-Forwarded-For", "Content-Type", "Cache-Control", "Via", "Expect",
        ]
        let text = "0\r\n" + names.map { "\($0): x\r\n" }.joined() + "X-Sum: 1\r\n\r\n"
        let result = try #require(try Self.decode(text, piece: 1))
        let trailers = try #require(result.trailers)
        #expect(trailers.count == 1)
        #expect(trailers.text("x-sum") == "1")
        #expect(!trailers.has(.contentLength))
    }

    @Test(arguments: [
        "\r\n", ";x\r\n", " 4\r\nabcd\r\n", "4 \r\nabcd\r\n", "4 ;x\r\nabcd\r\n", "+4\r\nabcd\r\n", "-4\r\nabcd\r\n",
        "0x4\r\nabcd\r\n", "g\r\n", "4\nabcd\r\n", "4\rabcd\r\n", "4\r\nabcde\r\n", "4\r\nabcd\n", "4\r\nabcd\rx",
        "4;x\ny\r\n", "4;\r\nabcd\r\n", "4;;x\r\nabcd\r\n", "4;=x\r\nabcd\r\n", "4;x=\r\nabcd\r\n",
        "4;x=\"y\r\nabcd\r\n", "4; x\r\nabcd\r\n", "4;x=\"y\"z\r\nabcd\r\n", "4;é\r\nabcd\r\n", "4;\u{0}\r\n",
        "4;x\r\r\n", "8000000000000000\r\n", "ffffffffffffffff\r\n",
        "10000000000000000\r\n",
        "00000000000000001\r\n", "0\r\n\n", "0\r\n x: y\r\n\r\n", "0\r\nx : y\r\n\r\n", "0\r\nx\r\n\r\n",
        "0\r\nx: y\n\r\n",
        "0\r\nx: y\rz\r\n\r\n",
    ])
    func refuses(_ text: String) {
        for piece in [1, .max] {
            #expect(throws: HTTPError.self, "\(text.debugDescription)") { _ = try Self.decode(text, piece: piece) }
        }
    }

    @Test func waitsForTheRestOfTheLargestChunk() throws {
        #expect(try Self.decode("7fffffffffffffff\r\nabcd\r\n4\r\n", piece: 1) == nil)
    }

    @Test func keepsToItsLimits() throws {
        var limits = HTTPLimits()
        limits.bodyBytes = 5
        limits.chunkExtensionBytes = 8
        limits.trailerBytes = 20
        limits.fieldCount = 3
        #expect(try Self.decode("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", limits: limits)?.body == "abcde")
        func status(_ text: String) -> UInt16? {
            do {
                _ = try Self.decode(text, limits: limits, piece: 1)
                return nil
            } catch { return error.status }
        }
        #expect(status("3\r\nabc\r\n3\r\n") == 413)
        #expect(status("7fffffffffffffff\r\n") == 413)
        #expect(status("1;1234567\r\na\r\n1;1\r\n") == 400)
        #expect(status("0\r\na: 1\r\nb: 23456789\r\n\r\n") == 431)
        #expect(status("0\r\na: 1234567890123456789") == 431)
        #expect(status("0\r\na:\r\nb:\r\nc:\r\nd:\r\n\r\n") == 431)
    }

    @Test func survivesAnything() {
        var random = SeededGenerator(seed: 7)
        let pieces = [
            "1\r\na\r\n", "0\r\n", "\r\n", "5;x=y\r\nhello\r\n", "A: b\r\n", "f", "0", "\r", "\n", ";", "7fffffff", " ",
            "\u{0}",
        ]
        let clock = ContinuousClock()
        let end = clock.now + .milliseconds(700)
        var complete = 0
        var refused = 0
        var rounds = 0
        while rounds < 20_000, clock.now < end {
            rounds += 1
            var text = ""
            for _ in 0..<random.below(8) { text += pieces[random.below(pieces.count)] }
            let outcomes = [1, 3, Int.max].map { piece -> String in
                do {
                    guard let result = try Self.decode(text, piece: piece) else { return "more" }
                    return "end \(result.body) \(result.rest)"
                } catch { return "error" }
            }
            #expect(Set(outcomes).count == 1, "\(text.debugDescription): \(outcomes)")
            if outcomes[0].hasPrefix("end") { complete += 1 }
            if outcomes[0] == "error" { refused += 1 }
        }
        #expect(complete > 0 && refused > 0)
    }
}

/// SplitMix64: the same numbers in every run.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }

    /// A number in `0..<bound`.
    mutating func below(_ bound: Int) -> Int { Int.random(in: 0..<bound, using: &self) }
}
