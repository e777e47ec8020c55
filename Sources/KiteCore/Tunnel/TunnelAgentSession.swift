/// The agent's side of the tunnel: keeps a session with a gateway, and its lanes, up for as long as it runs.
import KiteHTTP
import KiteSupport
package import Logging
package import NIOCore
public import ServiceLifecycle
import Synchronization

/// An agent: opens a session with a gateway and one lane per loop of it, resumes lanes whose connection is lost, reconnects with
/// full-jitter back-off for ever, and follows a gateway that goes away.
public final class TunnelAgentSession: Service {
    /// What happens, for one consumer. The oldest events are dropped beyond 1,024. Ends with ``run()``.
    public let events: AsyncStream<TunnelEvent>

    let configuration: TunnelAgentConfiguration
    let loops: [any EventLoop]
    let dialer: LaneDialer
    let logger: Logger
    private let onStream: @Sendable (IncomingTunnelStream) -> Void
    private let continuation: AsyncStream<TunnelEvent>.Continuation
    private let agent: String
    private let shared = Mutex(Shared())

    /// The bound on the wait between two attempts: a gateway that is back is found within it.
    private static let longestPause = Duration.seconds(3)

    private struct Shared {
        var usesWebSocket = false
        var lanesUp = 0
        var fate = Fate.running
    }

    /// What becomes of a session's lanes when their tasks end.
    private enum Fate: Sendable { case running, moved, lost }

