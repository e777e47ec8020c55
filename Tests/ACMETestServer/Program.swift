/// `ACMETestServer HTTP-PORT TLS-PORT LIFETIME-SECONDS ROOT-FILE [PORT]` is an ACME server for tests: it writes its root certificate to the
/// file and its directory URL to standard output, validates names at the ports of 127.0.0.1, and serves until it is stopped.
import Foundation
import NIOCore

@main enum Program {
    static func main() async throws {
        let arguments = Array(CommandLine.arguments.dropFirst())
        guard arguments.count >= 4, let httpPort = Int(arguments[0]), let tlsPort = Int(arguments[1]),
            let lifetime = Double(arguments[2])
        else {
            FileHandle.standardError.write(
                Data("ACMETestServer HTTP-PORT TLS-PORT LIFETIME-SECONDS ROOT-FILE [PORT]\n".utf8))
            exit(2)
        }
        let ca = try TestCA(now: Date())
        try ca.root.write(toFile: arguments[3], atomically: true, encoding: .utf8)
        let listener = try await AuthorityListener(port: arguments.count > 4 ? Int(arguments[4]) ?? 0 : 0) { base in
            var settings = TestAuthority.Settings(base: base)
            settings.lifetime = lifetime
            return TestAuthority(
                settings: settings, ca: ca, now: { Date() },
                validate: Validation.connecting(httpPort: { httpPort }, tlsPort: { tlsPort }))
        }
        FileHandle.standardOutput.write(Data("\(listener.directory)\n".utf8))
        while !Task.isCancelled { try await Task.sleep(for: .seconds(3600)) }
        await listener.close()
    }
}
