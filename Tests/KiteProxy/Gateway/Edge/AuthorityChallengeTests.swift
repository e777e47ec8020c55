import KiteHTTP
import Testing

@testable import KiteGateway

/// What a certificate authority finds that looks for the answer to a challenge.
@Suite(.timeLimit(.minutes(1)))
struct AuthorityChallengeTests {
    let path = "/.well-known/acme-challenge/"

    @Test func answersTokensThatAreWaitedForOnAnyHost() async throws {
        try await withGateway({ $0.challengeAnswer = { $0 == "abc" ? "abc.print" : nil } }) {
            gateway, port async throws in
            for host in ["x", "no-route.example", "127.0.0.1"] {
                let answer = try await send(
                    "GET \(path)abc HTTP/1.1\r\nHost: \(host)\r\nConnection: close\r\n\r\n", to: port)
                #expect(answer.hasPrefix("HTTP/1.1 200 OK\r\n") && answer.hasSuffix("\r\n\r\nabc.print"))
            }
            for target in [
                "\(path)abcd", path, "\(path)abc/", "\(path)abc?x", "/abc", path + String(repeating: "a", count: 300),
            ] {
                let answer = try await send("GET \(target) HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", to: port)
                #expect(answer.hasPrefix("HTTP/1.1 404 "), "\(target)")
            }
            let post = try await send(
                "POST \(path)abc HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", to: port)
            #expect(post.hasPrefix("HTTP/1.1 404 "))
            #expect(await gateway.metrics().responses[2] == 3)
        }
    }
}
