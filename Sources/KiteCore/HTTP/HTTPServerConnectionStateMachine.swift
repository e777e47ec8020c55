/// The life of a visitor's HTTP/1.1 connection, request after request, without any I/O.
import NIOCore

/// Takes bytes and the calls of an exchange, and says what is to be done. Requests are answered one after the other: what a
/// visitor sends ahead stays in the buffer until its turn.
///
/// Input goes from `head` over `body` to `ended`, while the response goes from `pending` over `started` to its finish.
/// When both are through, the next head follows or the connection closes; an upload that was answered early is `discarded`.
struct HTTPServerConnectionStateMachine {
    /// What to do next.
    enum Action {
        case none
        /// A request: make an exchange and let somebody accept it.
        case accept(RequestHead)
        case body(ByteBuffer)
        case requestEnded(HeaderBlock?)
        case sendContinue
        /// Answer with an error outside any exchange, then linger. There is a head where that could be read.
        case refuse(HTTPError, RequestHead?)
        /// Answer with an error in place of the exchange, then linger.
        case refuseExchange(HTTPError)
        /// Break the exchange and the connection: it is too late for an answer.
        case abort(TransportError)
        case linger
        case close
    }

    /// How a response's body leaves.
    enum ResponseFraming: Hashable {
        /// Not at all: HEAD, 204, 304.
        case none
        case known(Int64)
        case chunked
        /// For HTTP/1.0 visitors.
        case untilClose
    }

    /// What to do with a response's head.
    enum RespondAction {
        case write(ResponseFraming, isKeepAlive: Bool)
        case ignore
        case abort(TransportError)
    }

    enum WriteAction {
        case plain, chunked, ignore
        case abort(TransportError)
    }

    enum FinishAction {
        /// The response is complete; write the last chunk first if it is chunked.
        case end(isChunked: Bool, then: Action)
        case ignore
        case abort(TransportError)
    }

    /// What the connection is waiting for, where the wait has an end.
    enum Deadline {
        case none, keepAlive, head, body, stalledWrite, halfClosed, linger
        /// The transport is closing and has something left to send.
        case closing
    }

    private enum Input {
        case head
        case body(BodyDecoder)
        case ended
        case discarded(BodyDecoder, room: Int)
        case lingering(room: Int)
        case over
    }

    private enum Response {
        case none
        case pending
        case started(ResponseFraming, remaining: Int64)
    }

    let limits: HTTPLimits
    private var scanner: RequestScanner
    private var inbound = ByteBuffer()
    private var input = Input.head
    private var response = Response.none
    private var method = RequestMethod.get
    private var minorVersion: UInt8 = 1
    private var isKeepAlive = true
    private var wantsUpgrade = false
    private var owesContinue = false
    private var isBodyWanted = true
    private(set) var isInputClosed = false
    private var isDraining = false
    /// While draining: whether visitors may send one more request on a connection that they were told stays open.
    private var keepsPromises = false
    /// Whether that request is still to come.
    private var allowsLastRequest = false

    init(limits: HTTPLimits) {
        self.limits = limits
        // A body that is too long is refused here, where it is known what the visitor accepts.
        var headLimits = limits
        headLimits.bodyBytes = nil
        scanner = RequestScanner(limits: headLimits)
    }

    // MARK: Input

    mutating func received(_ bytes: ByteBuffer) {
        switch input {
        case .over: return
        case .lingering(let room): input = .lingering(room: room - bytes.readableBytes)
        default:
            if inbound.readableBytes == 0 { inbound = bytes } else { inbound.writeImmutableBuffer(bytes) }
        }
    }

    mutating func inputClosed() { isInputClosed = true }

    /// Called until it returns `none`.
    mutating func next() -> Action {
        switch input {
        case .head: nextHead()
        case .body(let decoder): nextBody(decoder)
        case .discarded(let decoder, let room): discard(decoder, room: room)
        case .lingering(let room): room < 0 || isInputClosed ? close() : .none
        case .ended, .over: .none
        }
    }

    private mutating func nextHead() -> Action {
        guard inbound.readableBytes > 0 else {
            return isInputClosed || isDraining && !allowsLastRequest ? close() : .none
        }
        do {
            allowsLastRequest = false
            guard let head = try scanner.feed(&inbound) else { return isInputClosed ? close() : .none }
            if let limit = limits.bodyBytes, case .known(let length) = head.bodyLength, length > limit {
                return .refuse(.largeBody, head)
            }
            input = .body(BodyDecoder(request: head, limits: limits))
            response = .pending
            method = head.method
            minorVersion = head.minorVersion
            isKeepAlive = head.isKeepAlive
            wantsUpgrade = head.wantsUpgrade
            owesContinue = head.expectsContinue
            isBodyWanted = true
            return .accept(head)
        } catch {
            return .refuse(error, nil)
        }
    }

