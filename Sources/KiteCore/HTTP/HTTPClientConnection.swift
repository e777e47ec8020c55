/// One connection to an upstream, whatever carries it (a tunnel stream, a socket, TLS): the last stop of a request in the
/// gateway, and the client of the control plane.
public import KiteSupport
public import NIOCore

/// Receives the answer to one request on an ``HTTPClientConnection``. Called on the connection's event loop.
public protocol HTTPClientHandler: AnyObject {
    /// A 1xx response other than 101.
    func clientInformational(_ head: ResponseHead)
    /// The final response begins.
    func clientResponded(_ head: ResponseHead)
    /// A part of the response's body, decoded from its framing.
    func clientReceived(_ body: ByteBuffer)
    /// The response is complete; the last call. The connection already belongs to its owner again.
    func clientEnded(trailers: HeaderBlock?)
    /// The upstream switched protocols; the last call. Bytes that came with the head are delivered by `transport`.
    func clientUpgraded(_ head: ResponseHead, transport: any ByteTransport)
    /// No (complete) answer will come; the last call.
    func clientFailed(_ failure: HTTPClientFailure)
    /// ``HTTPClientConnection/isWritable`` changed while the request was being sent.
    func clientWritabilityChanged(_ isWritable: Bool)
}

/// Why a request got no complete answer, and what had happened by then.
public struct HTTPClientFailure: Error, Sendable, Hashable {
    /// What happened.
    public let cause: TransportError
    /// The final response's head had been delivered.
    public let responseStarted: Bool
    /// Some byte of an answer had arrived.
    public let bytesReceived: Bool
    /// The connection had carried an exchange before this one.
    public let wasReused: Bool

    public init(cause: TransportError, responseStarted: Bool, bytesReceived: Bool, wasReused: Bool) {
        self.cause = cause
        self.responseStarted = responseStarted
        self.bytesReceived = bytesReceived
        self.wasReused = wasReused
    }

    /// Whether the request may be sent once more on another connection: this one was pooled and turned out dead before any byte of an
    /// answer, and repeating does no harm (RFC 9110 section 9.2.2, RFC 9112 section 9.3.1).
    /// - Parameter bodyConsumed: whether any part of the request's body has been given away.
    public func isRetryable(method: RequestMethod, bodyConsumed: Bool) -> Bool {
        guard wasReused, !bytesReceived, !bodyConsumed, method.isIdempotent else { return false }
        switch cause.code {
        case .reset, .goingAway, .laneLost, .truncated: return true
        default: return false
        }
    }
}

/// Keeps connections between exchanges. Called on their event loop.
public protocol HTTPClientConnectionOwner: AnyObject {
    /// The exchange ended cleanly; the connection can be given another.
    func connectionBecameIdle(_ connection: HTTPClientConnection)
    /// The connection is gone: closed, broken or upgraded. Called once.
    func connectionEnded(_ connection: HTTPClientConnection)
}

/// The client's end of an HTTP/1.1 connection over any ``ByteTransport``. Event-loop bound: every member must be used on
/// the transport's loop.
public final class HTTPClientConnection: ByteTransportDelegate {
    /// The loop on which everything happens.
    public var eventLoop: any EventLoop { transport.eventLoop }
    /// Who keeps the connection while it is idle. Once it had an owner and that is gone, the connection closes when it becomes idle;
    /// without ever having had one it is its handler's.
    public weak var owner: (any HTTPClientConnectionOwner)? {
        didSet { wasOwned = wasOwned || owner != nil }
    }
    private var wasOwned = false
    /// False while more of the request waits than the transport wants to hold.
    public var isWritable: Bool { transport.isWritable }
    /// Whether a request can be sent.
    public var isIdle: Bool { machine.isIdle }
    /// When it last became idle; for its owner.
    public internal(set) var idleSince = NIODeadline.distantPast

