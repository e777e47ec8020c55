/// The one way in which anything here waits before it tries again: exponential back-off with full jitter.

/// Delays between attempts. The first attempt is immediate; each later one waits a random time between zero and a bound that
/// doubles until it reaches ``limit``. Unlimited in number.
public struct Backoff: Sendable {
    /// The bound of the first wait.
    public let base: Duration
    /// The highest bound.
    public let limit: Duration
    /// How many delays have been handed out since the start or the last ``reset()``.
    public private(set) var attempts = 0

    public init(base: Duration = .milliseconds(100), limit: Duration = .seconds(10)) {
        self.base = max(base, .zero)
        self.limit = max(limit, base)
    }

    /// How long to wait before the next attempt.
    public mutating func next(using generator: inout some RandomNumberGenerator) -> Duration {
        defer { attempts = min(attempts + 1, 1 << 20) }
        guard attempts > 0 else { return .zero }
        var bound = base
        for _ in 1..<min(max(attempts, 1), 64) where bound < limit { bound = min(bound * 2, limit) }
        let nanoseconds = bound.components.seconds * 1_000_000_000 + bound.components.attoseconds / 1_000_000_000
        return .nanoseconds(Int64.random(in: 0...max(nanoseconds, 0), using: &generator))
    }

    /// How long to wait before the next attempt.
    public mutating func next() -> Duration {
        var generator = SystemRandomNumberGenerator()
        return next(using: &generator)
    }

    /// Call after a success that lasted: the next attempt is immediate again.
    public mutating func reset() { attempts = 0 }
}
