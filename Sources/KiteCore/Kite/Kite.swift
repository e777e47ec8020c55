/// A kite: methods under names, for whoever is connected to it.
import KiteDnode
public import KiteSockJS
public import Logging
import Synchronization

/// A kite and its methods. The same kite can serve any number of connections at the same time: those that a listener
/// accepted, those that a ``KiteClient`` dialled, those that come through a tunnel.
///
/// ```swift
/// let kite = Kite(name: "math", version: "1.0.0")
/// kite.handle("square") { (request, number: Double) in number * number }
/// try await kite.run()
/// ```
public final class Kite: Sendable {
    private struct State {
        var methods: [String: KiteMethod] = [:]
        var buckets: [String: TokenBucket] = [:]
        var before: [PreHandler] = []
        var after: [PostHandler] = []
        var connectHandlers: [@Sendable (RemoteKite) -> Void] = []
        var disconnectHandlers: [@Sendable (RemoteKite) -> Void] = []
        var connections: [UInt64: RemoteKite] = [:]
    }

    /// How it was set up.
    public let configuration: KiteConfiguration
    /// Who it is, as others see it.
    public let identity: KiteIdentity
    /// Judges who calls.
    public let authenticator: any KiteAuthenticator
    /// Where it logs; names the kite.
    public let logger: Logger
    private let state = Mutex(State())

    /// - Parameters:
    ///   - name: what the kite does; part of its address at Kontrol.
    ///   - version: `major.minor.patch`.
    ///   - authenticator: who may call methods that require authentication. Where nil, those whom the issuer of the kite key
    ///     vouches for; without a kite key nobody.
    public init(
        name: String, version: String, configuration: KiteConfiguration = KiteConfiguration(),
        authenticator: (any KiteAuthenticator)? = nil, logger: Logger = Logger(label: "kite")
    ) {
        self.configuration = configuration
        identity = KiteIdentity(
            name: name, username: configuration.username, id: configuration.id,
            environment: configuration.environment, region: configuration.region, version: version,
            hostname: configuration.hostname)
        var logger = logger
        logger[metadataKey: "kite"] = "\(name)"
        self.logger = logger
        self.authenticator = authenticator ?? Self.defaultAuthenticator(configuration)
        registerBuiltInMethods()
    }

    private static func defaultAuthenticator(_ configuration: KiteConfiguration) -> any KiteAuthenticator {
        guard let key = configuration.kiteKey, let publicKey = try? key.kontrolPublicKey() else {
            return RefusingAuthenticator()
        }
        return TokenVerifier(
            trusting: [TrustedIssuer(name: key.kontrolUsername, keys: [publicKey])],
            rememberingFor: configuration.verifyTTL)
    }

    // MARK: - methods

    /// Registers a method, or replaces it. Its parameters are decoded from the arguments; trailing ones that are optional may be
    /// left out by the caller. A method without parameters takes any arguments, see ``KiteRequest/arguments``.
    ///
    /// Runs in a task of the connection and is cancelled when that ends. What it throws, the caller gets: a ``KiteError`` as it is,
    /// other errors as `genericError`.
    public func handle<each Argument: Decodable & Sendable, Result: Encodable & Sendable>(
        _ method: String, _ options: MethodOptions = .authenticated,
        _ body: @escaping @Sendable (KiteRequest, repeat each Argument) async throws -> Result
    ) {
        register(method, options) { request in
            let result = try await Self.apply(body, to: request)
            do { return try DnodeEncoder().encode(result) } catch {
                throw KiteError(.generic, "The result cannot be sent: \(describe(error))")
            }
        }
    }

    /// Registers a method without a result.
    public func handle<each Argument: Decodable & Sendable>(
        _ method: String, _ options: MethodOptions = .authenticated,
        _ body: @escaping @Sendable (KiteRequest, repeat each Argument) async throws -> Void
    ) {
        register(method, options) { request in
            try await Self.apply(body, to: request)
            return .null
        }
    }

    private static func apply<each Argument: Decodable & Sendable, Result>(
        _ body: (KiteRequest, repeat each Argument) async throws -> Result, to request: KiteRequest
    ) async throws -> Result {
        var count = 0
        for _ in repeat (each Argument).self { count += 1 }
        guard count == 0 || request.arguments.count <= count else {
            throw KiteError(.argument, "\(count) arguments are expected, not \(request.arguments.count)")
        }
        let reader = ArgumentReader(request)
        let arguments = (repeat try reader.next((each Argument).self))
        return try await body(request, repeat each arguments)
    }

    private func register(
        _ method: String, _ options: MethodOptions, _ body: @escaping @Sendable (KiteRequest) async throws -> DnodeValue
    ) {
        state.withLock { state in
            state.methods[method] = KiteMethod(options: options, body: body)
            state.buckets[method] = options.rateLimit.map { TokenBucket($0) }
        }
    }

