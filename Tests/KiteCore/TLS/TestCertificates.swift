/// Certificates made for tests by the openssl program.
import Foundation
import KiteTLS

/// A directory with certificates; gone when it is released.
final class TestCertificates: Sendable {
    let directory: String

    init() throws {
        directory = NSTemporaryDirectory() + "kite-tls-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: directory) }

    func path(_ name: String) -> String { directory + "/" + name }

    /// Makes `NAME.crt` and `NAME.key`.
    /// - Parameters:
    ///   - key: as openssl's `-newkey` has it.
    ///   - issuer: the name of one made before; self-signed when nil.
    func make(
        _ name: String, for hosts: [String], key: [String] = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
        issuer: String? = nil, subject: String? = nil, days: Int = 30, isAuthority: Bool = false
    ) throws {
        var arguments =
            ["req", "-x509", "-newkey"] + key + [
                "-nodes", "-keyout", path(name + ".key"), "-out", path(name + ".crt"), "-days", "\(days)", "-subj",
                subject ?? "/CN=\(hosts.first ?? name)", "-addext",
                "basicConstraints=critical,CA:\(isAuthority ? "TRUE" : "FALSE")",
            ]
        if !hosts.isEmpty {
            arguments += ["-addext", "subjectAltName=" + hosts.map { "DNS:\($0)" }.joined(separator: ",")]
        }
        if let issuer { arguments += ["-CA", path(issuer + ".crt"), "-CAkey", path(issuer + ".key")] }
        _ = try Program.run("openssl", arguments)
    }

    func load(_ name: String, names: [String]? = nil) throws -> ServerCertificate {
        try ServerCertificate(chainPEM: bytes(name + ".crt"), keyPEM: bytes(name + ".key"), names: names)
    }

    func bytes(_ name: String) throws -> [UInt8] {
        Array(try Data(contentsOf: URL(fileURLWithPath: path(name))))
    }
}

/// Runs a program to its end.
enum Program {
    struct Failure: Error { let output: String }

    static func run(_ name: String, _ arguments: [String], input: String = "", mustSucceed: Bool = true) throws
        -> String
    {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["timeout", "20", name] + arguments
        let (output, feed) = (Pipe(), Pipe())
        process.standardOutput = output
        process.standardError = output
        process.standardInput = feed
        try process.run()
        try? feed.fileHandleForWriting.write(contentsOf: Data(input.utf8))
        try? feed.fileHandleForWriting.close()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        guard process.terminationStatus == 0 || !mustSucceed else { throw Failure(output: text) }
        return text
    }
}
