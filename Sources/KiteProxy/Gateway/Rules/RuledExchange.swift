/// An exchange whose request and response rules change on the way, between the connection that carries it and whoever answers.
import KiteHTTP
import NIOCore

/// Applies ``Rules`` to one exchange. Whoever answers sees this in place of the connection's exchange. Event-loop bound.
final class RuledExchange: Exchange, ExchangeHandler, LoopFlushable {
    private let inner: any Exchange
    let rules: Rules
    private let worker: Worker
    private(set) var request: RequestHead
    var handler: (any ExchangeHandler)?
    private let isSecure: Bool
    /// Whether the visitor's origin may read the response.
    var permission = OriginRules.Permission.notNeeded

    /// Until whoever answers has been told of the exchange: what came meanwhile waits here, at most one read.
    private var isWaiting = false
    private var isStarting = false
    private var isReadingWanted = true
    private var heldBody: [ByteBuffer] = []
    private var heldEnd: (trailers: HeaderBlock?, Void)?

    private var receivedBytes: Int64 = 0
    private var hasResponded = false
    private var isOver = false
    /// The request was refused while its body came.
    private var isCut = false
    private var gzip: GzipStream?
    /// Whether zlib may hold back what the visitor has not got yet.
    private var isFlushDue = false
    private var isFlushListed = false

    init(_ inner: any Exchange, _ rules: Rules, isSecure: Bool, worker: Worker) {
        self.inner = inner
        self.rules = rules
        self.worker = worker
        self.isSecure = isSecure
        request = inner.request
    }

    // MARK: The request

    /// Holds the exchange until ``proceed(_:)``, or until it is answered.
    func wait() {
        isWaiting = true
        inner.handler = self
        if inner.request.bodyLength != .none { inner.setReading(false) }
    }

    /// Lets whoever answers have the exchange.
    func proceed(_ accept: (any Exchange) -> Void) {
        guard !isOver else { return }
        rules.apply(to: &request)
        guard isWaiting else {
            inner.handler = self
            return accept(self)
        }
        isStarting = true
        accept(self)
        isStarting = false
        isWaiting = false
        let body = heldBody
        heldBody = []
        for bytes in body where !isOver { handler?.exchangeReceived(self, body: bytes) }
        if let end = heldEnd, !isOver {
            heldEnd = nil
            handler?.exchangeRequestEnded(self, trailers: end.trailers)
        }
        if !isOver, isReadingWanted, request.bodyLength != .none { inner.setReading(true) }
    }

    func exchangeReceived(_ exchange: any Exchange, body: ByteBuffer) {
        receivedBytes += Int64(body.readableBytes)
        if let limit = rules.bodyBytes, receivedBytes > limit { return refuseBody() }
        if isWaiting { return heldBody.append(body) }
        handler?.exchangeReceived(self, body: body)
    }

    /// A body of unknown length turns out to be too long.
    private func refuseBody() {
        guard !isOver, !isCut else { return }
        isCut = true
        let reason = TransportError(.limitExceeded, "The request's body is longer than is allowed here")
        guard !hasResponded else { return inner.abort(reason) }
        (handler as? ProxyExchange)?.refusedByEngine(413)
        worker.refuse(self, .bodyTooLarge, Self.bodyRefusal)
        // The connection may read on, to be polite; whoever was to answer has nothing more to do.
        let last = handler
        handler = nil
        last?.exchangeEnded(self, error: reason)
    }

    static let bodyRefusal = Refusal(413, "The request's body is longer than is allowed here.")

    func exchangeRequestEnded(_ exchange: any Exchange, trailers: HeaderBlock?) {
        if isCut { return }
        let trailers = trailers.map { rules.requestFields?.filtered(trailers: $0) ?? $0 }
        if isWaiting { return heldEnd = (trailers, ()) }
        handler?.exchangeRequestEnded(self, trailers: trailers)
    }

    func exchangeWritabilityChanged(_ exchange: any Exchange, isWritable: Bool) {
        handler?.exchangeWritabilityChanged(self, isWritable: isWritable)
    }

