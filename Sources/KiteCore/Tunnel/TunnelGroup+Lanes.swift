/// How an agent keeps the lanes of a session: joins, resumes, and leaves them.
import KiteHTTP
import KiteSupport
import Logging
import NIOCore
import Synchronization

extension TunnelGroup {
    struct ActiveLane: Sendable {
        let loop: any EventLoop
        let number: Int
        let welcome: GatewayWelcome
        let lane: NIOLoopBound<AgentLane>
        let signals: AsyncStream<AgentLaneSignal>
    }

    /// Keeps one lane up. Whatever ends it, no lane is left behind that nobody watches, unless the session has moved.
    func keepLane(_ position: Int, of wanted: Int, _ session: Session) async throws {
        var next: ActiveLane? = position == 0 ? session.first : nil
        var backoff = Backoff(limit: Self.longestPause)
        var wait = backoff.next()
        // A lane that is there already is looked after even when the task was cancelled before it came here.
        while next != nil || !Task.isCancelled {
            let active: ActiveLane
            if let lane = next {
                active = lane
            } else {
                guard let lane = try await join(session, position, of: wanted, after: wait, &backoff) else { return }
                active = lane
            }
            next = nil
            let began = ContinuousClock.now
            let cause: String?
            do { cause = try await watch(active, position, of: wanted, session) } catch {
                await leave(active)
                throw error
            }
            guard let cause, !Task.isCancelled else { return await leave(active) }
            if began.duration(to: .now) > Self.lasting { backoff.reset() }
            wait = backoff.next()
            context.reports.laneDown(group: number, position, cause: cause, retry: wait)
        }
    }

    /// Follows a lane until it is over or the task is cancelled; resumes it as often as its connection is lost.
    /// - Returns: why it is over; nil when the task was cancelled.
    private func watch(
        _ active: ActiveLane, _ position: Int, of wanted: Int, _ session: Session
    ) async throws -> String? {
        context.reports.laneUp(group: number, position, wanted: wanted)
        var backoff = Backoff(limit: Self.longestResumePause)
        var began = ContinuousClock.now
        for await signal in active.signals {
            switch signal {
            case .goAway(let message):
                state.withLock { $0.fate = .moved }
                throw SessionEnd.moved(message)
            case .closed(let cause): return cause
            case .suspended(let cause):
                // A line that breaks again and again is not to keep both sides busy.
                if began.duration(to: .now) > .seconds(1) { backoff.reset() }
                let wait = backoff.next()
                context.logger.warning(
                    "Lane lost", metadata: ["lane": "\(active.number)", "cause": "\(cause)", "retry": "\(wait)"])
                context.reports.laneDown(group: number, position, cause: cause, retry: wait)
                guard let isResumed = try await resume(active, position, session, after: wait, &backoff) else {
                    return nil
                }
                guard isResumed else {
                    await onLoop(active) { $0.abort(TransportError(.laneLost, "the lane could not be resumed")) }
                    return "the lane could not be resumed"
                }
                began = .now
                context.reports.laneUp(group: number, position, wanted: wanted)
            }
        }
        return Task.isCancelled ? nil : "the lane is over"
    }

    /// A further lane. Nothing but the gateway's word that the session is over ends it, and a final refusal while no lane is up: those that
    /// are up serve.
    /// - Returns: nil when the gateway needs none, or the task was cancelled.
    private func join(
        _ session: Session, _ position: Int, of wanted: Int, after wait: Duration, _ backoff: inout Backoff
    ) async throws -> ActiveLane? {
        let welcome = session.first.welcome
        let loop = context.loops[position % context.loops.count]
        let hello = context.connector.hello(
            agent: agent, epoch: session.epoch, .join(session: welcome.session, secret: welcome.secret))
        var wait = wait
        var surplus = 0
        while await pause(wait) {
            do {
                let connection = try await context.connector.connect(session.address, loop, hello)
                if let lane = try await startUnlessSurplus(connection, on: loop, tunnels: session.tunnels) {
                    return lane
                }
                surplus += 1
                if surplus >= 8 * wanted { return nil }
                // Which loop accepts is chance: try again soon.
                if surplus < 2 * wanted { backoff.reset() }
                wait = backoff.next()
            } catch {
                if Task.isCancelled { return nil }
                if case AgentHandshakeError.refused(let refusal) = error {
                    if refusal.status == 404 {
                        state.withLock { $0.fate = .lost }
                        throw SessionEnd.lost(refusal.reason)
                    }
                    try giveUp(after: refusal)
                }
                wait = backoff.next()
                failed(position, "No further lane", error, retry: wait)
            }
        }
        return nil
    }

