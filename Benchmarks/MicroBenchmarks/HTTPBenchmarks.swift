/// Heads and bodies: what a request and its response cost at the edge.
import KiteHTTP
import NIOCore

/// As Chromium sends it for a page with a cookie.
private let browserRequest = ByteBuffer(
    string: """
        GET /orders/2026?page=3&sort=date HTTP/1.1\r
        Host: shop.example.com\r
        Connection: keep-alive\r
        Cache-Control: max-age=0\r
        Upgrade-Insecure-Requests: 1\r
        User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r
        Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r
        Referer: https://shop.example.com/orders/2026?page=2\r
        Accept-Encoding: gzip, deflate, br\r
        Accept-Language: en-US,en;q=0.9\r
        Cookie: session=abcdefghijklmnopqrstuvwxyz0123456789; theme=dark\r
        \r

        """)

private let response = ByteBuffer(
    string: """
        HTTP/1.1 200 OK\r
        Server: nginx/1.22.1\r
        Date: Tue, 24 Nov 2026 12:00:00 GMT\r
        Content-Type: application/json; charset=utf-8\r
        Content-Length: 128\r
        Last-Modified: Mon, 23 Nov 2026 09:00:00 GMT\r
        Connection: keep-alive\r
        ETag: "6742d9a0-80"\r
        Accept-Ranges: bytes\r
        \r

        """)

/// 16 chunks of 1,000 bytes.
private let chunkedBody: ByteBuffer = {
    var body = ByteBuffer()
    for _ in 0..<16 { body.writeString("3e8\r\n" + String(repeating: "x", count: 1000) + "\r\n") }
    body.writeString("0\r\n\r\n")
    return body
}()

let httpBenchmarks = [
    MicroBenchmark(name: "scan-request") {
        var scanner = RequestScanner()
        return {
            var bytes = browserRequest
            guard let head = try scanner.feed(&bytes), head.fields.count == 10 else {
                throw WrongResult(benchmark: "scan-request")
            }
        }
    },
    MicroBenchmark(name: "scan-response") {
        var scanner = ResponseScanner()
        return {
            var bytes = response
            guard let head = try scanner.feed(&bytes, requestMethod: .get), head.bodyLength == .known(128) else {
                throw WrongResult(benchmark: "scan-response")
            }
        }
    },
    MicroBenchmark(name: "forward-request") {
        var bytes = browserRequest
        var scanner = RequestScanner()
        let head = try? scanner.feed(&bytes)
        let peer = ExchangePeer(address: try? SocketAddress(ipAddress: "192.0.2.7", port: 50_000))
        let origin = ForwardedOrigin(peer: peer, gateway: "gateway-1")
        return {
            guard let head else { throw WrongResult(benchmark: "forward-request") }
            var buffer = ByteBuffer()
            MessageWriter.writeForwardedRequest(
                head, rewrite: RequestRewrite(), origin: origin, isUpgrade: false, into: &buffer)
            guard buffer.readableBytes > 700 else { throw WrongResult(benchmark: "forward-request") }
        }
    },
    MicroBenchmark(name: "decode-chunks") {
        var request = RequestHead(method: .post, target: "/", authority: "a.test")
        request.bodyLength = .unknown
        return {
            var decoder = BodyDecoder(request: request)
            var bytes = chunkedBody
            var count = 0
            while let part = try decoder.next(from: &bytes) {
                if case .bytes(let content) = part { count += content.readableBytes }
            }
            guard count == 16_000, decoder.isComplete else { throw WrongResult(benchmark: "decode-chunks") }
        }
    },
]
