/// What visitors do, through gateway, tunnel and agent, to ordinary private services.
import Foundation
import Testing

@Suite("Traffic through the tunnel", .serialized)
struct TrafficTests {
    struct Requests: Decodable {
        let statuses: [String: Int]
        let errors: [String]
        let failed: Int
        let seconds: Double
    }
    struct Download: Decodable {
        let status: Int
        let bytes: Int
        let hash: String
        let expected: String
    }
    struct Upload: Decodable {
        let status: Int
        let answer: String
        let expected: String
    }
    struct Events: Decodable {
        let status: Int
        let count: Int
        let delays: [Double]
    }
    struct Echo: Decodable {
        let equal: [String: Bool]
    }
    struct Polls: Decodable {
        let waiting: Int
        let answers: [String: Int]
    }
    struct Slow: Decodable {
        let equal: Bool
        let seconds: Double
    }

    @Test("10,000 small requests at concurrency 64 to Python's http.server see no error", .timeLimit(.minutes(3)))
    func smallRequests() async throws {
        try await withInstallation { installation in
            let gateway = try await installation.startGateway()
            let port = try freePort()
            let page = installation.directory + "/www"
            try FileManager.default.createDirectory(atPath: page, withIntermediateDirectories: true)
            try Data("hello".utf8).write(to: URL(fileURLWithPath: page + "/index.html"))
            _ = try installation.run(
                Place.python, ["-m", "http.server", "--bind", "127.0.0.1", "--directory", page, "\(port)"])
            let (_, url) = try await installation.startAgent("http", "\(port)", "--name", "files")
            let seen: Requests = try await visit("requests", url, "10000", "64", within: 150)
            #expect(seen.failed == 0, "\(seen.errors) \(gateway.standardError.suffix(2000))")
            #expect(seen.statuses == ["200": 10000])
        }
    }

    @Test("1,000 visitors at once, each as fast as it can, see no error", .timeLimit(.minutes(1)))
    func manyVisitors() async throws {
        try await withInstallation { installation in
            let running = try await installation.start("small")
            let seen: Requests = try await visit("requests", running.url, "10000", "1000", within: 50)
            #expect(seen.failed == 0, "\(seen.errors) \(running.gateway.standardError.suffix(2000))")
            #expect(seen.statuses == ["200": 10000])
        }
    }

    @Test("1 GB up and down arrives whole, and neither process grows over 100 MB", .timeLimit(.minutes(5)))
    func bulk() async throws {
        try await withInstallation { installation in
            let running = try await installation.start("blobs")
            let down: Download = try await visit("download", running.url, "1000000000", within: 140)
            #expect(down.status == 200)
            #expect(down.bytes == 1_000_000_000)
            #expect(down.hash == down.expected)
            let up: Upload = try await visit("upload", running.url, "1000000000", within: 140)
            #expect(up.status == 200)
            #expect(up.answer == up.expected)
            #expect(running.gateway.peakResidentBytes < 100_000_000)
            #expect(running.agent.peakResidentBytes < 100_000_000)
        }
    }

    @Test("Every server-sent event is seen within 50 ms of being sent", .timeLimit(.minutes(1)))
    func events() async throws {
        try await withInstallation { installation in
            let running = try await installation.start("events")
            let seen: Events = try await visit("events", running.url)
            #expect(seen.status == 200)
            #expect(seen.count == 40)
            #expect(seen.delays.allSatisfy { $0 < 50 }, "\(seen.delays.sorted().suffix(5)) ms")
        }
    }

    @Test("WebSocket messages of 1 B, 125 B, 64 KiB and 8 MiB come back equal", .timeLimit(.minutes(1)))
    func webSocket() async throws {
        try await withInstallation { installation in
            let running = try await installation.start("websocket")
            let seen: Echo = try await visit("websocket", running.url, "1", "125", "65536", "8388608")
            #expect(seen.equal.count == 8)
            #expect(seen.equal.values.allSatisfy { $0 })
        }
    }

    @Test("1,000 long polls wait at once and all are answered", .timeLimit(.minutes(1)))
    func longPolls() async throws {
        try await withInstallation { installation in
            let running = try await installation.start("polls")
            let seen: Polls = try await visit("polls", running.url, "1000")
            #expect(seen.waiting == 1000)
            #expect(seen.answers == ["200 event": 1000])
        }
    }

    @Test("A visitor who stops reading does not stop the others", .timeLimit(.minutes(1)))
    func slowReader() async throws {
        try await withInstallation { installation in
            let running = try await installation.start("blobs")
            let seen: Slow = try await visit("slow", running.url, "20000000", "4")
            #expect(seen.equal)
            #expect(running.gateway.peakResidentBytes < 100_000_000)
            #expect(running.agent.peakResidentBytes < 100_000_000)
        }
    }
}
