/// The visitor's side of HTTP/1.1: reads requests from a transport and lets an acceptor answer them.
public import KiteSupport
public import NIOCore

/// What the HTTP connections of one event loop share. Used on that loop only.
public final class HTTPLoopResources {
    /// The wheel for all deadlines of the loop.
    public let wheel: TimerWheel
    /// Told of each request that the engine itself refuses, before the exchange, if there is one already, is told that it ended.
    public var onRefusal: ((HTTPError, ExchangePeer, (any Exchange)?) -> Void)?
    /// The `Date` field.
    var date = DateField()
    /// Storage for the index of a head, lent to connections while they are busy.
    private var spareStorage: [[HeaderBlock.Entry]] = []

    public init(wheel: TimerWheel) { self.wheel = wheel }

    /// The value of the `Date` field for now.
    package var currentDate: String { date.currentValue() }

    /// With a wheel of its own.
    public convenience init(eventLoop: any EventLoop) { self.init(wheel: TimerWheel(eventLoop: eventLoop)) }

    func takeStorage() -> [HeaderBlock.Entry] { spareStorage.popLast() ?? [] }

    func give(_ storage: [HeaderBlock.Entry]) {
        if storage.capacity > 0, storage.capacity <= 128, spareStorage.count < 32 { spareStorage.append(storage) }
    }
}

/// One visitor's connection: makes an ``Exchange`` of each request, keeps order, keep-alive, deadlines and back pressure.
///
/// Every member must be used on the transport's event loop. The transport holds the connection as its delegate, so nobody
/// else needs to.
public final class HTTPServerConnection: ByteTransportDelegate {
    /// How the connection came to its end.
    public enum Ending {
        /// The transport closed; the error is nil after an orderly close.
        case closed(TransportError?)
        /// An exchange took the transport over with ``Exchange/upgrade(_:)``.
        case upgraded
    }

    let transport: any ByteTransport
    private let acceptor: any ExchangeAcceptor
    private let peer: ExchangePeer
    private let resources: HTTPLoopResources
    private var onClosed: ((HTTPServerConnection, Ending) -> Void)?

    private var machine: HTTPServerConnectionStateMachine
    private var exchange: ServerExchange?
    /// The last exchange, to be used again if nobody kept it.
    private var spare: ServerExchange?
    private var timer: WheelTimer?
    private var armed = HTTPServerConnectionStateMachine.Deadline.none
    private var hasProgress = false
    private var isPumping = false
    private var isReading = true
    private var isOver = false
    private var hasStorage = false
    /// While draining: how long an idle connection waits for one more request.
    private var lastRequestTime: TimeAmount?

    /// Takes over a transport: becomes its delegate and serves what arrives.
    /// - Parameters:
    ///   - acceptor: answers the exchanges.
    ///   - peer: what exchanges say of the visitor.
    ///   - resources: those of the transport's loop.
    ///   - onClosed: called once, on the loop.
    @discardableResult
    public init(
        transport: any ByteTransport, acceptor: any ExchangeAcceptor, limits: HTTPLimits = HTTPLimits(),
        peer: ExchangePeer, resources: HTTPLoopResources,
        onClosed: ((HTTPServerConnection, Ending) -> Void)? = nil
    ) {
        self.transport = transport
        self.acceptor = acceptor
        self.peer = peer
        self.resources = resources
        self.onClosed = onClosed
        machine = HTTPServerConnectionStateMachine(limits: limits)
        timer = WheelTimer(wheel: resources.wheel) { [weak self] in self?.deadlinePassed() }
        updateDeadline()
        transport.delegate = self
    }

    /// Graceful shutdown: finishes what is going on, then closes. The response says `Connection: close`.
    /// - Parameter idleTime: how long a connection that is at rest waits for one more request, so that a visitor who is about to send
    ///   one meets no closed connection; nil: it closes at once.
    public func drain(idleTime: TimeAmount? = nil) {
        guard !isOver else { return }
        perform(machine.drain(closingIdle: idleTime == nil))
        lastRequestTime = idleTime
        hasProgress = true
        settle()
    }

    /// Whether no request is going on.
    public var isIdle: Bool { machine.isIdle }

    // MARK: The transport

