/// Which kites a token opens.

/// The `aud` claim of a token: `/user`, `/user/environment` or `/user/environment/name`; what follows is without meaning.
/// `/` alone means every kite; it is accepted from Kontrols that issue it, and never issued here.
public struct Audience: Sendable, Hashable, CustomStringConvertible {
    /// Empty for the audience `/`.
    public let username: String
    /// Empty where any environment is meant.
    public let environment: String
    /// Empty where any kite is meant.
    public let name: String
    /// As it stands in the claim.
    public let description: String

    /// - Parameter name: needs `environment` not to be empty.
    public init(username: String, environment: String = "", name: String = "") {
        self.username = username
        self.environment = environment
        self.name = name
        description = "/" + [username, environment, name].prefix { !$0.isEmpty }.joined(separator: "/")
    }

    /// - Throws: ``TokenError/invalidAudience(_:)`` for text that does not begin with `/`.
    public init(parsing text: String) throws(TokenError) {
        guard text.utf8.first == UInt8(ascii: "/") else { throw .invalidAudience(text) }
        let fields = text.dropFirst().split(separator: "/", maxSplits: 6, omittingEmptySubsequences: false)
        func field(_ position: Int) -> String { position < fields.count ? String(fields[position]) : "" }
        username = field(0)
        environment = field(1)
        name = field(2)
        description = text
    }

    /// Whether a kite of this user, environment and name is meant.
    /// - Throws: ``TokenError`` that says which field is not.
    public func check(username: String, environment: String, name: String) throws(TokenError) {
        if description == "/" { return }
        guard self.username == username else { throw .audienceUsername(self.username, audience: description) }
        guard self.environment.isEmpty || self.environment == environment else {
            throw .audienceEnvironment(self.environment, audience: description)
        }
        guard self.name.isEmpty || self.name == name else { throw .audienceName(self.name, audience: description) }
    }
}
