/// Compares our reading of messages with that of an independent parser: what we accept, it must understand the same way.
/// Otherwise a request could mean one thing to us and another to an upstream.
import NIOCore
import NIOEmbedded
import NIOHTTP1
import Testing

@testable import KiteHTTP

@Suite struct DifferentialTests {
    /// A message as a parser understood it.
    struct Reading: Equatable {
        var start: String
        var fields: [String]
        var body: [UInt8]
        var isComplete: Bool
    }

    // MARK: Requests

    /// Ours; nil when refused or incomplete.
    static func ours(_ bytes: [UInt8], piece: Int) -> (Reading, isUpgrade: Bool, consumed: Int)? {
        var scanner = RequestScanner()
        var buffer = ByteBuffer()
        var rest = bytes[...]
        var head: RequestHead?
        var decoder: BodyDecoder?
        var reading: Reading?
        do {
            while !rest.isEmpty, reading?.isComplete != true {
                buffer.writeBytes(rest.prefix(piece))
                rest = rest.dropFirst(piece)
                if head == nil, let found = try scanner.feed(&buffer) {
                    head = found
                    decoder = BodyDecoder(request: found)
                    reading = Reading(
                        start: "\(found.method.name) \(String(buffer: found.target)) 1.\(found.minorVersion)",
                        fields: fields(found.fields), body: [], isComplete: false)
                }
                while let part = try decoder?.next(from: &buffer) {
                    switch part {
                    case .bytes(let bytes): reading?.body += Array(bytes.readableBytesView)
                    case .end: reading?.isComplete = true
                    }
                }
            }
        } catch { return nil }
        guard let head, let reading else { return nil }
        return (
            reading, head.wantsUpgrade || head.fields.has(.upgrade), bytes.count - rest.count - buffer.readableBytes
        )
    }

    private static func fields(_ block: HeaderBlock) -> [String] {
        (0..<block.count).map {
            String(decoding: block.name(at: $0), as: UTF8.self) + "="
                + String(decoding: block.value(at: $0), as: UTF8.self)
        }
    }

    /// The other parser's; nil when it refused.
    static func theirs(_ bytes: [UInt8]) -> Reading? {
        let channel = EmbeddedChannel(
            handler: ByteToMessageHandler(HTTPRequestDecoder(leftOverBytesStrategy: .dropBytes)))
        defer { _ = try? channel.finish(acceptAlreadyClosed: true) }
        do {
            try channel.writeInbound(ByteBuffer(bytes: bytes))
            guard case .head(let head)? = try channel.readInbound(as: HTTPServerRequestPart.self) else { return nil }
            var reading = Reading(
                start: "\(head.method.rawValue) \(head.uri) \(head.version.major).\(head.version.minor)",
                fields: fields(head.headers), body: [], isComplete: false)
            while let part = try channel.readInbound(as: HTTPServerRequestPart.self) {
                switch part {
                case .body(let bytes): reading.body += Array(bytes.readableBytesView)
                case .end:
                    reading.isComplete = true
                    return reading
                case .head: return nil
                }
            }
            return reading
        } catch { return nil }
    }

    /// It takes white space at the end for a part of the value, which RFC 9112 section 5.1 says it is not.
    private static func fields(_ headers: HTTPHeaders) -> [String] {
        headers.map { name, value in
            var value = value[...]
            while let last = value.utf8.last, last == 0x20 || last == 0x09 { value = value.dropLast() }
            return "\(name)=\(value)"
        }
    }

