/// The bridge between a session on an event loop and the task that speaks through it: a bounded queue each way.
import KiteHTTP
import KiteWebSocket
import NIOCore
import Synchronization

/// The loop's side of a ``QueuedMessageChannel``. Called on the channel's event loop.
protocol MessageChannelOwner: AnyObject {
    /// Messages or the wish to close are waiting: see ``QueuedMessageChannel/takeOutbound(maxBytes:)``.
    func channelHasOutbound()
    /// The task has taken messages and there is room again after ``QueuedMessageChannel/deliver(_:)`` had said there was none.
    func channelHasInboundRoom()
}

/// A ``MessageChannel`` over two queues. The loop's side fills one and empties the other, the task's side the other way round.
final class QueuedMessageChannel: MessageChannel {
    /// How many bytes may wait in each direction before the sender is slowed down.
    struct Limits: Sendable {
        var inboundBytes = 256 << 10
        var outboundBytes = 256 << 10
        /// The longest message that may be sent.
        var messageBytes = 16 << 20
    }

    /// What one waiting message costs besides its bytes.
    private static let messageOverhead = 64

    private struct Sender {
        var id: UInt64
        var message: ByteBuffer
        var continuation: CheckedContinuation<Void, any Error>
    }

    private struct State {
        var inbound: [ByteBuffer] = []
        /// How many at the front of `inbound` have been taken.
        var inboundTaken = 0
        var inboundBytes = 0
        var isPaused = false
        var consumer: (id: UInt64, continuation: CheckedContinuation<ByteBuffer?, any Error>)?
        var outbound: [ByteBuffer] = []
        var outboundTaken = 0
        var outboundBytes = 0
        var senders: [Sender] = []
        var isDrainScheduled = false
        var close: (code: UInt16, reason: String)?
        var isFinished = false
        var error: TransportError?
        var closing: MessageClosing?
        var nextID: UInt64 = 0

        mutating func makeID() -> UInt64 {
            nextID &+= 1
            return nextID
        }

        mutating func takeInbound() -> ByteBuffer? {
            guard inboundTaken < inbound.count else { return nil }
            let message = inbound[inboundTaken]
            inbound[inboundTaken] = ByteBuffer()
            inboundTaken += 1
            inboundBytes -= message.readableBytes + QueuedMessageChannel.messageOverhead
            if inboundTaken == inbound.count {
                inbound.removeAll(keepingCapacity: inbound.count <= 64)
                inboundTaken = 0
            }
            return message
        }

        mutating func push(outbound message: ByteBuffer) {
            outbound.append(message)
            outboundBytes += message.readableBytes + QueuedMessageChannel.messageOverhead
        }
    }

    let peer: MessagePeer
    private let eventLoop: any EventLoop
    private let limits: Limits
    private let owner: NIOLoopBoundBox<(any MessageChannelOwner)?>
    private let state = Mutex(State())

    /// Made on the event loop. The owner is held until ``finish(_:)``.
    init(peer: MessagePeer, eventLoop: any EventLoop, limits: Limits) {
        self.peer = peer
        self.eventLoop = eventLoop
        self.limits = limits
        owner = NIOLoopBoundBox.makeEmptyBox(valueType: (any MessageChannelOwner).self, eventLoop: eventLoop)
    }

    // MARK: The task's side

