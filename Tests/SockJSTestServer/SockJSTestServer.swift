/// `SockJSTestServer [PORT [LOOPS]]` serves what the conformance tests of sockjs-protocol need, by default on port 8081 and one event loop,
/// until it is stopped.
import Foundation
import NIOCore

@main enum Program {
    static func main() async throws {
        let numbers = CommandLine.arguments.dropFirst().map { Int($0) }
        let services = try await SockJSTestServices(
            port: numbers.first.flatMap { $0 } ?? 8081, loops: numbers.dropFirst().first.flatMap { $0 } ?? 1)
        // Standard output of a pipe is written at once, so that who started this sees it.
        FileHandle.standardOutput.write(Data("http://127.0.0.1:\(services.address.port ?? 0)\n".utf8))
        while !Task.isCancelled { try await Task.sleep(for: .seconds(3600)) }
        try await services.close()
    }
}