    /// - Parameters:
    ///   - loops: Where lanes live, in turn; at least one.
    ///   - onStream: Called on the stream's loop.
    package init(
        configuration: TunnelAgentConfiguration, loops: [any EventLoop], dialer: @escaping LaneDialer, logger: Logger,
        onStream: @escaping @Sendable (IncomingTunnelStream) -> Void
    ) {
        self.configuration = configuration
        self.loops = loops
        self.dialer = dialer
        self.logger = logger
        self.onStream = onStream
        (events, continuation) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1_024))
        var random = SystemRandomNumberGenerator()
        agent = hex(random.next()) + hex(random.next())
    }

    /// Runs until the task is cancelled or the service group shuts down; then lets streams finish for
    /// ``TunnelAgentConfiguration/drainTime``.
    /// - Throws: ``TunnelRefusal`` when trying again is of no use.
    public func run() async throws {
        defer { continuation.finish() }
        try await cancelWhenGracefulShutdown { try await self.keepSession() }
    }

    // MARK: sessions

    /// How a session ended.
    private enum SessionEnd: Error {
        /// The gateway knows it no longer, or its last lane is lost.
        case lost(String)
        /// The gateway goes away; lanes are left to finish.
        case moved(TunnelGoAway)
    }

    private func keepSession() async throws {
        var address = try GatewayAddress(url: configuration.gateway)
        let home = address
        guard !configuration.tunnels.isEmpty, !loops.isEmpty else {
            throw TunnelRefusal(status: 400, reason: "no tunnel is asked for")
        }
        var backoff = Backoff(limit: Self.longestPause)
        var epoch: UInt64 = 0
        while !Task.isCancelled {
            guard await pause(backoff.next()) else { return }
            emit(.connecting(attempt: backoff.attempts))
            epoch += 1
            let began = ContinuousClock.now
            // Where a gateway that went away has sent us is good for one session.
            let current = address
            address = home
            do {
                let first = try await connect(current, loops[0], epoch: epoch, .open(configuration.tunnels))
                let session = Session(address: current, epoch: epoch, first: try await start(first, on: loops[0]))
                try await serve(session)
            } catch SessionEnd.moved(let goAway) {
                // Its lanes finish what runs, without being watched, while a new session begins.
                emit(.goingAway(reason: goAway.reason))
                if !goAway.next.isEmpty, let next = try? GatewayAddress(url: goAway.next) { address = next }
                backoff.reset()
            } catch AgentHandshakeError.refused(let refusal) {
                emit(.refused(refusal))
                logger.error(
                    "The gateway refuses the agent",
                    metadata: ["status": "\(refusal.status)", "reason": "\(refusal.reason)"])
                if refusal.isFinal { throw refusal }
                if let seconds = refusal.retryAfter, !(await pause(.seconds(min(seconds, 60)))) { return }
            } catch let refusal as TunnelRefusal {
                throw refusal
            } catch {
                guard !Task.isCancelled else { return }
                let cause = if case SessionEnd.lost(let cause) = error { cause } else { "\(error)" }
                // A session that lasted begins anew at once.
                if began.duration(to: .now) > .seconds(10) { backoff.reset() }
                emit(.laneDown(lane: 0, cause: cause, retry: 0))
                logger.warning("No session with the gateway", metadata: ["cause": "\(cause)"])
            }
        }
    }

    /// Tells which tunnels are served.
    /// - Throws: ``TunnelRefusal`` when none is, and that is final.
    private func report(_ grants: [TunnelGrant]) throws {
        emit(.connected(grants))
        for grant in grants {
            guard let refusal = grant.refusal else { continue }
            emit(.refused(refusal))
        }
        if let refusal = grants.first?.refusal, refusal.isFinal, grants.allSatisfy({ $0.refusal != nil }) {
            throw refusal
        }
    }

    // MARK: lanes

    private struct ActiveLane: Sendable {
        let loop: any EventLoop
        let number: Int
        let welcome: GatewayWelcome
        let lane: NIOLoopBound<AgentLane>
        let signals: AsyncStream<AgentLaneSignal>
    }

    private struct Session: Sendable {
        let address: GatewayAddress
        let epoch: UInt64
        let first: ActiveLane
    }

    private func serve(_ session: Session) async throws {
        let wanted = min(max(session.first.welcome.lanes, 1), 64)
        shared.withLock { $0.fate = .running }
        do { try report(session.first.welcome.tunnels) } catch {
            await leave(session.first)
            throw error
        }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for position in 0..<wanted {
                group.addTask { try await self.keepLane(position, of: wanted, session) }
            }
            // The first that throws ends the session: leaving the group cancels the others.
            while try await group.next() != nil {}
        }
        if !Task.isCancelled { throw SessionEnd.lost("all lanes are gone") }
    }

    /// Keeps one lane up. Whatever ends it, no lane is left behind that nobody watches, unless the session has moved.
    private func keepLane(_ position: Int, of wanted: Int, _ session: Session) async throws {
        var next: ActiveLane? = position == 0 ? session.first : nil
        let loop = loops[position % loops.count]
        // A lane that is there already is looked after even when the task was cancelled before it came here.
        while next != nil || !Task.isCancelled {
            let active: ActiveLane
            if let lane = next {
                active = lane
            } else {
                guard let lane = try await join(session, on: loop, wanted: wanted) else { return }
                active = lane
            }
            next = nil
            do { try await watch(active, of: wanted, session) } catch {
                await leave(active)
                throw error
            }
            if Task.isCancelled { await leave(active) }
        }
        // Cancelled before the first lane was looked after.
        if let next { await leave(next) }
    }

    /// Follows a lane until it is over or the task is cancelled; resumes it as often as its connection is lost.
    private func watch(_ active: ActiveLane, of wanted: Int, _ session: Session) async throws {
        emit(.laneUp(lane: active.number, lanes: countLanes(1), wanted: wanted))
        var isUp = true
        defer { if isUp { _ = countLanes(-1) } }
        for await signal in active.signals {
            switch signal {
            case .goAway(let message):
                shared.withLock { $0.fate = .moved }
                throw SessionEnd.moved(message)
            case .closed(let cause):
                emit(.laneDown(lane: active.number, cause: cause, retry: 0))
                return
            case .suspended(let cause):
                isUp = false
                _ = countLanes(-1)
                logger.warning("Lane lost", metadata: ["lane": "\(active.number)", "cause": "\(cause)"])
                emit(.laneDown(lane: active.number, cause: cause, retry: 0))
                guard try await resume(active, session) else {
                    await onLoop(active) { $0.abort(TransportError(.laneLost, "the lane could not be resumed")) }
                    return
                }
                isUp = true
                emit(.laneUp(lane: active.number, lanes: countLanes(1), wanted: wanted))
            }
        }
    }

    /// A further lane.
    /// - Returns: nil when the gateway needs none.
    /// - Throws: `SessionEnd.lost` when it knows the session no longer.
    private func join(_ session: Session, on loop: any EventLoop, wanted: Int) async throws -> ActiveLane? {
        let welcome = session.first.welcome
        var backoff = Backoff(limit: Self.longestPause)
        var surplus = 0
        while await pause(backoff.next()) {
            do {
                let connection = try await connect(
                    session.address, loop, epoch: session.epoch,
                    .join(session: welcome.session, secret: welcome.secret))
                if let lane = try await startUnlessSurplus(connection, on: loop) { return lane }
                surplus += 1
                if surplus >= 8 * wanted { return nil }
                // Which loop accepts is chance: try again soon.
                if surplus < 2 * wanted { backoff.reset() }
            } catch AgentHandshakeError.refused(let refusal) {
                if refusal.status == 404 {
                    shared.withLock { $0.fate = .lost }
                    throw SessionEnd.lost(refusal.reason)
                }
                if refusal.isFinal { throw refusal }
            } catch let error as AgentHandshakeError {
                logger.debug("No further lane", metadata: ["cause": "\(error)"])
            }
        }
        return nil
    }

    /// Tries to go on with a lane until the window is over.
    private func resume(_ active: ActiveLane, _ session: Session) async throws -> Bool {
        let end = ContinuousClock.now + .milliseconds(active.welcome.resumeWindow)
        var backoff = Backoff(limit: Self.longestPause)
        while ContinuousClock.now < end {
            guard await pause(backoff.next()) else { return true }
            let received = await onLoop(active) { $0.lane?.receivedCount }
            guard let received = received ?? nil else { return false }
            do {
                let connection = try await connect(
                    session.address, active.loop, epoch: session.epoch,
                    .resume(
                        session: active.welcome.session, secret: active.welcome.secret, lane: active.number,
                        received: received))
                return await onLoop(active) { $0.resume(connection.value) } ?? false
            } catch AgentHandshakeError.refused(let refusal) {
                if refusal.isFinal { throw refusal }
                if refusal.status == 404 { return false }
            } catch {
                logger.debug("Lane not resumed yet", metadata: ["lane": "\(active.number)", "cause": "\(error)"])
            }
        }
        return false
    }

    /// The session ends while the lane is up: by shutdown, since it moves, or since another lane found it lost.
    private func leave(_ active: ActiveLane) async {
        switch shared.withLock({ $0.fate }) {
        case .running: break
        case .moved:
            await onLoop(active) { $0.letGo() }
            return
        case .lost:
            await onLoop(active) { $0.abort(TransportError(.laneLost, "the gateway lost the session")) }
            return
        }
        let time = TimeAmount(configuration.drainTime)
        let bound = active.lane
        let closed = active.loop.flatSubmit { bound.value.drain(within: time, reason: "the agent is stopping") }
        try? await closed.get()
    }

    // MARK: connections

    private func connect(
        _ address: GatewayAddress, _ loop: any EventLoop, epoch: UInt64, _ purpose: AgentHello.Purpose
    ) async throws -> NIOLoopBound<EstablishedConnection> {
        let usesWebSocket = shared.withLock { $0.usesWebSocket }
        let request = AgentHandshake.Request(
            address: address, credential: try await configuration.credential(),
            hello: AgentHello(
                agent: agent, epoch: epoch, software: cut(configuration.software, to: 128), purpose: purpose,
                wantsNotes: configuration.wantsNotes),
            usesWebSocket: usesWebSocket, timeout: .seconds(10), software: cut(configuration.software, to: 128))
        let transport = try await dialer(address.endpoint, loop)
        do {
            return try await establish(transport, request, loop)
        } catch AgentHandshakeError.notUpgraded(let what) {
            shared.withLock { if $0.usesWebSocket == usesWebSocket { $0.usesWebSocket.toggle() } }
            throw AgentHandshakeError.notUpgraded(what)
        }
    }

    private func establish(
        _ transport: NIOLoopBound<any ByteTransport>, _ request: AgentHandshake.Request, _ loop: any EventLoop
    ) async throws -> NIOLoopBound<EstablishedConnection> {
        let running = NIOLoopBoundBox<AgentHandshake?>.makeEmptyBox(eventLoop: loop)
        let isCancelled = NIOLoopBoundBox<Bool>.makeBoxSendingValue(false, eventLoop: loop)
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                loop.execute {
                    guard !isCancelled.value else {
                        transport.value.abort(TransportError(.cancelled, "cancelled"))
                        return continuation.resume(throwing: CancellationError())
                    }
                    running.value = AgentHandshake(
                        transport: transport.value, wheel: LoopFlusher.on(loop).wheel, request: request
                    ) { result in
                        running.value = nil
                        continuation.resume(with: result.map { NIOLoopBound($0, eventLoop: loop) })
                    }
                }
            }
        } onCancel: {
            loop.execute {
                isCancelled.value = true
                running.value?.cancel()
            }
        }
    }

    private func start(
        _ connection: NIOLoopBound<EstablishedConnection>, on loop: any EventLoop
    ) async throws -> ActiveLane {
        guard let active = try await startUnlessSurplus(connection, on: loop) else {
            throw SessionEnd.lost("the gateway called the first lane surplus")
        }
        return active
    }

    private func startUnlessSurplus(
        _ connection: NIOLoopBound<EstablishedConnection>, on loop: any EventLoop
    ) async throws -> ActiveLane? {
        let (signals, continuation) = AsyncStream<AgentLaneSignal>.makeStream(bufferingPolicy: .bufferingOldest(64))
        let onStream = self.onStream
        let events = self.continuation
        let count = configuration.tunnels.count
        return try await loop.submit { () -> ActiveLane? in
            let connection = connection.value
            guard !connection.welcome.isSurplus else {
                connection.transport.close()
                return nil
            }
            let lane = AgentLane(
                connection, wheel: LoopFlusher.on(loop).wheel, tunnelCount: count, signals: continuation,
                onNote: { events.yield(.note($0)) }, onStream: onStream)
            return ActiveLane(
                loop: loop, number: connection.welcome.lane, welcome: connection.welcome,
                lane: NIOLoopBound(lane, eventLoop: loop), signals: signals)
        }.get()
    }

    // MARK: small things

    @discardableResult
    private func onLoop<Value: Sendable>(
        _ active: ActiveLane, _ body: @escaping @Sendable (AgentLane) -> Value
    ) async -> Value? {
        let bound = active.lane
        return try? await active.loop.submit { body(bound.value) }.get()
    }

    private func emit(_ event: TunnelEvent) { continuation.yield(event) }

    private func countLanes(_ change: Int) -> Int {
        shared.withLock {
            $0.lanesUp += change
            return $0.lanesUp
        }
    }

    /// - Returns: false when the task was cancelled meanwhile.
    private func pause(_ time: Duration) async -> Bool {
        if time > .zero { try? await Task.sleep(for: time) }
        return !Task.isCancelled
    }
}
