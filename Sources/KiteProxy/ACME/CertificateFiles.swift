/// What automatic certificates keep in the data directory: account keys, certificates with their keys, and who works on which name.
import Crypto
import Foundation
import KiteCore
import KiteDialing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// `acme` in the data directory. Directories have mode 0700 and files 0600; each file is written completely or not at all. Blocking on small
/// files: not for event loops.
struct CertificateFiles: Sendable {
    private let path: String

    /// More than a chain needs; files that are larger are not read.
    static let maximumChain = 48 * 1024

    /// - Throws: ``ACMEFailure`` with `storage`.
    init(dataDirectory: String) throws(ACMEFailure) {
        path = dataDirectory + "/acme"
        for directory in ["/accounts", "/certificates", "/locks"] {
            try Self.map { () throws(KeyError) in try KeyFile.makeDirectory(path + directory) }
        }
    }

    private static func map<Value>(_ body: () throws(KeyError) -> Value) throws(ACMEFailure) -> Value {
        do throws(KeyError) { return try body() } catch { throw ACMEFailure(.storage, error.message) }
    }

    // MARK: Accounts

    /// Each server has its own account, so that none learns of another.
    private func accountPath(_ server: URLParts) -> String {
        let digest = SHA256.hash(data: Data(server.description.utf8)).prefix(4).map {
            String($0 >> 4, radix: 16) + String($0 & 15, radix: 16)
        }
        return "\(path)/accounts/\(server.host.replacing(":", with: "_"))-\(digest.joined())"
    }

    /// The key of the account with a server; made when there is none.
    func accountKey(_ server: URLParts) throws(ACMEFailure) -> AccountKey {
        let path = accountPath(server) + ".pem"
        if !KeyFile.exists(path) {
            do throws(KeyError) {
                try KeyFile.write(AccountKey().pem, to: path, mode: .ownerWrites, replacing: false)
            } catch {
                // Another process may have been faster: its key is as good.
                guard error.code == .exists else { throw ACMEFailure(.storage, error.message) }
            }
        }
        let pem = try Self.map { () throws(KeyError) in try KeyFile.read(path) }
        guard let key = try? AccountKey(pem: pem) else {
            throw ACMEFailure(.storage, "\(path) holds no P-256 key in PEM")
        }
        return key
    }

    /// The URL of the account, once the server has given one.
    func accountURL(_ server: URLParts) -> String? {
        guard let text = try? KeyFile.read(accountPath(server) + ".url"), let url = URLParts(text) else { return nil }
        return url.description
    }

    func setAccountURL(_ url: String, _ server: URLParts) throws(ACMEFailure) {
        let path = accountPath(server) + ".url"
        try Self.map { () throws(KeyError) in
            try KeyFile.write(url, to: path, mode: .ownerWrites, replacing: true)
        }
    }

    // MARK: Certificates

    private func certificatePath(_ name: String) -> String { "\(path)/certificates/\(name).pem" }

    /// What is kept for a name; nil where there is nothing.
    /// - Throws: when it cannot be used.
    func certificate(_ name: String) throws(ACMEFailure) -> IssuedCertificate? {
        let path = certificatePath(name)
        guard KeyFile.exists(path) else { return nil }
        let text = try Self.map { () throws(KeyError) in try KeyFile.read(path) }
        guard let begin = text.firstRange(of: "-----BEGIN CERTIFICATE-----") else {
            throw ACMEFailure(.storage, "\(path) holds no certificate")
        }
        let issued = try CertificateChain.read(
            chain: String(text[begin.lowerBound...]), key: String(text[..<begin.lowerBound]))
        guard issued.names.contains(name) else { throw ACMEFailure(.storage, "\(path) is for another name") }
        return issued
    }

    /// Key and chain are one file, so that they always belong together.
    func save(_ certificate: IssuedCertificate, _ name: String) throws(ACMEFailure) {
        let path = certificatePath(name)
        try Self.map { () throws(KeyError) in
            try KeyFile.write(certificate.key + certificate.chain, to: path, mode: .ownerWrites, replacing: true)
        }
    }

    /// The names for which something is kept, in order, at most `limit`.
    func names(limit: Int) -> [String] {
        let entries = (try? FileManager.default.contentsOfDirectory(atPath: path + "/certificates")) ?? []
        let names = entries.filter { $0.hasSuffix(".pem") }.map { String($0.dropLast(4)) }
        return Array(names.filter(HostName.isValid).sorted().prefix(limit))
    }

    func remove(_ name: String) throws(ACMEFailure) {
        try Self.map { () throws(KeyError) in try KeyFile.remove(certificatePath(name)) }
    }

    // MARK: One at a time

    /// Takes the name for this process until the lock is let go; nil where another process has it.
    func lock(_ name: String) throws(ACMEFailure) -> FileLock? {
        try FileLock(path: "\(path)/locks/\(name).lock")
    }
}

/// A lock that ends with the process at the latest (flock).
final class FileLock: Sendable {
    private let descriptor: Int32

    /// - Returns: nil where somebody else has it.
    /// - Throws: ``ACMEFailure`` with `storage`.
    init?(path: String) throws(ACMEFailure) {
        // Set last: where an object is complete and then given up, `deinit` runs as well and would close the descriptor again.
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw ACMEFailure(.storage, "\(path): \(String(cString: strerror(errno)))") }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            close(descriptor)
            return nil
        }
        self.descriptor = descriptor
    }

    deinit { close(descriptor) }
}

/// Names that certificates can be for.
package enum HostName {
    /// Whether it is a DNS name in lower case with at least two labels that is no address: what a public authority gives certificates for.
    /// Such a name is also safe as the name of a file.
    package static func isValid(_ name: String) -> Bool {
        let labels = name.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard name.utf8.count <= 253, labels.count >= 2, let last = labels.last,
            last.contains(where: { $0 >= 0x61 && $0 <= 0x7A })
        else { return false }
        return labels.allSatisfy { label in
            (1...63).contains(label.count) && label.first != 0x2D && label.last != 0x2D
                && label.allSatisfy { ($0 >= 0x61 && $0 <= 0x7A) || ($0 >= 0x30 && $0 <= 0x39) || $0 == 0x2D }
        }
    }
}
