/// One SockJS session: the shell around its state machine, between the receivers that carry its frames and the channel its user holds.
import KiteHTTP
import KiteSupport
import NIOCore

/// Carries a session's frames to the client: a response, or a WebSocket. Lives on the loop of its exchange, which need not be the session's.
protocol SockJSReceiver: AnyObject {
    /// Sends one frame, then tells the session what became of it: ``SockJSSession/acknowledged(_:)`` once there is room for more,
    /// ``SockJSSession/finished(_:)`` when the receiver has ended with it.
    func send(_ frame: SockJSFrame)
    /// Sends one frame and ends; the session doesn't know this receiver.
    func refuse(_ frame: SockJSFrame)
    /// The client's messages can be taken again, or not for now. For receivers that also bring messages.
    func setReading(_ wanted: Bool)
    /// The session was closed a while ago and this receiver has not taken all that was queued. Called again and again; breaks off when the
    /// client has taken nothing since the last time.
    func closeIsLate()
}

/// A receiver as its session knows it.
struct SockJSReceiverReference: Sendable {
    let id: SockJSSessionStateMachine.ReceiverID
    let receiver: LoopReference<any SockJSReceiver>
}

/// What became of messages that a client sent.
enum SockJSDelivery: Sendable {
    case accepted
    /// The session is over.
    case noSession
    /// Too many senders wait already.
    case busy
}

/// Event-loop bound: every member must be used on the loop it was made on.
final class SockJSSession: MessageChannelOwner {
    /// How many requests with messages may wait for room in a session.
    private static let maxWaitingSenders = 16

    private struct WaitingSender {
        var messages: [ByteBuffer]
        var completion: @Sendable (SockJSDelivery) -> Void
    }

    let eventLoop: any EventLoop
    let channel: QueuedMessageChannel
    private let options: SockJSOptions
    private var machine: SockJSSessionStateMachine
    private var receiver: SockJSReceiverReference?
    private var waiting: [WaitingSender] = []
    private var receiverIsPaused = false
    private var isFlushing = false
    private var heartbeatTimer: WheelTimer?
    private var disconnectTimer: WheelTimer?
    /// Runs while this side has closed the session and a receiver has not taken what is queued.
    private var closeTimer: WheelTimer?
    /// The client has sent a message.
    private var hasReceived = false
    private let isSpaceShort: () -> Bool
    private var onOpen: ((any MessageChannel) -> Void)?
    private var onEnd: (() -> Void)?

    /// - Parameters:
    ///   - endsWithReceiver: true for a WebSocket.
    ///   - isSpaceShort: whether sessions in which nothing happens should give way to others.
    ///   - onOpen: called once when the first receiver has been told that the session is open.
    ///   - onEnd: called once when the session is to be forgotten.
    init(
        peer: MessagePeer, endsWithReceiver: Bool, options: SockJSOptions, eventLoop: any EventLoop, wheel: TimerWheel,
        isSpaceShort: @escaping () -> Bool = { false }, onOpen: @escaping (any MessageChannel) -> Void,
        onEnd: @escaping () -> Void
    ) {
        self.eventLoop = eventLoop
        self.options = options
        self.isSpaceShort = isSpaceShort
        self.onOpen = onOpen
        self.onEnd = onEnd
        machine = SockJSSessionStateMachine(endsWithReceiver: endsWithReceiver)
        channel = QueuedMessageChannel(
            peer: peer, eventLoop: eventLoop,
            limits: QueuedMessageChannel.Limits(
                inboundBytes: options.queuedBytes, outboundBytes: options.queuedBytes,
                messageBytes: options.maxMessageBytes))
        channel.setOwner(self)
        heartbeatTimer = WheelTimer(wheel: wheel) { [weak self] in self?.heartbeatFired() }
        disconnectTimer = WheelTimer(wheel: wheel) { [weak self] in
            guard let self else { return }
            self.apply(self.machine.disconnectFired())
        }
        closeTimer = WheelTimer(wheel: wheel) { [weak self] in
            guard let self, let receiver = self.receiver else { return }
            self.closeTimer?.start(after: options.closeTimeout)
            receiver.receiver.run { $0.closeIsLate() }
        }
    }

    // MARK: From receivers

    func attach(_ reference: SockJSReceiverReference) {
        switch machine.attach(reference.id) {
        case .refused(let frame): reference.receiver.run { $0.refuse(frame) }
        case .send(let frame, let isNew):
            adopt(reference)
            send(frame)
            if isNew, let onOpen {
                self.onOpen = nil
                onOpen(channel)
            }
        case .flush:
            adopt(reference)
            flush()
        }
    }