    private mutating func nextBody(_ decoder: BodyDecoder) -> Action {
        var decoder = decoder
        guard isBodyWanted || decoder.remaining == 0 else { return .none }
        if owesContinue {
            owesContinue = false
            // Whoever sends its body unasked needs no answer any more.
            if inbound.readableBytes == 0, case .pending = response { return .sendContinue }
        }
        do {
            switch try decoder.next(from: &inbound) {
            case .bytes(let bytes)?:
                input = .body(decoder)
                return .body(bytes)
            case .end(let trailers)?:
                input = .ended
                return .requestEnded(trailers)
            case nil:
                input = .body(decoder)
                if isInputClosed {
                    return broken(.reset, "The visitor closed the connection in the middle of its request.")
                }
                return .none
            }
        } catch {
            return failed(error)
        }
    }

    private mutating func discard(_ decoder: BodyDecoder, room: Int) -> Action {
        var decoder = decoder
        var room = room
        do {
            while let part = try decoder.next(from: &inbound) {
                switch part {
                case .bytes(let bytes):
                    room -= bytes.readableBytes
                    if room < 0 { return .linger }
                case .end:
                    input = .head
                    return isDraining && !allowsLastRequest ? close() : nextHead()
                }
            }
        } catch {
            return .linger
        }
        input = .discarded(decoder, room: room)
        return isInputClosed ? close() : .none
    }

    private mutating func failed(_ error: HTTPError) -> Action {
        if case .pending = response { return .refuseExchange(error) }
        return broken(error.code == .slowBody ? .idleTimeout : .protocolViolation, error.message)
    }

    private mutating func broken(_ code: TransportError.Code, _ message: String) -> Action {
        .abort(TransportError(code, message))
    }

    // MARK: Output

    mutating func mayInform(_ status: UInt16) -> Bool {
        guard case .pending = response, minorVersion > 0, status >= 100, status < 200, status != 101 else {
            return false
        }
        if status == 100 { owesContinue = false }
        return true
    }

    mutating func respond(_ head: ResponseHead) -> RespondAction {
        switch response {
        case .none: return .ignore
        case .started: return .abort(Self.misused("A second response was given to one request."))
        case .pending: break
        }
        guard head.status >= 200 else { return .abort(Self.misused("A response was given an informational status.")) }
        let framing = framing(of: head)
        if isDraining || isInputClosed || framing == .untilClose || head.endsConnection { isKeepAlive = false }
        if case .body(let decoder) = input, decoder.remaining != 0 {
            // An upload answered early: the connection goes on only if dropping the rest is cheap.
            if owesContinue || decoder.remaining.map({ $0 > limits.drainBytes }) ?? true { isKeepAlive = false }
        }
        owesContinue = false
        let remaining: Int64 = if case .known(let length) = framing { length } else { .max }
        response = .started(framing, remaining: remaining)
        return .write(framing, isKeepAlive: isKeepAlive)
    }

    /// RFC 9112 section 6.3.
    private func framing(of head: ResponseHead) -> ResponseFraming {
        if ResponseHead.hasNoBody(status: head.status, method: method) { return .none }
        return switch head.bodyLength {
        case .none: .known(0)
        case .known(let length): .known(max(length, 0))
        case .unknown: minorVersion > 0 ? .chunked : .untilClose
        }
    }

    mutating func write(_ count: Int) -> WriteAction {
        switch response {
        case .none: return .ignore
        case .pending: return .abort(Self.misused("A body was written before its response."))
        case .started(.none, _): return .ignore
        case .started(.chunked, _): return .chunked
        case .started(.untilClose, _): return .plain
        case .started(let framing, let remaining):
            let left = remaining - Int64(count)
            guard left >= 0 else { return .abort(Self.misused("A body is longer than its response said.")) }
            response = .started(framing, remaining: left)
            return .plain
        }
    }

    mutating func finish() -> FinishAction {
        switch response {
        case .none: return .ignore
        case .pending: return .abort(Self.misused("A request was finished without a response."))
        case .started(.known, let remaining) where remaining > 0:
            return .abort(Self.misused("A body is shorter than its response said."))
        case .started(let framing, _):
            response = .none
            return .end(isChunked: framing == .chunked, then: afterResponse())
        }
    }

