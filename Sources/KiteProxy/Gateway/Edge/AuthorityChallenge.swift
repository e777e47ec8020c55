/// Answers certificate authorities that look whether a host is ours (HTTP-01, RFC 8555 section 8.3), before anything else has its say: the
/// host may have no route, or one whose visitors are sent to https.
import KiteHTTP
import NIOCore

enum AuthorityChallenge {
    private static let path = Array("/.well-known/acme-challenge/".utf8)

    /// Answers when the request is for a token that is waited for. Others go on: the service behind a route may have challenges of its own.
    /// - Parameter answer: the text for a token.
    /// - Returns: whether it was answered.
    static func answer(_ exchange: any Exchange, _ answer: (String) -> String?) -> Bool {
        let target = exchange.request.target.readableBytesView
        guard target.starts(with: path), target.count - path.count <= 256,
            exchange.request.method == .get || exchange.request.method == .head
        else { return false }
        let token = String(decoding: target.dropFirst(path.count), as: UTF8.self)
        guard let text = answer(token) else { return false }
        exchange.respond(
            ResponseHead(
                status: 200,
                fields: HeaderBlock(["Content-Type": "application/octet-stream", "Cache-Control": "no-store"])),
            body: ByteBuffer(string: text))
        return true
    }
}
