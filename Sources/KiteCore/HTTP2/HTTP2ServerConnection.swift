/// The visitor's side of HTTP/2: makes an exchange of each stream of a connection.
package import KiteHTTP
import KiteSupport
import NIOCore
import NIOHPACK
import NIOHTTP2

/// One visitor's HTTP/2 connection (RFC 9113). Frames, HPACK and the states of streams are NIOHTTP2's business; this is what the frames
/// mean.
///
/// Every member must be used on the channel's event loop. The channel holds the connection, so nobody else needs to.
package final class HTTP2ServerConnection: LoopFlushable {
    let eventLoop: any EventLoop
    let peer: ExchangePeer
    let limits: HTTPLimits
    let http2: HTTP2Limits
    let resources: HTTPLoopResources
    private let acceptor: any ExchangeAcceptor
    private let translator: RequestTranslator
    private let onFault: (HTTP2Fault, String) -> Void
    private var onClosed: ((HTTP2ServerConnection) -> Void)?
    private let flusher: LoopFlusher
    private let gatherer = FrameGatherer()

    private var context: ChannelHandlerContext?
    private var streams: [HTTP2StreamID: HTTP2Stream] = [:]
    /// Streams that have something to do when the turn ends.
    private var listed: [HTTP2Stream] = []
    private var isListed = false
    private var needsFlush = false
    var window: ReceiveWindow
    private var budget: FrameBudget
    /// The highest stream that was looked at.
    private var lastStreamID = HTTP2StreamID.rootStream
    private var isDraining = false
    /// The connection closes: nothing that still comes counts.
    private var isClosing = false
    private var isOver = false
    /// NIOHTTP2 has sent a GOAWAY on its own account; the error follows.
    private var hasFailed = false
    private var timer: WheelTimer?
    /// Cleared for visitors that want a table of header fields larger than is worth searching for each field.
    private var indexesFields = true
    private static let largestFieldTable = 64 << 10

    /// Makes an accepted channel an HTTP/2 connection.
    /// - Parameters:
    ///   - transport: a connection through which nothing has come yet; it is of no more use.
    ///   - onFault: told of what the visitor does wrong.
    ///   - onClosed: called once, on the loop.
    package static func install(
        on transport: SocketTransport, acceptor: any ExchangeAcceptor, limits: HTTPLimits, http2: HTTP2Limits,
        peer: ExchangePeer, resources: HTTPLoopResources, onFault: @escaping (HTTP2Fault, String) -> Void,
        onClosed: @escaping (HTTP2ServerConnection) -> Void
    ) throws -> HTTP2ServerConnection {
        let channel = transport.leaveChannel()
        let connection = HTTP2ServerConnection(
            channel.eventLoop, acceptor, limits, http2, peer, resources, onFault, onClosed)
        let pipeline = channel.pipeline.syncOperations
        do {
            try pipeline.addHandlers([
                connection.gatherer, connection.makeFrameHandler(), HTTP2ConnectionHandler(connection),
            ])
        } catch {
            channel.close(promise: nil)
            throw error
        }
        return connection
    }

    private init(
        _ eventLoop: any EventLoop, _ acceptor: any ExchangeAcceptor, _ limits: HTTPLimits, _ http2: HTTP2Limits,
        _ peer: ExchangePeer, _ resources: HTTPLoopResources, _ onFault: @escaping (HTTP2Fault, String) -> Void,
        _ onClosed: @escaping (HTTP2ServerConnection) -> Void
    ) {
        self.eventLoop = eventLoop
        self.acceptor = acceptor
        self.limits = limits
        self.http2 = http2
        self.peer = peer
        self.resources = resources
        self.onFault = onFault
        self.onClosed = onClosed
        translator = RequestTranslator(limits: limits)
        flusher = LoopFlusher.on(eventLoop)
        window = ReceiveWindow(window: 65535, target: http2.connectionWindow, fullTarget: http2.connectionWindow)
        budget = FrameBudget(http2)
        timer = WheelTimer(wheel: resources.wheel) { [weak self] in self?.timePassed() }
        timer?.start(after: limits.keepAliveTimeout)
    }

    private func makeFrameHandler() -> NIOHTTP2Handler {
        var connection = NIOHTTP2Handler.ConnectionConfiguration()
        connection.initialSettings = [
            HTTP2Setting(parameter: .maxConcurrentStreams, value: http2.concurrentStreams),
            HTTP2Setting(parameter: .initialWindowSize, value: http2.initialStreamWindow),
            // Heads that are too large for us are still read, so that they can be answered; what is larger yet is not.
            HTTP2Setting(parameter: .maxHeaderListSize, value: limits.headBytes * 2),
            HTTP2Setting(parameter: .enableConnectProtocol, value: 1),
        ]
        // Both are done here, with answers where an answer is better than a reset.
        connection.headerBlockValidation = .disabled
        connection.contentLengthValidation = .disabled
        connection.maximumSequentialEmptyDataFrames = http2.emptyDataFrames
        connection.maximumBufferedControlFrames = http2.bufferedControlFrames
        connection.maximumSequentialContinuationFrames = http2.continuationFrames
        // So many streams may have data on its way to us after we reset them.
        connection.maximumRecentlyResetStreams = http2.concurrentStreams * 2
        connection.controlFrameRateLimit.maximumCount = http2.controlFrames
        connection.controlFrameRateLimit.windowLength = http2.floodTime
        var stream = NIOHTTP2Handler.StreamConfiguration()
        stream.streamResetFrameRateLimit.maximumCount = http2.resets
        stream.streamResetFrameRateLimit.windowLength = http2.floodTime
        stream.streamErrorRateLimit.maximumCount = http2.malformedRequests
        stream.streamErrorRateLimit.windowLength = http2.floodTime
        return NIOHTTP2Handler(
            mode: .server, frameDelegate: WrittenFrames(self), connectionConfiguration: connection,
            streamConfiguration: stream)
    }

    /// Graceful shutdown (RFC 9113 section 6.8): says which streams are still answered, answers them and closes.
    package func drain() {
        guard !isDraining, !isClosing else { return }
        isDraining = true
        if streams.isEmpty { return finish(.noError) }
        write(.goAway(lastStreamID: lastStreamID, errorCode: .noError, opaqueData: nil), on: .rootStream)
    }

    /// Streams that are open.
    package var streamCount: Int { streams.count }

    // MARK: Frames

    func added(_ context: ChannelHandlerContext) {
        self.context = context
        openConnectionWindow()
    }

    func received(_ frame: HTTP2Frame) {
        guard !isClosing else { return }
        switch frame.payload {
        case .headers(let fields):
            if let stream = streams[frame.streamID] {
                receivedTrailers(fields, on: stream)
            } else {
                open(frame.streamID, fields)
            }
        case .data(let data):
            guard case .byteBuffer(let bytes) = data.data else { return }
            streams[frame.streamID]?.received(bytes, endsStream: data.endStream)
        case .windowUpdate:
            if let fault = budget.receivedWindowUpdate(now: now) { cutOff(fault, "too many WINDOW_UPDATE frames") }
        case .settings(.settings(let settings)):
            // NIOHTTP2 lets its table grow to whatever is asked for; what is not put there takes neither room nor time.
            if settings.contains(where: { $0.parameter == .headerTableSize && $0.value > Self.largestFieldTable }) {
                indexesFields = false
            }
        case .priority, .rstStream, .settings, .pushPromise, .ping, .goAway, .alternativeService, .origin: break
        }
    }

    private var now: Int64 { Int64(clamping: eventLoop.now.uptimeNanoseconds) }

    private func open(_ id: HTTP2StreamID, _ fields: HTTP2Frame.FramePayload.Headers) {
        lastStreamID = max(lastStreamID, id)
        guard streams.count < http2.concurrentStreams else {
            onFault(.tooManyStreams, "more than \(http2.concurrentStreams) streams")
            if budget.receivedMalformedRequest(now: now) != nil { return finish(.enhanceYourCalm) }
            return write(.rstStream(.refusedStream), on: id)
        }
        let request: RequestTranslator.Request
        do {
            request = try translator.translate(fields.headers, isEnded: fields.endStream, isSecure: peer.isSecure)
        } catch {
            switch error {
            case .malformed(let why):
                noteMalformed(why)
                if !isClosing { write(.rstStream(.protocolError), on: id) }
            case .refused(let error): refuse(error, id, isEnded: fields.endStream)
            }
            return
        }
        if streams.isEmpty { timer?.cancel() }
        let stream = HTTP2Stream(id, request, isEnded: fields.endStream, connection: self)
        streams[id] = stream
        acceptor.accept(stream)
        if stream.handler == nil, !stream.isEnded {
            stream.refuse(status: 503, reason: "Nothing answers this request here.")
        }
        stream.began()
    }

    private func receivedTrailers(_ fields: HTTP2Frame.FramePayload.Headers, on stream: HTTP2Stream) {
        do {
            guard fields.endStream else { throw RequestFault.malformed("Trailers that do not end the stream.") }
            stream.received(trailers: try translator.trailers(fields.headers))
        } catch {
            let why =
                switch error as? RequestFault {
                case .malformed(let why): why
                case .refused(let error): error.message
                case nil: "Trailers are malformed."
                }
            noteMalformed(why)
            stream.abort(TransportError(.protocolViolation, why))
        }
    }

    /// Answers a head that could not be made a request.
    private func refuse(_ error: HTTPError, _ id: HTTP2StreamID, isEnded: Bool) {
        resources.onRefusal?(error, peer, nil)
        let (head, body) = Refusal(error.status, error.message).response(to: nil)
        write(
            .headers(
                .init(
                    headers: ResponseTranslator.translate(head, method: .get, date: resources.currentDate),
                    endStream: false)), on: id)
        write(.data(.init(data: .byteBuffer(body), endStream: true)), on: id)
        // What would follow is of no use.
        if !isEnded {
            context?.flush()
            write(.rstStream(.noError), on: id)
        }
    }

    /// Counts a request that breaks HTTP/2.
    func noteMalformed(_ why: String) {
        onFault(.malformedRequest, why)
        if let fault = budget.receivedMalformedRequest(now: now) { cutOff(fault, "too many malformed requests") }
    }

    // MARK: What NIOHTTP2 reports

    func happened(_ event: Any) {
        switch event {
        case let event as NIOHTTP2WindowUpdatedEvent:
            guard let size = event.inboundWindowSize else { return }
            if event.streamID == .rootStream {
                window.changed(to: size)
                openConnectionWindow()
            } else if let stream = streams[event.streamID] {
                stream.window.changed(to: size)
                openWindow(of: stream)
            }
        case let event as NIOHTTP2StreamCreatedEvent:
            if let size = event.remoteInitialWindowSize { streams[event.streamID]?.window.changed(to: Int(size)) }
        case let event as StreamClosedEvent: streamClosed(event.streamID, event.reason)
        default: break
        }
    }

    private func streamClosed(_ id: HTTP2StreamID, _ reason: HTTP2ErrorCode?) {
        guard let stream = streams.removeValue(forKey: id) else { return }
        stream.closed(reason.map { TransportError(.cancelled, "The visitor reset the stream (\($0)).") })
        guard streams.isEmpty, !isClosing else { return }
        if isDraining { finish(.noError) } else { timer?.start(after: limits.keepAliveTimeout) }
    }

    /// NIOHTTP2 has written a frame.
    func wrote(_ frame: HTTP2Frame) {
        switch frame.payload {
        case .data(let data):
            budget.sentData()
            streams[frame.streamID]?.wrote(data.data.readableBytes, endsStream: data.endStream)
        case .headers(let fields):
            if fields.endStream { streams[frame.streamID]?.wrote(0, endsStream: true) }
        case .goAway(_, let code, _):
            if code != .noError { hasFailed = true }
        case .rstStream(.protocolError):
            if let stream = streams[frame.streamID], !stream.isReset, !stream.machine.isInputOpen {
                gatherer.correctsReset = true
            }
        default: break
        }
    }

    func failed(_ error: any Error) {
        guard !isOver else { return }
        if error is NIOHTTP2Errors.RaisedGoawayLastStreamID {
            // While draining, NIOHTTP2 cannot say goodbye for the error that follows at once.
            hasFailed = true
            return
        }
        guard hasFailed || !(error is any NIOHTTP2Error) else {
            // The stream that it is about has been reset, or does not exist any more.
            return
        }
        if hasFailed, !isClosing { onFault(HTTP2Fault(error), "\(type(of: error))") }
        close(TransportError(.reset, "The visitor's connection broke: \(error)"))
    }

    func becameInactive() {
        guard !isOver else { return }
        isOver = true
        isClosing = true
        timer?.cancel()
        timer = nil
        endStreams(TransportError(.cancelled, "The visitor went away."))
        context = nil
        let callback = onClosed
        onClosed = nil
        callback?(self)
    }

    // MARK: The end

    /// Nothing happened for too long.
    private func timePassed() {
        guard let context, !isOver else { return }
        if isClosing { return context.close(promise: nil) }
        finish(.noError)
    }

    /// The visitor misuses the connection.
    private func cutOff(_ fault: HTTP2Fault, _ detail: String) {
        guard !isClosing else { return }
        onFault(fault, detail)
        finish(.enhanceYourCalm)
    }

    /// Says goodbye and closes once that has left.
    private func finish(_ code: HTTP2ErrorCode) {
        guard !isClosing, let context else { return }
        isClosing = true
        let frame = HTTP2Frame(
            streamID: .rootStream,
            payload: .goAway(lastStreamID: lastStreamID, errorCode: code, opaqueData: nil))
        endStreams(TransportError(.cancelled, "The connection was closed."))
        let promise = eventLoop.makePromise(of: Void.self)
        promise.futureResult.assumeIsolated().whenComplete { _ in self.context?.close(promise: nil) }
        context.writeAndFlush(NIOAny(frame), promise: promise)
        timer?.start(after: limits.stalledWriteTimeout)
    }

    /// Closes without a word.
    func close(_ reason: TransportError) {
        guard !isOver else { return }
        isClosing = true
        endStreams(reason)
        context?.close(promise: nil)
    }

    private func endStreams(_ reason: TransportError) {
        let open = streams.values
        streams = [:]
        for stream in open { stream.closed(reason) }
    }

    // MARK: What streams ask for

    /// Up to how many bytes each stream may have waiting.
    var outputMark: Int { max(8 << 10, min(http2.streamOutput, http2.connectionOutput / max(streams.count, 1))) }

    func write(_ headers: HPACKHeaders, endsStream: Bool, of stream: HTTP2Stream) {
        write(.headers(.init(headers: headers, endStream: endsStream)), on: stream.id)
    }

    func write(_ bytes: ByteBuffer, endsStream: Bool, of stream: HTTP2Stream) {
        write(.data(.init(data: .byteBuffer(bytes), endStream: endsStream)), on: stream.id)
    }

    func reset(_ stream: HTTP2Stream, _ code: HTTP2ErrorCode) {
        guard streams[stream.id] === stream, !stream.isReset else { return }
        stream.isReset = true
        write(.rstStream(code), on: stream.id)
    }

    func openWindow(of stream: HTTP2Stream) {
        guard !isClosing else { return }
        if stream.machine.isInputOpen {
            let increment = stream.window.increment()
            if increment > 0 { write(.windowUpdate(windowSizeIncrement: increment), on: stream.id) }
        }
        openConnectionWindow()
    }

    private func openConnectionWindow() {
        guard !isClosing else { return }
        let increment = window.increment()
        if increment > 0 { write(.windowUpdate(windowSizeIncrement: increment), on: .rootStream) }
    }

    private func write(_ payload: HTTP2Frame.FramePayload, on id: HTTP2StreamID) {
        guard let context, !isOver else { return }
        var payload = payload
        if !indexesFields, case .headers(var fields) = payload {
            fields.headers = ResponseTranslator.unindexed(fields.headers)
            payload = .headers(fields)
        }
        context.write(NIOAny(HTTP2Frame(streamID: id, payload: payload)), promise: nil)
        needsFlush = true
        enlist()
    }

    /// Has ``HTTP2Stream/turnEnded()`` called.
    func list(_ stream: HTTP2Stream) {
        guard !stream.isListed else { return }
        stream.isListed = true
        listed.append(stream)
        enlist()
    }

    private func enlist() {
        guard !isListed else { return }
        isListed = true
        flusher.add(self)
    }

    package func turnEnded() {
        isListed = false
        let streams = listed
        listed.removeAll(keepingCapacity: streams.count <= 256)
        for stream in streams {
            stream.isListed = false
            stream.turnEnded()
        }
        guard needsFlush else { return }
        needsFlush = false
        context?.flush()
    }
}