    /// A request made of pieces that are mostly right.
    static func request(_ random: inout SeededGenerator) -> [UInt8] {
        func pick(_ good: [String], _ bad: [String]) -> String {
            random.below(12) == 0 ? bad[random.below(bad.count)] : good[random.below(good.count)]
        }
        var text = pick(
            ["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH"], ["get", "G T", "", "BREW", "GET\t"])
        text += pick([" "], ["  ", "\t", ""])
        text += pick(
            ["/", "/a/b?c=d&e", "/%20", "/a;b=c", "/{x}|y", "/a//b/../c", "/?"],
            ["*", "a", "//x", "/a#b", "/é", "/a b"])
        text += pick([" HTTP/1.1\r\n"], [" HTTP/1.0\r\n", " HTTP/1.1\n", " HTTP/2.0\r\n", " HTTP/1.1 \r\n", "\r\n"])
        text += pick(
            ["Host: a.example\r\n", "host:b\r\n", "HOST: \t[::1]:80 \r\n"], ["", "Host: a b\r\n", "Host : a\r\n"])
        for _ in 0..<random.below(4) {
            text += pick(
                [
                    "X-A: b c\r\n", "X-B:\r\n", "x-c:  \td  \r\n", "Cookie: a=b; c=\"d\"\r\n",
                    "X-Long: abcdefghijklmnop\tq\r\n",
                    "Connection: close\r\n", "Connection: keep-alive, x\r\n", "Accept: */*\r\n",
                    "!#$%&'*+-.^_`|~: 1\r\n",
                ],
                [
                    " folded\r\n", "X-D: a\nb\r\n", "X-E: a\rb\r\n", ": x\r\n", "X(: y\r\n", "X-F: \u{1}\r\n",
                    "X-G\r\n", "X-H: \u{7f}\r\n",
                    "Host: c\r\n", "Upgrade: websocket\r\nConnection: upgrade\r\n",
                ])
        }
        switch random.below(5) {
        case 0:
            text += pick(
                ["Content-Length: 3\r\n\r\nabc", "Content-Length: 0\r\n\r\n"],
                [
                    "Content-Length: 3, 3\r\n\r\nabc", "Content-Length: +3\r\n\r\nabc",
                    "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
                ])
        case 1:
            text += pick(
                [
                    "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                    "transfer-encoding: CHUNKED\r\n\r\n2;x=y\r\nab\r\nA\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n",
                ],
                [
                    "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
                    "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
                    "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
                    "Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n",
                ])
        default: text += pick(["\r\n"], ["\n", "\r\r\n", ""])
        }
        var bytes = Array(text.utf8)
        mutate(&bytes, &random)
        return bytes
    }

    /// Now and then something is changed, left out, or put in.
    private static func mutate(_ bytes: inout [UInt8], _ random: inout SeededGenerator) {
        let pieces = [
            "\r\n", "\n", "\r", " ", "\t", "\0", ":", ";", ",", "0", "5", "Content-Length: 3\r\n",
            "content-length:0\r\n",
            "Transfer-Encoding: chunked\r\n", "Transfer-Encoding", "chunked", "\r\n\r\n", " HTTP/1.1",
            "HTTP/1.1 200 OK\r\n", "\u{e9}",
            "X: y\r\n", "\u{b}", ";a=b", ";a=\"b\"", "0\r\n", "ffffffffffffffff", "+", "0x", "_", "\"", "\\",
            "Connection: close\r\n",
        ]
        while random.below(3) == 0, !bytes.isEmpty {
            let place = random.below(bytes.count)
            switch random.below(4) {
            case 0: bytes[place] = UInt8(random.below(256))
            case 1: bytes.remove(at: place)
            case 2: bytes.insert(contentsOf: Array(pieces[random.below(pieces.count)].utf8), at: place)
            default: bytes.insert(bytes[random.below(bytes.count)], at: place)
            }
        }
    }

