/// The dialling side: keeps a connection to one kite, however often it breaks, and calls methods over it.
public import KiteDnode
public import KiteSockJS
import KiteSupport
import Logging
public import ServiceLifecycle
import Synchronization

/// Opens a connection to the kite at a URL.
public typealias KiteConnector = @Sendable (_ url: String, KiteConfiguration) async throws -> any MessageChannel

/// A client of one kite.
///
/// For a few calls: ``withConnection(to:as:credentials:options:connector:_:)``, or ``connect(to:as:credentials:options:connector:)`` and
/// ``close()``. In a program that lives long, give it to the service group; calls wait for the connection within their timeout, also
/// those that are made before the group has started the client.
///
/// The other side can call the methods of ``kite`` over the same connection; having been dialled by us it need not authenticate.
public final class KiteClient: KiteCaller, Service {
    /// What happens to the connection.
    public enum Event: Sendable, Hashable {
        case connected(RemoteKite)
        case disconnected(RemoteKite, reason: String)
        /// Dialling failed; it will be tried again.
        case failed(reason: String)
    }

    /// How a client behaves when the connection breaks.
    public struct Options: Sendable {
        /// Whether to dial again after the connection broke or could not be made. Default true.
        public var reconnects = true
        /// The bound of the first wait between attempts; it doubles with each.
        public var backoffBase = Duration.milliseconds(100)
        /// The longest wait between attempts.
        public var backoffLimit = Duration.seconds(10)
        /// A connection that lasted so long ends the back-off.
        public var stableAfter = Duration.seconds(5)

        public init() {}
    }

    private enum Phase {
        case idle, running, ended
    }

    private struct State {
        var phase = Phase.idle
        var connection: KiteConnection?
        var lastFailure: String?
        var nextWaiter = 0
        /// Calls that wait for a connection.
        var waiters: [Int: CheckedContinuation<KiteConnection, any Error>] = [:]
        var listeners: [Int: AsyncStream<Event>.Continuation] = [:]
        /// Runs the client after ``connect(to:as:credentials:options:connector:)``.
        var task: Task<Void, Never>?
    }

    /// Where the other kite is.
    public let url: String
    /// Who we are, and the methods that the other side may call.
    public let kite: Kite
    /// What calls prove who we are with.
    public let credentials: KiteCredentials
    private let options: Options
    private let connector: KiteConnector
    private let state = Mutex(State())

    /// - Parameters:
    ///   - url: `http`, `https`, `ws` or `wss`, up to and including `/kite`.
    ///   - kite: who we are; may be one that also listens.
    public init(
        url: String, as kite: Kite = Kite(name: "client", version: "1.0.0"), credentials: KiteCredentials = .none,
        options: Options = Options(), connector: @escaping KiteConnector = KiteClient.sockJS
    ) {
        self.url = url
        self.kite = kite
        self.credentials = credentials
        self.options = options
        self.connector = connector
    }

    // MARK: - the connection's life

    /// Connects, and returns once that succeeded; attempts are made for as long as the kite's handshake timeout allows. Call
    /// ``close()`` when done.
    /// - Throws: ``KiteError`` of type `sendError` with the cause.
    public static func connect(
        to url: String, as kite: Kite = Kite(name: "client", version: "1.0.0"), credentials: KiteCredentials = .none,
        options: Options = Options(), connector: @escaping KiteConnector = KiteClient.sockJS
    ) async throws -> KiteClient {
        let client = KiteClient(url: url, as: kite, credentials: credentials, options: options, connector: connector)
        // Owned by the client: cancelled and awaited in close().
        let task = Task { await client.keepConnected() }
        client.state.withLock { state in
            state.task = task
            if state.phase == .idle { state.phase = .running }
        }
        do {
            _ = try await client.connection(timeout: kite.configuration.handshakeTimeout)
            return client
        } catch {
            await client.close()
            throw error
        }
    }

    /// Connects, runs `body`, and closes.
    @discardableResult
    public static func withConnection<Outcome>(
        to url: String, as kite: Kite = Kite(name: "client", version: "1.0.0"), credentials: KiteCredentials = .none,
        options: Options = Options(), connector: @escaping KiteConnector = KiteClient.sockJS,
        _ body: (KiteClient) async throws -> Outcome
    ) async throws -> Outcome {
        let client = try await connect(
            to: url, as: kite, credentials: credentials, options: options, connector: connector)
        let outcome: Outcome
        do { outcome = try await body(client) } catch {
            await client.close()
            throw error
        }
        await client.close()
        return outcome
    }

    /// Closes a client that ``connect(to:as:credentials:options:connector:)`` made, and waits for its end.
    public func close() async {
        let task = state.withLock { $0.task }
        task?.cancel()
        await task?.value
    }

    /// Keeps the connection until the task is cancelled or the service group shuts down. Once per client.
    public func run() async throws {
        await cancelWhenGracefulShutdown { await self.keepConnected() }
    }

    private func keepConnected() async {
        state.withLock { if $0.phase == .idle { $0.phase = .running } }
        var backoff = Backoff(base: options.backoffBase, limit: options.backoffLimit)
        while !Task.isCancelled {
            let delay = backoff.next()
            if delay > .zero, (try? await Task.sleep(for: delay)) == nil { break }
            do {
                let lasted = try await connectOnce()
                if lasted >= options.stableAfter { backoff.reset() }
            } catch {
                if Task.isCancelled { break }
                let reason = describe(error)
                kite.logger.warning(
                    "Cannot connect to a kite", metadata: ["url": "\(loggable(url))", "reason": "\(reason)"])
                state.withLock { $0.lastFailure = reason }
                publish(.failed(reason: reason))
            }
            if !options.reconnects { break }
        }
        let (waiters, listeners, failure) = state.withLock { state in
            state.phase = .ended
            defer {
                state.waiters = [:]
                state.listeners = [:]
            }
            return (state.waiters, state.listeners, state.lastFailure)
        }
        for waiter in waiters.values { waiter.resume(throwing: notConnected(failure)) }
        for listener in listeners.values { listener.finish() }
    }

