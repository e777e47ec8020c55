/// Idle connections to one upstream on one event loop, so that most requests find one that is already open.
public import KiteSupport
public import NIOCore

/// Keeps idle ``HTTPClientConnection``s of one target. The one used last is used first, so that surplus ones age and expire. Event-loop
/// bound.
public final class ConnectionPool: HTTPClientConnectionOwner {
    /// How many connections are kept and for how long.
    public struct Limits: Sendable, Hashable {
        /// Idle connections kept; more are closed when they become idle.
        public var idle = 256
        /// How long an idle connection is kept.
        public var idleTimeout = TimeAmount.seconds(60)
        /// Connections in all, idle and busy; ``ConnectionPool/hasRoom`` is false beyond.
        public var connections = 16_384

        public init() {}
    }

    /// Connections that exist, idle and busy.
    public private(set) var count = 0
    /// Connections that wait for a request.
    public var idleCount: Int { idle.count }
    /// Whether another connection may be opened.
    public var hasRoom: Bool { count + opening < limits.connections && !isClosed }
    /// Connections that are being opened: see ``openingStarted()``.
    public private(set) var opening = 0

    private let wheel: TimerWheel
    private let limits: Limits
    private let http: HTTPLimits
    /// The longest idle first.
    private var idle: [HTTPClientConnection] = []
    private var expiry: WheelTimer?
    private var isClosed = false

    public init(wheel: TimerWheel, limits: Limits = Limits(), http: HTTPLimits = HTTPLimits()) {
        self.wheel = wheel
        self.limits = limits
        self.http = http
    }

    /// An idle connection, if there is one. It is the caller's until its exchange ends.
    public func takeIdle() -> HTTPClientConnection? {
        while let connection = idle.popLast() {
            if connection.isIdle { return connection }
        }
        return nil
    }

    /// A connection is being opened and takes up room; ``openingEnded()`` must follow, before ``adopt(_:)`` where it succeeded.
    public func openingStarted() { opening += 1 }

    /// The opening of a connection has succeeded or failed.
    public func openingEnded() { opening -= 1 }

    /// Makes a connection of a transport that was opened for this pool's target. It is the caller's until its exchange ends.
    public func adopt(_ transport: any ByteTransport) -> HTTPClientConnection {
        let connection = HTTPClientConnection(transport: transport, wheel: wheel, limits: http)
        connection.owner = self
        count += 1
        return connection
    }

    /// Gives back a connection that was taken and not used.
    public func giveBack(_ connection: HTTPClientConnection) { connectionBecameIdle(connection) }

    /// Closes the idle connections now and the others when their exchanges end.
    public func close() {
        isClosed = true
        expiry?.cancel()
        let closing = idle
        idle = []
        for connection in closing { connection.close() }
    }

    /// Closes the idle connections now.
    public func closeIdle() {
        expiry?.cancel()
        let closing = idle
        idle = []
        for connection in closing { connection.close() }
    }

    public func connectionBecameIdle(_ connection: HTTPClientConnection) {
        guard !isClosed, idle.count < limits.idle, connection.isIdle else { return connection.close() }
        connection.idleSince = wheel.eventLoop.now
        idle.append(connection)
        if idle.count == 1 { startExpiry(after: limits.idleTimeout) }
    }

    public func connectionEnded(_ connection: HTTPClientConnection) {
        count -= 1
        if let position = idle.lastIndex(where: { $0 === connection }) { idle.remove(at: position) }
    }

    private func startExpiry(after delay: TimeAmount) {
        let timer = expiry ?? WheelTimer(wheel: wheel) { [weak self] in self?.expire() }
        expiry = timer
        timer.start(after: delay)
    }

    private func expire() {
        let now = wheel.eventLoop.now
        let expired = idle.prefix { $0.idleSince + limits.idleTimeout <= now }
        idle.removeFirst(expired.count)
        for connection in expired { connection.close() }
        if let oldest = idle.first { startExpiry(after: oldest.idleSince + limits.idleTimeout - now) }
    }
}