    private let transport: any ByteTransport
    private var machine: HTTPClientConnectionStateMachine
    private var handler: (any HTTPClientHandler)?
    private let wheel: TimerWheel
    private var timer: WheelTimer?
    private var wait = Wait.none
    private var responseTimeout: TimeAmount?
    private let uploadTimeout: TimeAmount
    private let bodyTimeout: TimeAmount?
    /// The response is one that may be silent for as long as it likes.
    private var isEventStream = false
    private var isReading = true
    private var isChunked = false
    private var exchangeCount = 0
    private var isDispatching = false
    /// An informational response was dispatched.
    private var isInformed = false
    private var hasEnded = false

    /// Takes over a transport that has just connected.
    public init(transport: any ByteTransport, wheel: TimerWheel, limits: HTTPLimits = HTTPLimits()) {
        self.transport = transport
        self.wheel = wheel
        uploadTimeout = limits.bodyIdleTimeout
        bodyTimeout = limits.responseIdleTimeout
        machine = HTTPClientConnectionStateMachine(limits: limits)
        transport.delegate = self
    }

    // MARK: Sending

    /// Sends a request's head. The connection must be idle; otherwise the handler is told that it failed.
    /// - Parameters:
    ///   - head: the serialised head, up to and with its empty line, whose framing fields agree with `bodyLength`.
    ///   - bodyLength: what follows with ``write(_:)`` and ``finish(trailers:)``; a request with `.none` is complete.
    ///   - wantsUpgrade: whether a 101 is an answer.
    ///   - timeout: how long the upstream may take to answer once the request is complete; nil is for ever.
    public func send(
        head: ByteBuffer, method: RequestMethod, bodyLength: BodyLength, wantsUpgrade: Bool = false,
        timeout: TimeAmount? = nil, handler: any HTTPClientHandler
    ) {
        guard machine.isIdle, self.handler == nil else {
            return handler.clientFailed(
                HTTPClientFailure(
                    cause: TransportError(.reset, "The connection to the upstream was no longer usable"),
                    responseStarted: false,
                    bytesReceived: false, wasReused: exchangeCount > 0))
        }
        self.handler = handler
        isChunked = bodyLength == .unknown
        responseTimeout = timeout
        isEventStream = false
        exchangeCount += 1
        machine.requestBegan(method: method, wantsUpgrade: wantsUpgrade, isComplete: bodyLength == .none)
        transport.write(head)
        updateWait()
    }

    /// Sends a part of the request's body, in the framing the head announced.
    public func write(_ bytes: ByteBuffer) {
        guard machine.isActive, bytes.readableBytes > 0 else { return }
        if isChunked {
            BodyEncoder.writeChunk(bytes, to: transport)
        } else {
            transport.write(bytes)
        }
        // What is written while there is no room is no progress of the upstream's.
        updateWait(progress: transport.isWritable)
    }

    /// The request is complete.
    public func finish(trailers: HeaderBlock?) {
        guard machine.isActive else { return }
        if isChunked { BodyEncoder.writeLastChunk(trailers: trailers, to: transport) }
        machine.requestEnded()
        updateWait()
    }

    /// Back pressure on the response; initially `true` for each exchange.
    public func setReading(_ wanted: Bool) {
        isReading = wanted
        transport.setReading(wanted)
        updateWait()
    }

    /// Gives up the exchange and the connection with it; the handler hears no more.
    public func abort(_ reason: TransportError) {
        handler = nil
        end { $0.abort(reason) }
    }

    /// Closes an idle connection.
    public func close() { end { $0.close() } }

    // MARK: Receiving

    public func transportReceived(_ bytes: ByteBuffer) {
        machine.received(bytes)
        dispatch()
    }

    public func transportInputClosed() {
        machine.inputEnded(isTruncated: transport.isInputTruncated)
        dispatch()
    }

    public func transportClosed(_ error: TransportError?) {
        machine.inputEnded(isTruncated: transport.isInputTruncated)
        if error == nil { dispatch() }
        guard !hasEnded else { return }
        fail(error ?? TransportError(.reset, "The upstream closed the connection"))
    }

    public func transportWritabilityChanged(_ isWritable: Bool) {
        guard machine.isActive else { return }
        updateWait(progress: isWritable)
        handler?.clientWritabilityChanged(isWritable)
    }

