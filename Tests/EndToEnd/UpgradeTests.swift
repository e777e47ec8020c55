/// A gateway is replaced by a new process, such as one of a newer version, while visitors come and go.
import Foundation
import Testing

@Suite("Upgrade", .serialized, .timeLimit(.minutes(2)))
struct UpgradeTests {
    /// What `visitor.py steady` saw.
    private struct Load: Decodable {
        let count: Int
        let failures: [String: Int]
    }

    @Test("A gateway is replaced twice under load and no request fails", arguments: [1, 2])
    func replaced(loops: Int) async throws {
        try await withInstallation(options: ["--threads", "\(loops)", "--drain-time", "20s"]) { installation in
            let running = try await installation.start("blobs")
            async let load: Load = visit("steady", running.url + "1000", "150", "8")
            var before = running.gateway
            for _ in 0..<2 {
                try await Task.sleep(for: .seconds(2))
                let next = try installation.spawnGateway("--take-over")
                // It ends by itself, once its visitors have gone to the next one.
                #expect(try await before.waitForEnd() == 0)
                try await installation.answers("http://127.0.0.1:\(installation.adminPort)/readyz", next)
                before = next
            }
            let seen = try await load
            #expect(seen.failures.isEmpty)
            #expect(seen.count >= 1_000)
            #expect(try await curl(running.url + "10").status == 200)
            #expect(try await before.terminate() == 0)
        }
    }

    @Test("A gateway whose successor cannot start goes on")
    func successorFails() async throws {
        try await withInstallation { installation in
            let running = try await installation.start("blobs")
            let holder = try await installation.startTarget("blobs")
            // One of its listeners is somebody else's.
            let next = try installation.spawnGateway("--take-over", "--listen", "127.0.0.1:\(holder.port)")
            #expect(try await next.waitForEnd() == 1)
            #expect(next.standardError.contains("another process listens there"))
            #expect(try await curl(running.url + "10").status == 200)
            // And it can still be replaced.
            let good = try installation.spawnGateway("--take-over")
            #expect(try await running.gateway.waitForEnd() == 0)
            try await installation.answers(running.url + "10", good)
        }
    }

    @Test("A successor that falls silent holds up neither visitors nor a shutdown")
    func silentSuccessor() async throws {
        try await withInstallation { installation in
            let running = try await installation.start("blobs")
            let silent = try installation.run(
                Place.python,
                [
                    "-c",
                    """
                    import socket, sys, time
                    s = socket.socket(socket.AF_UNIX)
                    s.connect(sys.argv[1])
                    s.sendall(b"take 1\\n")
                    print(s.recv(4096)[:1].decode(), flush=True)
                    time.sleep(100)
                    """, installation.directory + "/data/takeover.sock",
                ])
            #expect(try await silent.line() == "{")
            #expect(try await curl(running.url + "10").status == 200)
            let status = try await deadline(10, "the gateway to end", running.gateway) {
                try await running.gateway.terminate()
            }
            #expect(status == 0)
        }
    }

    @Test("Without --take-over a second gateway is refused, and the first goes on")
    func secondGateway() async throws {
        try await withInstallation { installation in
            let running = try await installation.start("blobs")
            let second = try installation.spawnGateway()
            #expect(try await second.waitForEnd() == 1)
            #expect(second.standardError.contains("another process listens there"))
            #expect(try await curl(running.url + "10").status == 200)
        }
    }

    @Test("SIGHUP puts a changed file into effect, and refuses one that is wrong")
    func reload() async throws {
        let file = NSTemporaryDirectory() + "reload-\(UUID().uuidString).yaml"
        defer { try? FileManager.default.removeItem(atPath: file) }
        try "max-target: 16KiB\n".write(toFile: file, atomically: true, encoding: .utf8)
        try await withInstallation(options: ["--config", file]) { installation in
            let gateway = try await installation.startGateway()
            let long = installation.url + "/" + String(repeating: "a", count: 2_000)
            #expect(try await curl(long).status == 404)

            try "max-target: 1KiB\nthreads: 7\n".write(toFile: file, atomically: true, encoding: .utf8)
            gateway.kill(SIGHUP)
            try await deadline(20, "the new limit", gateway) {
                while try await curl(long).status != 414 { try await Task.sleep(for: .milliseconds(50)) }
            }
            #expect(gateway.standardError.contains("threads"))

            try "max-target: sixteen\n".write(toFile: file, atomically: true, encoding: .utf8)
            gateway.kill(SIGHUP)
            try await deadline(20, "the refusal", gateway) {
                while !gateway.standardError.contains("the old one stays in effect") {
                    try await Task.sleep(for: .milliseconds(50))
                }
            }
            #expect(gateway.standardError.contains("`sixteen` is not valid"))
            #expect(try await curl(long).status == 414)
            #expect(try await gateway.terminate() == 0)
        }
    }
}
