/// What went wrong with Go's kites and proxies does not with ours: docs/protocol.md says which test shows it. Here are those that need the
/// whole gateway and stand nowhere else.
import Foundation
import Testing

@Suite("Defects of Go's kites and proxies", .serialized)
struct GoDefectTests {
    @Test(
        "An anonymous caller who claims a kite's id takes its route from it neither by calling nor by leaving",
        .enabled(if: GoPeer.isAvailable), .timeLimit(.minutes(3)), arguments: ["tunnel", "direct"])
    func impostor(mode: String) async throws {
        try await withInstallation { installation in
            _ = try await installation.startGateway()
            let id = "6b2c3d4e-0000-4000-8000-0000000000dd"
            let (_, url) = try await installation.startGoKite(mode, "lab", ["KITE_ID": id])
            _ = try await ChildProcess.run(
                Place.python, [Place.peer("defects.py"), "impostor", "\(installation.port)", id])
            let seen: GoKiteTests.Visit = try await GoPeer.run(
                "visit", url, environment: installation.goEnvironment(["AUTH": "kiteKey"]))
            #expect(seen.square == .number(16))
        }
    }

    @Test("Sessions that have ended leave no memory behind", .timeLimit(.minutes(2)))
    func memory() async throws {
        try await withInstallation { installation in
            let gateway = try await installation.startGateway()
            func visit(_ count: Int) async throws {
                _ = try await ChildProcess.run(
                    Place.python, [Place.peer("defects.py"), "sessions", "\(installation.port)", "\(count)"])
            }
            // What is kept for later use is there after these.
            try await visit(600)
            let before = gateway.residentBytes
            let count = 1200
            try await visit(count)
            // Go's kept 16 KiB of each.
            #expect(gateway.residentBytes - before < count * 8 << 10)
        }
    }

    @Test("Each defect in docs/protocol.md names tests that exist")
    func list() throws {
        let checkout = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath()
            .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path
        let document = try String(contentsOfFile: checkout + "/docs/protocol.md", encoding: .utf8)
        let table = try #require(document.components(separatedBy: "<!-- defects -->").dropFirst().first)
        let rows = table.split(separator: "\n").filter { $0.hasPrefix("| ") && !$0.hasPrefix("| |") }
        #expect(rows.count == 9)
        for (index, row) in rows.enumerated() {
            #expect(row.hasPrefix("| \(index + 1) |"))
            let tests = row.matches(of: try Regex(#"`(Tests/[^`]+\.swift)`: ([^;|]+)"#))
            #expect(!tests.isEmpty, "\(row)")
            for test in tests {
                let source = try String(
                    contentsOfFile: "\(checkout)/\(test.output[1].substring ?? "")", encoding: .utf8)
                for name in (test.output[2].substring ?? "").split(separator: ",") {
                    let name = name.trimmingCharacters(in: .whitespaces)
                    #expect(source.contains("func \(name)("), "\(name) of defect \(index + 1)")
                }
            }
        }
    }
}
