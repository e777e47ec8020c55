/// Which transports a client tries that was not told one, in which order and for how long, and what it remembers of a server.
import KiteHTTP
import KiteSockJS
import Synchronization

/// What is known of servers: by which transport a session was opened where the best one did not pass. Has no clock of its own.
struct TransportMemory: Sendable {
    /// From the best to the one that passes nearly everywhere.
    static let candidates: [SockJSTransport] = [.webSocket, .xhrStreaming, .xhrPolling]
    /// So long what worked is tried first; then the better ones get another chance.
    static let lifetime = Duration.seconds(600)
    /// So many servers are remembered.
    static let capacity = 256

    private var known: [String: (transport: SockJSTransport, until: ContinuousClock.Instant)] = [:]

    /// The transports to try, one after the other.
    func order(for url: String, now: ContinuousClock.Instant) -> [SockJSTransport] {
        guard let (transport, until) = known[url], now < until else { return Self.candidates }
        return [transport] + Self.candidates.filter { $0 != transport }
    }

    /// A session was opened.
    mutating func opened(_ url: String, by transport: SockJSTransport, now: ContinuousClock.Instant) {
        if transport == Self.candidates.first {
            known[url] = nil
            return
        }
        // While it is remembered nothing better was tried, so that is put off no further.
        if let (known, until) = known[url], known == transport, now < until { return }
        if known.count >= Self.capacity, known[url] == nil {
            known = known.filter { now < $0.value.until }
            if known.count >= Self.capacity, let oldest = known.min(by: { $0.value.until < $1.value.until }) {
                known[oldest.key] = nil
            }
        }
        known[url] = (transport, now + Self.lifetime)
    }
}

/// Opens sessions by the best transport that passes.
final class TransportChoice: Sendable {
    private let memory = Mutex(TransportMemory())

    /// Tries one transport after the other. A server or something on the way to it may swallow what it does not understand, so each has
    /// its share of the time only.
    /// - Parameters:
    ///   - timeout: for all of them together.
    ///   - attempt: opens a session by one transport, in the time given.
    /// - Throws: the last attempt's error.
    func open(
        _ url: String, timeout: Duration,
        _ attempt: (SockJSTransport, Duration) async throws -> any MessageChannel
    ) async throws -> any MessageChannel {
        let deadline = ContinuousClock.now + timeout
        var left = memory.withLock { $0.order(for: url, now: .now) }[...]
        while let transport = left.popFirst() {
            let time = ContinuousClock.now.duration(to: deadline) / (left.count + 1)
            do {
                let channel = try await attempt(transport, max(time, .milliseconds(1)))
                memory.withLock { $0.opened(url, by: transport, now: .now) }
                return channel
            } catch let error as TransportError where !left.isEmpty {
                switch error.code {
                // Another transport would meet the same.
                case .connectFailed, .connectTimeout, .tlsFailed, .cancelled: throw error
                default: continue
                }
            }
        }
        throw TransportError(.connectFailed, "No transport was tried.")
    }
}
