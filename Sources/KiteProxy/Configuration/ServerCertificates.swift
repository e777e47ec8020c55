/// The certificates of the TLS listeners that lie in files: read, watched, and put into the store that handshakes choose from.
import Foundation
import KiteCommand
import KiteTLS
import Logging
import ServiceLifecycle
import Synchronization

/// Run it to notice changed files and certificates that are about to expire.
final class ServerCertificates: Service {
    /// Certificate and key.
    typealias Files = (certificate: String, key: String)

    /// Who issues the client certificates that a host takes.
    struct ClientAuthority: Sendable, Hashable {
        /// The host, or a pattern as in ``HostTable``.
        var host: String
        var path: String
        var isRequired: Bool
    }

    /// Where handshakes choose from; others may put certificates there, too.
    let store: CertificateStore
    private let files: [Files]
    /// What is in use of each pair of files. Held from the reading of a file until the store has it, so that what was read last stays.
    private let current: Mutex<[ServerCertificate]>
    /// As the configuration has them now. Held likewise.
    private let authorities: Mutex<[ClientAuthority]>
    private let failures = Atomic<Int>(0)
    /// How the files looked before they were read at first.
    private let firstStamps: [String]
    private let firstAuthorityStamps: [String]
    private let logger: Logger
    /// How often files are looked at.
    private static let interval = Duration.seconds(2)

    /// - Throws: ``CommandFailure`` naming the file that cannot be used.
    init(
        _ files: [Files], authorities: [ClientAuthority] = [], options: CertificateStore.Options = .init(),
        logger: Logger
    ) throws {
        self.files = files
        self.logger = logger
        firstStamps = files.map(Self.stamp)
        firstAuthorityStamps = Self.stamps(of: authorities)
        store = CertificateStore(options: options)
        let certificates = try files.map { try Self.read($0) }
        current = Mutex(certificates)
        self.authorities = Mutex(authorities)
        do throws(CertificateError) {
            try store.replace(certificates, of: .files)
        } catch {
            throw CommandFailure(.failed, "`tls-cert`: \(error)")
        }
        try setAuthorities(authorities)
    }

    /// Puts rules for client certificates into effect, for handshakes from now on.
    /// - Throws: ``CommandFailure`` naming the file that cannot be used; the old rules stay then.
    func setAuthorities(_ authorities: [ClientAuthority]) throws {
        try self.authorities.withLock { current in
            try putIntoEffect(authorities)
            current = authorities
        }
    }

    private func putIntoEffect(_ authorities: [ClientAuthority]) throws {
        let rules = try Self.rules(of: authorities)
        do throws(CertificateError) {
            try store.setClientRules(rules)
        } catch {
            throw CommandFailure(.failed, "`client-ca`: \(error)")
        }
    }

    /// Reads the files.
    /// - Throws: ``CommandFailure`` naming the file that cannot be used.
    static func rules(of authorities: [ClientAuthority]) throws -> [String: ClientCertificateRule] {
        var rules: [String: ClientCertificateRule] = [:]
        for authority in authorities {
            let content = try Self.content(of: authority.path, key: "client-ca")
            do throws(CertificateError) {
                rules[authority.host] = try ClientCertificateRule(
                    authoritiesPEM: content, isRequired: authority.isRequired)
            } catch {
                throw CommandFailure(.failed, "`client-ca` \(authority.path): \(error)")
            }
        }
        return rules
    }

    /// How often changed files could not be used.
    var reloadFailures: Int { failures.load(ordering: .relaxed) }

    private static func read(_ files: Files) throws -> ServerCertificate {
        let chain = try content(of: files.certificate, key: "tls-cert")
        let key = try content(of: files.key, key: "tls-key")
        do throws(CertificateError) {
            return try ServerCertificate(chainPEM: chain, keyPEM: key)
        } catch {
            throw CommandFailure(.failed, "`tls-cert` \(files.certificate), `tls-key` \(files.key): \(error)")
        }
    }

    private static func content(of path: String, key: String) throws -> [UInt8] {
        do {
            return Array(try Data(contentsOf: URL(fileURLWithPath: path)))
        } catch {
            throw CommandFailure(.failed, "`\(key)`: \(path) cannot be read: \(error.localizedDescription)")
        }
    }

