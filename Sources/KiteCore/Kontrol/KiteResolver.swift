/// How the rest finds kites, whether Kontrol runs elsewhere or in the same process.

/// A kite as Kontrol knows it.
public struct KontrolKite: Sendable, Hashable, Codable {
    /// Who it is.
    public var identity: KiteIdentity
    /// Where it registered that it is reached.
    public var url: String
    /// The id of the key pair that its tokens are signed with; empty where Kontrol does not say.
    public var keyID: String
    /// With this the one who asked may call it; empty where none was asked for. A secret.
    public var token: String

    public init(identity: KiteIdentity, url: String, keyID: String = "", token: String = "") {
        self.identity = identity
        self.url = url
        self.keyID = keyID
        self.token = token
    }

    enum CodingKeys: String, CodingKey {
        case identity = "kite"
        case url
        case keyID = "keyId"
        case token
    }

    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        identity = try container.decode(KiteIdentity.self, forKey: .identity)
        url = try container.decodeIfPresent(String.self, forKey: .url) ?? ""
        keyID = try container.decodeIfPresent(String.self, forKey: .keyID) ?? ""
        token = try container.decodeIfPresent(String.self, forKey: .token) ?? ""
    }
}

/// Finds kites. Implemented by the client of a Kontrol elsewhere and by the embedded one.
public protocol KiteResolver: Sendable {
    /// The registered kites that a query matches; empty when there are none.
    /// - Throws: ``KontrolError`` with `invalidQuery` or `unavailable`.
    func kites(matching query: KontrolQuery) async throws -> [KontrolKite]
    /// The registered kite with an id; nil when there is none.
    /// - Throws: ``KontrolError`` with `unavailable`.
    func kite(id: String) async throws -> KontrolKite?
}
