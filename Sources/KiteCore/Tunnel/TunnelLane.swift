/// One connection between a gateway and an agent that carries many streams; it outlives the loss of its connection.
package import KiteHTTP
package import KiteSupport
package import NIOCore

/// What a lane allows and how patient it is.
package struct LaneConfiguration: Sendable {
    /// The most streams the peer may have open at a time.
    package var maximumStreams = 16_384
    /// The most bytes of credit one stream is given, in bytes; auto-tuning starts at ``TunnelWire/initialWindow``.
    package var maximumStreamWindow = 16 << 20
    /// What all streams of the lane may hold unconsumed before the one that holds most is reset, and what auto-tuning shares out, in bytes.
    package var receiveBudget = 64 << 20
    /// The same for all lanes that share it; a lane that holds little is spared.
    package var sharedBudget: SharedByteBudget?
    /// How much a stream queues before it stops being writable, in bytes.
    package var streamHighWater = 128 << 10
    /// The most bytes kept until the peer has acknowledged them; then no more data is sent. At least 1 MiB.
    package var resumeLogLimit = 32 << 20
    /// Time between pings, and how long an answer may take.
    package var pingInterval = TimeAmount.seconds(5)
    /// So many unanswered pings in a row and the connection counts as dead.
    package var pingMisses = 2
    /// How long a lane without connection waits to be resumed; zero: it is closed at once.
    package var resumeWindow = TimeAmount.seconds(30)

    package init() {}
}

/// What a lane has done so far.
package struct LaneStatistics: Sendable, Hashable {
    /// Streams open now, of both sides.
    package var openStreams = 0
    /// Streams opened since the lane began.
    package var openedStreams: UInt64 = 0
    /// Bytes of frames, both kinds, without replays.
    package var bytesReceived: UInt64 = 0
    package var bytesSent: UInt64 = 0
    /// The smoothed round-trip time; nil before the first PONG.
    package var roundTripTime: TimeAmount?
    /// How often the lane went on over a new connection.
    package var resumptions: UInt64 = 0

    package init() {}
}

/// Is told what happens on a lane, on the lane's event loop.
package protocol TunnelLaneDelegate: AnyObject {
    /// The peer opened a stream. Set its delegate before returning, or `abort` it with `.refused`.
    func laneAccepted(_ lane: TunnelLane, stream: TunnelStream, opening: StreamOpening)
    /// The peer will accept no more streams.
    func laneReceived(_ lane: TunnelLane, goAway: TunnelGoAway)
    /// A request passed (agent only, when asked for).
    func laneReceived(_ lane: TunnelLane, note: TunnelNote)
    /// The connection is lost; streams wait for ``TunnelLane/resume(over:peerReceived:received:)`` until the window ends.
    func laneSuspended(_ lane: TunnelLane, cause: TransportError)
    /// The last call. `error` is nil after ``TunnelLane/close()`` on this side or the peer's orderly end.
    func laneClosed(_ lane: TunnelLane, error: TransportError?)
}

