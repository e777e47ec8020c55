/// Checks the signature around a request (RFC 8555 section 6.2) as strictly as the text allows.
import Crypto
import Foundation

/// What the server answers when it refuses (RFC 8555 section 6.7).
struct Problem: Error {
    var status: Int
    var type: String
    var detail: String
    var retryAfter: String?

    init(_ status: Int, _ type: String, _ detail: String, retryAfter: String? = nil) {
        self.status = status
        self.type = type
        self.detail = detail
        self.retryAfter = retryAfter
    }
}

/// The public key of an account.
struct PublicJWK: Codable, Sendable, Hashable {
    var kty: String
    var crv: String
    var x: String
    var y: String

    func key() throws -> P256.Signing.PublicKey {
        guard kty == "EC", crv == "P-256", let x = Base64.decode(x), let y = Base64.decode(y), x.count == 32,
            y.count == 32, let key = try? P256.Signing.PublicKey(rawRepresentation: x + y)
        else { throw Problem(400, "badPublicKey", "only P-256 keys are taken here") }
        return key
    }

    /// RFC 7638.
    var thumbprint: String {
        let text = "{\"crv\":\"\(crv)\",\"kty\":\"\(kty)\",\"x\":\"\(x)\",\"y\":\"\(y)\"}"
        return Base64.encode(SHA256.hash(data: Data(text.utf8)))
    }
}

/// A request whose form has been checked; the signature is checked with ``verify(_:)``.
struct SignedRequest {
    struct Header: Decodable {
        var alg: String
        var jwk: PublicJWK?
        var kid: String?
        var nonce: String?
        var url: String?
    }
    private struct Envelope: Decodable {
        var protected: String
        var payload: String
        var signature: String
    }

    let header: Header
    let payload: Data
    private let signed: Data
    private let signature: Data

    init(_ body: Data) throws {
        guard let object = try? JSONSerialization.jsonObject(with: body) as? [String: Any],
            Set(object.keys) == ["protected", "payload", "signature"],
            let envelope = try? JSONDecoder().decode(Envelope.self, from: body)
        else { throw Problem(400, "malformed", "the request is no flattened JWS without an unprotected header") }
        guard let head = Base64.decode(envelope.protected), let payload = Base64.decode(envelope.payload),
            let signature = Base64.decode(envelope.signature)
        else { throw Problem(400, "malformed", "a part of the JWS is no base64url") }
        guard let header = try? JSONDecoder().decode(Header.self, from: head) else {
            throw Problem(400, "malformed", "the protected header is no JSON as it should be")
        }
        self.header = header
        self.payload = payload
        self.signature = signature
        signed = Data("\(envelope.protected).\(envelope.payload)".utf8)
    }

    func verify(_ jwk: PublicJWK) throws {
        guard header.alg == "ES256" else {
            throw Problem(400, "badSignatureAlgorithm", "only ES256 is taken here")
        }
        guard let ecdsa = try? P256.Signing.ECDSASignature(rawRepresentation: signature),
            try jwk.key().isValidSignature(ecdsa, for: signed)
        else { throw Problem(400, "malformed", "the signature is wrong") }
    }

    /// The MAC of an external account binding.
    func verify(mac key: Data) -> Bool {
        header.alg == "HS256"
            && HMAC<SHA256>.isValidAuthenticationCode(
                signature, authenticating: signed, using: SymmetricKey(data: key))
    }
}

/// Base64 for URLs without padding, which is not tolerated (RFC 7515 section 2).
enum Base64 {
    static func encode(_ bytes: some Sequence<UInt8>) -> String {
        Data(bytes).base64EncodedString().replacing("+", with: "-").replacing("/", with: "_").replacing("=", with: "")
    }

    static func decode(_ text: String) -> Data? {
        guard text.utf8.allSatisfy({ $0 != 0x2B && $0 != 0x2F && $0 != 0x3D }) else { return nil }
        let standard = text.replacing("-", with: "+").replacing("_", with: "/")
        return Data(base64Encoded: standard + String(repeating: "=", count: (4 - standard.utf8.count % 4) % 4))
    }

    static func random(_ count: Int) -> String { encode((0..<count).map { _ in UInt8.random(in: 0...255) }) }
}
