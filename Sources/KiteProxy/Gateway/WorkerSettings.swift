/// What the workers of a gateway have in common.
import KiteCore
import KiteDialing
import KiteHTTP
import KiteHTTP2
import KiteSupport
import Logging
import NIOCore

/// What is the same on all event loops. A class: it is reached with every request, and a value of this size would be copied.
final class WorkerSettings: Sendable {
    let options: GatewayOptions
    let directory: Directory
    let http: HTTPLimits
    let http2: HTTP2Limits
    let viaName: String
    let authenticator: any GatewayAuthenticator
    let resolver: (any KiteResolver)?
    let dialer: Dialer
    let board: RouteBoard
    let kiteTunnels: KiteTunnels
    let pool: TaskPool
    let logger: Logger
    /// Counts the connections of all listeners.
    let limiter: ConnectionLimiter
    let mount: (@Sendable (any EventLoop) -> any ExchangeAcceptor)?
    let pressure: Pressure
    /// What all lanes hold.
    let laneBudget: SharedByteBudget

    init(
        options: GatewayOptions, directory: Directory, http: HTTPLimits, viaName: String,
        authenticator: any GatewayAuthenticator, resolver: (any KiteResolver)?, dialer: Dialer, board: RouteBoard,
        kiteTunnels: KiteTunnels, pool: TaskPool, logger: Logger, limiter: ConnectionLimiter,
        mount: (@Sendable (any EventLoop) -> any ExchangeAcceptor)?, pressure: Pressure, laneBudget: SharedByteBudget
    ) {
        self.options = options
        self.directory = directory
        self.http = http
        http2 = Self.http2Limits(options)
        self.viaName = viaName
        self.authenticator = authenticator
        self.resolver = resolver
        self.dialer = dialer
        self.board = board
        self.kiteTunnels = kiteTunnels
        self.pool = pool
        self.logger = logger
        self.limiter = limiter
        self.mount = mount
        self.pressure = pressure
        self.laneBudget = laneBudget
    }

    /// The same gateway with other limits, times and rules.
    /// - Parameter policy: decides about direct targets, its question of loopback answered.
    func changed(to options: GatewayOptions, policy: DirectTargetPolicy) -> WorkerSettings {
        var dialer = dialer
        dialer.configuration = Self.dialing(options, policy)
        return WorkerSettings(
            options: options, directory: directory, http: Self.limits(options), viaName: viaName,
            authenticator: authenticator, resolver: resolver, dialer: dialer, board: board, kiteTunnels: kiteTunnels,
            pool: pool, logger: logger, limiter: limiter, mount: mount, pressure: pressure,
            laneBudget: laneBudget)
    }

    /// How targets with an address of their own are dialled.
    static func dialing(_ options: GatewayOptions, _ policy: DirectTargetPolicy) -> Dialer.Configuration {
        var dialing = Dialer.Configuration()
        dialing.connectTimeout = options.timeouts.connect
        dialing.isAllowed = { policy.allows($0) }
        return dialing
    }

    /// What visitors' HTTP/2 connections are held to besides.
    static func http2Limits(_ options: GatewayOptions) -> HTTP2Limits {
        var http2 = HTTP2Limits()
        http2.concurrentStreams = options.limits.streams
        return http2
    }

    /// What visitors' connections are held to.
    static func limits(_ options: GatewayOptions) -> HTTPLimits {
        var http = HTTPLimits()
        http.headBytes = options.limits.headBytes
        http.targetBytes = options.limits.targetBytes
        http.bodyBytes = options.limits.bodyBytes
        http.headTimeout = options.timeouts.head
        http.keepAliveTimeout = options.timeouts.keepAlive
        http.bodyIdleTimeout = options.timeouts.bodyIdle
        http.responseIdleTimeout = options.timeouts.bodyIdle
        return http
    }
}
