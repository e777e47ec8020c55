/// What can be wrong with keys, key files and tokens.

/// A key or a key file that cannot be used. The message names the cause and never contains key material.
public struct KeyError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What is wrong, stable for programs.
    public enum Code: Sendable, Hashable {
        /// The file does not exist.
        case notFound
        /// The file exists and must not be overwritten.
        case exists
        /// The file system refused.
        case fileAccess
        /// Contents that are no key of the expected kind.
        case malformed
        /// A key could not be generated or a signature could not be made.
        case crypto
    }
    /// What kind of error it is.
    public let code: Code
    /// A human sentence.
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { message }
}

/// Why a token or a kite key is not accepted. ``message`` is what Go's kites say in the same case, since clients decide by the text
/// (an `authenticationError` with `token is expired` makes them fetch a new token).
public enum TokenError: Error, Sendable, Hashable, CustomStringConvertible {
    /// Longer than ``SignedToken/maximumLength`` bytes.
    case tooLong
    /// Not three segments separated by full stops.
    case segments
    /// A character that base64url does not have, at this offset of its segment.
    case encoding(offset: Int)
    /// Header or claims are not the JSON they should be.
    case malformed
    /// `alg` is not RS256, or the header demands an extension.
    case signingMethod
    /// The issuer is none of those trusted.
    case untrustedIssuer(String)
    /// The signature of a token does not verify with any key of its issuer. Said as expiry, so that clients fetch a new one
    /// after a change of keys.
    case tokenSignature
    /// The signature of a kite key does not verify with the key it names.
    case kiteKeySignature
    /// The kite key names no Kontrol key.
    case noKontrolKey
    /// The kite key names a Kontrol key that is not trusted.
    case untrustedKontrolKey
    /// `exp` has passed, this many seconds ago.
    case expired(seconds: Int64)
    /// `nbf` lies ahead.
    case notYetValid
    case noAudience
    case noUsername
    case invalidAudience(String)
    case audienceUsername(String, audience: String)
    case audienceEnvironment(String, audience: String)
    case audienceName(String, audience: String)

    /// The sentence sent to the caller, without the authentication type in front.
    public var message: String {
        switch self {
        case .tooLong: "token is too long"
        case .segments: "token contains an invalid number of segments"
        case .encoding(let offset): "illegal base64 data at input byte \(offset)"
        case .malformed: "token is malformed"
        case .signingMethod: "invalid signing method"
        case .untrustedIssuer(let issuer): "issuer is not trusted: \(issuer)"
        case .tokenSignature: "token is expired"
        case .kiteKeySignature: "crypto/rsa: verification error"
        case .noKontrolKey: "no kontrol key found"
        case .untrustedKontrolKey: "kontrol key is not trusted"
        case .expired(let seconds): "token is expired by \(Self.duration(seconds))"
        case .notYetValid: "token is not valid yet"
        case .noAudience: "token has no audience"
        case .noUsername: "token has no username"
        case .invalidAudience(let audience): "invalid audience: invalid kite string (\(audience))"
        case .audienceUsername(let name, let audience):
            "audience: username \(Self.quoted(name)) not allowed (\(audience))"
        case .audienceEnvironment(let name, let audience):
            "audience: environment \(Self.quoted(name)) not allowed (\(audience))"
        case .audienceName(let name, let audience): "audience: kite \(Self.quoted(name)) not allowed (\(audience))"
        }
    }
    public var description: String { message }

    /// A duration in Go's notation: `11s`, `1m5s`, `2h0m0s`.
    private static func duration(_ seconds: Int64) -> String {
        let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60)
        if hours > 0 { return "\(hours)h\(minutes)m\(rest)s" }
        return minutes > 0 ? "\(minutes)m\(rest)s" : "\(rest)s"
    }

    private static func quoted(_ text: String) -> String {
        var result = "\""
        for character in text {
            if character == "\"" || character == "\\" { result.append("\\") }
            result.append(character)
        }
        return result + "\""
    }
}