/// Event-loop bound: every member must be used on ``eventLoop``.
package final class TunnelLane {
    /// Which end of the lane this is.
    package enum Role: Sendable { case gateway, agent }
    enum Phase { case connected, suspended, closed }

    package let eventLoop: any EventLoop
    /// Which end of the lane this is.
    package let role: Role
    let configuration: LaneConfiguration

    var phase = Phase.connected
    var transport: (any ByteTransport)?
    var delegate: (any TunnelLaneDelegate)?
    var machine = LaneStateMachine()
    var ours = StreamSlots()
    var theirs = StreamSlots()
    var counters = LaneStatistics()

    /// OPEN, CREDIT, RESET and GOAWAY that wait for the next flush.
    var control = ByteBuffer()
    var controlFrames = 0
    var notes = ByteBuffer()
    /// The streams with something to send, in the order in which they get their turn.
    var firstReady: TunnelStream?
    var lastReady: TunnelStream?
    /// Streams whose delegates are to be told something at the end of the turn.
    var deferred: [TunnelStream] = []
    /// Streams that were closed here and whose peer has not ended.
    var lingering: [TunnelStream] = []
    /// Streams that have ended on both sides with bytes that nobody has taken yet.
    var ended: [TunnelStream] = []
    /// Bytes that streams hold because nobody takes them.
    var bufferedBytes = 0
    /// By how much the windows of the open streams have grown in all.
    var windowGrowth = 0
    /// Large payloads of the round of writing under way; kept for its capacity.
    var splits: [Split] = []
    var isTurnEndAwaited = false
    var hasPausedReading = false
    var sentGoAway = false
    /// After a GOAWAY of ours: whether this side still opens streams.
    var staysUseful = false
    var receivedGoAway = false
    private var closeError: TransportError?
    let flusher: LoopFlusher
    private let wheel: TimerWheel
    private var pingTimer: WheelTimer?
    private var resumeTimer: WheelTimer?

    /// A large payload within a round of writing.
    struct Split {
        /// Where the bytes in front of it end, its frame's header included.
        var end: Int
        var payload: ByteBuffer
        /// Sequenced frames in front, its own included.
        var frames: Int
    }

    /// - Parameters:
    ///   - transport: The connection, after HELLO and WELCOME; the lane becomes its delegate.
    ///   - wheel: The loop's timers; those that all transports of the loop share where nil.
    ///   - received: Bytes that came with the handshake and belong to the lane.
    ///   - delegate: Held strongly until the lane has closed.
    package init(
        transport: any ByteTransport, role: Role, configuration: LaneConfiguration, wheel: TimerWheel? = nil,
        received: ByteBuffer? = nil, delegate: any TunnelLaneDelegate
    ) {
        eventLoop = transport.eventLoop
        self.role = role
        self.configuration = configuration
        self.delegate = delegate
        self.transport = transport
        flusher = LoopFlusher.on(transport.eventLoop)
        self.wheel = wheel ?? flusher.wheel
        pingTimer = WheelTimer(wheel: self.wheel) { [weak self] in self?.pingIntervalPassed() }
        resumeTimer = WheelTimer(wheel: self.wheel) { [weak self] in
            self?.finish(TransportError(.laneLost, "the agent did not come back in time"))
        }
        transport.delegate = self
        connected(received: received)
    }

    /// What the lane has done so far.
    package var statistics: LaneStatistics {
        var statistics = counters
        statistics.openStreams = streamCount
        statistics.roundTripTime = machine.roundTripTime
        return statistics
    }
    /// Streams open, of both sides.
    package var streamCount: Int { ours.count + theirs.count }
    /// Bytes that were sent and not acknowledged yet.
    package var unacknowledgedBytes: Int { machine.log.bytes }
    /// Whether ``openStream(_:)`` may be called: not closed, not going away, below the peer's limit.
    /// A suspended lane accepts streams; they wait for the connection.
    package var acceptsStreams: Bool {
        isOpenForOwn && ours.count < configuration.maximumStreams
    }
    /// Whether there is a connection.
    package var isConnected: Bool { phase == .connected }
    /// Whether the lane is over.
    package var isClosed: Bool { phase == .closed }
    /// How many sequenced frames have been received; said when resuming.
    package var receivedCount: UInt64 { machine.received }

    private var isOpenForOwn: Bool { phase != .closed && (!sentGoAway || staysUseful) && !receivedGoAway }

    /// Opens a stream; it can be written to at once.
    /// - Throws: `.goingAway`, `.laneLost` or `.limitExceeded`.
    package func openStream(_ opening: StreamOpening) throws(TransportError) -> TunnelStream {
        guard phase != .closed else { throw TransportError(.laneLost, "the lane is closed") }
        guard isOpenForOwn else { throw TransportError(.goingAway, "the lane takes no more streams") }
        guard let id = ours.nextID(openedByAgent: role == .agent, limit: configuration.maximumStreams) else {
            throw TransportError(.limitExceeded, "\(configuration.maximumStreams) streams are open on the lane")
        }
        let stream = TunnelStream(lane: self, id: id, remoteAddress: nil)
        ours.insert(stream)
        counters.openedStreams += 1
        sendControl(.open(id, opening))
        return stream
    }

    /// Tells the agent that a request has passed; dropped when the lane is busy.
    package func send(_ note: TunnelNote) {
        guard phase == .connected, firstReady == nil, notes.readableBytes < 8_192, transport?.isWritable == true else {
            return
        }
        notes.writeTunnelFrame(.note(note))
        awaitTurnEnd()
    }

    /// Tells the peer to open no more streams here, and an agent to go where the message says.
    /// - Parameter stayingUseful: whether streams may still be opened from this side, until ``close()``; otherwise the lane closes once the
    ///   last stream has ended.
    package func goAway(_ message: TunnelGoAway, stayingUseful: Bool = false) {
        guard phase != .closed, !sentGoAway else { return }
        sentGoAway = true
        staysUseful = stayingUseful
        sendControl(.goAway(message))
    }

    /// How ``close()`` says it. Peers of older versions send it with code 8 for streams that they have served, too.
    static let closing = "the lane is closed"

    /// Resets what runs with `.laneLost` (it may have been served, which `.goingAway` would deny), sends it and closes.
    package func close() {
        guard phase != .closed else { return }
        let reason = TransportError(.laneLost, "the lane was closed")
        for stream in ours.all + theirs.all { stream.abort(reason) }
        goAway(TunnelGoAway(reason: Self.closing))
        if let transport { flushRound(transport, isLast: true) }
        finish(nil)
    }

    /// Drops the connection and fails all streams with `reason`; not resumed.
    package func abort(_ reason: TransportError) {
        transport?.delegate = nil
        transport?.abort(reason)
        transport = nil
        finish(reason)
    }

    /// Drops the connection, as if it had been lost: the streams wait to be resumed. For tests and for a peer that has a new
    /// connection already.
    package func disconnect(_ cause: TransportError) {
        guard phase == .connected else { return }
        transport?.delegate = nil
        transport?.abort(cause)
        connectionLost(cause)
    }

    /// Goes on over a new connection, on the same event loop, after HELLO and WELCOME: replays what the peer has not seen. A
    /// connection that is still there is dropped.
    /// - Throws: `.laneLost` when the lane is closed, `.protocolViolation` when `peerReceived` can't be.
    package func resume(
        over transport: any ByteTransport, peerReceived: UInt64, received: ByteBuffer? = nil
    ) throws(TransportError) {
        guard phase != .closed else { throw TransportError(.laneLost, "the lane is closed") }
        if let old = self.transport {
            old.delegate = nil
            old.abort(TransportError(.cancelled, "the lane has a new connection"))
            self.transport = nil
        }
        let replay: [ByteBuffer]
        do { replay = try machine.reconnect(peerReceived: peerReceived) } catch {
            finish(error)
            throw error
        }
        resumeTimer?.cancel()
        phase = .connected
        hasPausedReading = false
        self.transport = transport
        transport.delegate = self
        for buffer in replay { transport.write(buffer) }
        counters.resumptions += 1
        connected(received: received)
    }

    /// Whether the peer can have received so many frames and those after them are still there.
    func mayResume(peerReceived: UInt64) -> Bool {
        peerReceived >= machine.log.acknowledged && peerReceived <= machine.log.sent
    }

    // MARK: the connection's life

    private func connected(received: ByteBuffer?) {
        // Dead after so many unanswered pings, the first of which is sent now: it measures the round trip, too.
        pingIntervalPassed()
        if let received, received.readableBytes > 0 { transportReceived(received) }
    }

    private func pingIntervalPassed() {
        guard phase == .connected else { return }
        switch machine.tick(now: eventLoop.now, misses: configuration.pingMisses) {
        case .send:
            sweepLingering()
            awaitTurnEnd()
            pingTimer?.start(after: machine.pause(interval: configuration.pingInterval))
        case .dead:
            disconnect(TransportError(.idleTimeout, "the peer did not answer \(configuration.pingMisses) pings"))
        }
    }

    /// The connection is gone without a word.
    func connectionLost(_ cause: TransportError) {
        guard phase == .connected else { return }
        transport = nil
        machine.disconnect()
        pingTimer?.cancel()
        if sentGoAway || receivedGoAway, streamCount == 0 { return finish(nil) }
        guard configuration.resumeWindow > .zero else {
            return finish(TransportError(.laneLost, "the lane was lost: \(cause.message)"))
        }
        phase = .suspended
        resumeTimer?.start(after: configuration.resumeWindow)
        delegate?.laneSuspended(self, cause: cause)
    }

    /// The end: tells everyone, at the end of the turn.
    func finish(_ error: TransportError?) {
        guard phase != .closed else { return }
        phase = .closed
        closeError = error
        pingTimer?.cancel()
        resumeTimer?.cancel()
        if let transport {
            transport.delegate = nil
            transport.close()
        }
        transport = nil
        machine.log.clear()
        control = ByteBuffer()
        while popReady() != nil {}
        let cause = error.map { $0.code == .laneLost ? $0 : TransportError(.laneLost, $0.message) }
        for stream in ours.all + theirs.all {
            stream.laneEnded(cause ?? TransportError(.laneLost, "the lane was closed"))
        }
        ours = StreamSlots()
        theirs = StreamSlots()
        lingering = []
        ended = []
        awaitTurnEnd()
    }

    /// The last call to the delegate.
    func tellClosed() {
        guard phase == .closed, let delegate else { return }
        self.delegate = nil
        delegate.laneClosed(self, error: closeError)
    }
}
