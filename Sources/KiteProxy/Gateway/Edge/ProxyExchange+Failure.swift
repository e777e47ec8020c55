/// What becomes of a proxied request whose upstream failed: another attempt, or a refusal that says why.
import KiteHTTP
import NIOCore

extension ProxyExchange {
    func failed(_ failure: HTTPClientFailure) {
        guard let exchange, let upstream, let route else { return }
        let isUnsent = stage == .connecting
        if failure.responseStarted {
            worker.metrics.responses[0] &+= 1
            return exchange.abort(failure.cause)
        }
        let countsAgainst: Bool
        switch failure.cause.code {
        case .connectFailed, .connectTimeout, .reset, .idleTimeout, .protocolViolation, .tlsFailed:
            countsAgainst = !failure.wasReused
        default: countsAgainst = false
        }
        if countsAgainst, upstream.failed(at: worker.eventLoop.now) { worker.metrics.ejections &+= 1 }
        if isUnserved(failure, isUnsent: isUnsent), detours < Self.mostDetours {
            detours += 1
            attempts -= 1
            leaveUpstream()
            if exchange.hasRequestBody { exchange.setReading(false) }
            stage = .connecting
            return proceed(on: route, excluding: upstream)
        }
        let mayRepeat =
            attempts < 2
            && (failure.isRetryable(method: exchange.request.method, bodyConsumed: bodyConsumed)
                || isGivenUp(failure)
                || (!bodyConsumed && Self.neverArrived(failure.cause.code) && route.upstreams.count > 1))
        if mayRepeat {
            worker.metrics.retries &+= 1
            leaveUpstream()
            if exchange.hasRequestBody { exchange.setReading(false) }
            stage = .connecting
            return proceed(on: route, excluding: failure.wasReused ? nil : upstream)
        }
        let (cause, refusal) = Self.refusal(for: failure.cause, isTunnelled: !(upstream is DirectUpstream))
        refuse(cause, refusal, detail: failure.cause.message)
    }

    /// The upstream has lost its connection, and is not back after a while: what may be made twice, and of which nothing has come back, is
    /// sent elsewhere, where there is an elsewhere. The stream is reset, so that an agent that comes back answers in vain.
    func leaveStalled(_ stalled: Upstream) {
        guard stage == .exchanging, upstream === stalled, !hasResponded, !bodyConsumed, detours < Self.mostDetours,
            let connection, let exchange, exchange.request.method.isIdempotent, let route,
            // The session lives in the agent that is away; opening one by WebSocket is possible anywhere.
            exchange.request.wantsUpgrade || SockJSSession.hash(in: exchange.request.target) == nil,
            route.upstreams.contains(where: { $0 !== stalled && $0.isConnected })
        else { return }
        self.connection = nil
        connection.abort(TransportError(.cancelled, "The agent was away for too long"))
        worker.metrics.retries &+= 1
        detours += 1
        attempts -= 1
        leaveUpstream()
        if exchange.hasRequestBody { exchange.setReading(false) }
        stage = .connecting
        proceed(on: route, excluding: stalled)
    }

    /// Ways to a lane that was going just then, for one request; a route's agents do not restart so often meanwhile.
    private static let mostDetours = 8

    /// Whether the agent's lane went, or was about to, before the agent served the request: it is sent over another lane, or waits for
    /// one.
    private func isUnserved(_ failure: HTTPClientFailure, isUnsent: Bool) -> Bool {
        guard !bodyConsumed, !failure.bytesReceived else { return false }
        switch failure.cause.code {
        // In answer to OPEN: the agent has not looked at it (docs/tunnel-wire.md, section 5).
        case .goingAway: return isUnsent || !failure.wasReused
        case .laneLost: return isUnsent
        default: return false
        }
    }

    /// Whether the request's lane is over before there was anything of an answer, and the request is one that may be made twice.
    private func isGivenUp(_ failure: HTTPClientFailure) -> Bool {
        failure.cause.code == .laneLost && !bodyConsumed && !failure.bytesReceived
            && exchange?.request.method.isIdempotent == true
    }

    /// Whether the upstream cannot have seen anything of the request.
    static func neverArrived(_ code: TransportError.Code) -> Bool {
        switch code {
        case .connectFailed, .connectTimeout, .tlsFailed, .refused: true
        default: false
        }
    }

    static func refusal(for error: TransportError, isTunnelled: Bool) -> (RefusalCause, Refusal) {
        switch error.code {
        case .connectFailed, .connectTimeout, .tlsFailed:
            (
                .connectFailed,
                Refusal(502, "The service behind this address does not accept connections; its owner has to start it.")
            )
        case .refused where isTunnelled:
            (
                .tunnelRefused,
                Refusal(
                    502, "The agent of the service behind this address does not serve it; its owner has to see to it.")
            )
        case .refused:
            (.targetForbidden, Refusal(502, "The service behind this address may not be reached through this gateway."))
        case .idleTimeout:
            (
                .upstreamSilent,
                Refusal(504, "The service behind this address did not answer in time; please try again later.")
            )
        case .protocolViolation:
            (.upstreamInvalid, Refusal(502, "The service behind this address gave an answer that is no valid HTTP."))
        case .limitExceeded:
            (.upstreamBusy, Refusal(503, "The service behind this address is busy; please try again.", retryAfter: 1))
        case .laneLost, .goingAway:
            (
                .noLane,
                Refusal(503, "The service behind this address is away at the moment; please try again.", retryAfter: 5)
            )
        case .reset, .cancelled, .truncated:
            (.upstreamBroken, Refusal(502, "The service behind this address broke the connection without an answer."))
        }
    }
}
