/// Rules of hosts and routes, from a file, with the programs as they are built.
import Foundation
import Testing

@Suite("Rules from a file", .serialized)
struct RuleTests {
    @Test("What the file says of hosts and routes is in effect, and SIGHUP changes it", .timeLimit(.minutes(2)))
    func file() async throws {
        let directory = NSTemporaryDirectory() + "rules-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let (file, page) = (directory + "/kiteproxy.yaml", directory + "/page.html")
        try "<h1>{status}</h1>\n".write(toFile: page, atomically: true, encoding: .utf8)
        let made = try await ChildProcess.run(
            "/bin/sh", ["-c", "echo geheim | '\(Place.products)/kiteproxy' keys password"])
        let hash = made.trimmingCharacters(in: .whitespacesAndNewlines)
        #expect(hash.hasPrefix("$scrypt$ln=15,r=8,p=3$"))
        try """
        hosts:
          "*":
            error-pages: {404: \(page)}
            response-headers-set: {X-Frame-Options: DENY}
            response-headers-remove: [Server]
          old.example:
            redirect: https://new.example/
        routes:
          blobs:
            users: {alice: "\(hash)"}
        """.write(toFile: file, atomically: true, encoding: .utf8)
        let check = try await ChildProcess.run("\(Place.products)/kiteproxy", ["check", "--config", file])
        #expect(check.contains("route blobs"))
        try await withInstallation(options: ["--config", file]) { installation in
            let running = try await installation.start("blobs")
            let blob = installation.url + "/proxy/blobs/10"
            #expect(try await curl(blob).status == 401)
            #expect(try await curl(blob, "--user", "alice:falsch").status == 401)
            let right = try await curl(blob, "--user", "alice:geheim")
            #expect(right.status == 200)
            #expect(right.fields["x-frame-options"] == "DENY")
            #expect(right.fields["server"] == nil)
            let lost = try await curl(installation.url + "/lost", "--header", "Accept: text/html")
            #expect(lost.body.hasPrefix("<h1>404</h1>"))
            let moved = try await curl(installation.url + "/a?b", "--header", "Host: old.example")
            #expect(moved.status == 302)
            #expect(moved.fields["location"] == "https://new.example/a?b")

            try "hosts:\n  \"*\":\n    maintenance: true\n    maintenance-retry: 5m\n".write(
                toFile: file, atomically: true, encoding: .utf8)
            running.gateway.kill(SIGHUP)
            try await deadline(20, "the maintenance", running.gateway) {
                while try await curl(blob).status != 503 { try await Task.sleep(for: .milliseconds(50)) }
            }
            #expect(try await curl(blob).fields["retry-after"] == "300")

            try "hosts:\n  \"*\":\n    maintenance: perhaps\n".write(toFile: file, atomically: true, encoding: .utf8)
            running.gateway.kill(SIGHUP)
            try await deadline(20, "the refusal", running.gateway) {
                while !running.gateway.standardError.contains("kiteproxy.yaml:3: `maintenance`: `perhaps`") {
                    try await Task.sleep(for: .milliseconds(50))
                }
            }
            #expect(try await curl(blob).status == 503, "the old rules stay")

            try "threads: 2\n".write(toFile: file, atomically: true, encoding: .utf8)
            running.gateway.kill(SIGHUP)
            try await deadline(20, "the end of all rules", running.gateway) {
                while try await curl(blob).status != 200 { try await Task.sleep(for: .milliseconds(50)) }
            }
        }
    }
}
