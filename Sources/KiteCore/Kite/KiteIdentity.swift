/// Who a kite is: the seven fields by which Kontrol files it and which every call carries.

/// The identity of a kite. Its coding is the `kite` object of the protocol; absent fields decode as empty.
public struct KiteIdentity: Sendable, Hashable, Codable, CustomStringConvertible {
    /// What the kite does; all instances of a service share it (`math`).
    public var name: String
    /// Whose kite it is.
    public var username: String
    /// A UUID, unique to this instance.
    public var id: String
    /// Where in its life the service stands (`development`, `production`).
    public var environment: String
    /// Where it runs (`local`, `eu-west`).
    public var region: String
    /// `major.minor.patch`.
    public var version: String
    /// The machine's name.
    public var hostname: String

    public init(
        name: String = "", username: String = "", id: String = "", environment: String = "", region: String = "",
        version: String = "", hostname: String = ""
    ) {
        self.name = name
        self.username = username
        self.id = id
        self.environment = environment
        self.region = region
        self.version = version
        self.hostname = hostname
    }

    enum CodingKeys: String, CodingKey {
        case name, username, id, environment, region, version, hostname
    }

    public init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        func text(_ key: CodingKeys) throws -> String { try fields.decodeIfPresent(String.self, forKey: key) ?? "" }
        self.init(
            name: try text(.name), username: try text(.username), id: try text(.id),
            environment: try text(.environment), region: try text(.region), version: try text(.version),
            hostname: try text(.hostname))
    }

    /// The kite's place in Kontrol: `/username/environment/name/version/region/hostname/id`.
    public var path: String { "/\(username)/\(environment)/\(name)/\(version)/\(region)/\(hostname)/\(id)" }

    /// The same as ``path``.
    public var description: String { path }
}
