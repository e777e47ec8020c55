/// Passwords of basic authentication as they are stored: salted and hashed with scrypt (RFC 7914).
import Crypto
import CryptoExtras
import Foundation
import KiteSupport

/// A hash in the PHC string format, `$scrypt$ln=15,r=8,p=3$SALT$HASH` (unpadded Base64).
package struct PasswordHash: Sendable, Hashable, CustomStringConvertible {
    /// Rounds are 2 to the power of this.
    private let logRounds: Int
    private let blockSize: Int
    private let parallelism: Int
    private let salt: [UInt8]
    private let hash: [UInt8]

    /// Reads a hash. Nil when it is none, or one that would take more than 256 MiB or too long to check.
    package init?(_ text: String) {
        let parts = text.split(separator: "$", omittingEmptySubsequences: false)
        guard parts.count == 5, parts[0].isEmpty, parts[1] == "scrypt", text.utf8.count <= 512 else { return nil }
        var numbers: [Substring: Int] = [:]
        for pair in parts[2].split(separator: ",", omittingEmptySubsequences: false) {
            let words = pair.split(separator: "=", omittingEmptySubsequences: false)
            guard words.count == 2, words[1].utf8.count <= 3, words[1].utf8.allSatisfy({ (0x30...0x39).contains($0) }),
                let number = Int(words[1]), numbers.updateValue(number, forKey: words[0]) == nil
            else { return nil }
        }
        guard numbers.count == 3, let logRounds = numbers["ln"], let blockSize = numbers["r"],
            let parallelism = numbers["p"], (1...20).contains(logRounds), (1...32).contains(blockSize),
            (1...16).contains(parallelism), (128 * blockSize) << logRounds <= 256 << 20,
            let salt = Self.decode(parts[3]), let hash = Self.decode(parts[4]), (8...64).contains(salt.count),
            (16...64).contains(hash.count)
        else { return nil }
        self.init(logRounds: logRounds, blockSize: blockSize, parallelism: parallelism, salt: salt, hash: hash)
    }

    private init(logRounds: Int, blockSize: Int, parallelism: Int, salt: [UInt8], hash: [UInt8]) {
        self.logRounds = logRounds
        self.blockSize = blockSize
        self.parallelism = parallelism
        self.salt = salt
        self.hash = hash
    }

    /// Hashes a password with a new salt. Takes time on purpose.
    /// - Parameter logRounds: 15 asks 32 MiB of whoever guesses.
    /// - Returns: nil where there is no memory for it.
    package init?(hashing password: String, logRounds: Int = 15) {
        var generator = SystemRandomNumberGenerator()
        let salt = (0..<16).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
        let empty = PasswordHash(
            logRounds: logRounds, blockSize: 8, parallelism: 3, salt: salt, hash: [UInt8](repeating: 0, count: 32))
        guard let hash = empty.derive(Array(password.utf8)) else { return nil }
        self.init(logRounds: logRounds, blockSize: 8, parallelism: 3, salt: salt, hash: hash)
    }

    /// Whether this is the hash of a password. Takes time on purpose: never to be called on an event loop.
    package func matches(_ password: some Collection<UInt8>) -> Bool {
        guard let derived = derive(Array(password)) else { return false }
        return SecureCompare.equal(derived, hash)
    }

    private func derive(_ password: [UInt8]) -> [UInt8]? {
        let key = try? KDF.Scrypt.deriveKey(
            from: password, salt: salt, outputByteCount: hash.count, rounds: 1 << logRounds, blockSize: blockSize,
            parallelism: parallelism, maxMemory: 512 << 20)
        return key?.withUnsafeBytes { Array($0) }
    }

    package var description: String {
        "$scrypt$ln=\(logRounds),r=\(blockSize),p=\(parallelism)$\(Self.encode(salt))$\(Self.encode(hash))"
    }

    private static func decode(_ text: Substring) -> [UInt8]? {
        guard !text.contains("=") else { return nil }
        let padding = String(repeating: "=", count: (4 - text.utf8.count % 4) % 4)
        return Data(base64Encoded: text + padding).map { Array($0) }
    }

    private static func encode(_ bytes: [UInt8]) -> String {
        Data(bytes).base64EncodedString().replacing("=", with: "")
    }
}
