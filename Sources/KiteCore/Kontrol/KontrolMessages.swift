/// What kites and Kontrol say to each other, as it stands in the JSON.

/// Arguments of `register`, and over HTTP the body of `POST /register`.
package struct RegisterRequest: Sendable, Codable {
    package var url: String?
    /// Over HTTP only: who registers.
    package var kite: KiteIdentity?
    /// Over HTTP only: its kite key.
    package var auth: Authentication?

    package init(url: String?, kite: KiteIdentity? = nil, auth: Authentication? = nil) {
        self.url = url
        self.kite = kite
        self.auth = auth
    }
}

/// The answer to `register`.
package struct RegisterResponse: Sendable, Hashable, Codable {
    package var url: String
    /// Seconds between heartbeats over HTTP; 0 over a connection, where Kontrol asks for them itself.
    package var heartbeatInterval: Int
    /// Set when the caller came with a retired key: the public key it should trust from now on.
    package var publicKey: String?
    /// Set when the caller came with a retired key: its new kite key.
    package var kiteKey: String?

    package init(url: String, heartbeatInterval: Int, publicKey: String? = nil, kiteKey: String? = nil) {
        self.url = url
        self.heartbeatInterval = heartbeatInterval
        self.publicKey = publicKey
        self.kiteKey = kiteKey
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        url = try container.decodeIfPresent(String.self, forKey: .url) ?? ""
        heartbeatInterval = try container.decodeIfPresent(Int.self, forKey: .heartbeatInterval) ?? 0
        publicKey = try container.decodeIfPresent(String.self, forKey: .publicKey)
        kiteKey = try container.decodeIfPresent(String.self, forKey: .kiteKey)
    }
}

/// The answer to a refused `POST /register`.
package struct RegisterRefusal: Sendable, Codable {
    package var err: String

    package init(err: String) { self.err = err }
}

/// The answer to `getKites` and `watchKites`.
package struct GetKitesResponse: Sendable, Codable {
    package var kites: [KontrolKite]
    /// Set when changes are watched.
    package var watcherID: String?

    package init(kites: [KontrolKite], watcherID: String? = nil) {
        self.kites = kites
        self.watcherID = watcherID
    }
}

/// A change that a watcher is told.
public struct KiteEvent: Sendable, Hashable, Codable {
    /// What happened.
    public enum Action: String, Sendable, Hashable, Codable {
        case register = "REGISTER"
        case deregister = "DEREGISTER"
    }
    /// Whether the kite has come or gone.
    public var action: Action
    /// Whose registration it is about.
    public var kite: KiteIdentity
    /// Where it is reached, when it came.
    public var url: String?
    /// With this it may be called, when it came. A secret.
    public var token: String?

    public init(action: Action, kite: KiteIdentity, url: String? = nil, token: String? = nil) {
        self.action = action
        self.kite = kite
        self.url = url
        self.token = token
    }

    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        action = try container.decode(Action.self, forKey: .action)
        kite = try container.decode(KiteIdentity.self, forKey: .kite)
        url = try container.decodeIfPresent(String.self, forKey: .url).flatMap { $0.isEmpty ? nil : $0 }
        token = try container.decodeIfPresent(String.self, forKey: .token).flatMap { $0.isEmpty ? nil : $0 }
    }

    /// What is not there is empty: kite.js fails on an event without a token.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(action, forKey: .action)
        try container.encode(kite, forKey: .kite)
        try container.encode(url ?? "", forKey: .url)
        try container.encode(token ?? "", forKey: .token)
    }

    private enum CodingKeys: CodingKey {
        case action, kite, url, token
    }
}