    public func transportReceived(_ bytes: ByteBuffer) {
        guard !isOver, bytes.readableBytes > 0 else { return }
        if !hasStorage {
            hasStorage = true
            _ = machine.exchangeStorage(resources.takeStorage())
        }
        machine.received(bytes)
        pump()
    }

    public func transportInputClosed() {
        guard !isOver else { return }
        let hadRequest = machine.hasWholeRequest
        machine.inputClosed()
        if hadRequest, let exchange { exchange.handler?.exchangeInputClosed(exchange) }
        pump()
    }

    public func transportWritabilityChanged(_ isWritable: Bool) {
        guard !isOver else { return }
        if let exchange { exchange.handler?.exchangeWritabilityChanged(exchange, isWritable: isWritable) }
        updateDeadline()
    }

    public func transportClosed(_ error: TransportError?) {
        guard !isOver else { return }
        machine.over()
        endExchange(error ?? TransportError(.cancelled, "The visitor went away."))
        end(.closed(error))
    }

    private func end(_ ending: Ending) {
        guard !isOver else { return }
        isOver = true
        machine.over()
        timer?.cancel()
        timer = nil
        spare = nil
        let callback = onClosed
        onClosed = nil
        callback?(self, ending)
    }

    // MARK: The machine

    private func pump() {
        guard !isPumping, !isOver else { return }
        isPumping = true
        loop: while !isOver {
            let action = machine.next()
            if case .none = action { break loop }
            perform(action)
        }
        isPumping = false
        settle()
    }

    /// Brings reading, deadline and memory in line with the machine after it moved.
    private func settle() {
        guard !isOver, !isPumping else { return }
        if machine.wantsInput != isReading {
            isReading.toggle()
            transport.setReading(isReading)
        }
        if hasStorage, machine.isIdle {
            hasStorage = false
            resources.give(machine.exchangeStorage([]))
        }
        updateDeadline()
    }

    private func perform(_ action: HTTPServerConnectionStateMachine.Action) {
        switch action {
        case .none: break
        case .accept(let head):
            hasProgress = true
            accept(head)
        case .body(let bytes):
            hasProgress = true
            if let exchange { exchange.handler?.exchangeReceived(exchange, body: bytes) }
        case .requestEnded(let trailers):
            hasProgress = true
            if let exchange { exchange.handler?.exchangeRequestEnded(exchange, trailers: trailers) }
            if machine.isInputClosed, let exchange { exchange.handler?.exchangeInputClosed(exchange) }
        case .sendContinue:
            transport.write(Self.continueLine)
        case .refuse(let error, let request):
            resources.onRefusal?(error, peer, nil)
            writeRefusal(error, request: request)
            linger()
        case .refuseExchange(let error):
            resources.onRefusal?(error, peer, exchange)
            writeRefusal(error, request: exchange?.request)
            linger()
            let code: TransportError.Code =
                switch error.code {
                case .slowBody: .idleTimeout
                case .bodyTooLarge: .limitExceeded
                default: .protocolViolation
                }
            endExchange(TransportError(code, error.message))
        case .abort(let reason):
            abort(reason)
        case .linger: linger()
        case .close: transport.close()
        }
    }

    private static let continueLine = ByteBuffer(string: "HTTP/1.1 100 Continue\r\n\r\n")

    private func accept(_ head: RequestHead) {
        let exchange: ServerExchange
        if spare != nil, isKnownUniquelyReferenced(&spare), let reused = spare {
            exchange = reused
            exchange.begin(head, self)
        } else {
            exchange = ServerExchange(head, peer, self)
        }
        spare = nil
        self.exchange = exchange
        acceptor.accept(exchange)
        if exchange.handler == nil, self.exchange === exchange, machine.mayRefuse {
            exchange.refuse(status: 503, reason: "Nothing answers this request here.")
        }
    }

    private func writeRefusal(_ error: HTTPError, request: RequestHead?) {
        let (head, body) = Refusal(error.status, error.message).response(to: request)
        let method = request?.method ?? (machine.beginsAsHead ? .head : .get)
        write(head, method: method, isChunked: false, connection: .close, body: method == .head ? nil : body)
    }

    private func write(
        _ head: ResponseHead, method: RequestMethod, isChunked: Bool, connection: MessageWriter.ConnectionOption,
        body: ByteBuffer? = nil
    ) {
        var buffer = ByteBuffer()
        MessageWriter.writeResponse(
            head, method: method, isChunked: isChunked, connection: connection,
            date: head.status < 200 ? ByteBuffer() : resources.date.current(), into: &buffer)
        if let body { buffer.writeImmutableBuffer(body) }
        transport.write(buffer)
    }

