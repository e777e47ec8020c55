/// What one asks Kontrol for.

/// Names kites by the fields of their identity, from the general to the special. Fields are set from the left without gaps
/// (``username`` first); empty means any. A query with ``id`` alone names one kite.
public struct KontrolQuery: Sendable, Hashable {
    /// The user it belongs to.
    public var username: String
    public var environment: String
    public var name: String
    /// A version, or a constraint such as `>= 1.0, < 2.0` (``VersionConstraint``).
    public var version: String
    public var region: String
    public var hostname: String
    public var id: String

    public init(
        username: String = "", environment: String = "", name: String = "", version: String = "", region: String = "",
        hostname: String = "", id: String = ""
    ) {
        self.username = username
        self.environment = environment
        self.name = name
        self.version = version
        self.region = region
        self.hostname = hostname
        self.id = id
    }

    /// A longer field is an error.
    static let maximumFieldLength = 256

    /// Field names and values in their order.
    var fields: [(name: String, value: String)] {
        [
            ("username", username), ("environment", environment), ("name", name), ("version", version),
            ("region", region), ("hostname", hostname), ("id", id),
        ]
    }

    /// Whether only ``id`` is set.
    public var isByIDOnly: Bool { !id.isEmpty && fields.dropLast().allSatisfy(\.value.isEmpty) }

    /// Checks that the query is one that Kontrol answers.
    /// - Throws: ``KontrolError`` with `invalidQuery` and Go's wording.
    public func validate() throws(KontrolError) {
        var gap: String?
        for field in fields {
            guard field.value.utf8.count <= Self.maximumFieldLength else {
                throw KontrolError(.invalidQuery, "Field \"\(field.name)\" is too long")
            }
        }
        if isByIDOnly { return }
        guard !username.isEmpty else { throw KontrolError(.invalidQuery, "Empty username field") }
        for field in fields {
            if field.value.isEmpty {
                gap = field.name
            } else if let gap {
                throw KontrolError(.invalidQuery, "Invalid query. Query option is not set: \(gap)")
            }
        }
        if !version.isEmpty, SemanticVersion(version) == nil, VersionConstraint(version) == nil,
            version.contains(where: { "<>=!~,".contains($0) })
        {
            throw KontrolError(.invalidQuery, "Malformed constraint: \(version)")
        }
    }

    /// Whether a kite is meant. The query must have passed ``validate()``; one that has not matches nothing it should not.
    public func matches(_ kite: KiteIdentity) -> Bool {
        func matches(_ wanted: String, _ value: String) -> Bool { wanted.isEmpty || wanted == value }
        return matches(id, kite.id) && matches(username, kite.username) && matches(environment, kite.environment)
            && matches(name, kite.name) && matches(region, kite.region) && matches(hostname, kite.hostname)
            && matchesVersion(kite.version)
    }

    private func matchesVersion(_ text: String) -> Bool {
        if version.isEmpty || version == text { return true }
        guard let given = SemanticVersion(text) else { return false }
        if let wanted = SemanticVersion(version) { return wanted == given }
        return VersionConstraint(version)?.allows(given) ?? false
    }
}

extension KontrolQuery: CustomStringConvertible {
    /// The form with slashes, `/user/environment/name`, up to the last field that is set.
    public var description: String {
        var values = fields.map(\.value)
        while values.last?.isEmpty == true { values.removeLast() }
        return "/" + values.joined(separator: "/")
    }

    /// Reads the form with slashes.
    /// - Throws: ``KontrolError`` with `invalidQuery` when it does not begin with `/`, has more than seven fields or does not pass
    ///   ``validate()``.
    public init(parsing text: String) throws(KontrolError) {
        var values = text.split(separator: "/", maxSplits: 8, omittingEmptySubsequences: false).map(String.init)
        guard text.hasPrefix("/"), values.count <= 8 else {
            throw KontrolError(.invalidQuery, "A query has the form /username/environment/name")
        }
        values.removeFirst()
        while values.count < 7 { values.append("") }
        self.init(
            username: values[0], environment: values[1], name: values[2], version: values[3], region: values[4],
            hostname: values[5], id: values[6])
        try validate()
    }
}

extension KontrolQuery: Codable {
    enum CodingKeys: String, CodingKey {
        case username, environment, name, version, region, hostname, id
    }

    /// Every field may be absent or null.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        func field(_ key: CodingKeys) throws -> String { try container.decodeIfPresent(String.self, forKey: key) ?? "" }
        try self.init(
            username: field(.username), environment: field(.environment), name: field(.name), version: field(.version),
            region: field(.region), hostname: field(.hostname), id: field(.id))
    }
}
