/// The error a kite answers a call with, and the errors a caller meets on its own side.

/// An error as the protocol carries it: a stable type for programs, a sentence for people.
///
/// Throw one from a method to choose what the caller sees; every other error reaches it as ``ErrorType/generic``.
public struct KiteError: Error, Sendable, Hashable, Codable, CustomStringConvertible {
    /// What went wrong, stable for programs. Any string is allowed; the well-known ones have names here.
    public struct ErrorType: RawRepresentable, Sendable, Hashable, Codable, ExpressibleByStringLiteral {
        public var rawValue: String
        public init(rawValue: String) { self.rawValue = rawValue }
        public init(stringLiteral value: String) { rawValue = value }

        /// An error without a type of its own.
        public static let generic: Self = "genericError"
        /// The kite has no such method.
        public static let methodNotFound: Self = "methodNotFound"
        /// The caller is not who it must be, or did not say who it is.
        public static let authentication: Self = "authenticationError"
        /// The method's rate limit is exhausted.
        public static let requestLimit: Self = "requestLimitError"
        /// The arguments do not fit the method.
        public static let argument: Self = "argumentError"
        /// The caller's side: no answer in time.
        public static let timeout: Self = "timeout"
        /// The caller's side: the call could not be sent.
        public static let send: Self = "sendError"
        /// The caller's side: the connection was lost before the answer came.
        public static let disconnect: Self = "disconnect"
        /// The caller's side: the answer makes no sense.
        public static let invalidResponse: Self = "invalidResponse"
    }

    /// What kind of error it is; callers decide by it.
    public var type: ErrorType
    /// A sentence for people; never contains secrets.
    public var message: String
    /// A code of the service's own; usually empty.
    public var code: String
    /// The id of the request that failed (16 hexadecimal digits); empty where there was none.
    public var id: String

    public init(_ type: ErrorType, _ message: String, code: String = "", id: String = "") {
        self.type = type
        self.message = message
        self.code = code
        self.id = id
    }

    enum CodingKeys: String, CodingKey {
        case type, message, code, id
    }

    public init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        self.init(
            try fields.decodeIfPresent(ErrorType.self, forKey: .type) ?? .generic,
            try fields.decodeIfPresent(String.self, forKey: .message) ?? "",
            code: try fields.decodeIfPresent(String.self, forKey: .code) ?? "",
            id: try fields.decodeIfPresent(String.self, forKey: .id) ?? "")
    }

    public var description: String {
        "\(type.rawValue): \(message)" + (code.isEmpty ? "" : " [\(code)]")
    }

    /// Whether a new token would help: what Go and kite.js take as the sign to ask Kontrol for one.
    public var isExpiredToken: Bool { type == .authentication && message.contains("token is expired") }
}

extension KiteError.ErrorType {
    public init(from decoder: any Decoder) throws {
        self.init(rawValue: try decoder.singleValueContainer().decode(String.self))
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(rawValue)
    }
}