    /// The visitor must be able to read the last response before the connection goes: our side closes first, then what it
    /// still sends is dropped for a while.
    private func linger() {
        let action = machine.linger()
        if case .close = action {
            perform(action)
        } else {
            transport.closeOutput()
        }
    }

    private func abort(_ reason: TransportError) {
        machine.over()
        endExchange(reason)
        transport.abort(reason)
    }

    /// Tells the handler. The object is used again for the next request if nobody holds it any more by then.
    private func endExchange(_ error: TransportError?) {
        guard let ended = exchange else { return }
        exchange = nil
        ended.end(error)
        guard !isOver else { return }
        ended.forget()
        spare = ended
    }

    // MARK: Deadlines

    private func updateDeadline() {
        guard !isOver, let timer else { return }
        let isWritable = transport.isWritable
        let wanted = machine.deadline(isWritable: isWritable)
        guard wanted != armed || hasProgress else { return }
        hasProgress = false
        armed = wanted
        guard var time = machine.time(for: wanted) else { return timer.cancel() }
        if wanted == .keepAlive, let lastRequestTime { time = min(time, lastRequestTime) }
        timer.start(after: time)
    }

    private func deadlinePassed() {
        guard !isOver else { return }
        let passed = armed
        armed = .none
        perform(machine.expired(passed))
        settle()
    }

    // MARK: What the exchange asks for

    func sendInformational(_ head: ResponseHead) {
        guard machine.mayInform(head.status) else { return }
        write(head, method: .get, isChunked: false, connection: .persist)
    }

    func respond(_ head: ResponseHead, method: RequestMethod, minorVersion: UInt8) {
        switch machine.respond(head) {
        case .write(let framing, let isKeepAlive):
            let connection: MessageWriter.ConnectionOption =
                isKeepAlive ? (minorVersion > 0 ? .persist : .keepAlive) : .close
            write(head, method: method, isChunked: framing == .chunked, connection: connection)
            wroteToHalfClosed()
        case .ignore: break
        case .abort(let reason): abort(reason)
        }
    }

    func write(_ bytes: ByteBuffer) {
        guard bytes.readableBytes > 0 else { return }
        switch machine.write(bytes.readableBytes) {
        case .plain: transport.write(bytes)
        case .chunked: BodyEncoder.writeChunk(bytes, to: transport)
        case .ignore: return
        case .abort(let reason): return abort(reason)
        }
        wroteToHalfClosed()
    }

    /// A visitor that closed its sending side is believed to be there for as long as its response flows and it takes that.
    private func wroteToHalfClosed() {
        guard machine.isInputClosed else { return }
        hasProgress = transport.isWritable
        updateDeadline()
    }

    func finish(trailers: HeaderBlock?) {
        switch machine.finish() {
        case .end(let isChunked, let action):
            if isChunked { BodyEncoder.writeLastChunk(trailers: trailers, to: transport) }
            endExchange(nil)
            perform(action)
            pump()
        case .ignore: break
        case .abort(let reason): abort(reason)
        }
    }

    func upgrade(_ head: ResponseHead) -> (any ByteTransport)? {
        guard !isOver, machine.hasExchange else { return nil }
        guard let surplus = machine.upgrade() else {
            abort(TransportError(.protocolViolation, "The request cannot be upgraded."))
            return nil
        }
        var head = head
        head.status = 101
        write(head, method: .get, isChunked: false, connection: .upgrade)
        transport.delegate = nil
        let ended = exchange
        exchange = nil
        ended?.leave()
        if !isReading { transport.setReading(true) }
        end(.upgraded)
        return surplus.readableBytes > 0 ? PrefixedTransport(transport, prefix: surplus) : transport
    }

    func abortExchange(_ reason: TransportError) { abort(reason) }

    func setReading(_ wanted: Bool) {
        let hasMore = machine.setBodyWanted(wanted)
        guard !isPumping, !isOver else { return }
        if hasMore {
            // Not from here: the handler is in the middle of something.
            transport.eventLoop.assumeIsolated().execute { self.pump() }
        } else {
            settle()
        }
    }
}