    /// Removes a method.
    public func removeMethod(_ method: String) {
        state.withLock { state in
            state.methods[method] = nil
            state.buckets[method] = nil
        }
    }

    /// Calls `handler` before every method, in the order of registration; one that throws answers the call.
    public func before(_ handler: @escaping PreHandler) { state.withLock { $0.before.append(handler) } }
    /// Calls `handler` with every result, in the order of registration; each may change it or throw.
    public func after(_ handler: @escaping PostHandler) { state.withLock { $0.after.append(handler) } }

    // MARK: - connections

    /// Calls `handler` with each new connection, before anything is received from it.
    public func onConnect(_ handler: @escaping @Sendable (RemoteKite) -> Void) {
        state.withLock { $0.connectHandlers.append(handler) }
    }
    /// Calls `handler` once for each connection that ended.
    public func onDisconnect(_ handler: @escaping @Sendable (RemoteKite) -> Void) {
        state.withLock { $0.disconnectHandlers.append(handler) }
    }

    /// The present connections.
    public var connections: [RemoteKite] { state.withLock { Array($0.connections.values) } }

    /// Serves a connection until it ends or the task is cancelled.
    /// - Parameter trustingPeer: whether the peer may call every method without proving who it is. Only for a peer that we chose and
    ///   dialled; never for one that comes through a tunnel.
    public func serve(_ channel: any MessageChannel, trustingPeer: Bool = false) async {
        _ = await serve(KiteConnection(channel: channel, kite: self, trustsPeer: trustingPeer))
    }

    /// - Returns: why the connection ended.
    func serve(_ connection: KiteConnection) async -> KiteError {
        let remote = connection.remote
        let connectHandlers = state.withLock { state in
            state.connections[remote.connectionID] = remote
            return state.connectHandlers
        }
        for handler in connectHandlers { handler(remote) }
        let reason = await connection.run()
        let disconnectHandlers = state.withLock { state in
            state.connections[remote.connectionID] = nil
            return state.disconnectHandlers
        }
        for handler in disconnectHandlers { handler(remote) }
        return reason
    }

    // MARK: - being called

    /// Does what a call asks for.
    /// - Returns: the result, and what to do once it has been sent.
    func perform(
        _ call: DnodeCall, id: String, on connection: KiteConnection
    ) async throws -> (result: DnodeValue, afterAnswer: (@Sendable () async -> Void)?) {
        let (method, before, after) = state.withLock { ($0.methods[call.method], $0.before, $0.after) }
        guard let method else { throw UnknownMethod(name: call.method) }
        var caller = try KiteIdentity(call.kite)
        connection.note(caller)
        let authentication = try call.authentication.map { value throws(KiteError) in try Authentication(value) }
        var username: String?
        if connection.trustsPeer {
            username = caller.username
        } else if method.options.requiresAuthentication {
            let proven = try await authenticator.authenticate(authentication, for: identity)
            username = proven
            caller.username = proven
        }
        let isWithinLimit = state.withLock { $0.buckets[call.method]?.take(now: .now) ?? true }
        guard isWithinLimit else { throw KiteError(.requestLimit, "The maximum request rate is exceeded.") }

        let request = KiteRequest(
            method: call.method, id: id, caller: caller, username: username, authentication: authentication,
            arguments: call.arguments, remote: connection.remote)
        for handler in before + method.options.before { try await handler(request) }
        var result = try await method.body(request)
        for handler in method.options.after + after { result = try await handler(request, result) }
        return (result, request.takeAfterAnswer())
    }
}

/// The kite has no method of this name. Its answer carries no request id, unlike that of a method that fails so itself.
struct UnknownMethod: Error {
    let name: String
    var error: KiteError { KiteError(.methodNotFound, "Method not found: \(name.prefix(256))") }
}

/// Decodes one argument after the other.
private final class ArgumentReader {
    private let request: KiteRequest
    private var position = 0

    init(_ request: KiteRequest) { self.request = request }

    func next<Value: Decodable>(_ type: Value.Type) throws(KiteError) -> Value {
        defer { position += 1 }
        return try request.argument(position, as: type)
    }
}

/// Lets everybody call everything, as `anonymous`: for kites that only hosts one trusts can reach, and for trying things out.
public struct OpenAuthenticator: KiteAuthenticator {
    public init() {}
    public func authenticate(
        _ authentication: Authentication?, for kite: KiteIdentity
    ) async throws(KiteError) -> String { "anonymous" }
}

extension KiteAuthenticator where Self == OpenAuthenticator {
    /// Everybody may call.
    public static var anyone: OpenAuthenticator { OpenAuthenticator() }
}
