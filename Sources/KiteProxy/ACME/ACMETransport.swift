/// How requests reach an ACME server: the program's own HTTP client.
import Foundation
import KiteDialing
import KiteHTTP
import NIOCore

/// Sends one request.
protocol ACMETransport: Sendable {
    /// - Throws: when there is no whole response.
    func send(_ request: IssuanceStateMachine.Request) async throws -> IssuanceStateMachine.Response
}

struct HTTPACMETransport: ACMETransport {
    private let requester: HTTPRequester
    private let timeout: Duration
    private let userAgent: String

    init(_ dialer: Dialer, userAgent: String, timeout: Duration = .seconds(30)) {
        requester = HTTPRequester(dialer: dialer)
        self.userAgent = userAgent
        self.timeout = timeout
    }

    func send(_ request: IssuanceStateMachine.Request) async throws -> IssuanceStateMachine.Response {
        var fields = HeaderBlock(["User-Agent": userAgent])
        if request.body != nil { fields.append("Content-Type", "application/jose+json") }
        let method: RequestMethod =
            switch request.method {
            case .get: .get
            case .head: .head
            case .post: .post
            }
        let (head, body) = try await requester.send(
            RequestHead(method: method, target: request.url.target, authority: request.url.authority, fields: fields),
            body: request.body.map { ByteBuffer(string: $0) }, to: request.url.endpoint, timeout: timeout,
            maxResponseBytes: IssuanceStateMachine.Limits.bodyBytes)
        return IssuanceStateMachine.Response(
            status: Int(head.status), nonce: head.fields.text("Replay-Nonce"), location: head.fields.text(.location),
            retryAfter: head.fields.text(.retryAfter), body: Array(body.readableBytesView))
    }
}
