/// What is said to a proxy, byte for byte, however its answer is cut.
import KiteHTTP
import KiteSupport
import NIOCore
import Testing

@testable import KiteDialing

@Suite struct ProxyHandshakeTests {
    private static let credentials = ProxyServer.Credentials(user: "user", password: "pass")

    private func handshake(_ kind: ProxyServer.Kind, host: String = "kite.test", secret: Bool = false) -> ProxyHandshake
    {
        ProxyHandshake(
            proxy: ProxyServer(kind: kind, host: "proxy", port: 1, credentials: secret ? Self.credentials : nil),
            host: host, port: 443)
    }

    /// Feeds the parts and collects what is sent, until it is done.
    private func run(_ handshake: inout ProxyHandshake, _ parts: [[UInt8]]) throws(TransportError)
        -> (sent: [[UInt8]], surplus: [UInt8]?)
    {
        var sent: [[UInt8]] = []
        for part in parts {
            switch try handshake.received(ByteBuffer(bytes: part)) {
            case .wait: break
            case .send(let bytes): sent.append(Array(bytes.readableBytesView))
            case .done(let surplus): return (sent, Array(surplus.readableBytesView))
            }
        }
        return (sent, nil)
    }

    @Test func asksForTheTarget() {
        #expect(
            String(buffer: handshake(.http).opening())
                == "CONNECT kite.test:443 HTTP/1.1\r\nHost: kite.test:443\r\n\r\n")
        #expect(
            String(buffer: handshake(.http, host: "fd00::1", secret: true).opening())
                == "CONNECT [fd00::1]:443 HTTP/1.1\r\nHost: [fd00::1]:443\r\n"
                + "Proxy-Authorization: Basic dXNlcjpwYXNz\r\n\r\n")
        #expect(Array(handshake(.socks5).opening().readableBytesView) == [5, 1, 0])
        #expect(Array(handshake(.socks5, secret: true).opening().readableBytesView) == [5, 2, 0, 2])
    }

    @Test func takesAnAnswerCutAnywhereAndLeavesTheRest() throws {
        let answer = Array("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX: y\r\n\r\nhello".utf8)
        for cut in 0...answer.count {
            var handshake = handshake(.http)
            let result = try run(&handshake, [Array(answer[..<cut]), Array(answer[cut...])])
            // What comes after the end is the channel's business.
            #expect(result.surplus.map { "hello".utf8.starts(with: $0) } == true)
        }
        var handshake = handshake(.http)
        let result = try run(&handshake, answer.dropLast(5).map { [$0] })
        #expect(result.surplus == [])
    }

    @Test(arguments: [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "Content-Length: 5\r\n", "Transfer-Encoding: gzip\r\n",
        "Content-Length: 1\r\nContent-Length: x\r\n",
    ])
    func ignoresTheFramingOfASuccess(fields: String) throws {
        var handshake = handshake(.http)
        let result = try run(&handshake, [Array("HTTP/1.1 200 OK\r\n\(fields)\r\nhello".utf8)])
        #expect(result.surplus == Array("hello".utf8))
    }

    @Test(arguments: [
        ("HTTP/1.1 407 Auth\r\n\r\n", TransportError.Code.refused),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", .refused),
        ("HTTP/1.1 502 Bad\r\nContent-Length: 5\r\n\r\nhello", .refused),
        ("HTTP/1.1 101 Switching\r\n\r\n", .refused),
        ("SSH-2.0-OpenSSH\r\n\r\n", .protocolViolation),
        ("HTTP/1.1 200 OK\r\nbad header\r\n\r\n", .protocolViolation),
        ("HTTP/1.1 200 OK\r\nX: " + String(repeating: "x", count: 20_000), .protocolViolation),
    ])
    func explainsRefusals(answer: String, code: TransportError.Code) {
        var handshake = handshake(.http)
        #expect { try run(&handshake, [Array(answer.utf8)]) } throws: { ($0 as? TransportError)?.code == code }
    }

    @Test func speaksSOCKS5() throws {
        var handshake = handshake(.socks5, host: "ab")
        let answer: [UInt8] = [5, 0] + [5, 0, 0, 1, 1, 2, 3, 4, 0, 80] + [9, 9]
        let result = try run(&handshake, answer.map { [$0] })
        #expect(result.sent == [[5, 1, 0, 3, 2, 0x61, 0x62, 0x01, 0xBB]])
        #expect(result.surplus == [])
    }

    @Test func authenticatesWithSOCKS5AndNamesAddresses() throws {
        for (host, address) in [
            ("1.2.3.4", [1, 1, 2, 3, 4]), ("fd00::1", [4, 0xFD] + Array(repeating: 0, count: 14) + [1]),
        ] as [(String, [UInt8])] {
            var handshake = handshake(.socks5, host: host, secret: true)
            let reply: [UInt8] = [5, 0, 0, 3, 2, 0x61, 0x62, 0, 80, 7]
            let result = try run(&handshake, [[5], [2], [1, 0], reply])
            #expect(
                result.sent == [
                    [1, 4] + Array("user".utf8) + [4] + Array("pass".utf8), [5, 1, 0] + address + [0x01, 0xBB],
                ])
            #expect(result.surplus == [7])
        }
    }

    @Test(
        arguments: [
            ([[4, 0]], false, TransportError.Code.protocolViolation), ([[0x48, 0x54]], false, .protocolViolation),
            ([[5, 0xFF]], false, .refused), ([[5, 0xFF]], true, .refused), ([[5, 2]], false, .refused),
            ([[5, 1]], true, .refused), ([[5, 2], [1, 1]], true, .refused),
            ([[5, 0], [5, 1, 0, 1]], false, .connectFailed), ([[5, 0], [5, 2, 0, 1]], false, .refused),
            ([[5, 0], [5, 4, 0, 1]], false, .connectFailed), ([[5, 0], [5, 5, 0, 1]], false, .connectFailed),
            ([[5, 0], [5, 6, 0, 1]], false, .connectTimeout), ([[5, 0], [5, 99, 0, 1]], false, .connectFailed),
            ([[5, 0], [4, 0, 0, 1]], false, .protocolViolation), ([[5, 0], [5, 0, 0, 2]], false, .protocolViolation),
        ] as [([[UInt8]], Bool, TransportError.Code)])
    func explainsSOCKS5Refusals(answer: [[UInt8]], secret: Bool, code: TransportError.Code) {
        var handshake = handshake(.socks5, secret: secret)
        #expect { try run(&handshake, answer) } throws: { ($0 as? TransportError)?.code == code }
    }

    @Test func refusesNamesThatSOCKS5HasNoRoomFor() {
        var handshake = handshake(.socks5, host: String(repeating: "a", count: 256))
        #expect { try run(&handshake, [[5, 0]]) } throws: { ($0 as? TransportError)?.code == .connectFailed }
    }

    @Test(arguments: [
        ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="),
        ("foobar", "Zm9vYmFy"),
    ])
    func encodesBase64(text: String, encoded: String) { #expect(Base64.encode(text.utf8) == encoded) }
}
