/// Which responses are compressed, what their heads say, and that the compressed bytes are right.
import CZlib
import KiteHTTP
import NIOCore
import Testing

@testable import KiteGateway

@Suite("Compression of responses")
struct CompressionRulesTests {
    private let rules = CompressionRules(types: nil, leastBytes: 100)

    private func apply(
        _ fields: KeyValuePairs<String, String>, accepting: String? = "gzip", status: UInt16 = 200,
        length: BodyLength = .known(1000), method: RequestMethod = .get
    ) -> (isCompressed: Bool, head: ResponseHead) {
        var request = RequestHead(method: method, target: "/", authority: "a")
        if let accepting { request.fields.append("Accept-Encoding", accepting) }
        var head = ResponseHead(status: status, fields: HeaderBlock(fields), bodyLength: length)
        let result = rules.apply(to: &head, of: request)
        return (result, head)
    }

    @Test(
        "Accept-Encoding goes by qualities",
        arguments: [
            ("gzip", true), ("GZIP", true), ("deflate, gzip;q=0.5", true), ("*", true), ("*;q=0.1", true),
            ("br;q=1.0, *;q=0.5", true), ("gzip;q=0", false), ("gzip;q=0.000", false), ("*;q=1, gzip;q=0", false),
            ("identity", false), ("", false), ("br", false), ("gzip;q=0.5, identity;q=0.9", false),
            ("gzip;q=x", false), ("gzip;q=2", false), ("gzip;q=0.1234", false), ("xgzip", false), (",,;q=1,gzip", true),
            ("gzip;Q=1", true), ("gzip ; q=0.2", true), ("gzip;q=", false), ("x-gzip", true),
        ])
    func acceptance(value: String, isCompressed: Bool) {
        #expect(apply(["Content-Type": "text/html"], accepting: value).isCompressed == isCompressed)
        #expect(
            apply(["Content-Type": "text/html"], accepting: value).head.fields.contains(.vary, token: "accept-encoding")
        )
    }

    @Test("What is compressed says so; lengths, ranges and strong tags are gone")
    func head() {
        let (isCompressed, head) = apply([
            "Content-Type": "Text/HTML; charset=utf-8", "Content-Length": "1000", "ETag": "\"a\"", "Vary": "Origin",
            "Accept-Ranges": "bytes", "Content-Encoding": "identity",
        ])
        #expect(isCompressed)
        #expect(head.bodyLength == .unknown)
        #expect(head.fields.text("Content-Length") == nil)
        #expect(head.fields.text("Accept-Ranges") == nil)
        #expect(head.fields.text("Content-Encoding") == "gzip")
        #expect(head.fields.occurrences(.contentEncoding) == 1)
        #expect(head.fields.text("ETag") == "W/\"a\"")
        #expect(head.fields.contains(.vary, token: "Origin") && head.fields.contains(.vary, token: "Accept-Encoding"))
        #expect(apply(["Content-Type": "text/css", "ETag": "W/\"a\""]).head.fields.text("ETag") == "W/\"a\"")
    }

    @Test("What is never compressed")
    func never() {
        let text = ["Content-Type": "text/html"]
        #expect(apply(["Content-Type": "text/html"]).isCompressed)
        for other: KeyValuePairs<String, String> in [
            [:], ["Content-Type": "image/png"], ["Content-Type": "text/event-stream"],
            ["Content-Type": "text/event-stream; charset=utf-8"], ["Content-Type": "text"],
            ["Content-Type": "text/html", "Content-Encoding": "br"],
            ["Content-Type": "text/html", "Content-Encoding": "gzip"],
            ["Content-Type": "text/html", "Content-Encoding": "identity, gzip"],
            ["Content-Type": "text/html", "Cache-Control": "public, No-Transform"],
            ["Content-Type": "text/html", "Content-Range": "bytes 0-1/2"],
            ["Content-Type": "application/jsonx"], ["Content-Type": "application/octet-stream"],
        ] {
            #expect(!apply(other).isCompressed, "\(other)")
        }
        for status in [101, 204, 205, 206, 304] as [UInt16] {
            #expect(!apply(["Content-Type": "text/html"], status: status).isCompressed, "\(status) \(text)")
        }
        #expect(apply(["Content-Type": "text/html"], status: 404).isCompressed)
        #expect(!apply(["Content-Type": "text/html"], length: .known(99)).isCompressed)
        #expect(apply(["Content-Type": "text/html"], length: .unknown).isCompressed)
        #expect(!apply(["Content-Type": "text/html"], accepting: nil).isCompressed)
    }

    @Test("The answer to HEAD has the head that GET would get, and no body")
    func headRequests() {
        let (isCompressed, head) = apply(
            ["Content-Type": "text/html", "Content-Length": "1000"], length: .none, method: .head)
        #expect(!isCompressed)
        #expect(head.fields.text("Content-Encoding") == "gzip")
        #expect(head.fields.text("Content-Length") == nil)
        let short = apply(["Content-Type": "text/html", "Content-Length": "9"], length: .none, method: .head)
        #expect(short.head.fields.text("Content-Encoding") == nil)
        #expect(short.head.fields.text("Content-Length") == "9")
    }

    @Test("After each flush everything so far can be read, whatever the pieces; the whole is what went in")
    func stream() throws {
        var generator = SplitMix(state: 7)
        for round in 0..<20 {
            let stream = try #require(GzipStream())
            var sent: [UInt8] = []
            var output = ByteBuffer()
            let reader = GzipReader()
            for _ in 0..<10 {
                let piece = (0..<Int.random(in: 0...40_000, using: &generator)).map { _ in
                    round % 2 == 0
                        ? UInt8.random(in: 97...100, using: &generator) : .random(in: 0...255, using: &generator)
                }
                sent += piece
                output.writeImmutableBuffer(try #require(stream.compress(ByteBuffer(bytes: piece), .none)))
                if Bool.random(using: &generator) {
                    output.writeImmutableBuffer(try #require(stream.compress(ByteBuffer(), .sync)))
                    #expect(reader.read(&output) == sent.count)
                }
            }
            output.writeImmutableBuffer(try #require(stream.compress(ByteBuffer(), .finish)))
            #expect(reader.read(&output) == sent.count)
            #expect(reader.isAtEnd)
            #expect(reader.bytes == sent)
            #expect(stream.reset())
        }
    }
}

struct SplitMix: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }
}

