/// One connection between two kites: carries the dnode session over a message channel, runs the peer's calls as child tasks
/// and matches answers with our calls.
import KiteDnode
import KiteHTTP
import KiteSockJS
import Logging
import NIOCore
import Synchronization

/// The shell around ``DnodeSession``. Everything may be called from any task.
final class KiteConnection: Sendable {
    /// What a call of ours waits for.
    enum Pending {
        case waiting
        case suspended(CheckedContinuation<Result<DnodeValue, KiteError>, Never>)
        case finished(Result<DnodeValue, KiteError>)
    }

    struct State {
        var session: DnodeSession
        var pending: [DnodeCallbackID: Pending] = [:]
        var peerIdentity: KiteIdentity?
        /// Set once the connection has ended.
        var closedWith: KiteError?
        var closeHandlers: [@Sendable () -> Void] = []
        /// Calls of the peer being run, and the size of their messages.
        var calls = Load()
        /// What else the peer has set going: calls of our functions and refusals.
        var others = Load()
        /// Waits for room, in ``waitForRoom()``.
        var room: CheckedContinuation<Room, Never>?
        /// Calls of ours that a function of ours, called by this peer, has made and waits for.
        var nestedCalls = 0
        /// Calls of our functions that wait for an earlier one of the same function; present while one runs.
        var functionCalls: [DnodeFunction: [(arguments: [DnodeValue], size: Int)]] = [:]
        /// Counts the heartbeats asked for; the latest one counts.
        var heartbeat = 0
    }

    /// The connection whose peer called the function of ours that this task runs.
    @TaskLocal private static var callerOfFunction: UInt64?

    private static let lastID = Atomic<UInt64>(0)

    let id: UInt64
    let channel: any MessageChannel
    /// Whose methods the peer can call.
    let kite: Kite
    /// The peer was dialled by us: its calls need no authentication.
    let trustsPeer: Bool
    let limits: KiteLimits
    let state: Mutex<State>

    init(channel: any MessageChannel, kite: Kite, trustsPeer: Bool) {
        id = Self.lastID.add(1, ordering: .relaxed).newValue
        self.channel = channel
        self.kite = kite
        self.trustsPeer = trustsPeer
        limits = kite.configuration.limits
        state = Mutex(State(session: DnodeSession(limits: limits.dnode)))
    }

    var remote: RemoteKite { RemoteKite(connection: self) }
    var peerIdentity: KiteIdentity? { state.withLock { $0.peerIdentity } }
    var isClosed: Bool { state.withLock { $0.closedWith != nil } }

    private var logger: Logger {
        var logger = kite.logger
        logger[metadataKey: "connection"] = "\(id)"
        logger[metadataKey: "peer"] = "\(channel.peer.address)"
        logger[metadataKey: "transport"] = "\(channel.peer.transport)"
        return logger
    }

    // MARK: - the connection's life

    /// Serves the connection until it ends; every task it started has ended when this returns.
    /// - Returns: why it ended.
    func run() async -> KiteError {
        await withDiscardingTaskGroup { group in
            var reason = KiteError(.disconnect, "The connection was closed.")
            do {
                while let bytes = try await channel.receive() {
                    let size = bytes.readableBytes
                    if let violation = receive(bytes, size: size, in: &group) {
                        reason = KiteError(.disconnect, "The other side broke the protocol: \(violation)")
                        logger.notice(
                            "Closing a connection that breaks the protocol", metadata: ["reason": "\(violation)"])
                        channel.close(code: 1002, reason: violation)
                        break
                    }
                    if await waitForRoom() == .exceeded {
                        let cause = "More callbacks are waiting than this side can hold."
                        reason = KiteError(.disconnect, "The connection was closed: \(cause)")
                        logger.notice(
                            "Closing a connection whose peer calls functions faster than they run",
                            metadata: ["waiting": "\(state.withLock { $0.others.count })"])
                        channel.close(code: 1008, reason: cause)
                        break
                    }
                }
            } catch is CancellationError {
                reason = KiteError(.disconnect, "The connection was closed by this side.")
            } catch {
                reason = KiteError(.disconnect, "The connection was lost: \(error)")
            }
            // Before the tasks are waited for: they may wait for answers.
            end(reason)
            group.cancelAll()
        }
        return state.withLock { $0.closedWith } ?? KiteError(.disconnect, "The connection was closed.")
    }

    func close(code: UInt16, reason: String) { channel.close(code: code, reason: reason) }

    func onClose(_ body: @escaping @Sendable () -> Void) {
        let isClosed = state.withLock { state in
            if state.closedWith == nil { state.closeHandlers.append(body) }
            return state.closedWith != nil
        }
        if isClosed { body() }
    }