    @Test func requestsMeanTheSameToAnotherParser() {
        var random = SeededGenerator(seed: 42)
        let clock = ContinuousClock()
        let end = clock.now + .milliseconds(1800)
        var accepted = 0
        var refused = 0
        var rounds = 0
        while rounds < 30_000, clock.now < end {
            rounds += 1
            let bytes = Self.request(&random)
            let pieces = [1 + random.below(9), Int.max]
            let readings = pieces.map { Self.ours(bytes, piece: $0) }
            #expect(readings[0]?.0 == readings[1]?.0, "\(String(decoding: bytes, as: UTF8.self).debugDescription)")
            guard let (reading, isUpgrade, consumed) = readings[1] else {
                refused += 1
                continue
            }
            // It knows a fixed list of methods only, and stops after an upgrade.
            let method = reading.start.prefix { $0 != " " }
            if !["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH"].contains(method) || isUpgrade { continue }
            accepted += 1
            // What follows is another message.
            #expect(
                Self.theirs(Array(bytes.prefix(reading.isComplete ? consumed : .max))) == reading,
                "\(String(decoding: bytes, as: UTF8.self).debugDescription)")
        }
        #expect(accepted > 50 && refused > 50)
    }

    // MARK: Responses

    @Test func responsesMeanTheSameToAnotherParser() throws {
        var random = SeededGenerator(seed: 43)
        let clock = ContinuousClock()
        let end = clock.now + .milliseconds(1500)
        var accepted = 0
        var rounds = 0
        while rounds < 20_000, clock.now < end {
            rounds += 1
            func pick(_ good: [String], _ bad: [String]) -> String {
                random.below(12) == 0 ? bad[random.below(bad.count)] : good[random.below(good.count)]
            }
            var text = pick(
                ["HTTP/1.1 200 OK\r\n", "HTTP/1.1 404 Not Found\r\n", "HTTP/1.1 204 \r\n", "HTTP/1.1 304 N\r\n"],
                [
                    "HTTP/1.1 200\r\n", "HTTP/1.1 20 OK\r\n", "HTTP/1.1  200 OK\r\n", "HTTP/1.1 200 OK\n",
                    "HTTP/1.0 200 OK\r\n",
                ])
            text += pick(["", "X-A: b\r\n", "x:\t y \r\nZ:\r\n"], ["X : b\r\n", " x\r\n", "X-B: \u{2}\r\n"])
            text += pick(
                [
                    "Content-Length: 3\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                    "Content-Length: 0\r\n\r\n",
                ],
                [
                    "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                    "Content-Length: -1\r\n\r\n", "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
                ])
            var wire = Array(text.utf8)
            Self.mutate(&wire, &random)
            var scanner = ResponseScanner()
            var buffer = ByteBuffer(bytes: wire)
            var reading: Reading?
            do {
                guard let head = try scanner.feed(&buffer, requestMethod: .get) else { continue }
                var decoder = BodyDecoder(response: head)
                reading = Reading(
                    start: "\(head.status) 1.\(head.minorVersion)",
                    fields: Self.fields(head.fields), body: [], isComplete: false)
                while let part = try decoder.next(from: &buffer) {
                    switch part {
                    case .bytes(let bytes): reading?.body += Array(bytes.readableBytesView)
                    case .end: reading?.isComplete = true
                    }
                }
            } catch { continue }
            guard let reading else { continue }
            accepted += 1
            #expect(
                Self.theirResponse(Array(wire.dropLast(buffer.readableBytes))) == reading,
                "\(String(decoding: wire, as: UTF8.self).debugDescription)")
        }
        #expect(accepted > 50)
    }

    private static func theirResponse(_ bytes: [UInt8]) -> Reading? {
        let channel = EmbeddedChannel()
        defer { _ = try? channel.finish(acceptAlreadyClosed: true) }
        do {
            // The decoder wants to know which request is answered.
            try channel.pipeline.syncOperations.addHandlers([
                HTTPRequestEncoder(), ByteToMessageHandler(HTTPResponseDecoder(leftOverBytesStrategy: .dropBytes)),
            ])
            channel.write(
                HTTPClientRequestPart.head(HTTPRequestHead(version: .http1_1, method: .GET, uri: "/")), promise: nil)
            channel.writeAndFlush(HTTPClientRequestPart.end(nil), promise: nil)
            try channel.writeInbound(ByteBuffer(bytes: bytes))
            guard case .head(let head)? = try channel.readInbound(as: HTTPClientResponsePart.self) else { return nil }
            var reading = Reading(
                start: "\(head.status.code) \(head.version.major).\(head.version.minor)",
                fields: fields(head.headers), body: [], isComplete: false)
            while let part = try channel.readInbound(as: HTTPClientResponsePart.self) {
                switch part {
                case .body(let bytes): reading.body += Array(bytes.readableBytesView)
                case .end: reading.isComplete = true
                case .head: return nil
                }
            }
            return reading
        } catch { return nil }
    }
}