/// Decompresses gzip with zlib's own reader.
final class GzipReader {
    private let stream = UnsafeMutablePointer<z_stream>.allocate(capacity: 1)
    private(set) var bytes: [UInt8] = []
    private(set) var isAtEnd = false

    init() {
        stream.initialize(to: z_stream())
        inflateInit2_(stream, 31, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size))
    }
    deinit {
        inflateEnd(stream)
        stream.deallocate()
    }

    /// Takes what is there; how much has been decompressed in all.
    func read(_ input: inout ByteBuffer) -> Int {
        var data = input.readBytes(length: input.readableBytes) ?? []
        var room = [UInt8](repeating: 0, count: 1 << 16)
        let count = data.count
        data.withUnsafeMutableBufferPointer { data in
            stream.pointee.next_in = data.baseAddress
            stream.pointee.avail_in = UInt32(count)
            while true {
                let written = room.withUnsafeMutableBufferPointer { space in
                    stream.pointee.next_out = space.baseAddress
                    stream.pointee.avail_out = UInt32(space.count)
                    let status = inflate(stream, Z_SYNC_FLUSH)
                    isAtEnd = status == Z_STREAM_END
                    return status == Z_OK || status == Z_STREAM_END ? space.count - Int(stream.pointee.avail_out) : 0
                }
                bytes += room[..<written]
                if written < room.count { return }
            }
        }
        return bytes.count
    }
}
