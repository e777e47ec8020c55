/// `xhr_send` and `jsonp_send`: messages of the client in the body of a POST.
import KiteHTTP
import KiteSupport
import KiteWebSocket
import NIOCore

/// Collects the body, hands its messages to the session and answers when the session has taken them.
final class SockJSSendHandler: ExchangeHandler {
    enum Kind {
        case xhr, jsonp
    }

    private let kind: Kind
    private let options: SockJSOptions
    private let unfinished: UnfinishedMessages
    /// What has been counted there, until the exchange ends.
    private var heldBytes = 0
    private let find: () -> SockJSSessionRegistry.Reference?
    private var body = ByteBuffer()
    private var isOver = false
    /// Until the body is complete.
    private var deadline: WheelTimer?
    /// How much had arrived when it was put off last.
    private var bytesAtDeadline = 0
    /// How much must arrive for that.
    private static let progressBytes = 64 << 10

    /// - Parameter find: looks for the session once the body is complete; it may have ended meanwhile.
    init(
        _ exchange: any Exchange, kind: Kind, options: SockJSOptions, unfinished: UnfinishedMessages,
        find: @escaping () -> SockJSSessionRegistry.Reference?
    ) {
        self.kind = kind
        self.options = options
        self.unfinished = unfinished
        self.find = find
        exchange.handler = self
        if case .known(let length) = exchange.request.bodyLength, length > Int64(options.maxFrameBytes) {
            refuseLength(exchange)
            return
        }
        let deadline = WheelTimer(wheel: LoopFlusher.on(exchange.eventLoop).wheel) { [weak self, weak exchange] in
            guard let self, let exchange, !self.isOver else { return }
            self.body = ByteBuffer()
            self.answer(exchange, 408, "The messages did not arrive in time.")
        }
        deadline.start(after: options.bodyTimeout)
        self.deadline = deadline
    }

    func exchangeReceived(_ exchange: any Exchange, body part: ByteBuffer) {
        guard !isOver else { return }
        guard part.readableBytes <= options.maxFrameBytes - body.readableBytes else { return refuseLength(exchange) }
        let bytes = heldBytes + part.readableBytes
        guard unfinished.change(from: heldBytes, to: bytes) else {
            body = ByteBuffer()
            return answer(exchange, 503, "Too many messages that have not arrived whole are held already.")
        }
        heldBytes = bytes
        if bytes - bytesAtDeadline >= Self.progressBytes {
            bytesAtDeadline = bytes
            deadline?.start(after: options.bodyTimeout)
        }
        if body.readableBytes == 0 { body = part } else { body.writeImmutableBuffer(part) }
    }

    func exchangeRequestEnded(_ exchange: any Exchange, trailers: HeaderBlock?) {
        deadline?.cancel()
        guard !isOver else { return }
        let payload: ByteBuffer
        let messages: [ByteBuffer]
        do throws(SockJSFormatError) {
            payload = try unwrapped(exchange.request)
            var validator = UTF8Validator()
            guard payload.withUnsafeReadableBytes({ validator.validate($0) }), validator.isComplete else {
                throw .brokenJSON
            }
            messages = try SockJSText.messages(in: payload, shape: .array, maxMessages: options.maxMessagesPerPayload)
        } catch {
            body = ByteBuffer()
            return answer(exchange, 500, error == .payloadExpected ? "Payload expected." : "Broken JSON encoding.")
        }
        body = ByteBuffer()
        guard messages.allSatisfy({ $0.readableBytes <= options.maxMessageBytes }) else {
            return refuseLength(exchange)
        }
        guard let session = find() else {
            isOver = true
            return SockJSResponse.notFound(exchange)
        }
        let own = LoopReference((self, exchange), on: exchange.eventLoop)
        session.run { session in
            session.deliver(messages) { delivery in
                own.run { handler, exchange in handler.delivered(delivery, exchange) }
            }
        }
    }

    private func delivered(_ delivery: SockJSDelivery, _ exchange: any Exchange) {
        guard !isOver else { return }
        switch delivery {
        case .accepted:
            switch kind {
            case .xhr:
                isOver = true
                // The content type of an empty answer is for a browser that would take it for broken XML.
                exchange.respond(head(204, exchange.request))
                exchange.finish(trailers: nil)
            case .jsonp: answer(exchange, 200, "ok")
            }
        case .noSession:
            isOver = true
            SockJSResponse.notFound(exchange)
        case .busy: answer(exchange, 503, "The session has not yet taken what was sent before.")
        }
    }

    func exchangeWritabilityChanged(_ exchange: any Exchange, isWritable: Bool) {}
    func exchangeEnded(_ exchange: any Exchange, error: TransportError?) {
        isOver = true
        deadline?.cancel()
        _ = unfinished.change(from: heldBytes, to: 0)
        heldBytes = 0
    }

    /// A form's field `d`, or the body itself.
    private func unwrapped(_ request: RequestHead) throws(SockJSFormatError) -> ByteBuffer {
        let type = request.fields.text(.contentType)?.lowercased() ?? ""
        guard kind == .jsonp, type.hasPrefix("application/x-www-form-urlencoded") else { return body }
        for pair in body.readableBytesView.split(separator: UInt8(ascii: "&")) {
            guard pair.starts(with: [UInt8(ascii: "d"), UInt8(ascii: "=")]) else { continue }
            guard let bytes = SockJSCallback.percentDecoded(pair.dropFirst(2), plusIsSpace: true) else {
                throw .brokenJSON
            }
            return ByteBuffer(bytes: bytes)
        }
        throw .payloadExpected
    }

    private func refuseLength(_ exchange: any Exchange) {
        body = ByteBuffer()
        answer(exchange, 413, "A message is longer than \(options.maxMessageBytes) bytes.")
    }

    private func answer(_ exchange: any Exchange, _ status: UInt16, _ text: String) {
        isOver = true
        deadline?.cancel()
        exchange.respond(head(status, exchange.request), body: ByteBuffer(string: text))
    }

    private func head(_ status: UInt16, _ request: RequestHead) -> ResponseHead {
        SockJSResponse.head(
            status, contentType: SockJSResponse.plainText, caching: .never,
            crossOrigin: kind == .xhr ? .echo : .unspecified, for: request, setsCookie: options.setsCookie)
    }
}
