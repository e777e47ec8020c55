/// The opening handshake (RFC 6455 section 4), on the answering side over an exchange and on the asking side as heads to send and check.
package import KiteHTTP
package import KiteSupport
import NIOCore

/// Makes and checks the HTTP messages by which a connection becomes a WebSocket. Of extensions only
/// permessage-deflate is agreed upon, where the answering side wants it; of subprotocols none.
package enum WebSocketHandshake {
    /// Why a request does not open a WebSocket, as the response that says so.
    package struct Refusal: Error, Sendable {
        package let status: UInt16
        /// One line of plain text.
        package let reason: String
        /// Fields that the status requires.
        package let fields: HeaderBlock
    }

    // MARK: Answering side

    /// Checks a request.
    /// - Parameter acceptsDrafts: versions 7 and 8 are taken as well, drafts of which nothing on the wire but the number differs from 13.
    /// - Returns: the head of the 101 response.
    /// - Throws: ``Refusal``.
    package static func accept(
        _ request: RequestHead, acceptsDrafts: Bool = false
    ) throws(Refusal) -> ResponseHead {
        guard request.method == .get else {
            throw Refusal(
                status: 405, reason: "A WebSocket is opened with GET.", fields: HeaderBlock(["Allow": "GET"]))
        }
        guard request.fields.contains(.upgrade, token: "websocket") else {
            throw Refusal(status: 400, reason: "Can \"Upgrade\" only to \"WebSocket\".", fields: HeaderBlock())
        }
        guard request.fields.contains(.connection, token: "upgrade") else {
            throw Refusal(status: 400, reason: "\"Connection\" must be \"Upgrade\".", fields: HeaderBlock())
        }
        guard request.wantsUpgrade, request.minorVersion >= 1,
            request.bodyLength == .none || request.bodyLength == .known(0)
        else {
            throw Refusal(status: 400, reason: "Not a valid websocket request", fields: HeaderBlock())
        }
        guard request.fields.occurrences(.secWebSocketVersion) == 1,
            let version = request.fields.text(.secWebSocketVersion),
            version == "13" || (acceptsDrafts && (version == "7" || version == "8"))
        else {
            throw Refusal(
                status: 426, reason: "Only version 13 of the WebSocket protocol is supported.",
                fields: HeaderBlock(["Sec-WebSocket-Version": "13", "Upgrade": "websocket", "Connection": "Upgrade"]))
        }
        guard request.fields.occurrences(.secWebSocketKey) == 1, let key = request.fields.first(.secWebSocketKey),
            isKey(key)
        else {
            throw Refusal(
                status: 400, reason: "Not a valid websocket request: Sec-WebSocket-Key must be 16 bytes in base64.",
                fields: HeaderBlock())
        }
        return ResponseHead(
            status: 101,
            fields: HeaderBlock([
                "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": acceptValue(for: key),
            ]))
    }

    /// Answers an exchange with a WebSocket, or with a refusal.
    /// - Parameters:
    ///   - compression: nil when permessage-deflate is not agreed to.
    ///   - unfinished: what bounds the memory of all WebSockets together.
    /// - Returns: nil when refused or when the connection is gone; the exchange is then over.
    package static func accept(
        _ exchange: any Exchange, limits: WebSocketLimits = WebSocketLimits(), acceptsDrafts: Bool = false,
        compression: WebSocketCompression? = nil, unfinished: UnfinishedMessages? = nil, wheel: TimerWheel?
    ) -> WebSocketConnection? {
        do throws(Refusal) {
            var head = try accept(exchange.request, acceptsDrafts: acceptsDrafts)
            var agreed: WebSocketConnection.Compression?
            if let compression, let agreement = try deflate(exchange.request) {
                agreed = WebSocketConnection.Compression(agreement: agreement, options: compression)
                head.fields.append("Sec-WebSocket-Extensions", agreement.response)
            }
            guard let transport = exchange.upgrade(head) else { return nil }
            return WebSocketConnection(
                transport: transport, role: .server, limits: limits, compression: agreed, unfinished: unfinished,
                wheel: wheel)
        } catch {
            var head = ResponseHead(status: error.status, fields: error.fields)
            if error.status == 405 {
                exchange.respond(head, body: ByteBuffer())
            } else {
                head.fields.append("Content-Type", "text/plain; charset=UTF-8")
                exchange.respond(head, body: ByteBuffer(string: error.reason + "\n"))
            }
            return nil
        }
    }

    /// What is agreed upon with a client that offers permessage-deflate.
    private static func deflate(_ request: RequestHead) throws(Refusal) -> WebSocketDeflate? {
        do throws(WebSocketExtensionOffer.Malformed) {
            return WebSocketDeflate(try WebSocketExtensionOffer.offers(in: request.fields))
        } catch {
            throw Refusal(
                status: 400, reason: "Not a valid websocket request: Sec-WebSocket-Extensions is malformed.",
                fields: HeaderBlock())
        }
    }

    /// The value of Sec-WebSocket-Accept that answers a key.
    package static func acceptValue(for key: some Sequence<UInt8>) -> String {
        Base64.encode(SHA1.digest(Array(key) + Array("258EAFA5-E914-47DA-95CA-C5AB0DC85B11".utf8)))
    }

    // MARK: Asking side

    /// Whether a text encodes exactly 16 bytes, as a handshake's key must.
    static func isKey(_ text: some Collection<UInt8>) -> Bool {
        guard text.count == 24, text.suffix(2).allSatisfy({ $0 == UInt8(ascii: "=") }) else { return false }
        return text.prefix(22).allSatisfy(Base64.isDigit)
    }

    /// A new random key.
    package static func makeKey() -> String {
        var random = SystemRandomNumberGenerator()
        return Base64.encode((0..<16).map { _ in UInt8.random(in: .min ... .max, using: &random) })
    }

    /// The request that opens a WebSocket.
    /// - Parameters:
    ///   - target: path and query.
    ///   - fields: what to send besides; fields of the handshake in it are left out.
    ///   - key: from ``makeKey()``, needed again for ``verify(_:key:)``.
    package static func request(
        target: String, authority: String, fields: HeaderBlock = HeaderBlock(), key: String
    ) -> RequestHead {
        var own = HeaderBlock([
            "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": key, "Sec-WebSocket-Version": "13",
        ])
        for position in 0..<fields.count {
            switch fields.field(at: position) {
            case .upgrade, .connection, .secWebSocketKey, .secWebSocketVersion, .secWebSocketExtensions,
                .secWebSocketProtocol, .secWebSocketAccept:
                continue
            default:
                own.append(
                    String(decoding: fields.name(at: position), as: UTF8.self),
                    String(decoding: fields.value(at: position), as: UTF8.self))
            }
        }
        var head = RequestHead(method: .get, target: target, authority: authority, fields: own)
        head.wantsUpgrade = true
        return head
    }

    /// Checks the answer to ``request(target:authority:fields:key:)``.
    /// - Throws: ``TransportError`` saying what the server answered instead.
    package static func verify(_ response: ResponseHead, key: String) throws(TransportError) {
        guard response.status == 101 else {
            throw TransportError(
                .refused, "The server answered \(response.status) instead of opening a WebSocket.")
        }
        guard response.fields.contains(.upgrade, token: "websocket"),
            response.fields.contains(.connection, token: "upgrade"),
            response.fields.occurrences(.secWebSocketAccept) == 1,
            response.fields.text(.secWebSocketAccept) == acceptValue(for: key.utf8)
        else { throw TransportError(.protocolViolation, "The server's answer does not open this WebSocket.") }
        guard response.fields.occurrences(.secWebSocketExtensions) == 0,
            response.fields.occurrences(.secWebSocketProtocol) == 0
        else {
            throw TransportError(
                .protocolViolation, "The server chose a WebSocket extension or subprotocol that was not offered.")
        }
    }
}
