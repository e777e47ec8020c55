/// The key of an account, and how requests are signed with it (RFC 7515, RFC 8555 section 6.2).
import Crypto
import Foundation

/// An ECDSA P-256 key that signs with ES256.
struct AccountKey: Sendable {
    private let key: P256.Signing.PrivateKey

    /// A new one.
    init() { key = P256.Signing.PrivateKey() }

    /// - Throws: when the PEM holds no P-256 key.
    init(pem: String) throws { key = try P256.Signing.PrivateKey(pemRepresentation: pem) }

    /// Never to be logged.
    var pem: String { key.pemRepresentation }

    /// The public key as JSON with its members in the order of the thumbprint (RFC 7638 section 3.2).
    var publicJWK: String {
        let point = key.publicKey.rawRepresentation
        return
            #"{"crv":"P-256","kty":"EC","x":"\#(Base64URL.encode(point.prefix(32)))","y":"\#(Base64URL.encode(point.suffix(32)))"}"#
    }

    /// RFC 7638.
    var thumbprint: String { Base64URL.encode(SHA256.hash(data: Data(publicJWK.utf8))) }

    /// What the answer to a challenge says (RFC 8555 section 8.1).
    func keyAuthorization(token: String) -> String { "\(token).\(thumbprint)" }

    /// Who signs: the key itself where there is no account yet, else the account's URL.
    enum Signer: Sendable, Hashable {
        case key
        case account(String)
    }

    /// A signed request body (flattened JWS).
    /// - Parameter payload: JSON; empty for POST-as-GET (RFC 8555 section 6.3).
    /// - Throws: when the key cannot sign.
    func sign(_ payload: String, url: String, nonce: String, as signer: Signer) throws -> String {
        let identity =
            switch signer {
            case .key: "\"jwk\":\(publicJWK)"
            case .account(let url): "\"kid\":\(JSONString(url))"
            }
        let header = "{\"alg\":\"ES256\",\(identity),\"nonce\":\(JSONString(nonce)),\"url\":\(JSONString(url))}"
        return try Self.flattened(header, payload) { try key.signature(for: $0).rawRepresentation }
    }

    fileprivate static func flattened(_ header: String, _ payload: String, sign: (Data) throws -> Data) rethrows
        -> String
    {
        let (protected, body) = (Base64URL.encode(Data(header.utf8)), Base64URL.encode(Data(payload.utf8)))
        let signature = Base64URL.encode(try sign(Data("\(protected).\(body)".utf8)))
        return #"{"payload":"\#(body)","protected":"\#(protected)","signature":"\#(signature)"}"#
    }
}

/// Credentials that bind an account to one that the operator has with the authority (RFC 8555 section 7.3.4).
package struct ExternalAccount: Sendable {
    /// The key identifier that the authority gave.
    package let identifier: String
    /// The MAC key. Never to be logged.
    private let key: SymmetricKey

    /// - Parameter key: base64url, as authorities hand it out; surrounding white space does not matter.
    /// - Returns: nil when the key is no base64url, or shorter than 16 bytes.
    package init?(identifier: String, key: String) {
        guard let bytes = Base64URL.decode(key.trimmingCharacters(in: .whitespacesAndNewlines)), bytes.count >= 16,
            bytes.count <= 1024
        else { return nil }
        self.identifier = identifier
        self.key = SymmetricKey(data: bytes)
    }

    /// The `externalAccountBinding` of a new account.
    func binding(of account: AccountKey, url: String) -> String {
        let header = "{\"alg\":\"HS256\",\"kid\":\(JSONString(identifier)),\"url\":\(JSONString(url))}"
        return AccountKey.flattened(header, account.publicJWK) {
            Data(HMAC<SHA256>.authenticationCode(for: $0, using: key))
        }
    }
}

/// Base64 for URLs, without padding (RFC 7515 appendix C).
enum Base64URL {
    static func encode(_ bytes: some Sequence<UInt8>) -> String {
        Data(bytes).base64EncodedString().replacing("+", with: "-").replacing("/", with: "_").replacing("=", with: "")
    }

    /// Nil where the text is no base64url. Padding is tolerated.
    static func decode(_ text: String) -> Data? {
        var text = text.replacing("-", with: "+").replacing("_", with: "/")
        while text.last == "=" { text.removeLast() }
        guard text.utf8.allSatisfy({ $0 != 0x3D }) else { return nil }
        text += String(repeating: "=", count: (4 - text.utf8.count % 4) % 4)
        return Data(base64Encoded: text)
    }

    /// Whether only characters of base64url are in it, as tokens and nonces must be (RFC 8555 sections 6.5.1 and 8).
    static func isPlain(_ text: String) -> Bool {
        text.utf8.allSatisfy { byte in
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x5F: true
            default: false
            }
        }
    }
}

/// A text as JSON.
struct JSONString: CustomStringConvertible {
    let description: String

    init(_ text: String) {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": result += "\\\(scalar)"
            case "\u{0}"..."\u{1F}":
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        description = result + "\""
    }
}
