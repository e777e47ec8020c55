/// Tells the upstream who asked, and everyone which gateways a request has passed.
import KiteSupport
public import NIOCore

/// The provenance of the requests of one connection, prepared once: `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host`,
/// `X-Forwarded-Prefix`, `X-Real-IP`, `Forwarded` (RFC 7239) and `Via` (RFC 9110 section 7.6.3).
///
/// What a trusted proxy says in these fields is kept and extended; what anyone else says is replaced.
public final class ForwardedOrigin: Sendable {
    /// The fields that ``write(for:into:)`` is responsible for; `Via` is only appended to.
    static let fields: FieldSet = [
        .forwarded, .xForwardedFor, .xForwardedHost, .xForwardedProto, .xForwardedPrefix, .xRealIP,
        .clientCertificate,
    ]

    private let peer: ExchangePeer
    private var isTrusted: Bool { peer.isTrustedProxy }
    /// `192.0.2.1`
    private let address: ByteBuffer
    private let hasAddress: Bool
    /// `for=192.0.2.1;proto=http` or `for="[2001:db8::1]";proto=https`
    private let element: ByteBuffer
    private let scheme: ByteBuffer
    /// `Via: 1.1 name`, and what is said about the client's certificate, with line ends.
    private let via: ByteBuffer
    private let gateway: String

    /// - Parameters:
    ///   - peer: who sends the requests.
    ///   - gateway: this gateway's pseudonym in `Via`; a token.
    public convenience init(peer: ExchangePeer, gateway: String) {
        self.init(peer: peer, gateway: gateway, security: nil)
    }

    /// - Parameter security: what is known about the client, where the host has a rule for client certificates. What requests say about that
    ///   themselves is never passed on, whoever sends them.
    package init(peer: ExchangePeer, gateway: String, security: ConnectionSecurity?) {
        self.peer = peer
        let address: String
        switch peer.address {
        case .v4?, .v6?: address = peer.address?.ipAddress ?? "unknown"
        case .unixDomainSocket?, nil: address = "unknown"
        }
        hasAddress = address != "unknown"
        let scheme = peer.isSecure ? "https" : "http"
        let node = address.contains(":") ? "\"[\(address)]\"" : address
        self.address = ByteBuffer(string: address)
        element = ByteBuffer(string: "for=\(node);proto=\(scheme)")
        self.scheme = ByteBuffer(string: scheme)
        via = ByteBuffer(
            string: "Via: \(peer.version == .http2 ? "2.0" : "1.1") \(gateway)\r\n" + (security.map(Self.fields) ?? ""))
        self.gateway = gateway
    }

    /// `Client-Cert` (RFC 9440) and, for those who would rather not parse a certificate, what it says.
    private static func fields(_ security: ConnectionSecurity) -> String {
        guard let certificate = security.clientCertificate else { return "X-Client-Cert-Verified: none\r\n" }
        var text = "X-Client-Cert-Verified: success\r\nX-Client-Cert-Subject: \(certificate.subject)\r\n"
        text += "X-Client-Cert-Fingerprint: \(certificate.fingerprint)\r\n"
        // Much more than a certificate has; servers limit heads to something like it.
        if certificate.der.count <= 6 * 1024 { text += "Client-Cert: :\(Base64.encode(certificate.der)):\r\n" }
        return text
    }

    /// Whether a request has passed this gateway before.
    public func isLoop(_ head: RequestHead) -> Bool {
        guard head.fields.has(.via) else { return false }
        for position in 0..<head.fields.count where head.fields.field(at: position) == .via {
            var rest = head.fields.value(at: position)
            while let member = rest.nextListMember() {
                // protocol-version RWS received-by [ RWS comment ]
                let words = member.split(whereSeparator: { $0 == 0x20 || $0 == 0x09 })
                if words.count > 1, words[1].equalsIgnoringCase(gateway) { return true }
            }
        }
        return false
    }

    /// What the visitor has in front of the path that the upstream sees: what a trusted proxy has cut off before, and the bytes cut off here.
    /// Empty where nothing is.
    public func prefix(of head: RequestHead, droppedPathBytes: Int) -> ByteBuffer {
        var prefix = ByteBuffer()
        if isTrusted, let said = head.fields.first(.xForwardedPrefix) {
            prefix.writeBytes(said.last == UInt8(ascii: "/") ? said.dropLast() : said)
        }
        let dropped = min(max(droppedPathBytes, 0), head.target.readableBytes)
        if let own = head.target.viewBytes(at: head.target.readerIndex, length: dropped) { prefix.writeBytes(own) }
        return prefix
    }

    /// Writes the fields, each with its line end.
    func write(for head: RequestHead, droppedPathBytes: Int = 0, into sink: inout HeadSink) {
        let fields = head.fields
        sink.write("X-Forwarded-For: ")
        if isTrusted { writeValues(of: .xForwardedFor, in: fields, into: &sink) }
        sink.write(address)
        sink.write("\r\nX-Forwarded-Proto: ")
        if isTrusted, let said = fields.first(.xForwardedProto) {
            sink.write(said)
        } else {
            sink.write(scheme)
        }
        sink.write("\r\nX-Forwarded-Host: ")
        if isTrusted, let said = fields.first(.xForwardedHost) {
            sink.write(said)
        } else {
            sink.write(head.authority)
        }
        if droppedPathBytes > 0 || (isTrusted && head.fields.has(.xForwardedPrefix)) {
            let prefix = prefix(of: head, droppedPathBytes: droppedPathBytes)
            if prefix.readableBytes > 0 {
                sink.write("\r\nX-Forwarded-Prefix: ")
                sink.write(prefix)
            }
        }
        if let visitor = realAddress(in: fields) {
            sink.write("\r\nX-Real-IP: ")
            sink.write(visitor)
        }
        sink.write("\r\nForwarded: ")
        if isTrusted { writeValues(of: .forwarded, in: fields, into: &sink) }
        sink.write(element)
        if head.authority.readableBytes > 0,
            !head.authority.readableBytesView.contains(where: { $0 == 0x22 || $0 == 0x5C })
        {
            sink.write(";host=\"")
            sink.write(head.authority)
            sink.write("\"")
        }
        sink.write("\r\n")
        sink.write(via)
    }

    /// The visitor's address where it is known (``ExchangePeer/visitorAddress(of:)``).
    private func realAddress(in fields: HeaderBlock) -> ByteBufferView? {
        switch peer.visitor(in: fields) {
        case .connection: hasAddress ? address.readableBytesView : nil
        case .said(_, let text): text
        case .unknown: nil
        }
    }

    /// All values of a field, each followed by a comma.
    private func writeValues(of field: KnownField, in fields: HeaderBlock, into sink: inout HeadSink) {
        guard fields.has(field) else { return }
        for position in 0..<fields.count where fields.field(at: position) == field {
            let value = fields.value(at: position)
            if value.isEmpty { continue }
            sink.write(value)
            sink.write(", ")
        }
    }
}
