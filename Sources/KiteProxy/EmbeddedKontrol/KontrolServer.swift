/// The embedded Kontrol as a kite: the methods that other kites call.
public import KiteCore
public import Logging
import Synchronization

/// Serves a ``KontrolService`` to kites. What accepts connections hands them to ``kite``; over HTTP there is ``KontrolExchangeAcceptor``.
public final class KontrolServer: Sendable {
    /// The kite with Kontrol's methods.
    public let kite: Kite
    let service: KontrolService
    private let logger: Logger
    let sessions = Mutex(KontrolSessions())

    /// - Parameters:
    ///   - service: must be run elsewhere.
    ///   - configuration: limits and timeouts of the kite; who it is, is the service's business.
    public init(
        service: KontrolService, configuration: KiteConfiguration = KiteConfiguration(),
        logger: Logger = Logger(label: "kontrol")
    ) {
        self.service = service
        self.logger = logger
        var configuration = configuration
        configuration.username = service.identity.username
        configuration.environment = service.identity.environment
        configuration.region = service.identity.region
        configuration.hostname = service.identity.hostname
        configuration.id = service.identity.id
        kite = Kite(
            name: service.identity.name, version: service.identity.version, configuration: configuration,
            authenticator: service.verifier, logger: logger)
        kite.onDisconnect { [weak self] remote in self?.sessions.withLock { $0.end(remote.connectionID) } }
        addMethods()
    }

    private func addMethods() {
        kite.handle("register") { [weak self] request in try await self.orGone().register(request) }
        kite.handle("getKites") { [weak self] request in try await self.orGone().getKites(request) }
        kite.handle("watchKites") { [weak self] request in try await self.orGone().watchKites(request) }
        kite.handle("cancelWatcher") { [weak self] request in try await self.orGone().cancelWatcher(request) }
        kite.handle("getToken") { [weak self] request in try await self.orGone().getToken(request) }
        kite.handle("getKey") { [weak self] request in try await self.orGone().getKey(request) }
        // Asks for no authentication, and may cost a signature.
        kite.handle("registerMachine", .anonymous.limited(burst: 20, every: .milliseconds(200))) {
            [weak self] request in try await self.orGone().registerMachine(request)
        }
    }

    // MARK: Finding kites

    private struct GetKitesArguments: Decodable {
        var query: KontrolQuery?
        /// Go's and kite.js's names for the same.
        var watchCallback: DnodeFunction?
        var watchHandler: DnodeFunction?
    }

    private func getKites(_ request: KiteRequest) async throws -> GetKitesResponse {
        let arguments: GetKitesArguments = try request.single()
        let query = arguments.query ?? KontrolQuery()
        if let callback = arguments.watchHandler ?? arguments.watchCallback {
            return try await watch(query, callback, request)
        }
        let kites = try await kites(query, request)
        // Clients of Go's Kontrol expect an error where there is nothing to choose from.
        guard !kites.isEmpty else { throw KiteError(.generic, "100: Key not found (/kites\(query))") }
        return GetKitesResponse(kites: kites)
    }

    private func kites(_ query: KontrolQuery, _ request: KiteRequest) async throws -> [KontrolKite] {
        if let username = request.username { service.note(user: username) }
        return try await answering { () throws(KontrolError) in
            try await self.service.kites(matching: query, for: request.username ?? "")
        }
    }

    private func watchKites(_ request: KiteRequest) async throws -> GetKitesResponse {
        let arguments: GetKitesArguments = try request.argument(0)
        let second = request.arguments.count > 1 ? request.arguments[1].function : nil
        guard let callback = arguments.watchHandler ?? arguments.watchCallback ?? second else {
            throw KiteError(.argument, "A function is needed to be told of changes")
        }
        return try await watch(arguments.query ?? KontrolQuery(), callback, request)
    }

    private func watch(
        _ query: KontrolQuery, _ callback: DnodeFunction, _ request: KiteRequest
    ) async throws -> GetKitesResponse {
        // First the watcher, then the list: what changes between is told twice rather than never.
        let (id, changes) = try await answering { () throws(KontrolError) in try await self.service.watch(query) }
        let connection = request.remote.connectionID
        guard sessions.withLock({ $0.add(watcher: id, of: connection) }) else {
            _ = await service.cancelWatcher(id)
            throw KiteError(.generic, "Too many watchers on this connection")
        }
        let kites: [KontrolKite]
        do {
            kites = try await self.kites(query, request)
        } catch {
            await drop(watcher: id, of: connection)
            throw error
        }
        let username = request.username ?? ""
        request.runAfterAnswer { [self] in
            do {
                for await change in changes {
                    let event = try await service.event(change, for: username)
                    try await callback.call(WatchMessage(result: event))
                }
                let isWanted = sessions.withLock { $0.has(watcher: id, of: connection) }
                if isWanted, !Task.isCancelled {
                    let error = KiteError("watchError", "The watcher did not take its events in time")
                    try await callback.call(WatchMessage(error: error))
                }
            } catch {
                logger.debug("A watcher ended", metadata: ["error": "\(error)"])
            }
            await drop(watcher: id, of: connection)
        }
        return GetKitesResponse(kites: kites, watcherID: id)
    }

