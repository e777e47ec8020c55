/// What the tests rely on: programs start in a known environment and leave nothing running.
import Foundation
import Testing

@Suite("Harness", .serialized)
struct HarnessTests {
    @Test("Programs get no proxies and no settings of ours from the test's environment, whatever their spelling")
    func environment() {
        let variables = [
            "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy", "No_Proxy",
            "KITE_HOME", "KITEPROXY_LISTEN", "TUNNELCLIENT_GATEWAY", "PATH", "KITES",
        ]
        let inherited = ChildProcess.inherited(Dictionary(uniqueKeysWithValues: variables.map { ($0, "x") }))
        #expect(inherited.keys.sorted() == ["KITES", "PATH"])
    }

    @Test("What a program has started is killed with it", .timeLimit(.minutes(1)))
    func groups() async throws {
        let shell = try ChildProcess("/bin/sh", ["-c", "sleep 1000 & echo $!; wait"])
        let grandchild = try #require(pid_t(try await shell.line()))
        #expect(kill(grandchild, 0) == 0)
        shell.kill(SIGKILL)
        #expect(try await shell.waitForEnd() == SIGKILL)
        try await deadline(5, "the end of the grandchild") { while isRunning(grandchild) { await Task.yield() } }
    }

    @Test("The reaper kills every group that has not ended when its input does", .timeLimit(.minutes(1)))
    func reaper() async throws {
        let left = try ChildProcess("/bin/sleep", ["1000"])
        let ended = try ChildProcess("/bin/sleep", ["1000"])
        _ = try await ChildProcess.run(
            "/bin/sh",
            [
                "-c", "printf '+%s\\n+%s\\n-%s\\n' $1 $2 $2 | \(Place.python) \(Place.peer("reaper.py"))", "sh",
                "\(left.pid)", "\(ended.pid)",
            ])
        #expect(try await left.waitForEnd() == SIGKILL)
        #expect(isRunning(ended.pid))
        #expect(try await ended.terminate() == SIGTERM)
    }

    /// Whether a process runs: one that only waits to be collected does not.
    private func isRunning(_ process: pid_t) -> Bool {
        let status = (try? String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)) ?? "State:\tX"
        return !status.contains("State:\tZ") && !status.contains("State:\tX")
    }
}
