// A WebSocket client of other people's making, with permessage-deflate, against the test server.
import Foundation
import NIOCore
import SockJSTestServer
import Testing

/// Debian's interpreter, the one that has python3-websockets (scripts/install-tools).
private let python = "/usr/bin/python3"
private let canRun =
    ProcessInfo.processInfo.environment["CI"] != nil
    || FileManager.default.fileExists(atPath: "/usr/lib/python3/dist-packages/websockets")

@Suite(.timeLimit(.minutes(1))) struct WebSocketPeerTests {
    @Test(.enabled(if: canRun, "python3-websockets is not installed")) func pythonWebSockets() async throws {
        let services = try await SockJSTestServices(port: 0)
        let process = Process()
        process.executableURL = URL(fileURLWithPath: python)
        let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        process.arguments = [
            folder.appendingPathComponent("Peers/websocket_peer.py").path, "\(services.address.port ?? 0)",
        ]
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        let status = try await withCheckedThrowingContinuation { (ended: CheckedContinuation<Int32, any Error>) in
            process.terminationHandler = { ended.resume(returning: $0.terminationStatus) }
            do { try process.run() } catch { ended.resume(throwing: error) }
        }
        // It writes a few lines at most, which a pipe holds.
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        #expect(status == 0)
        #expect(text == "ok\n")
        try await services.close()
    }
}
