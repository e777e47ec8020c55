/// How a caller proves who it is, and who judges that.

/// The `authentication` object of a call: a type and a secret.
public struct Authentication: Sendable, Hashable, Codable, CustomStringConvertible, CustomDebugStringConvertible,
    CustomReflectable
{
    /// `token` or `kiteKey`; a kite may know others.
    public var type: String
    /// The secret: a JWT for the well-known types.
    public var key: String

    public init(type: String, key: String) {
        self.type = type
        self.key = key
    }

    /// A token that Kontrol issued for one kite or a group of kites.
    public static func token(_ token: String) -> Self { Self(type: "token", key: token) }
    /// The kite key of a machine; for Kontrol and the gateway, which everybody trusts.
    public static func kiteKey(_ key: String) -> Self { Self(type: "kiteKey", key: key) }

    enum CodingKeys: String, CodingKey {
        case type, key
    }

    public init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        self.init(
            type: try fields.decodeIfPresent(String.self, forKey: .type) ?? "",
            key: try fields.decodeIfPresent(String.self, forKey: .key) ?? "")
    }

    /// The type; the key stays secret.
    public var description: String { "\(type)(…)" }
    public var debugDescription: String { description }
    public var customMirror: Mirror { Mirror(self, children: ["type": type]) }
}

/// Judges who calls a kite.
public protocol KiteAuthenticator: Sendable {
    /// Checks what a caller brought.
    /// - Parameters:
    ///   - authentication: what the call carried; nil when it carried nothing.
    ///   - kite: the kite that is called; a token's audience must include it.
    /// - Returns: the caller's user name.
    /// - Throws: a ``KiteError`` of type ``KiteError/ErrorType/authentication`` that the caller is told.
    func authenticate(_ authentication: Authentication?, for kite: KiteIdentity) async throws(KiteError) -> String
}

/// Refuses every caller: what a kite without keys does with methods that demand authentication.
public struct RefusingAuthenticator: KiteAuthenticator {
    public init() {}

    public func authenticate(
        _ authentication: Authentication?, for kite: KiteIdentity
    ) async throws(KiteError) -> String {
        guard let authentication else {
            throw KiteError(.authentication, "No authentication information is provided")
        }
        throw KiteError(.authentication, "Unknown authentication type: \(authentication.type.prefix(64))")
    }
}
