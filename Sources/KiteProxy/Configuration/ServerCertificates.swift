/// The certificates of the TLS listeners: chosen by the name that the visitor asks for, read again when their files change.
import Foundation
import KiteCommand
import Logging
import NIOCore
import NIOSSL
import ServiceLifecycle
import Synchronization

/// Certificate chains with their keys. Run it to notice changed files.
final class ServerCertificates: Service {
    private struct Pair: Sendable {
        let chain: [NIOSSLCertificateSource]
        let key: NIOSSLPrivateKeySource
        /// In lower case; may begin with `*.`.
        let names: [String]
    }
    private let files: [(certificate: String, key: String)]
    private let pairs: Mutex<[Pair]>
    private let logger: Logger

    /// - Throws: ``CommandFailure`` naming the file that cannot be used.
    init(_ files: [(certificate: String, key: String)], logger: Logger) throws {
        self.files = files
        self.logger = logger
        pairs = Mutex(try Self.read(files))
    }

    /// A context whose handshakes use the present certificates.
    func context() throws -> NIOSSLContext {
        guard let first = pairs.withLock({ $0.first }) else {
            throw CommandFailure(.usage, "a TLS listener needs a certificate: give `tls-cert` and `tls-key`")
        }
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: first.chain, privateKey: first.key)
        configuration.minimumTLSVersion = .tlsv12
        configuration.applicationProtocols = ["http/1.1"]
        configuration.sslContextCallback = { [weak self] values, promise in
            guard let pair = self?.pair(for: values.serverHostname) else { return promise.succeed(.noChanges) }
            var override = NIOSSLContextConfigurationOverride()
            override.certificateChain = pair.chain
            override.privateKey = pair.key
            promise.succeed(override)
        }
        return try NIOSSLContext(configuration: configuration)
    }

    private func pair(for name: String?) -> Pair? {
        let name = name?.lowercased() ?? ""
        return pairs.withLock { pairs in
            pairs.first { pair in pair.names.contains { Self.matches($0, name) } } ?? pairs.first
        }
    }

    /// Whether a certificate's name stands for a host's; `*` stands for one label (RFC 9525 section 6.3).
    static func matches(_ pattern: String, _ name: String) -> Bool {
        guard pattern.hasPrefix("*.") else { return pattern == name }
        guard let dot = name.firstIndex(of: "."), dot > name.startIndex else { return false }
        return name[dot...] == pattern.dropFirst()
    }

    private static func read(_ files: [(certificate: String, key: String)]) throws -> [Pair] {
        try files.map { file in
            let chain: [NIOSSLCertificate]
            do {
                chain = try NIOSSLCertificate.fromPEMFile(file.certificate)
            } catch {
                throw CommandFailure(.failed, "`tls-cert`: \(file.certificate) holds no certificates in PEM: \(error)")
            }
            let key: NIOSSLPrivateKey
            do {
                key = try NIOSSLPrivateKey(file: file.key, format: .pem)
            } catch {
                throw CommandFailure(.failed, "`tls-key`: \(file.key) holds no private key in PEM: \(error)")
            }
            guard let leaf = chain.first else {
                throw CommandFailure(.failed, "`tls-cert`: \(file.certificate) holds no certificate")
            }
            let names = leaf._subjectAlternativeNames().filter { $0.nameType == .dnsName }
                .map { String(decoding: $0.contents, as: UTF8.self).lowercased() }
            return Pair(chain: chain.map { .certificate($0) }, key: .privateKey(key), names: names)
        }
    }

    /// Looks for changed files until shutdown. A pair that does not fit is reported, and the old one stays.
    func run() async throws {
        await cancelWhenGracefulShutdown {
            var before = self.stamps()
            while (try? await Task.sleep(for: .seconds(2))) != nil {
                let now = self.stamps()
                guard now != before else { continue }
                before = now
                do {
                    try self.reload()
                } catch {
                    self.logger.error(
                        "The changed certificates cannot be used; the old ones stay", metadata: ["cause": "\(error)"])
                }
            }
        }
    }

    /// Reads the files again.
    /// - Throws: why they cannot be used; the old ones stay then.
    func reload() throws {
        let fresh = try Self.read(files)
        // A chain and a key that do not belong together fail here rather than in front of visitors.
        for pair in fresh {
            _ = try NIOSSLContext(
                configuration: .makeServerConfiguration(certificateChain: pair.chain, privateKey: pair.key))
        }
        pairs.withLock { $0 = fresh }
        logger.notice("Certificates read again")
    }

    private func stamps() -> [String] {
        files.flatMap { [$0.certificate, $0.key] }.map { path in
            let attributes = try? FileManager.default.attributesOfItem(atPath: path)
            let time = (attributes?[.modificationDate] as? Date)?.timeIntervalSince1970 ?? 0
            return "\(time) \(attributes?[.size] as? Int ?? 0)"
        }
    }
}
