import Foundation
import KiteCore
import Logging
import Synchronization

/// What several tests of the embedded Kontrol need.
@testable import EmbeddedKontrol

/// Key pairs are dear to make: every test uses these.
enum Keys {
    private static let firstTask = Task { try await KontrolKeyPair.generate() }
    private static let secondTask = Task { try await KontrolKeyPair.generate() }
    static var first: KontrolKeyPair { get async throws { try await firstTask.value } }
    static var second: KontrolKeyPair { get async throws { try await secondTask.value } }
}

/// A clock that a test turns.
final class TestClock: Sendable {
    private let time = Mutex<Int64>(1_795_475_000)
    var now: Int64 { time.withLock { $0 } }
    func advance(_ seconds: Int64) { time.withLock { $0 += seconds } }
}

let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// A directory of its own for a test, removed afterwards.
func withTemporaryDirectory<Result>(_ body: (String) async throws -> Result) async throws -> Result {
    let path = NSTemporaryDirectory() + "kontrol-test-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: path) }
    return try await body(path)
}

func mode(of path: String) throws -> Int {
    let attributes = try FileManager.default.attributesOfItem(atPath: path)
    return (attributes[.posixPermissions] as? NSNumber)?.intValue ?? -1
}

func identity(_ name: String, id: String? = nil, user: String = "kontrol", version: String = "1.0.0") -> KiteIdentity {
    KiteIdentity(
        name: name, username: user, id: id ?? "id-of-\(name)", environment: "dev", region: "lo", version: version,
        hostname: "vm")
}

/// Puts a key pair into a data directory without generating one.
func prepare(_ directory: String, with pair: KontrolKeyPair, username: String = "kontrol") async throws {
    let keys = KeyDirectoryFiles(directory)
    try? FileManager.default.removeItem(atPath: keys.directory)
    try FileManager.default.createDirectory(atPath: keys.directory, withIntermediateDirectories: true)
    try pair.write(privateKeyPath: keys.privatePath, publicKeyPath: keys.publicPath)
    let admin = try await KontrolKeys(dataDirectory: directory)
    _ = try await admin.importKeys(public: keys.publicPath, private: keys.privatePath, username: username)
    admin.close()
}

struct KeyDirectoryFiles {
    let directory: String
    var privatePath: String { directory + "/private.pem" }
    var publicPath: String { directory + "/public.pem" }
    init(_ dataDirectory: String) { directory = dataDirectory + "/import" }
}

/// A Kontrol in a directory of its own.
func withService(
    policy: MachinePolicy = .deny, limits: Registry.Limits = Registry.Limits(),
    tokenLifetime: Int64 = 48 * 3600, _ body: (KontrolService, TestClock, String) async throws -> Void
) async throws {
    try await withTemporaryDirectory { directory in
        try await prepare(directory, with: Keys.first)
        let clock = TestClock()
        var options = KontrolService.Options(dataDirectory: directory, identity: identity("kontrol"))
        options.machinePolicy = policy
        options.limits = limits
        options.tokenLifetime = tokenLifetime
        options.now = { clock.now }
        let service = try await KontrolService(options: options, logger: quiet)
        try await body(service, clock, directory)
        await service.close()
    }
}

extension KontrolService {
    /// Registers a kite with a fresh kite key of its user.
    @discardableResult
    func enter(
        _ identity: KiteIdentity, as user: String? = nil, url: String = "http://127.0.0.1:7000/kite",
        pair: KontrolKeyPair? = nil, source: Registry.Source = .connection
    ) async throws -> Registered {
        let signer = if let pair { pair } else { try await Keys.first }
        let key = try await TokenIssuer(issuer: "kontrol", keyPair: signer)
            .kiteKey(for: user ?? identity.username, kontrolURL: "http://127.0.0.1:4000/kite", now: 0)
        return try await register(
            identity, url: url, credential: try verifier.verify(kiteKey: key.text), kiteKey: key.text, source: source)
    }
}

/// The error a body throws, as text.
func refusal(_ body: () async throws -> Void) async -> String? {
    do {
        try await body()
        return nil
    } catch {
        return "\(error)"
    }
}
