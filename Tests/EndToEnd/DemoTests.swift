/// The README's first command.
import Foundation
import Testing

@Suite("Demo", .serialized)
struct DemoTests {
    @Test(
        "The demo prints a curl line that works, leaves nothing behind and ends with exit code 0",
        .timeLimit(.minutes(1)))
    func demo() async throws {
        let home = NSTemporaryDirectory() + "kiteproxy-demo-\(UUID().uuidString)"
        let temporary = home + "/tmp"
        try FileManager.default.createDirectory(atPath: temporary, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: home) }
        let demo = try ChildProcess(
            "\(Place.products)/kiteproxy", ["demo"], environment: ["HOME": home, "TMPDIR": temporary])
        let line = try await demo.line { $0.contains("curl http") }
        let command = String(line[try #require(line.firstRange(of: "curl http")).lowerBound...])
        let answer = try await ChildProcess.run("/bin/sh", ["-c", command])
        #expect(answer.trimmingCharacters(in: .whitespacesAndNewlines) == "16")

        demo.kill(SIGINT)
        #expect(try await demo.waitForEnd() == 0)
        #expect(try FileManager.default.contentsOfDirectory(atPath: home) == ["tmp"])
        #expect(try FileManager.default.contentsOfDirectory(atPath: temporary).isEmpty)
    }
}
