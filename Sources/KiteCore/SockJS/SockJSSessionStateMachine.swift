/// The life of a SockJS session as the server sees it: opened by its first receiver, served by one receiver after another, closed by either
/// side. No clock: the owner keeps the two timers and says when they fire.

/// Polices one session. A *receiver* is a request (or WebSocket) that waits for the session's frames; one may be attached at a time.
struct SockJSSessionStateMachine: Sendable {
    /// Names a receiver within its session.
    typealias ReceiverID = UInt64

    enum Attached: Sendable, Hashable {
        /// Another receiver is attached: answer this one with `frame` and forget it.
        case refused(SockJSFrame)
        /// Send the frame; `isNew` when the session has just been opened.
        case send(SockJSFrame, isNew: Bool)
        /// Send what is queued.
        case flush
    }

    enum Flush: Sendable, Hashable {
        case nothing
        /// Take messages from the queue and send them.
        case sendMessages
        case send(SockJSFrame)
    }

    enum Released: Sendable, Hashable {
        case nothing
        /// More can be sent on the same receiver.
        case flush
        /// Start the disconnect timer and wait for the next receiver. `wasInterrupted`: the peer broke the receiver, so the session is over for
        /// its user, and later receivers are told so.
        case await(wasInterrupted: Bool)
        /// The session is over and forgotten.
        case end
    }

    private enum Phase: Sendable, Hashable {
        case new, open
        /// Closed by this side; later receivers get this frame until the disconnect delay is over.
        case closing(SockJSFrame)
        case ended
    }

    private var phase = Phase.new
    private var receiver: ReceiverID?
    /// A frame is on its way and has not been acknowledged by the receiver.
    private var isBusy = false
    private var heartbeatIsDue = false
    /// A WebSocket's session ends with it; other sessions wait for the next receiver.
    private let endsWithReceiver: Bool

    init(endsWithReceiver: Bool) { self.endsWithReceiver = endsWithReceiver }

    /// Whether messages of the client are taken.
    var isOpen: Bool { phase == .open }
    var isEnded: Bool { phase == .ended }
    var hasReceiver: Bool { receiver != nil }

    /// A receiver asks for frames.
    mutating func attach(_ id: ReceiverID) -> Attached {
        guard receiver == nil else { return .refused(.close(code: 2010, reason: "Another connection still open")) }
        heartbeatIsDue = false
        switch phase {
        case .new:
            phase = .open
            receiver = id
            isBusy = true
            return .send(.open, isNew: true)
        case .open:
            receiver = id
            isBusy = false
            return .flush
        case .closing(let frame):
            receiver = id
            isBusy = true
            return .send(frame, isNew: false)
        case .ended: return .refused(.close(code: 3000, reason: "Go away!"))
        }
    }

    /// What to send now.
    /// - Parameters:
    ///   - hasMessages: messages are queued.
    ///   - close: this side wants the session closed, after what is queued.
    mutating func flush(hasMessages: Bool, close: (code: UInt16, reason: String)?) -> Flush {
        guard receiver != nil, !isBusy, phase == .open else { return .nothing }
        if hasMessages {
            isBusy = true
            heartbeatIsDue = false
            return .sendMessages
        }
        if let close {
            let frame = SockJSFrame.close(code: close.code, reason: close.reason)
            phase = .closing(frame)
            isBusy = true
            return .send(frame)
        }
        guard heartbeatIsDue else { return .nothing }
        heartbeatIsDue = false
        isBusy = true
        return .send(.heartbeat)
    }

    /// The receiver has taken the frame and can take another.
    mutating func acknowledged(_ id: ReceiverID) -> Released {
        guard receiver == id, isBusy else { return .nothing }
        isBusy = false
        return .flush
    }

    /// The receiver has ended as it should: a poll was answered, a stream has reached its limit, a close frame was sent.
    mutating func finished(_ id: ReceiverID) -> Released {
        guard receiver == id else { return .nothing }
        receiver = nil
        isBusy = false
        if endsWithReceiver {
            phase = .ended
            return .end
        }
        return .await(wasInterrupted: false)
    }

    /// The peer broke the receiver off: the session is over (a client that means to go on ends its requests in an orderly way).
    mutating func lost(_ id: ReceiverID) -> Released {
        guard receiver == id else { return .nothing }
        receiver = nil
        isBusy = false
        if endsWithReceiver {
            phase = .ended
            return .end
        }
        if case .closing = phase { return .await(wasInterrupted: false) }
        phase = .closing(.close(code: 1002, reason: "Connection interrupted"))
        return .await(wasInterrupted: true)
    }

    /// The heartbeat timer fired.
    mutating func heartbeatFired() { heartbeatIsDue = receiver != nil && phase == .open }

    /// The disconnect timer fired.
    mutating func disconnectFired() -> Released {
        guard receiver == nil, phase != .ended else { return .nothing }
        phase = .ended
        return .end
    }
}