    func exchangeInputClosed(_ exchange: any Exchange) { handler?.exchangeInputClosed(self) }

    func exchangeEnded(_ exchange: any Exchange, error: TransportError?) {
        isOver = true
        releaseGzip()
        heldBody = []
        heldEnd = nil
        let last = handler
        handler = nil
        last?.exchangeEnded(self, error: error)
    }

    // MARK: The response

    var eventLoop: any EventLoop { inner.eventLoop }
    var peer: ExchangePeer { inner.peer }
    var isWritable: Bool { inner.isWritable }
    var isEnded: Bool { inner.isEnded }

    func sendInformational(_ head: ResponseHead) { inner.sendInformational(head) }

    func respond(_ head: ResponseHead) {
        guard !hasResponded else { return inner.respond(head) }
        hasResponded = true
        var head = head
        rules.apply(to: &head, origin: permission, isSecure: isSecure)
        if !isOver, let compression = rules.compression {
            var compressed = head
            if compression.apply(to: &compressed, of: request) {
                gzip = GzipStreams.current.take()
                // Where there are too many already it leaves as it is.
                if gzip != nil { head = compressed }
            } else {
                head = compressed
            }
        }
        inner.respond(head)
    }

    func write(_ bytes: ByteBuffer) {
        guard let gzip, !isOver else { return inner.write(bytes) }
        guard let output = gzip.compress(bytes, .none) else { return breakOff() }
        isFlushDue = true
        if output.readableBytes > 0 { inner.write(output) }
        guard !isFlushListed else { return }
        isFlushListed = true
        LoopFlusher.on(eventLoop).add(self)
    }

    /// What came during this turn of the loop leaves at its end, so that nobody waits for what the upstream has sent before it pauses.
    func turnEnded() {
        isFlushListed = false
        guard isFlushDue, let gzip, !isOver else { return }
        isFlushDue = false
        guard let output = gzip.compress(ByteBuffer(), .sync) else { return breakOff() }
        if output.readableBytes > 0 { inner.write(output) }
    }

    func finish(trailers: HeaderBlock?) {
        if let gzip, !isOver {
            guard let output = gzip.compress(ByteBuffer(), .finish) else { return breakOff() }
            releaseGzip()
            if output.readableBytes > 0 { inner.write(output) }
        }
        inner.finish(trailers: trailers.map { rules.responseFields?.filtered(trailers: $0) ?? $0 })
    }

    private func breakOff() { inner.abort(TransportError(.cancelled, "The response could not be compressed")) }

    private func releaseGzip() {
        guard let stream = gzip else { return }
        gzip = nil
        isFlushDue = false
        GzipStreams.current.give(stream)
    }

    func upgrade(_ head: ResponseHead) -> (any ByteTransport)? {
        var head = head
        rules.apply(to: &head, origin: permission, isSecure: isSecure)
        isOver = true
        handler = nil
        return inner.upgrade(head)
    }

    func abort(_ reason: TransportError) { inner.abort(reason) }

    func setReading(_ wanted: Bool) {
        isReadingWanted = wanted
        if !isStarting { inner.setReading(wanted) }
    }

    // MARK: Refusals

    /// Answers with a refusal: with the page for it, where there is one and the visitor wants HTML.
    func refuse(_ refusal: Refusal, fields: KeyValuePairs<String, String>, page: PageTemplate? = nil) {
        guard let page = page ?? rules.errorPages.page(for: refusal.status), request.fields.namesHTML else {
            return refuse(
                status: refusal.status, reason: refusal.reason, retryAfter: refusal.retryAfter, fields: fields)
        }
        var head = ResponseHead(
            status: refusal.status,
            fields: HeaderBlock(["Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store"]))
        if let retryAfter = refusal.retryAfter { head.fields.append("Retry-After", String(retryAfter)) }
        for (name, value) in fields { head.fields.append(name, value) }
        respond(head, body: page.filled(status: refusal.status, reason: refusal.reason))
    }
}