    private func end(_ reason: KiteError) {
        channel.close(code: 3000, reason: "Go away!")
        let (pending, handlers) = state.withLock { state in
            guard state.closedWith == nil else {
                return ([:] as [DnodeCallbackID: Pending], [] as [@Sendable () -> Void])
            }
            state.closedWith = reason
            state.session.reset()
            state.functionCalls = [:]
            defer {
                state.pending = state.pending.mapValues { pending in
                    switch pending {
                    case .suspended: .waiting
                    case .waiting: .finished(.failure(reason))
                    // The answer came before the end, and its caller has yet to take it.
                    case .finished: pending
                    }
                }
                state.closeHandlers = []
            }
            return (state.pending, state.closeHandlers)
        }
        for case .suspended(let continuation) in pending.values { continuation.resume(returning: .failure(reason)) }
        for handler in handlers { handler() }
    }

    // MARK: - calling

    /// - Parameter timeLeft: how much of the timeout is left, where some of it has been spent.
    func call(
        _ method: String, arguments: [DnodeValue], authentication: Authentication?, timeout: Duration?,
        timeLeft: Duration? = nil
    ) async throws -> DnodeValue {
        try await withTimeout(
            timeLeft ?? timeout,
            KiteError(.timeout, "No response to \"\(method)\" method in \(Self.text(timeout ?? .zero))")
        ) { [self] in
            try await call(method, arguments: arguments, authentication: authentication)
        }
    }