    /// Dials, and serves the connection until it ends.
    /// - Returns: how long it lasted.
    private func connectOnce() async throws -> Duration {
        let configuration = kite.configuration
        let channel = try await withTimeout(
            configuration.handshakeTimeout,
            KiteError(.timeout, "No connection in \(configuration.handshakeTimeout)"),
            discard: { $0.close(code: 3000, reason: "Go away!") }
        ) { [connector, url] in try await connector(url, configuration) }
        guard !Task.isCancelled else {
            channel.close(code: 3000, reason: "Go away!")
            throw CancellationError()
        }
        let connection = KiteConnection(channel: channel, kite: kite, trustsPeer: true)
        let start = ContinuousClock.now
        let waiters = state.withLock { state in
            state.connection = connection
            state.lastFailure = nil
            defer { state.waiters = [:] }
            return state.waiters
        }
        publish(.connected(connection.remote))
        for waiter in waiters.values { waiter.resume(returning: connection) }
        let reason = await kite.serve(connection)
        state.withLock { state in
            state.connection = nil
            state.lastFailure = reason.message
        }
        publish(.disconnected(connection.remote, reason: reason.message))
        return ContinuousClock.now - start
    }

    // MARK: - events

    /// What happens from now on; ends with the client. A reader that is more than 64 events behind misses the oldest.
    public func events() -> AsyncStream<Event> {
        let (stream, continuation) = AsyncStream.makeStream(of: Event.self, bufferingPolicy: .bufferingNewest(64))
        let id: Int? = state.withLock { state in
            guard state.phase != .ended else { return nil }
            state.nextWaiter += 1
            state.listeners[state.nextWaiter] = continuation
            return state.nextWaiter
        }
        if let id {
            continuation.onTermination = { [weak self] _ in
                self?.state.withLock { state in _ = state.listeners.removeValue(forKey: id) }
            }
        } else {
            continuation.finish()
        }
        return stream
    }

    private func publish(_ event: Event) {
        let listeners = state.withLock { $0.listeners }
        for listener in listeners.values { listener.yield(event) }
    }

    // MARK: - calling

    /// The kite at the other end, while connected.
    public var remote: RemoteKite? { state.withLock { $0.connection?.remote } }

    /// How long calls may take that do not say it themselves.
    public var callTimeout: Duration { kite.configuration.timeout }

    /// Calls a method. Waits for the connection where there is none at the moment. When the other side says that the token has
    /// expired, it is renewed and the call made once more, with the same timeout again.
    public func call(_ method: String, arguments: [DnodeValue], timeout: Duration?) async throws -> DnodeValue {
        let start = ContinuousClock.now
        let connection = try await connection(timeout: timeout)
        let authentication = try await credentials.authentication()
        let timeLeft = timeout.map { max($0 - (ContinuousClock.now - start), .milliseconds(1)) }
        do {
            return try await connection.call(
                method, arguments: arguments, authentication: authentication, timeout: timeout, timeLeft: timeLeft)
        } catch let error as KiteError where error.isExpiredToken && credentials.canRenew {
            let renewed = try await credentials.renew(authentication)
            return try await connection.call(method, arguments: arguments, authentication: renewed, timeout: timeout)
        }
    }

    private func connection(timeout: Duration?) async throws -> KiteConnection {
        if let connection = state.withLock({ $0.connection }), !connection.isClosed { return connection }
        return try await withTimeout(timeout, self.notConnected(self.causeOfWaiting)) {
            try await self.nextConnection()
        }
    }

    /// Why a call that gave up had no connection.
    private var causeOfWaiting: String {
        let (phase, failure) = state.withLock { ($0.phase, $0.lastFailure) }
        if let failure { return failure }
        return phase == .idle ? "the client has not been started" : "the other side has not answered yet"
    }

    private func nextConnection() async throws -> KiteConnection {
        let id = state.withLock { state in
            state.nextWaiter += 1
            return state.nextWaiter
        }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let outcome: Result<KiteConnection, any Error>? = state.withLock { state in
                    if let connection = state.connection, !connection.isClosed { return .success(connection) }
                    if Task.isCancelled { return .failure(CancellationError()) }
                    guard state.phase != .ended else { return .failure(notConnected(state.lastFailure)) }
                    state.waiters[id] = continuation
                    return nil
                }
                if let outcome { continuation.resume(with: outcome) }
            }
        } onCancel: {
            let waiter = state.withLock { $0.waiters.removeValue(forKey: id) }
            waiter?.resume(throwing: CancellationError())
        }
    }

    private func notConnected(_ cause: String?) -> KiteError {
        KiteError(.send, "Not connected to \(loggable(url))" + (cause.map { ": \($0)" } ?? ""))
    }
}

/// A URL without its query and its user, which may hold secrets.
func loggable(_ url: String) -> String {
    let plain = url.prefix { $0 != "?" && $0 != "#" }
    guard let scheme = plain.firstRange(of: "://") else { return String(plain) }
    let rest = plain[scheme.upperBound...]
    let authority = rest.prefix { $0 != "/" }
    guard let at = authority.lastIndex(of: "@") else { return String(plain) }
    return String(plain[..<scheme.upperBound] + rest[rest.index(after: at)...])
}