    /// Tries to go on with a lane until the window is over.
    /// - Returns: nil when the task was cancelled.
    private func resume(
        _ active: ActiveLane, _ position: Int, _ session: Session, after wait: Duration, _ backoff: inout Backoff
    ) async throws -> Bool? {
        let end = ContinuousClock.now + .milliseconds(min(max(active.welcome.resumeWindow, 0), 600_000))
        var wait = wait
        while ContinuousClock.now < end {
            guard await pause(wait) else { return nil }
            let received = await onLoop(active) { $0.lane?.receivedCount }
            guard let received = received ?? nil else { return false }
            let hello = context.connector.hello(
                agent: agent, epoch: session.epoch,
                .resume(
                    session: active.welcome.session, secret: active.welcome.secret, lane: active.number,
                    received: received))
            do {
                let connection = try await context.connector.connect(session.address, active.loop, hello)
                return await onLoop(active) { $0.resume(connection.value) } ?? false
            } catch {
                if Task.isCancelled { return nil }
                if case AgentHandshakeError.refused(let refusal) = error {
                    if refusal.status == 404 { return false }
                    try giveUp(after: refusal)
                }
                wait = backoff.next()
                failed(position, "Lane not resumed yet", error, retry: wait)
            }
        }
        return false
    }

    /// - Throws: a final refusal when no lane is up.
    private func giveUp(after refusal: TunnelRefusal) throws {
        guard refusal.isFinal, context.reports.lanesUp(group: number) == 0 else { return }
        context.reports.emit(.refused(refusal))
        context.logger.error(
            "The gateway refuses the agent", metadata: ["status": "\(refusal.status)", "reason": "\(refusal.reason)"])
        throw refusal
    }

    private func failed(_ position: Int, _ what: Logger.Message, _ error: any Error, retry: Duration) {
        context.logger.info(
            what, metadata: ["position": "\(position)", "cause": "\(error)", "retry": "\(retry)"])
        context.reports.laneDown(group: number, position, cause: "\(error)", retry: retry)
    }

    /// The session ends while the lane is up: by shutdown, since it moves, or since another lane found it lost.
    func leave(_ active: ActiveLane) async {
        switch state.withLock({ $0.fate }) {
        case .running: break
        case .moved:
            await onLoop(active) { $0.letGo() }
            return
        case .lost:
            await onLoop(active) { $0.abort(TransportError(.laneLost, "the gateway lost the session")) }
            return
        }
        let time = TimeAmount(context.configuration.drainTime)
        let bound = active.lane
        let closed = active.loop.flatSubmit { bound.value.drain(within: time, reason: "the agent is stopping") }
        try? await closed.get()
    }

    func startUnlessSurplus(
        _ connection: NIOLoopBound<EstablishedConnection>, on loop: any EventLoop, tunnels: [Int]
    ) async throws -> ActiveLane? {
        let (signals, continuation) = AsyncStream<AgentLaneSignal>.makeStream(bufferingPolicy: .bufferingOldest(64))
        let onStream = context.onStream
        let reports = context.reports
        return try await loop.submit { () -> ActiveLane? in
            let connection = connection.value
            guard !connection.welcome.isSurplus else {
                connection.transport.close()
                return nil
            }
            let lane = AgentLane(
                connection, wheel: LoopFlusher.on(loop).wheel, tunnels: tunnels, signals: continuation,
                onNote: { reports.emit(.note($0)) }, onStream: onStream)
            return ActiveLane(
                loop: loop, number: connection.welcome.lane, welcome: connection.welcome,
                lane: NIOLoopBound(lane, eventLoop: loop), signals: signals)
        }.get()
    }

    @discardableResult
    private func onLoop<Value: Sendable>(
        _ active: ActiveLane, _ body: @escaping @Sendable (AgentLane) -> Value
    ) async -> Value? {
        let bound = active.lane
        return try? await active.loop.submit { body(bound.value) }.get()
    }
}