    private func call(
        _ method: String, arguments: [DnodeValue], authentication: Authentication?
    ) async throws -> DnodeValue {
        let isNested = Self.callerOfFunction == self.id
        let (message, id, room) = try state.withLock { state throws(KiteError) in
            if let reason = state.closedWith { throw KiteError(.send, reason.message) }
            do throws(DnodeError) {
                let call = try state.session.call(
                    method, kite: kite.identity.dnode, authentication: authentication?.dnode ?? .null,
                    arguments: arguments)
                state.pending[call.id] = .waiting
                if isNested { state.nestedCalls += 1 }
                // Reading may have stopped; the answer must be read.
                return (call.message, call.id, takeRoom(&state))
            } catch { throw KiteError(.send, error.message) }
        }
        room?()
        defer {
            state.withLock { state in
                state.pending[id] = nil
                if isNested { state.nestedCalls -= 1 }
                state.session.forget(id)
            }
        }
        try await send(message)
        let answer = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let finished: Result<DnodeValue, KiteError>? = state.withLock { state in
                    if case .finished(let outcome)? = state.pending[id] { return outcome }
                    if let reason = state.closedWith { return .failure(reason) }
                    state.pending[id] = .suspended(continuation)
                    return nil
                }
                if let finished { continuation.resume(returning: finished) }
            }
        } onCancel: {
            finish(id, .failure(KiteError(.disconnect, "The call was cancelled.")))
        }
        try Task.checkCancellation()
        return try answer.get()
    }

    /// Calls a function of the peer.
    func invoke(_ id: DnodeCallbackID, arguments: [DnodeValue]) async throws {
        try await send(
            state.withLock { state throws(KiteError) in
                if let reason = state.closedWith { throw KiteError(.send, reason.message) }
                do throws(DnodeError) { return try state.session.invoke(id, arguments: arguments) } catch {
                    throw KiteError(.send, error.message)
                }
            })
    }

    func release(_ function: DnodeFunction) { state.withLock { $0.session.release(function) } }

    /// Begins a heartbeat, which ends an earlier one.
    func beginHeartbeat() -> Int {
        state.withLock { state in
            state.heartbeat += 1
            return state.heartbeat
        }
    }
    func isCurrent(heartbeat: Int) -> Bool { state.withLock { $0.heartbeat == heartbeat && $0.closedWith == nil } }

    private func send(_ message: DnodeMessage) async throws {
        do {
            let bytes = try message.serialized(limits: limits.dnode)
            try await channel.send(bytes)
        } catch {
            state.withLock { $0.session.withdraw(message) }
            switch error {
            case let error as DnodeError: throw KiteError(.send, error.message)
            case is CancellationError: throw error
            default: throw KiteError(.send, "The message could not be sent: \(error)")
            }
        }
    }

    private func finish(_ id: DnodeCallbackID, _ outcome: Result<DnodeValue, KiteError>) {
        let continuation: CheckedContinuation<Result<DnodeValue, KiteError>, Never>? = state.withLock { state in
            switch state.pending[id] {
            case .suspended(let continuation):
                state.pending[id] = .waiting
                return continuation
            case .waiting:
                state.pending[id] = .finished(outcome)
                return nil
            case .finished, nil: return nil
            }
        }
        continuation?.resume(returning: outcome)
    }

    private static func text(_ duration: Duration) -> String {
        let seconds = duration / .seconds(1)
        return seconds == seconds.rounded() && seconds < 1e9 ? "\(Int(seconds))s" : "\(seconds)s"
    }

    // MARK: - being called

    /// - Returns: how the peer broke the protocol, if it did.
    private func receive(_ bytes: ByteBuffer, size: Int, in group: inout DiscardingTaskGroup) -> String? {
        // Parsed outside the lock: it is the expensive part.
        let message = DnodeMessage.parse(bytes, limits: limits.dnode) { id in
            DnodeFunction { arguments in try await self.invoke(id, arguments: arguments) }
        }
        switch state.withLock({ $0.session.receive(message) }) {
        case .call(let call):
            let isAccepted = state.withLock { state in
                guard state.calls.count < limits.maximumConcurrentCalls,
                    state.calls.bytes < limits.maximumBytesInProgress
                else {
                    state.others += 0
                    return false
                }
                state.calls += size
                return true
            }
            guard isAccepted else {
                let error = KiteError(
                    .requestLimit, "Too many calls are running on this connection.", id: Self.requestID())
                group.addTask { await self.refuse(call.answerTo, error) }
                break
            }
            group.addTask {
                await self.perform(call)
                self.state.withLock { $0.calls -= size }
            }
        case .refuse(let id, let reason):
            state.withLock { $0.others += 0 }
            let error = KiteError(.argument, reason, id: Self.requestID())
            group.addTask { await self.refuse(id, error) }
        case .function(let function, let arguments):
            let mustStart = state.withLock { state in
                state.others += size
                if state.functionCalls[function] != nil {
                    state.functionCalls[function]?.append((arguments, size))
                    return false
                }
                state.functionCalls[function] = []
                return true
            }
            if mustStart { group.addTask { await self.run(function, arguments, size: size) } }
        case .answer(let id, let error, let result):
            finish(id, error.isNull ? .success(result) : .failure(KiteError(answer: error)))
        case .invalidAnswer(let id, let reason):
            finish(id, .failure(KiteError(.invalidResponse, reason)))
        case .ignore: break
        case .violation(let reason): return reason
        }
        return nil
    }

    private func perform(_ call: DnodeCall) async {
        let requestID = Self.requestID()
        do {
            let (result, job) = try await kite.perform(call, id: requestID, on: self)
            await answer(call.answerTo, .success(result), requestID: requestID)
            await job?()
        } catch is CancellationError where Task.isCancelled {
            // The connection is gone.
        } catch let unknown as UnknownMethod {
            await answer(call.answerTo, .failure(unknown.error))
        } catch {
            var refusal = error as? KiteError ?? KiteError(.generic, describe(error))
            if refusal.id.isEmpty { refusal.id = requestID }
            await answer(call.answerTo, .failure(refusal))
        }
    }

    private func refuse(_ id: DnodeCallbackID?, _ error: KiteError) async {
        await answer(id, .failure(error))
        otherEnded(size: 0)
    }

    private func answer(
        _ id: DnodeCallbackID?, _ outcome: Result<DnodeValue, KiteError>, requestID: String = ""
    ) async {
        guard let id else { return }
        do {
            try await send(
                state.withLock { state throws(DnodeError) in
                    switch outcome {
                    case .success(let result): try state.session.answer(id, error: .null, result: result)
                    case .failure(let error): try state.session.answer(id, error: error.dnode, result: .null)
                    }
                })
        } catch {
            guard case .success = outcome, !isClosed, !Task.isCancelled else { return }
            let refusal = KiteError(.generic, "The result cannot be sent: \(describe(error))", id: requestID)
            await answer(id, .failure(refusal))
        }
    }

    func note(_ identity: KiteIdentity) { state.withLock { $0.peerIdentity = identity } }

    /// Runs a function of ours, and then what the peer called it with meanwhile, in order.
    private func run(_ function: DnodeFunction, _ arguments: [DnodeValue], size: Int) async {
        var next: (arguments: [DnodeValue], size: Int)? = (arguments, size)
        while let current = next {
            do {
                try await Self.$callerOfFunction.withValue(id) { try await function.call(arguments: current.arguments) }
            } catch {
                if !Task.isCancelled {
                    logger.debug("A callback failed", metadata: ["error": "\(describe(error))"])
                }
            }
            otherEnded(size: current.size)
            next = state.withLock { state in
                guard state.functionCalls[function]?.isEmpty == false else {
                    state.functionCalls[function] = nil
                    return nil
                }
                return state.functionCalls[function]?.removeFirst()
            }
        }
    }

    /// 16 hexadecimal digits.
    static func requestID() -> String {
        let digits = String(UInt64.random(in: 0 ... .max), radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}