    private mutating func afterResponse() -> Action {
        // Here it is still true only if the response promised it, before draining began.
        if isDraining, isKeepAlive {
            if keepsPromises { allowsLastRequest = true } else { isKeepAlive = false }
        }
        switch input {
        case .ended:
            guard isKeepAlive else { return inbound.readableBytes > 0 ? .linger : close() }
            input = .head
            return .none
        case .body(let decoder):
            guard isKeepAlive || decoder.remaining == 0 else { return .linger }
            guard isKeepAlive else { return inbound.readableBytes > 0 ? .linger : close() }
            input = .discarded(decoder, room: limits.drainBytes)
            return .none
        case .head, .discarded, .lingering, .over: return .none
        }
    }

    /// Whether the connection may change its protocol now; it is not HTTP any more then.
    mutating func upgrade() -> ByteBuffer? {
        guard case .pending = response, wantsUpgrade, !isInputClosed else { return nil }
        switch input {
        case .ended, .body: break
        case .head, .discarded, .lingering, .over: return nil
        }
        let surplus = inbound
        over()
        return surplus
    }

    /// Nothing but closing is to come: what still arrives is dropped.
    mutating func linger() -> Action {
        response = .none
        inbound = ByteBuffer()
        scanner.release()
        input = .lingering(room: limits.drainBytes)
        return isInputClosed ? close() : .none
    }

    mutating func over() {
        input = .over
        response = .none
        inbound = ByteBuffer()
        scanner.release()
    }

    private mutating func close() -> Action {
        over()
        return .close
    }

    private static func misused(_ message: String) -> TransportError { TransportError(.protocolViolation, message) }

    // MARK: Flow

    /// - Returns: whether ``next()`` has something to say now.
    mutating func setBodyWanted(_ wanted: Bool) -> Bool {
        isBodyWanted = wanted
        guard wanted, case .body = input else { return false }
        return true
    }

    /// Finish what is going on, then close.
    /// - Parameter closingIdle: whether to close at once when nothing is going on, instead of after one more request.
    /// - Returns: `close` when nothing is going on.
    mutating func drain(closingIdle: Bool = true) -> Action {
        isDraining = true
        keepsPromises = !closingIdle
        guard case .head = input, inbound.readableBytes == 0 else { return .none }
        if closingIdle { return close() }
        allowsLastRequest = true
        return .none
    }

    var hasExchange: Bool {
        if case .none = response { false } else { true }
    }

    /// Whether the response has not begun.
    var mayRefuse: Bool {
        if case .pending = response { true } else { false }
    }

    /// Whether the transport is to deliver.
    var wantsInput: Bool {
        switch input {
        case .head, .discarded, .lingering, .over: true
        case .body: isBodyWanted
        case .ended: inbound.readableBytes < limits.pipelinedBytes
        }
    }

    /// A request has arrived to its end and is being answered.
    var hasWholeRequest: Bool {
        if case .ended = input { true } else { false }
    }

    /// Whether what cannot be read as a request begins as one for a head alone: the answer has no body then.
    var beginsAsHead: Bool { inbound.readableBytesView.starts(with: Self.headMethod) }
    private static let headMethod = Array("HEAD ".utf8)

    /// Between two requests with nothing received.
    var isIdle: Bool {
        if case .head = input { inbound.readableBytes == 0 } else { false }
    }

    mutating func exchangeStorage(_ storage: [HeaderBlock.Entry]) -> [HeaderBlock.Entry] {
        if isIdle { inbound = ByteBuffer() }
        return scanner.exchangeStorage(storage)
    }

    func deadline(isWritable: Bool) -> Deadline {
        switch input {
        case .head: return inbound.readableBytes == 0 ? .keepAlive : .head
        case .body where isBodyWanted: return .body
        case .body, .ended:
            guard case .started = response else { return isInputClosed ? .halfClosed : .none }
            return isInputClosed || !isWritable ? .stalledWrite : .none
        case .discarded, .lingering: return .linger
        case .over: return .closing
        }
    }

    /// How long that may take; nil: as long as it likes.
    func time(for deadline: Deadline) -> TimeAmount? {
        switch deadline {
        case .none: nil
        case .keepAlive: limits.keepAliveTimeout
        case .head: limits.headTimeout
        case .body: limits.bodyIdleTimeout
        case .stalledWrite, .closing: limits.stalledWriteTimeout
        case .halfClosed: limits.halfClosedTimeout
        case .linger: limits.lingerTimeout
        }
    }

    /// A deadline has passed.
    mutating func expired(_ deadline: Deadline) -> Action {
        switch deadline {
        case .none: .none
        case .keepAlive: close()
        // Who is still uploading gets the time to read the answer.
        case .linger: if case .discarded = input { .linger } else { close() }
        case .head: .refuse(.headTimeout, nil)
        case .body: failed(.bodyTimeout)
        case .stalledWrite, .closing: broken(.idleTimeout, "The visitor stopped taking the response.")
        case .halfClosed: broken(.cancelled, "The visitor went away.")
        }
    }
}
