/// What becomes of a proxied request whose upstream failed: another attempt, or a refusal that says why.
import KiteHTTP
import NIOCore

extension ProxyExchange {
    func failed(_ failure: HTTPClientFailure) {
        guard let exchange, let upstream, let route else { return }
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
        let mayRepeat =
            attempts < 2
            && (failure.isRetryable(method: exchange.request.method, bodyConsumed: bodyConsumed)
                || (!bodyConsumed && Self.neverArrived(failure.cause.code) && route.upstreams.count > 1))
        if mayRepeat {
            worker.metrics.retries &+= 1
            leaveUpstream()
            if exchange.request.bodyLength != .none { exchange.setReading(false) }
            stage = .connecting
            return proceed(on: route, excluding: failure.wasReused ? nil : upstream)
        }
        let (cause, refusal) = Self.refusal(for: failure.cause)
        refuse(cause, refusal, detail: failure.cause.message)
    }

    /// Whether the upstream cannot have seen anything of the request.
    static func neverArrived(_ code: TransportError.Code) -> Bool {
        switch code {
        case .connectFailed, .connectTimeout, .tlsFailed, .refused: true
        default: false
        }
    }

    static func refusal(for error: TransportError) -> (RefusalCause, Refusal) {
        switch error.code {
        case .connectFailed, .connectTimeout, .tlsFailed:
            (
                .connectFailed,
                Refusal(502, "The service behind this address does not accept connections; its owner has to start it.")
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
        case .reset, .cancelled:
            (.upstreamBroken, Refusal(502, "The service behind this address broke the connection without an answer."))
        }
    }
}