    func receive() async throws -> ByteBuffer? {
        let id = state.withLock { $0.makeID() }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let (result, hasRoom): (Result<ByteBuffer?, any Error>?, Bool) = state.withLock { state in
                    if Task.isCancelled { return (.failure(CancellationError()), false) }
                    if state.close != nil { return (.success(nil), false) }
                    if let message = state.takeInbound() {
                        let hasRoom = state.isPaused && state.inboundBytes <= limits.inboundBytes / 2
                        if hasRoom { state.isPaused = false }
                        return (.success(message), hasRoom)
                    }
                    if state.isFinished {
                        if let error = state.error { return (.failure(error), false) }
                        return (.success(nil), false)
                    }
                    guard state.consumer == nil else {
                        return (.failure(TransportError(.cancelled, "Another task receives from this channel.")), false)
                    }
                    state.consumer = (id, continuation)
                    return (nil, false)
                }
                if hasRoom { onLoop { $0.channelHasInboundRoom() } }
                if let result { continuation.resume(with: result) }
            }
        } onCancel: {
            let waiting = state.withLock { state in
                guard state.consumer?.id == id else { return nil as CheckedContinuation<ByteBuffer?, any Error>? }
                defer { state.consumer = nil }
                return state.consumer?.continuation
            }
            waiting?.resume(throwing: CancellationError())
        }
    }

    func send(_ message: ByteBuffer) async throws {
        guard message.readableBytes <= limits.messageBytes else {
            throw TransportError(.limitExceeded, "A message is longer than \(limits.messageBytes) bytes.")
        }
        var validator = UTF8Validator()
        guard message.withUnsafeReadableBytes({ validator.validate($0) }), validator.isComplete else {
            throw TransportError(.protocolViolation, "A message is not valid UTF-8.")
        }
        let id = state.withLock { $0.makeID() }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
                let (result, drains): (Result<Void, any Error>?, Bool) = state.withLock { state in
                    if Task.isCancelled { return (.failure(CancellationError()), false) }
                    guard !state.isFinished, state.close == nil else {
                        return (.failure(state.error ?? Self.closed), false)
                    }
                    guard state.outboundBytes < limits.outboundBytes, state.senders.isEmpty else {
                        state.senders.append(Sender(id: id, message: message, continuation: continuation))
                        return (nil, false)
                    }
                    state.push(outbound: message)
                    defer { state.isDrainScheduled = true }
                    return (.success(()), !state.isDrainScheduled)
                }
                if drains { onLoop { $0.channelHasOutbound() } }
                if let result { continuation.resume(with: result) }
            }
        } onCancel: {
            let waiting = state.withLock { state in
                guard let position = state.senders.firstIndex(where: { $0.id == id }) else { return nil as Sender? }
                return state.senders.remove(at: position)
            }
            waiting?.continuation.resume(throwing: CancellationError())
        }
    }

    func close(code: UInt16, reason: String) {
        let (consumer, senders, begins) = state.withLock { state in
            guard state.close == nil, !state.isFinished else {
                return (nil as CheckedContinuation<ByteBuffer?, any Error>?, [] as [Sender], false)
            }
            state.close = (code, reason)
            state.inbound = []
            state.inboundTaken = 0
            state.inboundBytes = 0
            defer {
                state.consumer = nil
                state.senders = []
            }
            return (state.consumer?.continuation, state.senders, true)
        }
        consumer?.resume(returning: nil)
        for sender in senders { sender.continuation.resume(throwing: Self.closed) }
        if begins {
            onLoop {
                $0.channelHasInboundRoom()
                $0.channelHasOutbound()
            }
        }
    }

    private static let closed = TransportError(.cancelled, "The channel is closed.")

    private func onLoop(_ call: @escaping @Sendable (any MessageChannelOwner) -> Void) {
        eventLoop.execute { [self] in
            if let owner = owner.value { call(owner) }
        }
    }

    var closing: MessageClosing? { state.withLock { $0.closing } }

    // MARK: The loop's side

    /// Sets who is told of what the task does.
    func setOwner(_ owner: any MessageChannelOwner) { self.owner.value = owner }

    /// Queues a message for the task.
    /// - Returns: false when the sender has to be slowed down until ``MessageChannelOwner/channelHasInboundRoom()``.
    func deliver(_ message: ByteBuffer) -> Bool {
        let (consumer, hasRoom) = state.withLock { state in
            guard !state.isFinished, state.close == nil else {
                return (nil as CheckedContinuation<ByteBuffer?, any Error>?, true)
            }
            if let consumer = state.consumer {
                state.consumer = nil
                return (consumer.continuation, true)
            }
            state.inbound.append(message)
            state.inboundBytes += message.readableBytes + Self.messageOverhead
            if state.inboundBytes >= limits.inboundBytes { state.isPaused = true }
            return (nil, !state.isPaused)
        }
        consumer?.resume(returning: message)
        return hasRoom
    }

    /// Whether ``deliver(_:)`` should wait.
    var isInboundFull: Bool { state.withLock { $0.isPaused } }

    /// What is waiting to be sent.
    func pendingOutbound() -> (hasMessages: Bool, close: (code: UInt16, reason: String)?) {
        state.withLock { state in
            state.isDrainScheduled = false
            return (state.outboundTaken < state.outbound.count, state.close)
        }
    }

    /// Takes messages to be sent, at least one if there is any and together no more than `maxBytes` if there are several, and lets
    /// waiting senders go on.
    func takeOutbound(maxBytes: Int) -> [ByteBuffer] {
        let (messages, admitted) = state.withLock { state in
            var messages: [ByteBuffer] = []
            var bytes = 0
            while state.outboundTaken < state.outbound.count, messages.count < SockJSFrame.batchMessages {
                let message = state.outbound[state.outboundTaken]
                guard messages.isEmpty || message.readableBytes <= maxBytes - bytes else { break }
                state.outbound[state.outboundTaken] = ByteBuffer()
                state.outboundTaken += 1
                bytes += message.readableBytes
                state.outboundBytes -= message.readableBytes + Self.messageOverhead
                messages.append(message)
            }
            if state.outboundTaken == state.outbound.count {
                state.outbound.removeAll(keepingCapacity: state.outbound.count <= 64)
                state.outboundTaken = 0
            }
            var admitted = 0
            while admitted < state.senders.count, state.outboundBytes < limits.outboundBytes {
                state.push(outbound: state.senders[admitted].message)
                admitted += 1
            }
            let senders = Array(state.senders[..<admitted])
            state.senders.removeFirst(admitted)
            return (messages, senders)
        }
        for sender in admitted { sender.continuation.resume() }
        return messages
    }

    /// The session is over: what was delivered can still be received, then the end or the error.
    /// - Parameter closing: what the other side gave as the reason.
    func finish(_ error: TransportError?, closing: MessageClosing? = nil) {
        let (consumer, senders, isClosed) = state.withLock { state in
            guard !state.isFinished else {
                return (nil as CheckedContinuation<ByteBuffer?, any Error>?, [] as [Sender], false)
            }
            state.isFinished = true
            state.error = error
            state.closing = closing
            state.outbound = []
            state.outboundTaken = 0
            state.outboundBytes = 0
            defer {
                state.consumer = nil
                state.senders = []
            }
            return (state.consumer?.continuation, state.senders, state.close != nil)
        }
        owner.value = nil
        if let error, !isClosed { consumer?.resume(throwing: error) } else { consumer?.resume(returning: nil) }
        for sender in senders { sender.continuation.resume(throwing: error ?? Self.closed) }
    }
}