    /// Looks for changed files until shutdown. A pair that does not fit is reported, and what was in use stays.
    func run() async throws {
        await cancelWhenGracefulShutdown {
            var known = self.firstStamps
            /// Pairs that could not be used when they were looked at last.
            var failed: [Int: String] = [:]
            var expiry = ExpiryWatch()
            var seen = self.firstAuthorityStamps
            while (try? await Task.sleep(for: Self.interval)) != nil {
                for (index, pair) in self.files.enumerated() {
                    let now = Self.stamp(pair)
                    guard now != known[index] || failed[index] != nil else { continue }
                    let isNew = now != known[index]
                    known[index] = now
                    do {
                        try self.reload(index)
                        failed[index] = nil
                    } catch {
                        // Two files are seldom written at once: only what is still wrong when looked at again is worth a word.
                        let cause = "\(error)"
                        if !isNew, failed[index] == "" || failed[index] != cause { self.report(cause) }
                        failed[index] = isNew ? "" : cause
                    }
                }
                let stamps = self.authorityStamps
                if stamps != seen {
                    seen = stamps
                    do {
                        try self.authorities.withLock { try self.putIntoEffect($0) }
                        self.logger.notice("Authorities of client certificates were read again")
                    } catch {
                        self.report("\(error)")
                    }
                }
                for warning in expiry.due(self.store.status, now: Int64(Date().timeIntervalSince1970)) {
                    self.logger.warning(
                        "A certificate expires soon",
                        metadata: [
                            "names": "\(warning.names.joined(separator: ", "))", "days": "\(warning.days)",
                            "origin": "\(warning.origin)",
                        ])
                }
            }
        }
    }

    private func report(_ cause: String) {
        failures.add(1, ordering: .relaxed)
        logger.error(
            "A changed file of certificates cannot be used; what was in use stays", metadata: ["cause": "\(cause)"])
    }

    private func reload(_ index: Int) throws {
        let fresh = try current.withLock { current in
            let fresh = try Self.read(files[index])
            guard current.indices.contains(index) else { return fresh }
            var all = current
            all[index] = fresh
            try store.replace(all, of: .files)
            current = all
            return fresh
        }
        logger.notice("A certificate was read again", metadata: ["names": "\(fresh.names.joined(separator: ", "))"])
    }

    /// Reads all files again, whether they changed or not.
    /// - Throws: what cannot be used; the old certificate stays in its place, all others are in use.
    func reload() throws {
        var problems: [String] = []
        for index in files.indices {
            do {
                try reload(index)
            } catch {
                failures.add(1, ordering: .relaxed)
                problems.append("\(error)")
            }
        }
        guard problems.isEmpty else { throw CommandFailure(.failed, problems.joined(separator: "; ")) }
    }

    private var authorityStamps: [String] {
        Self.stamps(of: authorities.withLock { $0 })
    }

    private static func stamps(of authorities: [ClientAuthority]) -> [String] {
        authorities.map { stamp(($0.path, $0.path)) }
    }

    /// Changes when a file does, also where a link is turned to another one.
    private static func stamp(_ files: Files) -> String {
        [files.certificate, files.key].map { path in
            let target = URL(fileURLWithPath: path).resolvingSymlinksInPath().path
            let attributes = try? FileManager.default.attributesOfItem(atPath: target)
            let time = (attributes?[.modificationDate] as? Date)?.timeIntervalSince1970 ?? 0
            return "\(target) \(time) \(attributes?[.size] as? Int ?? 0) \(attributes?[.systemFileNumber] as? Int ?? 0)"
        }.joined(separator: " ")
    }
}

/// Which certificates deserve a warning: those with less than 14 days left, once a day.
struct ExpiryWatch {
    struct Warning: Sendable, Hashable {
        var names: [String]
        /// Negative when it has expired.
        var days: Int64
        var origin: CertificateStore.Origin
    }

    static let notice: Int64 = 14 * 86400
    /// When a warning was given last, by fingerprint.
    private var warned: [String: Int64] = [:]

    /// - Parameter now: seconds since 1970.
    mutating func due(_ certificates: [CertificateStore.Status], now: Int64) -> [Warning] {
        let expiring = certificates.filter { $0.notAfter - now < Self.notice }
        let fingerprints = Set(expiring.map(\.fingerprint))
        warned = warned.filter { fingerprints.contains($0.key) }
        return expiring.compactMap { certificate in
            if let last = warned[certificate.fingerprint], now - last < 86400 { return nil }
            warned[certificate.fingerprint] = now
            return Warning(
                names: certificate.names, days: (certificate.notAfter - now) / 86400, origin: certificate.origin)
        }
    }
}
