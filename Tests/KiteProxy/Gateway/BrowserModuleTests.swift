import KiteHTTP
import Testing

@testable import KiteGateway

@Suite("The browser's kite client is served", .timeLimit(.minutes(1)))
struct BrowserModuleTests {
    @Test(
        "With its type, to pages of any origin, and once only to those who keep it",
        arguments: [
            ("/-/kite.js", "text/javascript; charset=utf-8", "export class Kite "),
            ("/-/kite.d.ts?v=1", "application/typescript; charset=utf-8", "export class Kite "),
        ])
    func served(path: String, type: String, content: String) async throws {
        try await withGateway { gateway, port async throws in
            let answer = try await get(path, port: port)
            #expect(answer.hasPrefix("HTTP/1.1 200 OK\r\n"))
            #expect(answer.contains("Content-Type: \(type)\r\n"))
            #expect(answer.contains("Access-Control-Allow-Origin: *\r\n"))
            #expect(answer.contains("Cache-Control: public, max-age=300\r\n"))
            #expect(answer.contains("X-Content-Type-Options: nosniff\r\n"))
            #expect(answer.contains(content))

            let start = try #require(answer.firstRange(of: "ETag: ")).upperBound
            let tag = String(answer[start...].prefix { $0 != "\r" && $0 != "\r\n" })
            #expect(tag.hasPrefix("\"") && tag.count > 8)
            for known in [tag, "W/\(tag)", "\"x\", \(tag)", "*"] {
                let again = try await send(
                    "GET \(path) HTTP/1.1\r\nHost: x\r\nif-none-match: \(known)\r\nConnection: close\r\n\r\n", to: port)
                #expect(again.hasPrefix("HTTP/1.1 304 Not Modified\r\n"), "\(known)")
                #expect(again.contains("ETag: \(tag)\r\n"))
                #expect(again.hasSuffix("\r\n\r\n"))
            }
            let other = try await send(
                "GET \(path) HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"x\", x\(tag)\r\nConnection: close\r\n\r\n",
                to: port)
            #expect(other.hasPrefix("HTTP/1.1 200 OK\r\n"))
            let metrics = await gateway.metrics()
            #expect(metrics.responses[2] == 2)
            #expect(metrics.responses[3] == 4)
        }
    }

    @Test("HEAD has the fields alone; other methods are refused")
    func methods() async throws {
        try await withGateway { _, port async throws in
            let head = try await send("HEAD /-/kite.js HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", to: port)
            #expect(head.hasPrefix("HTTP/1.1 200 OK\r\n"))
            #expect(head.hasSuffix("\r\n\r\n"))
            #expect(head.contains("ETag: "))
            let post = try await send(
                "POST /-/kite.js HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", to: port)
            #expect(post.hasPrefix("HTTP/1.1 405 "))
            #expect(post.contains("Allow: GET, HEAD\r\n"))
        }
    }
}
