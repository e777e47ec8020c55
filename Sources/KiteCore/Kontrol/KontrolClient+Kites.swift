/// Finding kites through Kontrol, and being told when they come and go.
internal import KiteDnode
internal import KiteSupport

extension KontrolClient: KiteResolver {
    /// The kites that a query matches, each with a token for this kite.
    /// - Throws: ``KontrolError``.
    public func kites(matching query: KontrolQuery) async throws -> [KontrolKite] {
        try query.validate()
        do {
            let answer: GetKitesResponse = try await tell("getKites", KitesRequest(query: query))
            return answer.kites
        } catch let error as KontrolError where error.code == .notFound {
            return []
        }
    }

    /// The kite with an id. Go's Kontrol cannot always tell by the id alone; then the kites of this kite's own user are searched.
    /// - Throws: ``KontrolError``.
    public func kite(id: String) async throws -> KontrolKite? {
        guard !id.isEmpty else { return nil }
        let found: [KontrolKite]
        do {
            found = try await kites(matching: KontrolQuery(id: id))
        } catch let error as KontrolError where error.code == .refused || error.code == .invalidQuery {
            found = try await kites(matching: KontrolQuery(username: key.username))
        }
        return found.first { $0.identity.id == id }
    }

    /// Tells of the kites that a query matches: first those that are there, then every one that comes or goes, until the task is
    /// cancelled. Survives reconnects: what changed meanwhile is told afterwards.
    /// - Throws: ``KontrolError`` with `refused` when Kontrol does not tell of changes (Go's last one does not), what `body` throws, and
    ///   `CancellationError`.
    public func watch(
        _ query: KontrolQuery, _ body: @Sendable (KiteEvent) async throws -> Void
    ) async throws {
        try query.validate()
        var known: [String: KiteIdentity] = [:]
        var backoff = Backoff(limit: KontrolClient.longestPause)
        while true {
            try await Task.sleep(for: backoff.next())
            let subscription: KiteWatch
            do {
                subscription = try await KiteWatch(query, over: self)
            } catch let error as KontrolError where error.code == .unavailable {
                continue
            }
            backoff.reset()
            // One more than a reconnect costs is better than a busy loop.
            _ = backoff.next()
            do {
                try await subscription.synchronise(&known, body)
                try await subscription.follow(&known, body)
            } catch {
                await subscription.end()
                throw error
            }
            await subscription.end()
        }
    }
}

/// Arguments of `getKites`.
private struct KitesRequest: Encodable, Sendable {
    let query: KontrolQuery
    /// Go's name and kite.js's name.
    var watchCallback: DnodeFunction?
    var watchHandler: DnodeFunction?

    private enum CodingKeys: CodingKey {
        case query, watchCallback, watchHandler, who
    }

    /// As Go writes it: what there is no value for is null.
    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(query, forKey: .query)
        try container.encode(watchCallback, forKey: .watchCallback)
        try container.encodeIfPresent(watchHandler, forKey: .watchHandler)
        try container.encodeNil(forKey: .who)
    }
}

/// One subscription to changes, for as long as the connection lasts.
private struct KiteWatch: Sendable {
    /// What the function of a subscription is called with.
    private struct Message: Decodable, Sendable {
        var error: KiteError?
        var result: KiteEvent?
    }

    private let kontrol: KontrolClient
    private let id: String
    private let function: DnodeFunction
    /// The connection that it was made on.
    private let remote: RemoteKite?
    private let kites: [KontrolKite]
    private let messages: AsyncStream<Message>
    private let message: AsyncStream<Message>.Continuation
    private let connectionEvents: AsyncStream<KiteClient.Event>

    init(_ query: KontrolQuery, over kontrol: KontrolClient) async throws {
        let (messages, message) = AsyncStream<Message>.makeStream(bufferingPolicy: .bufferingOldest(1024))
        let function = DnodeFunction(taking: Message.self) { received in
            // A lost event would leave a wrong picture: subscribe anew.
            if case .dropped = message.yield(received) { message.finish() }
        }
        self.kontrol = kontrol
        self.function = function
        self.messages = messages
        self.message = message
        // Before the call, so that no disconnect is missed.
        connectionEvents = kontrol.client.events()
        do {
            let answer: GetKitesResponse = try await kontrol.tell(
                "getKites", KitesRequest(query: query, watchCallback: function, watchHandler: function))
            guard let id = answer.watcherID else {
                throw KontrolError(.refused, "This Kontrol does not tell of changes")
            }
            self.id = id
            kites = answer.kites
        } catch {
            kontrol.client.remote?.release(function)
            throw error
        }
        remote = kontrol.client.remote
    }

    /// Tells Kontrol that nobody listens any more, unless the connection has ended, and with it the subscription.
    func end() async {
        message.finish()
        guard let remote, !remote.isClosed, kontrol.client.remote == remote else { return }
        remote.release(function)
        // Also in a task that has been cancelled, in which nothing can be called: so in one of its own, whose end is awaited.
        await Task { [kontrol, id] in
            _ = try? await kontrol.client.call("cancelWatcher", arguments: [.string(id)], timeout: Self.farewell)
        }.value
    }

    /// How long Kontrol may take to answer that a subscription has ended.
    private static let farewell = Duration.seconds(2)

    /// Tells the difference between what was known and what is there now.
    func synchronise(
        _ known: inout [String: KiteIdentity], _ body: @Sendable (KiteEvent) async throws -> Void
    ) async throws {
        let present = Set(kites.map(\.identity.id))
        for (id, identity) in known where !present.contains(id) {
            known[id] = nil
            try await body(KiteEvent(action: .deregister, kite: identity))
        }
        for kite in kites where known[kite.identity.id] != kite.identity {
            known[kite.identity.id] = kite.identity
            try await body(
                KiteEvent(action: .register, kite: kite.identity, url: kite.url, token: kite.token))
        }
    }

    /// Tells of changes until the subscription ends.
    func follow(
        _ known: inout [String: KiteIdentity], _ body: @Sendable (KiteEvent) async throws -> Void
    ) async throws {
        async let _: Void = finishWithConnection()
        for await received in messages {
            guard let event = received.result else { break }
            switch event.action {
            case .register: known[event.kite.id] = event.kite
            case .deregister: known[event.kite.id] = nil
            }
            try await body(event)
        }
        try Task.checkCancellation()
    }

    private func finishWithConnection() async {
        for await event in connectionEvents {
            if case .disconnected = event { break }
        }
        message.finish()
    }
}