    private func dispatch() {
        // A handler that sends the next request from within a call must not have its answer handled further up the stack.
        guard !isDispatching else { return }
        isDispatching = true
        while !hasEnded, let event = machine.next() { handle(event) }
        isDispatching = false
        updateWait(progress: wait == .body || isInformed)
        isInformed = false
    }

    private func handle(_ event: HTTPClientConnectionStateMachine.Event) {
        switch event {
        case .informational(let head):
            isInformed = true
            handler?.clientInformational(head)
        case .head(let head):
            isEventStream = head.fields.first(.contentType)?.isEventStream ?? false
            handler?.clientResponded(head)
        case .body(let bytes):
            handler?.clientReceived(bytes)
        case .end(let trailers, let reusable):
            let handler = self.handler
            self.handler = nil
            isReading = true
            transport.setReading(true)
            stopWaiting()
            if reusable, owner != nil || !wasOwned {
                owner?.connectionBecameIdle(self)
            } else {
                close()
            }
            handler?.clientEnded(trailers: trailers)
        case .upgraded(let head, let surplus):
            let handler = self.handler
            self.handler = nil
            hasEnded = true
            stopWaiting()
            transport.delegate = nil
            owner?.connectionEnded(self)
            let upgraded = surplus.readableBytes == 0 ? transport : PrefixedTransport(transport, prefix: surplus)
            handler?.clientUpgraded(head, transport: upgraded)
        case .failed(let error):
            fail(error)
        case .idleClosed:
            end { $0.close() }
        }
    }

    private func fail(_ error: TransportError) {
        let handler = self.handler
        self.handler = nil
        let failure = HTTPClientFailure(
            cause: error, responseStarted: machine.hasResponded, bytesReceived: machine.hasReceivedBytes,
            wasReused: exchangeCount > 1)
        end { $0.abort(error) }
        handler?.clientFailed(failure)
    }

    private func end(_ closing: (any ByteTransport) -> Void) {
        guard !hasEnded else { return }
        hasEnded = true
        machine.closed()
        stopWaiting()
        closing(transport)
        owner?.connectionEnded(self)
    }

    // MARK: Waiting

    /// What the upstream is being waited for.
    private enum Wait {
        case none
        /// To answer a complete request.
        case response
        /// To take more of the request.
        case upload
        /// To send more of the response; what it takes of the request counts as well.
        case body
    }

    private var wanted: (wait: Wait, time: TimeAmount) {
        guard machine.isActive else { return (.none, .zero) }
        if machine.hasResponded, isReading, !isEventStream, let bodyTimeout { return (.body, bodyTimeout) }
        if !machine.isRequestComplete { return transport.isWritable ? (.none, .zero) : (.upload, uploadTimeout) }
        if !machine.hasResponded, let responseTimeout { return (.response, responseTimeout) }
        return (.none, .zero)
    }

    /// - Parameter progress: whether the wait that goes on begins anew.
    private func updateWait(progress: Bool = false) {
        // Many events of one read are one piece of progress.
        guard !hasEnded, !isDispatching else { return }
        let (next, time) = wanted
        guard next != wait || (progress && next != .none) else { return }
        guard next != .none else { return stopWaiting() }
        wait = next
        let timer = timer ?? WheelTimer(wheel: wheel) { [weak self] in self?.waitedInVain() }
        self.timer = timer
        timer.start(after: time)
    }

    private func stopWaiting() {
        guard wait != .none else { return }
        wait = .none
        timer?.cancel()
    }

    private func waitedInVain() {
        let wait = wait
        self.wait = .none
        switch wait {
        case .none: break
        case .response: fail(TransportError(.idleTimeout, "The upstream did not answer in time"))
        case .upload: fail(TransportError(.idleTimeout, "The upstream stopped taking the request"))
        case .body: fail(TransportError(.idleTimeout, "The upstream stopped in the middle of its response"))
        }
    }
}

extension ByteBufferView {
    /// `text/event-stream`, with or without parameters.
    fileprivate var isEventStream: Bool {
        guard count >= 17, self[startIndex] | 0x20 == UInt8(ascii: "t") else { return false }
        let type = prefix { $0 != UInt8(ascii: ";") && $0 != 0x20 && $0 != 0x09 }
        return type.equalsIgnoringCase("text/event-stream")
    }
}
