/// Programs that stand in for kites written in Go, built from `Peers/gokite` with Debian's libraries.
import Foundation
import Testing

/// The built program.
enum GoPeer {
    private static let go = "/usr/bin/go"
    /// Where Debian puts the sources of libraries.
    private static let libraries = "/usr/share/gocode"

    /// Whether it can be built here; in CI it has to.
    static let isAvailable =
        ProcessInfo.processInfo.environment["CI"] != nil
        || (FileManager.default.isExecutableFile(atPath: go)
            && FileManager.default.fileExists(atPath: libraries + "/src/github.com/igm/sockjs-go"))

    /// Built once in a run of the tests.
    private static let binary = Task { () throws -> String in
        // Beside the other products; the cache makes the next run's build short.
        let directory = Place.products + "/gokite-peer"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        let sources = try FileManager.default.contentsOfDirectory(atPath: Place.peer("gokite"))
            .filter { $0.hasSuffix(".go") }.map { Place.peer("gokite") + "/" + $0 }
        // GOPATH alone: no module, no network, no C compiler.
        _ = try await ChildProcess.run(
            go, ["build", "-o", directory + "/gokite"] + sources.sorted(),
            environment: [
                "CGO_ENABLED": "0", "GO111MODULE": "off", "GOPATH": libraries, "GOFLAGS": "",
                "GOCACHE": directory + "/cache",
                "GOPROXY": "off",
            ], within: 300)
        return directory + "/gokite"
    }

    /// Where it is.
    static var path: String { get async throws { try await binary.value } }

    /// Runs it in a mode to its end and decodes its last line.
    static func run<Seen: Decodable>(
        _ arguments: String..., environment: [String: String], within seconds: Double = 90
    ) async throws -> Seen {
        let output = try await ChildProcess.run(
            try await binary.value, arguments, environment: environment, within: seconds)
        let line = output.split(separator: "\n").last ?? ""
        return try JSONDecoder().decode(Seen.self, from: Data(line.utf8))
    }
}

extension Installation {
    /// What kites written in Go are told by their environment.
    func goEnvironment(_ more: [String: String] = [:]) -> [String: String] {
        environment.merging(["KITE_ENVIRONMENT": "development"]) { $1 }.merging(more) { $1 }
    }

    /// Starts a Go kite and waits until it is registered.
    func startGoKite(
        _ mode: String, _ name: String, _ environment: [String: String] = [:]
    ) async throws -> (kite: ChildProcess, url: String) {
        let kite = try run(try await GoPeer.path, [mode, name], environment: goEnvironment(environment))
        let line = try await kite.line { $0.contains("\"url\"") }
        struct Registered: Decodable { var url: String }
        return (kite, try JSONDecoder().decode(Registered.self, from: Data(line.utf8)).url)
    }

    struct Found: Decodable {
        var url: String
        var token: String
    }

    /// Asks Kontrol as a Go kite does.
    func findGoKite(_ name: String) async throws -> Found {
        try await GoPeer.run("find", name, environment: goEnvironment())
    }
}
