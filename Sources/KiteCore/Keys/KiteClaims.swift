/// The claims that tokens and kite keys carry, as they stand in the JSON.
package import JWTKit

/// All claims the kite protocol knows; every one may be absent. Times are whole seconds since 1970: Go's peers do not read
/// fractions.
package struct KiteClaims: JWTPayload, Hashable {
    /// Kontrol's user, who issued it.
    package var issuer: String?
    /// The user it was issued to.
    package var subject: String?
    /// Which kites a token opens, see ``Audience``.
    package var audience: String?
    package var expiresAt: Int64?
    package var notBefore: Int64?
    package var issuedAt: Int64?
    package var id: String?
    /// Kontrol's public key as PEM text (kite keys only).
    package var kontrolKey: String?
    /// Where Kontrol is reached (kite keys only).
    package var kontrolURL: String?

    enum CodingKeys: String, CodingKey {
        case issuer = "iss"
        case subject = "sub"
        case audience = "aud"
        case expiresAt = "exp"
        case notBefore = "nbf"
        case issuedAt = "iat"
        case id = "jti"
        case kontrolKey, kontrolURL
    }

    package init() {}

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        issuer = try container.decodeIfPresent(String.self, forKey: .issuer)
        subject = try container.decodeIfPresent(String.self, forKey: .subject)
        audience = try container.decodeIfPresent(String.self, forKey: .audience)
        id = try container.decodeIfPresent(String.self, forKey: .id)
        kontrolKey = try container.decodeIfPresent(String.self, forKey: .kontrolKey)
        kontrolURL = try container.decodeIfPresent(String.self, forKey: .kontrolURL)
        expiresAt = try Self.time(container, .expiresAt)
        notBefore = try Self.time(container, .notBefore)
        issuedAt = try Self.time(container, .issuedAt)
    }

    /// What the claims say is judged by ``TokenVerifier``, which also knows the time and the audience.
    package func verify(using algorithm: some JWTAlgorithm) async throws {}

    /// A NumericDate (RFC 7519 section 2), which may have a fraction.
    private static func time(_ container: KeyedDecodingContainer<CodingKeys>, _ key: CodingKeys) throws -> Int64? {
        guard container.contains(key), try !container.decodeNil(forKey: key) else { return nil }
        if let whole = try? container.decode(Int64.self, forKey: key) { return whole }
        let number = try container.decode(Double.self, forKey: key)
        guard let whole = Int64(exactly: number.rounded(.down)) else {
            throw DecodingError.dataCorruptedError(forKey: key, in: container, debugDescription: "time out of range")
        }
        return whole
    }
}
