/// A method of a kite: what it does, and under which conditions.
public import KiteDnode

/// The conditions under which a method is called.
public struct MethodOptions: Sendable {
    /// At most `burst` calls at once, and on average one per `interval`, from all callers together.
    public struct RateLimit: Sendable, Hashable {
        /// So many calls may come at once.
        public var burst: Int
        /// After which another call is allowed.
        public var interval: Duration

        public init(burst: Int, interval: Duration) {
            self.burst = burst
            self.interval = interval
        }
    }

    /// Whether the caller must prove who it is. True unless said otherwise.
    public var requiresAuthentication = true
    /// Callers beyond it get a `requestLimitError`.
    public var rateLimit: RateLimit?
    /// Called in order before the method; one that throws answers the call.
    public var before: [PreHandler] = []
    /// Called in order with the method's result; each may change it or throw.
    public var after: [PostHandler] = []

    public init() {}

    /// The caller must prove who it is.
    public static var authenticated: Self { Self() }
    /// Anybody may call.
    public static var anonymous: Self { Self().allowingAnonymous() }

    /// The same, for callers who do not say who they are, too.
    public func allowingAnonymous() -> Self {
        var options = self
        options.requiresAuthentication = false
        return options
    }
    /// At most `burst` calls at once, and on average one per `interval`.
    public func limited(burst: Int, every interval: Duration) -> Self {
        var options = self
        options.rateLimit = RateLimit(burst: burst, interval: interval)
        return options
    }
    /// The same, with something that runs before the handler, after those given before.
    public func before(_ handler: @escaping PreHandler) -> Self {
        var options = self
        options.before.append(handler)
        return options
    }
    /// The same, with something that runs after the handler, after those given before.
    public func after(_ handler: @escaping PostHandler) -> Self {
        var options = self
        options.after.append(handler)
        return options
    }
}

/// Looks at a call before its method does; refuses it by throwing.
public typealias PreHandler = @Sendable (KiteRequest) async throws -> Void
/// Looks at a method's result, and may replace it.
public typealias PostHandler = @Sendable (KiteRequest, DnodeValue) async throws -> DnodeValue

/// A registered method.
struct KiteMethod: Sendable {
    let options: MethodOptions
    let body: @Sendable (KiteRequest) async throws -> DnodeValue
}

/// A token bucket; full at first.
struct TokenBucket: Sendable {
    private let burst: Int
    private let interval: Duration
    private var tokens: Int
    private var filledAt: ContinuousClock.Instant?

    init(_ limit: MethodOptions.RateLimit) {
        burst = max(limit.burst, 1)
        interval = max(limit.interval, .nanoseconds(1))
        tokens = burst
    }

    /// Takes a token; false when there is none.
    mutating func take(now: ContinuousClock.Instant) -> Bool {
        let since = filledAt ?? now
        let elapsed = since.duration(to: now)
        if elapsed >= interval * burst {
            tokens = burst
            filledAt = now
        } else if elapsed >= interval {
            let gained = Int(elapsed / interval)
            tokens = min(tokens + gained, burst)
            filledAt = since + interval * gained
        } else if filledAt == nil {
            filledAt = now
        }
        guard tokens > 0 else { return false }
        tokens -= 1
        return true
    }
}
