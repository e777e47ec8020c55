/// The kite key: who a kite is, and which Kontrol it belongs to.

#if canImport(FoundationEssentials)
internal import FoundationEssentials
#else
internal import Foundation
#endif

/// What `kite.key` holds: a JWT signed by Kontrol. Reading it takes the claims for what they say, as configuration; whether a key that a
/// *caller* shows is genuine is decided by ``TokenVerifier``. Its description never shows the key.
public struct KiteKey: Sendable, Hashable, CustomStringConvertible, CustomDebugStringConvertible {
    /// The JWT. A secret: whoever has it is the user.
    public let text: String
    /// The user it was issued to.
    public let username: String
    /// Kontrol's user.
    public let kontrolUsername: String
    /// The key's own id.
    public let id: String
    /// Seconds since 1970, where given.
    public let issuedAt: Int64?
    /// Kontrol's public key as PEM text, where given.
    public let kontrolKey: String?
    /// Where Kontrol is reached (`http://host:4000/kite`), where given.
    public let kontrolURL: String?

    /// Takes a kite key for what it says, without verification.
    /// - Throws: ``KeyError`` with `malformed`.
    public init(parsing text: String) throws(KeyError) {
        let text = text.utf8.count <= KeyFile.maximumSize ? text.trimmingWhitespaceAndNewlines() : text
        let claims: KiteClaims
        do throws(TokenError) {
            claims = try SignedToken(parsing: text).claims
        } catch {
            throw KeyError(.malformed, "This is no kite key: \(error.message)")
        }
        guard let username = claims.subject, !username.isEmpty else {
            throw KeyError(.malformed, "The kite key names no user")
        }
        self.text = text
        self.username = username
        kontrolUsername = claims.issuer ?? ""
        id = claims.id ?? ""
        issuedAt = claims.issuedAt
        kontrolKey = claims.kontrolKey
        kontrolURL = claims.kontrolURL
    }

    /// Kontrol's public key.
    /// - Throws: ``KeyError`` with `malformed` when there is none or it is no RSA key.
    public func kontrolPublicKey() throws(KeyError) -> KontrolPublicKey {
        guard let kontrolKey else { throw KeyError(.malformed, "The kite key holds no key of Kontrol") }
        return try KontrolPublicKey(pem: kontrolKey)
    }

    public var description: String { "kite key of \(username), issued by \(kontrolUsername)" }
    public var debugDescription: String { description }
}

// MARK: The file

extension KiteKey {
    /// Where the kite key lies: `kite.key` in `$KITE_HOME`, else in `~/.kite`.
    /// - Parameter environment: the environment variables; those of the process where nil.
    public static func defaultPath(environment: [String: String]? = nil) -> String {
        let environment = environment ?? ProcessInfo.processInfo.environment
        if let home = environment["KITE_HOME"], !home.isEmpty { return home + "/kite.key" }
        return (environment["HOME"] ?? "") + "/.kite/kite.key"
    }

    /// Reads a kite key file. Blocking: not for event loops.
    /// - Throws: ``KeyError`` with `notFound`, `fileAccess` or `malformed`.
    public static func read(from path: String = defaultPath()) throws(KeyError) -> KiteKey {
        let text = try KeyFile.read(path)
        do throws(KeyError) {
            return try KiteKey(parsing: text)
        } catch {
            throw KeyError(error.code, "\(path): \(error.message)")
        }
    }

    /// Writes the key with mode 0400; the directory is made with mode 0700 where it does not exist. Blocking: not for event loops.
    /// - Parameter replacing: whether a key that is there is replaced.
    /// - Throws: ``KeyError`` with `exists` or `fileAccess`.
    public func write(to path: String = defaultPath(), replacing: Bool = false) throws(KeyError) {
        if let slash = path.lastIndex(of: "/"), slash > path.startIndex {
            try KeyFile.makeDirectory(String(path[..<slash]))
        }
        try KeyFile.write(text, to: path, mode: .ownerReads, replacing: replacing)
    }
}