    private func drop(watcher id: String, of connection: UInt64) async {
        sessions.withLock { _ = $0.remove(watcher: id, of: connection) }
        _ = await service.cancelWatcher(id)
    }

    private func cancelWatcher(_ request: KiteRequest) async throws {
        let id: String = try request.single()
        // Only one's own: the ids of others are none of one's business.
        guard sessions.withLock({ $0.remove(watcher: id, of: request.remote.connectionID) }) else {
            throw KiteError(.generic, "Watcher not found")
        }
        _ = await service.cancelWatcher(id)
    }

    // MARK: Tokens and keys

    private struct GetTokenArguments: Decodable {
        var query: KontrolQuery
        var force: Bool

        enum CodingKeys: String, CodingKey {
            case force
        }

        init(from decoder: any Decoder) throws {
            query = try KontrolQuery(from: decoder)
            force = try decoder.container(keyedBy: CodingKeys.self).decodeIfPresent(Bool.self, forKey: .force) ?? false
        }
    }

    private func getToken(_ request: KiteRequest) async throws -> String {
        let arguments: GetTokenArguments = try request.single()
        if let username = request.username { service.note(user: username) }
        return try await answering { () throws(KontrolError) in
            try await self.service.token(
                matching: arguments.query, for: request.username ?? "", isForced: arguments.force)
        }
    }

    private func getKey(_ request: KiteRequest) async throws -> String {
        let (_, username, _) = try credential(request)
        return await service.publicKey(for: request.caller, of: username).pem
    }

    private struct RegisterMachineArguments: Decodable {
        var authType: String?
        /// A one-time secret from the operator; not known to Go's Kontrol.
        var secret: String?
    }

    private func registerMachine(_ request: KiteRequest) async throws -> String {
        // `kitectl register` gives the user's name instead, which stands in the caller's identity as well.
        let isName = if case .string? = request.arguments.first { request.arguments.count == 1 } else { false }
        let arguments: RegisterMachineArguments = isName ? RegisterMachineArguments() : try request.single()
        return try await answering { () throws(KontrolError) in
            try await self.service.registerMachine(username: request.caller.username, secret: arguments.secret).text
        }
    }

    /// The kite key a call was made with.
    func credential(_ request: KiteRequest) throws(KiteError) -> (VerifiedCredential, username: String, text: String) {
        guard let authentication = request.authentication, authentication.type == "kiteKey" else {
            throw KiteError(
                .generic, "Unexpected authentication type: \((request.authentication?.type ?? "").prefix(64))")
        }
        let credential = try service.verifier.credential(authentication, for: kite.identity)
        return (credential, credential.username, authentication.key)
    }

    /// Turns what the service refuses into what the caller is told.
    func answering<Value>(_ body: () async throws(KontrolError) -> Value) async throws(KiteError) -> Value {
        do throws(KontrolError) {
            return try await body()
        } catch {
            if error.code == .unavailable {
                logger.error("Kontrol could not answer", metadata: ["error": "\(error)"])
                throw KiteError(.generic, "internal error")
            }
            throw KiteError(.generic, error.message)
        }
    }
}

/// What a watcher's function is called with.
private struct WatchMessage: Encodable {
    var error: KiteError?
    var result: KiteEvent?

    enum CodingKeys: String, CodingKey {
        case error, result
    }

    /// Both are always there, as in an answer.
    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(error, forKey: .error)
        try container.encode(result, forKey: .result)
    }
}

extension Optional where Wrapped == KontrolServer {
    /// - Throws: ``KiteError`` when the server is no more but its kite still is.
    fileprivate func orGone() throws(KiteError) -> KontrolServer {
        guard let self else { throw KiteError(.generic, "Kontrol is shutting down") }
        return self
    }
}

extension KiteRequest {
    /// The only argument, with the words Go uses where it is missing.
    func single<Value: Decodable>(_ type: Value.Type = Value.self) throws(KiteError) -> Value {
        guard !arguments.isEmpty else { throw KiteError(.argument, "Cannot unmarshal nil argument") }
        guard arguments.count == 1 else { throw KiteError(.argument, "Invalid array length") }
        return try argument(0)
    }
}
