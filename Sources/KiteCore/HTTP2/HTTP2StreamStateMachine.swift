/// The life of one request on an HTTP/2 connection, without any I/O.
import KiteHTTP
import NIOCore

/// Follows both directions of a stream (RFC 9113 section 8.1) and says what is to be done. Frames that HTTP/2 does not allow in a
/// stream's state never come here; what the request and the response say of themselves is checked here.
struct HTTP2StreamStateMachine {
    /// What to do with a DATA frame, or with the end of the request.
    enum InputAction: Equatable {
        /// Hand it on.
        case take
        /// Nobody wants it any more.
        case drop
        /// The same, and the visitor is to stop (RST_STREAM with NO_ERROR, RFC 9113 section 8.1).
        case stop
        /// The request breaks HTTP/2: reset the stream.
        case malformed(String)
        /// Answer with an error in place of the exchange.
        case refuse(HTTPError)
        /// Break the exchange off: it is too late for an answer.
        case abort(TransportError)
    }

    enum RespondAction: Equatable {
        case write(endsStream: Bool)
        case ignore
        case abort(TransportError)
    }

    enum WriteAction: Equatable {
        case write(endsStream: Bool)
        case ignore
        case abort(TransportError)
    }

    enum FinishAction: Equatable {
        /// The response is complete.
        case end(mustEndStream: Bool, stopsUpload: Bool)
        case ignore
        case abort(TransportError)
    }

    private enum Input: Equatable {
        /// - remaining: nil where the length is not known.
        case body(remaining: Int64?, room: Int64)
        /// Of a WebSocket that is being opened, or open.
        case tunnel
        case discarded(remaining: Int64?, room: Int)
        case ended
    }

    private enum Output: Equatable {
        case pending
        /// - remaining: nil where the length is not known.
        case started(remaining: Int64?)
        /// Nothing of the body is sent: HEAD, 204, 304.
        case bodiless
        case tunnel
        case finished
    }

    private let limits: HTTPLimits
    private let method: RequestMethod
    private var input: Input
    private var output = Output.pending
    /// END_STREAM was given to be sent.
    private(set) var isOutputEnded = false
    private var owesContinue: Bool
    private let isTunnelRequest: Bool

    /// - Parameters:
    ///   - isEnded: whether the stream ended with the request's fields.
    ///   - isTunnel: whether the request asks for a WebSocket.
    init(_ head: RequestHead, isEnded: Bool, isTunnel: Bool, limits: HTTPLimits) {
        self.limits = limits
        method = head.method
        isTunnelRequest = isTunnel
        owesContinue = head.expectsContinue && !isEnded
        let remaining: Int64? = if case .known(let length) = head.bodyLength { length } else { nil }
        input =
            isEnded ? .ended : isTunnel ? .tunnel : .body(remaining: remaining, room: limits.bodyBytes ?? Int64.max)
    }

    // MARK: Input

    /// DATA.
    mutating func received(_ count: Int, endsStream: Bool) -> InputAction {
        switch input {
        case .body(let remaining, let room):
            owesContinue = false
            let left = remaining.map { $0 - Int64(count) }
            guard left ?? 0 >= 0 else { return .malformed("The body is longer than its Content-Length.") }
            guard count <= room else { return failed(.largeBody) }
            input = .body(remaining: left, room: room - Int64(count))
            return endsStream ? ended() : .take
        case .tunnel:
            if endsStream { input = .ended }
            return .take
        case .discarded(let remaining, let room):
            let left = remaining.map { $0 - Int64(count) }
            guard left ?? 0 >= 0 else { return .malformed("The body is longer than its Content-Length.") }
            input = .discarded(remaining: left, room: room - count)
            if endsStream { return ended() }
            return room < count && room >= 0 ? .stop : .drop
        case .ended: return .drop
        }
    }

    /// The end of the request.
    mutating func ended() -> InputAction {
        switch input {
        case .body(let remaining, _):
            input = .ended
            guard remaining ?? 0 == 0 else { return .malformed("The body is shorter than its Content-Length.") }
            return .take
        case .tunnel:
            input = .ended
            return .take
        case .discarded(let remaining, _):
            input = .ended
            guard remaining ?? 0 == 0 else { return .malformed("The body is shorter than its Content-Length.") }
            return .drop
        case .ended: return .drop
        }
    }

    /// The body stopped coming while it was wanted.
    mutating func bodyTimedOut() -> InputAction { failed(.bodyTimeout) }

    private mutating func failed(_ error: HTTPError) -> InputAction {
        if output == .pending { return .refuse(error) }
        return .abort(TransportError(error.code == .slowBody ? .idleTimeout : .limitExceeded, error.message))
    }

    /// Whether the visitor may still send.
    var isInputOpen: Bool { input != .ended }

    /// Whether the exchange waits for the request's body.
    var isBodyExpected: Bool { if case .body = input { true } else { false } }

