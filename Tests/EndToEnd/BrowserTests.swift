/// A real browser calls a kite behind a tunnel, over each transport, and is called back.
import Foundation
import Testing

@Suite("Browser", .serialized)
struct BrowserTests {
    /// What browser.html saw over one transport.
    struct Session: Decodable {
        let transport: String?
        let square: Double?
        let callPage: Double?
        let counted: [Int]?
        let unknown: String?
        let done: Bool?
        let error: String?
    }

    private static let chromium = "/usr/bin/chromium"

    /// Opens a page in a browser of its own.
    private func open(_ url: String, profile: String) throws -> ChildProcess {
        try ChildProcess(
            Self.chromium,
            [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                "--user-data-dir=\(profile)", "--remote-debugging-port=0", url,
            ], environment: ["HOME": profile])
    }

    private func check(_ installation: Installation, kite: String, _ gateway: ChildProcess) async throws {
        let (pages, port) = try await installation.startTarget("pages")
        let (agent, url) = try await installation.startAgent("http", "\(port)", "--name", "pages")
        let browser = try open("\(url)browser.html?kite=\(kite)", profile: installation.directory + "/browser")
        let line = try await deadline(50, "the page's report\n\(gateway.standardError)", browser) {
            try await pages.line(within: 50) { $0.hasPrefix("{") }
        }
        let sessions = try JSONDecoder().decode([String: Session].self, from: Data(line.utf8))
        #expect(sessions.count == 5)
        for (transport, session) in sessions {
            #expect(session.done == true, "\(transport): \(session.error ?? "")")
            #expect(session.transport == transport)
            #expect(session.square == 16, "\(transport)")
            #expect(session.callPage == 42, "\(transport)")
            #expect(session.counted == [1, 2, 3], "\(transport)")
            #expect(session.unknown == "methodNotFound", "\(transport)")
        }
        withExtendedLifetime((agent, browser)) {}
    }

    @Test("Each transport reaches a kite through an agent, both ways", .timeLimit(.minutes(2)))
    func throughAgent() async throws {
        let installation = try Installation()
        let gateway = try await installation.startGateway()
        let kite = try ChildProcess("\(Place.products)/TestKite", ["listen"], environment: installation.environment)
        let (agent, url) = try await installation.startAgent("kite", try await kite.line(), "--name", "math")
        try await check(installation, kite: url, gateway)
        withExtendedLifetime((kite, agent)) {}
    }

    @Test("Each transport reaches a kite that exposes itself and listens nowhere", .timeLimit(.minutes(2)))
    func embedded() async throws {
        let installation = try Installation()
        let gateway = try await installation.startGateway()
        let kite = try ChildProcess(
            "\(Place.products)/TestKite", ["expose", installation.url, "math"], environment: installation.environment)
        try await check(installation, kite: try await kite.line(), gateway)
    }
}
