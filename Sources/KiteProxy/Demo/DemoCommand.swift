/// `kiteproxy demo`: a gateway, its Kontrol and a kite behind a tunnel, all in this process, on this machine, in a temporary directory.
import ArgumentParser
import Foundation
import KiteCommand
import KiteCore
import KiteDialing
import KiteTunnel
import Logging
import NIOCore
import ServiceLifecycle

struct DemoCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo", abstract: "Show everything at once: a kite that listens nowhere, on a public URL.",
        discussion: """
            Gateway, Kontrol and a demo kite behind a tunnel, in one process, on free ports of this machine. Files are made in a \
            temporary directory only, which is removed at the end. Ctrl-C ends it.
            """)

    @Option(help: ArgumentHelp("The least important log lines. (default: warning)", valueName: "LEVEL"))
    var logLevel: String?

    func run() async throws {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent(
            "kiteproxy-demo-\(UUID().uuidString.prefix(8).lowercased())"
        ).path
        do {
            try FileManager.default.createDirectory(
                atPath: directory, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o700])
        } catch {
            throw CommandFailure(
                .failed, "the temporary directory \(directory) cannot be made: set TMPDIR to one that can be written to"
            )
        }
        defer { try? FileManager.default.removeItem(atPath: directory) }
        // Nothing of the environment: the demo is the same everywhere, and touches nobody's keys.
        let configuration = try GatewayConfiguration(
            Settings(schema: GatewaySettings.schema, flags: Self.flags(directory, logLevel: logLevel)),
            environment: ["HOME": directory, "KITE_HOME": directory])
        let logger = configuration.logger()
        let parts = try await GatewayServices(configuration, logger: logger)
        let key = try KiteKey.read(from: configuration.kiteKeyPath)
        let endpoint = DemoKite.make(key: key, logger: logger)
        let demo = Demo(
            gateway: parts.gateway, endpoint: endpoint, key: key, admin: parts.admin.address, logger: logger
        ) {
            writeAll($0, to: STDOUT_FILENO)
        }
        try await runUntilSignal(parts.services + [endpoint, demo], drain: .seconds(1))
    }

    private static func flags(_ directory: String, logLevel: String?) -> [String: [String]] {
        [
            "listen": ["127.0.0.1:\(preferred(3999))"], "kontrol-listen": ["127.0.0.1:\(preferred(4000))"],
            "admin-listen": ["127.0.0.1:\(preferred(3998))"], "data-dir": [directory + "/data"],
            "kite-key": [directory + "/kite.key"], "threads": ["1"], "drain-time": ["1s"],
            "log-level": [logLevel ?? "warning"],
        ]
    }

    /// The port if nobody has it, otherwise 0, which takes any.
    static func preferred(_ port: UInt16) -> UInt16 {
        let address = try? SocketAddress(ipAddress: "127.0.0.1", port: Int(port))
        let isFree = address.map { PortCheck.problem(with: $0) == nil } ?? false
        return isFree ? port : 0
    }
}
