/// The README's first command.
import Foundation
import Testing

@Suite("Demo", .serialized)
struct DemoTests {
    /// What the page shows once the kite has called it.
    struct Page: Decodable {
        let square: String
        let greeting: String
        let state: String
    }

    /// Starts the demo; its home is empty but for a temporary directory.
    private func withDemo(
        _ body: (Installation, _ demo: ChildProcess, _ text: [String]) async throws -> Void
    ) async throws {
        try await withInstallation { installation in
            let home = installation.directory + "/demo"
            let temporary = home + "/tmp"
            try FileManager.default.createDirectory(atPath: temporary, withIntermediateDirectories: true)
            let demo = try installation.run(
                "\(Place.products)/kiteproxy", ["demo"], environment: ["HOME": home, "TMPDIR": temporary])
            _ = try await demo.line { $0.contains("Ctrl-C") }
            try await body(installation, demo, demo.standardOutput)
            demo.kill(SIGINT)
            #expect(try await demo.waitForEnd() == 0)
            #expect(try FileManager.default.contentsOfDirectory(atPath: home) == ["tmp"])
            #expect(try FileManager.default.contentsOfDirectory(atPath: temporary).isEmpty)
        }
    }

    @Test(
        "The demo is there within 3 s, prints a curl line that works, leaves nothing behind and ends with exit code 0",
        .timeLimit(.minutes(1)))
    func curlLine() async throws {
        let start = ContinuousClock.now
        try await withDemo { _, _, text in
            #expect(ContinuousClock.now - start < .seconds(3))
            let line = try #require(text.first { $0.contains("curl http") })
            let command = String(line[try #require(line.firstRange(of: "curl http")).lowerBound...])
            let answer = try await ChildProcess.run("/bin/sh", ["-c", command])
            #expect(answer.trimmingCharacters(in: .whitespacesAndNewlines) == "16")
        }
    }

    @Test(
        "On the demo's page a browser calls the kite and the kite calls the page, over each transport",
        .timeLimit(.minutes(1)))
    func page() async throws {
        try await withDemo { installation, _, text in
            let line = try #require(text.first { $0.contains(" browser ") })
            let url = try #require(line.split(separator: " ").last.map(String.init))
            let browser = try Browser(installation)
            for (query, transport) in [
                ("", "websocket"), ("?transport=xhr-streaming", "xhr-streaming"),
                ("?transport=xhr-polling", "xhr-polling"),
            ] {
                let page: Page = try await browser.go(
                    to: url + query,
                    until: """
                        location.search === "\(query)" && document.querySelector("#greeting[data-called=yes]")?.textContent && {
                          square: document.querySelector("#square").textContent, state: document.querySelector("#state").textContent,
                          greeting: document.querySelector("#greeting").textContent }
                        """)
                #expect(page.square == "16")
                #expect(page.state == "connected over \(transport)")
                #expect(page.greeting.hasPrefix("Hello, browser of "))
            }
        }
    }
}
