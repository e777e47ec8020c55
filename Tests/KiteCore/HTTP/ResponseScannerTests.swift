/// The response scanner and the decoding of response bodies.
import NIOCore
import Testing

@testable import KiteHTTP

@Suite struct ResponseScannerTests {
    static func scan(_ text: String, _ method: RequestMethod = .get) -> Result<ResponseHead?, HTTPError> {
        var scanner = ResponseScanner()
        var buffer = ByteBuffer(string: text)
        do { return .success(try scanner.feed(&buffer, requestMethod: method)) } catch { return .failure(error) }
    }

    @Test func readsHeads() throws {
        let head = try #require(
            try Self.scan("HTTP/1.1 404 Not  Found\r\nServer: x\r\nContent-Length: 12\r\n\r\n").get())
        #expect(head.status == 404)
        #expect(String(buffer: head.reason) == "Not  Found")
        #expect(head.fields.text(.server) == "x")
        #expect(head.bodyLength == .known(12))
        #expect(head.isKeepAlive)
        for line in ["HTTP/1.1 200\r\n", "HTTP/1.1 200 \r\n"] {
            let bare = try #require(try Self.scan(line + "\r\n").get())
            #expect(bare.reason.readableBytes == 0)
        }
    }

    @Test func decidesTheLengthOfTheBody() throws {
        let cases: [(String, RequestMethod, BodyLength, Bool, Bool)] = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", .get, .known(3), false, true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", .head, .none, false, true),
            ("HTTP/1.1 204 N\r\nContent-Length: 0\r\n\r\n", .get, .none, false, true),
            ("HTTP/1.1 304 N\r\nContent-Length: 3\r\n\r\n", .get, .none, false, true),
            ("HTTP/1.1 304 N\r\nTransfer-Encoding: chunked\r\n\r\n", .get, .none, false, true),
            ("HTTP/1.1 100 N\r\n\r\n", .post, .none, false, true),
            ("HTTP/1.1 101 N\r\nUpgrade: x\r\n\r\n", .get, .none, false, true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", .get, .unknown, true, true),
            ("HTTP/1.1 200 OK\r\n\r\n", .get, .unknown, false, false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", .get, .known(3), false, false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n", .get, .known(3), false, true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n", .get, .known(3), false, false),
        ]
        for (text, method, length, isChunked, isKeepAlive) in cases {
            let head = try #require(try Self.scan(text, method).get())
            #expect(head.bodyLength == length, "\(text)")
            #expect(head.isChunked == isChunked, "\(text)")
            #expect(head.isKeepAlive == isKeepAlive, "\(text)")
        }
    }

    @Test(arguments: [
        "HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.2 200 OK\r\n\r\n", "http/1.1 200 OK\r\n\r\n", "ICY 200 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1 200\tOK\r\n\r\n", "HTTP/1.1 200 O\u{0}K\r\n\r\n",
        "HTTP/1.1 200 OK\n\r\n\r\n",
        "HTTP/1.1 200 OK\rX\r\n\r\n", "\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 204 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ])
    func refuses(_ text: String) {
        var scanner = ResponseScanner()
        var buffer = ByteBuffer()
        #expect(throws: HTTPError.self) { _ = try Self.scan(text).get() }
        do {
            for byte in text.utf8 {
                buffer.writeInteger(byte)
                if try scanner.feed(&buffer, requestMethod: .get) != nil { break }
            }
            Issue.record("accepted byte by byte: \(text.debugDescription)")
        } catch {
            #expect(error.status == 502)
        }
    }

    @Test func doesNotCareWhereBytesAreSplit() throws {
        let text =
            "HTTP/1.1 200 All right\r\nX-Long: abcdefghijklmnop\r\nTransfer-Encoding: chunked\r\n\r\n"
            + "5;ext=1\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nX-T: 1\r\nContent-Length: 3\r\n\r\nnext"
        for split in 0...text.utf8.count {
            var scanner = ResponseScanner()
            var buffer = ByteBuffer(bytes: text.utf8.prefix(split))
            var head = try scanner.feed(&buffer, requestMethod: .get)
            var decoder: BodyDecoder?
            var body = ""
            var trailers: HeaderBlock?
            func pull() throws {
                if decoder == nil, let head { decoder = BodyDecoder(response: head) }
                while let part = try decoder?.next(from: &buffer) {
                    switch part {
                    case .bytes(let bytes): body += String(buffer: bytes)
                    case .end(let found): trailers = found
                    }
                }
            }
            try pull()
            buffer.writeBytes(text.utf8.dropFirst(split))
            if head == nil { head = try scanner.feed(&buffer, requestMethod: .get) }
            try pull()
            #expect(body == "hello0123456789abcdef")
            #expect(trailers?.count == 1)
            #expect(trailers?.text("x-t") == "1")
            #expect(decoder?.isComplete == true)
            #expect(String(buffer: buffer) == "next")
        }
    }

    @Test func aBodyWithoutLengthLastsUntilTheConnectionCloses() throws {
        var scanner = ResponseScanner()
        var buffer = ByteBuffer(string: "HTTP/1.0 200 OK\r\n\r\nabc")
        let head = try #require(try scanner.feed(&buffer, requestMethod: .get))
        var decoder = BodyDecoder(response: head)
        guard case .bytes(let bytes)? = try decoder.next(from: &buffer) else {
            Issue.record("no bytes")
            return
        }
        #expect(String(buffer: bytes) == "abc")
        #expect(try decoder.next(from: &buffer) == nil)
        guard case .end(nil)? = try decoder.inputEnded() else {
            Issue.record("no end")
            return
        }
    }

    @Test func aBodyCutShortIsAnError() throws {
        var head = ResponseHead(status: 200)
        head.bodyLength = .known(5)
        var decoder = BodyDecoder(response: head)
        var buffer = ByteBuffer(string: "abc")
        _ = try decoder.next(from: &buffer)
        #expect(throws: HTTPError.self) { _ = try decoder.inputEnded() }
        head.bodyLength = .unknown
        head.isChunked = true
        var chunked = BodyDecoder(response: head)
        #expect(throws: HTTPError.self) { _ = try chunked.inputEnded() }
    }
}