    /// The handler wants the body of a request that waits for a word.
    /// - Returns: whether to send `100 Continue`.
    mutating func takeContinue() -> Bool {
        guard owesContinue, output == .pending else { return false }
        owesContinue = false
        return true
    }

    // MARK: Output

    mutating func mayInform(_ status: UInt16) -> Bool {
        guard output == .pending, status >= 100, status < 200, status != 101 else { return false }
        if status == 100 { owesContinue = false }
        return true
    }

    mutating func respond(_ head: ResponseHead) -> RespondAction {
        switch output {
        case .finished, .tunnel: return .ignore
        case .started, .bodiless: return .abort(Self.misused("A second response was given to one request."))
        case .pending: break
        }
        guard head.status >= 200 else { return .abort(Self.misused("A response was given an informational status.")) }
        owesContinue = false
        if method == .head && !isTunnelRequest || head.status == 204 || head.status == 304 {
            output = .bodiless
            isOutputEnded = true
            return .write(endsStream: true)
        }
        let remaining: Int64? =
            switch head.bodyLength {
            case .none: 0
            case .known(let length): max(length, 0)
            case .unknown: nil
            }
        output = .started(remaining: remaining)
        isOutputEnded = remaining == 0
        return .write(endsStream: isOutputEnded)
    }

    mutating func write(_ count: Int) -> WriteAction {
        switch output {
        case .finished, .bodiless: return .ignore
        case .pending: return .abort(Self.misused("A body was written before its response."))
        case .tunnel: return isOutputEnded ? .ignore : .write(endsStream: false)
        case .started(nil): return .write(endsStream: false)
        case .started(let remaining?):
            let left = remaining - Int64(count)
            guard left >= 0 else { return .abort(Self.misused("A body is longer than its response said.")) }
            output = .started(remaining: left)
            if left == 0 { isOutputEnded = true }
            return .write(endsStream: left == 0)
        }
    }

    mutating func finish() -> FinishAction {
        switch output {
        case .finished, .tunnel: return .ignore
        case .pending: return .abort(Self.misused("A request was finished without a response."))
        case .started(let remaining?) where remaining > 0:
            return .abort(Self.misused("A body is shorter than its response said."))
        case .started, .bodiless: break
        }
        output = .finished
        let mustEnd = !isOutputEnded
        isOutputEnded = true
        return .end(mustEndStream: mustEnd, stopsUpload: discardInput())
    }

    /// - Returns: whether dropping the rest of the upload is not cheap.
    private mutating func discardInput() -> Bool {
        switch input {
        case .ended, .discarded: return false
        case .tunnel:
            input = .discarded(remaining: nil, room: 0)
            return true
        case .body(let remaining, _):
            let isCheap = remaining.map { $0 <= limits.drainBytes } ?? true
            input = .discarded(remaining: remaining, room: isCheap ? limits.drainBytes : -1)
            return !isCheap
        }
    }

    // MARK: WebSockets

    /// Whether the stream carries bytes from now on.
    mutating func upgrade() -> Bool {
        guard isTunnelRequest, output == .pending else { return false }
        output = .tunnel
        return true
    }

    /// - Returns: whether END_STREAM is to be sent.
    mutating func closeTunnelOutput() -> Bool {
        guard output == .tunnel, !isOutputEnded else { return false }
        isOutputEnded = true
        return true
    }

    /// Drops what still comes.
    mutating func closeTunnelInput() {
        if input == .tunnel { input = .discarded(remaining: nil, room: limits.drainBytes) }
    }

    private static func misused(_ message: String) -> TransportError { TransportError(.protocolViolation, message) }
}

/// How much a visitor may send on a stream or a connection (RFC 9113 section 5.2): the window is opened only as somebody takes what came.
struct ReceiveWindow: Equatable {
    private var target: Int
    private let fullTarget: Int
    /// What the visitor may still send.
    private(set) var window: Int
    /// What has come and waits for its receiver.
    private(set) var held = 0
    private var taken = 0

    /// - Parameters:
    ///   - target: how much may be on its way or held.
    ///   - fullTarget: the same once as much as `target` was taken.
    init(window: Int, target: Int, fullTarget: Int) {
        self.window = window
        self.target = target
        self.fullTarget = fullTarget
    }

    mutating func hold(_ count: Int) { held += count }

    mutating func take(_ count: Int) {
        held -= count
        taken += count
        if taken >= target, target < fullTarget {
            target = fullTarget
            taken = 0
        }
    }

    /// What is left after a frame, by the account of the framing layer.
    mutating func changed(to window: Int) { self.window = window }

    /// By how much to open the window now; 0 while that is not worth a frame.
    mutating func increment() -> Int {
        guard window + held <= target / 2 else { return 0 }
        let increment = target - window - held
        window += increment
        return increment
    }
}
