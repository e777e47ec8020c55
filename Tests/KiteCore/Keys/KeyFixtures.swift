/// Keys, credentials and files that several tests need.
import Foundation
import KiteCore

/// Key pairs are dear to make: every test uses these.
enum Keys {
    private static let trustedTask = Task { try await KontrolKeyPair.generate() }
    private static let otherTask = Task { try await KontrolKeyPair.generate() }
    /// The pair of the Kontrol that tests trust.
    static var trusted: KontrolKeyPair { get async throws { try await trustedTask.value } }
    /// The pair of somebody else.
    static var other: KontrolKeyPair { get async throws { try await otherTask.value } }
}

/// The time at which tests take place.
let testTime: Int64 = 1_795_475_000

/// The claims of a good token for /kontrol/dev/lab.
func tokenClaims(_ change: (inout KiteClaims) -> Void = { _ in }) -> KiteClaims {
    var claims = KiteClaims()
    claims.issuer = "kontrol"
    claims.subject = "kontrol"
    claims.audience = "/kontrol/dev/lab"
    claims.expiresAt = testTime + 3600
    claims.issuedAt = testTime - 300
    claims.notBefore = testTime - 300
    claims.id = "1"
    change(&claims)
    return claims
}

/// The claims of a good kite key of bob.
func kiteKeyClaims(_ pair: KontrolKeyPair, _ change: (inout KiteClaims) -> Void = { _ in }) -> KiteClaims {
    var claims = KiteClaims()
    claims.issuer = "kontrol"
    claims.subject = "bob"
    claims.issuedAt = testTime - 10
    claims.id = "1"
    claims.kontrolKey = pair.publicKey.pem
    claims.kontrolURL = "http://127.0.0.1:4000/kite"
    change(&claims)
    return claims
}

/// The same token with another header.
func withHeader(_ header: String, _ token: String) -> String {
    let parts = token.split(separator: ".", omittingEmptySubsequences: false)
    return "\(base64URL(header)).\(parts[1]).\(parts[2])"
}

func base64URL(_ text: String) -> String {
    Data(text.utf8).base64EncodedString().replacingOccurrences(of: "+", with: "-")
        .replacingOccurrences(of: "/", with: "_").replacingOccurrences(of: "=", with: "")
}

/// A directory of its own for a test, removed afterwards.
func withTemporaryDirectory<Result>(_ body: (String) async throws -> Result) async throws -> Result {
    let path = NSTemporaryDirectory() + "kite-test-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: path) }
    return try await body(path)
}

/// The permission bits of a file.
func mode(of path: String) throws -> Int {
    let attributes = try FileManager.default.attributesOfItem(atPath: path)
    return (attributes[.posixPermissions] as? NSNumber)?.intValue ?? -1
}

/// The lines of a fixture, split at tabs, without comments.
func fixture(_ name: String) throws -> [[String]] {
    let here = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    let text = try String(contentsOfFile: "/\(here)/Fixtures/Kontrol/\(name)", encoding: .utf8)
    return text.split(separator: "\n").filter { !$0.hasPrefix("#") }
        .map { $0.split(separator: "\t", omittingEmptySubsequences: false).map(String.init) }
}
