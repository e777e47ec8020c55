/// The protocol of one upstream connection without its socket: what bytes from the upstream mean, given what was asked.
import NIOCore

/// The client's side of HTTP/1.1 on one connection (RFC 9112), one exchange at a time.
///
/// Received bytes go in with ``received(_:)``; ``next()`` is then called until it returns nil. Whoever executes the events may
/// call any other member between two calls of ``next()``.
struct HTTPClientConnectionStateMachine {
    /// What the upstream's bytes amount to.
    enum Event {
        /// A 1xx other than 101.
        case informational(ResponseHead)
        /// The final response begins.
        case head(ResponseHead)
        case body(ByteBuffer)
        /// The response is complete. When `reusable`, the connection is idle again; otherwise it is to be closed.
        case end(trailers: HeaderBlock?, reusable: Bool)
        /// The upstream switched protocols as asked; `surplus` are the first bytes of the new protocol.
        case upgraded(ResponseHead, surplus: ByteBuffer)
        /// The upstream broke the protocol, or its connection ended too early. The connection is to be aborted.
        case failed(TransportError)
        /// The connection ended, or must, while nothing was being asked.
        case idleClosed
    }

    private enum State {
        case idle
        /// A request was sent, or is being; no final response head yet.
        case awaitingHead(Request)
        case receivingBody(Request, BodyDecoder, keepAlive: Bool)
        case upgraded
        case closed
    }

    private struct Request {
        var method: RequestMethod
        var wantsUpgrade: Bool
        /// The whole request, body included, has been handed to the transport.
        var isComplete: Bool
        var informationalCount = 0
    }

    /// 1xx responses tolerated before the final one (a flood of them is an attack on the visitor's patience).
    static let maximumInformational = 16

    private var state = State.idle
    private var buffer = ByteBuffer()
    private var inputClosed = false
    private var isInputTruncated = false
    private var scanner: ResponseScanner
    private let limits: HTTPLimits
    /// Any byte of an answer to the current request has arrived.
    private(set) var hasReceivedBytes = false
    /// The final response's head to the current request has been reported.
    private(set) var hasResponded = false

    init(limits: HTTPLimits) {
        self.limits = limits
        scanner = ResponseScanner(limits: limits)
    }

    /// Ready to send a request.
    var isIdle: Bool { if case .idle = state { !inputClosed } else { false } }

    /// Between the request and the end of its response.
    var isActive: Bool {
        switch state {
        case .awaitingHead, .receivingBody: true
        case .idle, .upgraded, .closed: false
        }
    }

    /// A request begins. Ignored unless ``isIdle``.
    mutating func requestBegan(method: RequestMethod, wantsUpgrade: Bool, isComplete: Bool) {
        guard isIdle else { return }
        hasReceivedBytes = false
        hasResponded = false
        state = .awaitingHead(Request(method: method, wantsUpgrade: wantsUpgrade, isComplete: isComplete))
    }

    /// The request's last byte has been handed to the transport.
    mutating func requestEnded() {
        switch state {
        case .awaitingHead(var request):
            request.isComplete = true
            state = .awaitingHead(request)
        case .receivingBody(var request, let decoder, let keepAlive):
            request.isComplete = true
            state = .receivingBody(request, decoder, keepAlive: keepAlive)
        case .idle, .upgraded, .closed: break
        }
    }

    mutating func received(_ bytes: ByteBuffer) {
        if buffer.readableBytes == 0 {
            buffer = bytes
        } else {
            var bytes = bytes
            buffer.writeBuffer(&bytes)
        }
        hasReceivedBytes = true
    }

    /// Nothing of the current request is left to be handed to the transport.
    var isRequestComplete: Bool {
        switch state {
        case .awaitingHead(let request), .receivingBody(let request, _, _): request.isComplete
        case .idle, .upgraded, .closed: true
        }
    }

    /// The upstream will send no more.
    /// - Parameter isTruncated: whether it did not say so itself (``ByteTransport/isInputTruncated``).
    mutating func inputEnded(isTruncated: Bool = false) {
        inputClosed = true
        isInputTruncated = isTruncated
    }

    /// The connection is over; nothing more is reported.
    mutating func closed() {
        state = .closed
        buffer = ByteBuffer()
    }

    mutating func next() -> Event? {
        switch state {
        case .idle:
            guard buffer.readableBytes > 0 || inputClosed else { return nil }
            closed()
            return .idleClosed
        case .awaitingHead(let request): return nextHead(request)
        case .receivingBody(let request, let decoder, let keepAlive):
            return nextBody(request, decoder, keepAlive: keepAlive)
        case .upgraded, .closed: return nil
        }
    }

    private mutating func nextHead(_ request: Request) -> Event? {
        let head: ResponseHead?
        do {
            head = try scanner.feed(&buffer, requestMethod: request.method)
        } catch {
            return fail(.protocolViolation, "The upstream's answer is no valid HTTP: \(error.message)")
        }
        guard let head else {
            return inputClosed ? fail(.reset, "The upstream closed the connection without an answer") : nil
        }
        if head.status == 101 {
            guard request.wantsUpgrade else {
                return fail(.protocolViolation, "The upstream switched protocols without being asked")
            }
            state = .upgraded
            let surplus = buffer
            buffer = ByteBuffer()
            return .upgraded(head, surplus: surplus)
        }
        if head.status < 200 {
            var request = request
            request.informationalCount += 1
            guard request.informationalCount <= Self.maximumInformational else {
                return fail(.protocolViolation, "The upstream sent too many informational responses")
            }
            state = .awaitingHead(request)
            return .informational(head)
        }
        hasResponded = true
        state = .receivingBody(
            request, BodyDecoder(response: head, limits: limits), keepAlive: head.isKeepAlive)
        return .head(head)
    }

    private mutating func nextBody(_ request: Request, _ decoder: BodyDecoder, keepAlive: Bool) -> Event? {
        var decoder = decoder
        var part: BodyPart?
        // The state must not hold a second reference to what the decoder changes.
        state = .closed
        do throws(HTTPError) {
            part = try decoder.next(from: &buffer)
            if part == nil && inputClosed {
                if isInputTruncated, decoder.lastsUntilClose {
                    return fail(.reset, "The upstream's TLS connection was cut, so its response may be incomplete")
                }
                part = try decoder.inputEnded()
            }
        } catch {
            return fail(.protocolViolation, "The upstream's response body is broken: \(error.message)")
        }
        switch part {
        case .bytes(let bytes)?:
            state = .receivingBody(request, decoder, keepAlive: keepAlive)
            return .body(bytes)
        case .end(let trailers)?:
            // Many servers read no further request behind one that wanted an upgrade, granted or not.
            let reusable =
                keepAlive && request.isComplete && !request.wantsUpgrade && buffer.readableBytes == 0 && !inputClosed
            state = reusable ? .idle : .closed
            return .end(trailers: trailers, reusable: reusable)
        case nil:
            state = .receivingBody(request, decoder, keepAlive: keepAlive)
            return nil
        }
    }

    private mutating func fail(_ code: TransportError.Code, _ message: String) -> Event {
        closed()
        return .failed(TransportError(code, message))
    }
}
