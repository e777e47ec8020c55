/// The RSA keys with which Kontrol signs tokens and kite keys and everyone else verifies them.
internal import Crypto
internal import CryptoExtras
internal import JWTKit
internal import KiteSupport
internal import NIOPosix

#if canImport(FoundationEssentials)
package import FoundationEssentials
#else
package import Foundation
#endif

/// A public key of Kontrol: RSA, at least 2048 bits.
public struct KontrolPublicKey: Sendable, Hashable, CustomStringConvertible {
    /// The key as PEM text (`BEGIN PUBLIC KEY`) without white space at the ends, as it stands in kite keys.
    public let pem: String
    /// 32 hex digits from the SHA-256 of the key: the same key has the same id everywhere.
    public let id: String
    private let key: _RSA.Signing.PublicKey

    /// - Parameter pem: at most 16 KiB of PEM text.
    /// - Throws: ``KeyError`` when it is no RSA public key or one of less than 2048 bits.
    public init(pem: String) throws(KeyError) {
        guard pem.utf8.count <= 16384 else { throw KeyError(.malformed, "The public key is too long") }
        do {
            try self.init(key: _RSA.Signing.PublicKey(pemRepresentation: pem))
        } catch {
            throw KeyError(.malformed, "This is no RSA public key of at least 2048 bits in PEM format")
        }
    }

    fileprivate init(key: _RSA.Signing.PublicKey) {
        self.key = key
        pem = key.pemRepresentation.trimmingWhitespaceAndNewlines()
        id = hexadecimal(SHA256.hash(data: key.derRepresentation).prefix(16))
    }

    /// Whether an RS256 signature over these bytes was made with the private half of the key.
    package func isValid(signature: Data, over bytes: some DataProtocol) -> Bool {
        key.isValidSignature(
            _RSA.Signing.RSASignature(rawRepresentation: signature), for: SHA256.hash(data: bytes),
            padding: .insecurePKCS1v1_5)
    }

    /// Whether PEM text of a kite key means this key, however it is broken into lines.
    package func matches(pem text: String) -> Bool { Self.body(of: text) == Self.body(of: pem) }

    /// The base64 text between the PEM markers without white space.
    private static func body(of pem: String) -> [UInt8] {
        var body: [UInt8] = []
        for line in pem.utf8.prefix(16384).split(whereSeparator: { $0 == 0x0A || $0 == 0x0D })
        where !line.starts(with: "-----".utf8) {
            body += line.filter { $0 > 0x20 }
        }
        return body
    }

    public static func == (left: Self, right: Self) -> Bool { left.id == right.id }
    public func hash(into hasher: inout Hasher) { hasher.combine(id) }
    public var description: String { "public key \(id)" }
}

/// A key pair of Kontrol. Its description never shows the private key.
public struct KontrolKeyPair: Sendable, CustomStringConvertible, CustomDebugStringConvertible {
    public let publicKey: KontrolPublicKey
    /// The private key as PEM text. A secret: belongs into a file of mode 0600 and nowhere else.
    package let privatePEM: String
    private let signer: JWTKeyCollection

    /// The public key's id.
    public var id: String { publicKey.id }

    /// Reads a private key; the public one follows from it.
    /// - Throws: ``KeyError`` when it is no RSA private key or one of less than 2048 bits.
    public init(privatePEM: String) async throws(KeyError) {
        guard privatePEM.utf8.count <= 32768 else { throw KeyError(.malformed, "The private key is too long") }
        let key: _RSA.Signing.PrivateKey
        let signing: JWTKit.Insecure.RSA.PrivateKey
        do {
            key = try _RSA.Signing.PrivateKey(pemRepresentation: privatePEM)
            signing = try JWTKit.Insecure.RSA.PrivateKey(backing: key)
        } catch {
            throw KeyError(.malformed, "This is no RSA private key of at least 2048 bits in PEM format")
        }
        publicKey = KontrolPublicKey(key: key.publicKey)
        self.privatePEM = key.pemRepresentation.trimmingWhitespaceAndNewlines()
        signer = await JWTKeyCollection().add(rsa: signing, digestAlgorithm: .sha256)
    }

    /// Makes a new key pair of 2048 bits. Takes up to a second of CPU time, on NIO's thread pool rather than on an event loop or
    /// a thread of the concurrency runtime.
    public static func generate() async throws(KeyError) -> KontrolKeyPair {
        let pem: String
        do {
            pem = try await NIOThreadPool.singleton.runIfActive {
                try _RSA.Signing.PrivateKey(keySize: .bits2048).pemRepresentation
            }
        } catch {
            throw KeyError(.crypto, "The key pair could not be generated: \(error)")
        }
        return try await KontrolKeyPair(privatePEM: pem)
    }

    /// Signs claims with RS256.
    package func sign(_ claims: KiteClaims) async throws(KeyError) -> String {
        do {
            return try await signer.sign(claims, header: ["alg": "RS256", "typ": "JWT"])
        } catch {
            throw KeyError(.crypto, "The claims could not be signed: \(error)")
        }
    }

    public var description: String { "key pair \(id)" }
    public var debugDescription: String { description }
}

/// 256 random bits as hex digits.
package func randomSecret() -> String {
    var generator = SystemRandomNumberGenerator()
    return hexadecimal((0..<32).map { _ in UInt8.random(in: .min ... .max, using: &generator) })
}

/// What is kept of a secret that has enough entropy of its own: its SHA-256 as hex digits.
package func secretDigest(_ secret: String) -> String { hexadecimal(SHA256.hash(data: Array(secret.utf8))) }

extension String {
    /// Without white space and line ends at both ends.
    package func trimmingWhitespaceAndNewlines() -> String {
        var slice = self[...]
        while let first = slice.first, first.isWhitespace { slice.removeFirst() }
        while let last = slice.last, last.isWhitespace { slice.removeLast() }
        return String(slice)
    }
}