    /// The receiver can take another frame.
    func acknowledged(_ id: SockJSSessionStateMachine.ReceiverID) { apply(machine.acknowledged(id)) }
    /// The receiver has ended as it should.
    func finished(_ id: SockJSSessionStateMachine.ReceiverID) { apply(machine.finished(id)) }
    /// The receiver broke.
    func lost(_ id: SockJSSessionStateMachine.ReceiverID) { apply(machine.lost(id)) }

    /// Messages from a request. The completion is called once, later when the session is full.
    func deliver(_ messages: [ByteBuffer], completion: @escaping @Sendable (SockJSDelivery) -> Void) {
        guard machine.isOpen, channel.pendingOutbound().close == nil else { return completion(.noSession) }
        if !messages.isEmpty { hasReceived = true }
        if channel.isInboundFull || !waiting.isEmpty {
            guard waiting.count < Self.maxWaitingSenders else { return completion(.busy) }
            waiting.append(WaitingSender(messages: messages, completion: completion))
        } else {
            for message in messages { _ = channel.deliver(message) }
            completion(.accepted)
        }
    }

    /// Messages from a receiver that also brings them; it is told to pause when the session is full.
    func deliver(_ messages: [ByteBuffer]) {
        guard machine.isOpen else { return }
        var hasRoom = true
        for message in messages { hasRoom = channel.deliver(message) && hasRoom }
        if !hasRoom && !receiverIsPaused {
            receiverIsPaused = true
            receiver?.receiver.run { $0.setReading(false) }
        }
    }

    private func adopt(_ reference: SockJSReceiverReference) {
        receiver = reference
        disconnectTimer?.cancel()
        heartbeatTimer?.start(after: options.heartbeat)
    }

    // MARK: From the channel

    func channelHasOutbound() { flush() }

    func channelHasInboundRoom() {
        while let sender = waiting.first, !channel.isInboundFull {
            waiting.removeFirst()
            guard machine.isOpen else {
                sender.completion(.noSession)
                continue
            }
            for message in sender.messages { _ = channel.deliver(message) }
            sender.completion(.accepted)
        }
        if receiverIsPaused && !channel.isInboundFull {
            receiverIsPaused = false
            receiver?.receiver.run { $0.setReading(true) }
        }
    }

    // MARK: To the client

    private func flush() {
        // A receiver on this loop acknowledges from within `send`.
        guard !isFlushing else { return }
        isFlushing = true
        defer { isFlushing = false }
        while true {
            let pending = channel.pendingOutbound()
            if pending.close != nil, receiver != nil, closeTimer?.isArmed == false {
                closeTimer?.start(after: options.closeTimeout)
            }
            switch machine.flush(hasMessages: pending.hasMessages, close: pending.close) {
            case .nothing:
                if pending.close != nil && !pending.hasMessages { endWaiting() }
                return
            case .sendMessages:
                let bytes = min(options.responseLimit, SockJSFrame.batchBytes)
                send(.messages(channel.takeOutbound(maxBytes: bytes)))
            case .send(let frame): send(frame)
            }
        }
    }

    private func send(_ frame: SockJSFrame) {
        heartbeatTimer?.start(after: options.heartbeat)
        receiver?.receiver.run { $0.send(frame) }
    }

    private func heartbeatFired() {
        machine.heartbeatFired()
        heartbeatTimer?.start(after: options.heartbeat)
        flush()
    }

    private func apply(_ released: SockJSSessionStateMachine.Released) {
        switch released {
        case .nothing: break
        case .flush: flush()
        case .await(let wasInterrupted):
            receiver = nil
            heartbeatTimer?.cancel()
            closeTimer?.cancel()
            disconnectTimer?.start(
                after: !hasReceived && isSpaceShort() ? options.shortDisconnectDelay : options.disconnectDelay)
            if wasInterrupted {
                endWaiting()
                channel.finish(TransportError(.reset, "The client broke its connection."))
            }
        case .end:
            receiver = nil
            heartbeatTimer?.cancel()
            disconnectTimer?.cancel()
            closeTimer?.cancel()
            endWaiting()
            // A session that this side had closed has ended in good order. Nothing happens here a second time.
            channel.finish(
                channel.pendingOutbound().close == nil
                    ? TransportError(.reset, "The client did not come back.") : nil)
            onEnd?()
            onEnd = nil
        }
    }

    /// Ends the session in good order because the client said so; its receiver ends by itself.
    func peerClosed(_ error: TransportError?, _ closing: MessageClosing? = nil) {
        channel.finish(error, closing: closing)
    }

    private func endWaiting() {
        let senders = waiting
        waiting = []
        for sender in senders { sender.completion(.noSession) }
    }
}
