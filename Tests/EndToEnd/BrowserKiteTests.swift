/// The module that the gateway serves for web pages: by itself in Node, its types, and in a browser before a kite behind a tunnel.
import Foundation
import Testing

@Suite("The module for web pages", .serialized)
struct BrowserKiteTests {
    private static let sources = Place.checkout + "/Sources/KiteProxy/Gateway/Browser"

    @Test("The module by itself", .timeLimit(.minutes(1)))
    func units() async throws {
        let output = try await ChildProcess.run(Place.node, ["--test", Place.peer("kite.test.mjs")])
        #expect(output.contains("# fail 0"))
        #expect(!output.contains("# pass 0"))
    }

    private static let compiler = "/usr/bin/tsc"

    @Test(
        "Its types accept what is right and nothing else", .timeLimit(.minutes(1)),
        .enabled(
            if: ProcessInfo.processInfo.environment["CI"] != nil
                || FileManager.default.isExecutableFile(atPath: compiler)))
    func types() async throws {
        let directory = NSTemporaryDirectory() + "types-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try FileManager.default.copyItem(atPath: Self.sources + "/kite.d.ts", toPath: directory + "/kite.d.ts")
        try FileManager.default.copyItem(atPath: Place.peer("kite-types.ts"), toPath: directory + "/uses.ts")
        do {
            _ = try await ChildProcess.run(
                Self.compiler,
                [
                    "--strict", "--noEmit", "--target", "es2020", "--lib", "es2020,dom", "--module", "es2020",
                    "--moduleResolution", "node", "--pretty", "false", directory + "/uses.ts",
                ])
        } catch {
            Issue.record("the compiler complains: \(error)")
        }
    }

    @Test("The gateway serves what is in the sources", .timeLimit(.minutes(1)))
    func served() async throws {
        try await withInstallation { installation in
            _ = try await installation.startGateway()
            for file in ["kite.js", "kite.d.ts"] {
                let answer = try await curl("\(installation.url)/-/\(file)")
                #expect(answer.status == 200)
                #expect(answer.fields["access-control-allow-origin"] == "*")
                let source = try String(contentsOfFile: Self.sources + "/" + file, encoding: .utf8)
                #expect(
                    answer.body.trimmingCharacters(in: .newlines) == source.trimmingCharacters(in: .newlines), "\(file)"
                )
            }
        }
    }

    @Test(
        "A kite is found through Kontrol with a kite key, and called with the token from there", .timeLimit(.minutes(1))
    )
    func kontrol() async throws {
        struct Seen: Decodable {
            let callPage: Double
            let isFound: Bool
            let missing: String
        }
        try await withInstallation { installation in
            _ = try await installation.startGateway()
            let kite = try installation.testKite("register")
            _ = try await kite.line()
            let key = try #require(installation.environment["KITE_HOME"]) + "/kite.key"
            let output = try await ChildProcess.run(
                Place.node,
                [Place.peer("kite-kontrol.mjs"), installation.url, installation.kontrolURL, key, "tests"])
            let seen = try JSONDecoder().decode([String: Seen].self, from: Data(output.utf8))
            #expect(Set(seen.keys) == ["xhr-streaming", "xhr-polling"])
            for (transport, seen) in seen {
                #expect(seen.callPage == 8, "\(transport)")
                #expect(seen.isFound, "\(transport)")
                #expect(seen.missing == "genericError", "\(transport)")
            }
        }
    }

    /// What kite.html saw over one transport, before or after the cut.
    struct Use: Decodable {
        let transport: String
        let square: Double
        let callPage: Double
        let counted: [Int]
        let unknown: String
        let late: String
        let big: Bool
    }

    struct Session: Decodable {
        let before: Use
        let after: Use
        let waited: Double
        let events: [String]
    }

    @Test(
        "A page of another origin uses a kite behind a tunnel over each transport, and again after its network was cut for 2 s",
        .timeLimit(.minutes(2)))
    func browser() async throws {
        try await withInstallation { installation in
            let gateway = try await installation.startGateway()
            let kite = try installation.testKite("listen")
            _ = try await installation.startAgent("kite", try await kite.line(), "--name", "math")
            let (pages, port) = try await installation.startTarget("pages")
            let network = try installation.run(Place.python, [Place.peer("proxies.py"), "cut", "\(installation.port)"])
            let cutPort = try await network.line()
            let browser = try Browser(
                installation,
                "http://127.0.0.1:\(port)/kite.html?module=\(installation.url)/-/kite.js&kite=http://127.0.0.1:\(cutPort)/proxy/math"
            )
            let ready = try await deadline(50, "the page to be ready\n\(gateway.standardError)", browser.process) {
                try await pages.line(within: 50)
            }
            #expect(ready == "\"ready\"")
            network.kill(SIGUSR1)
            #expect(try await network.line() == "back")
            let line = try await deadline(50, "the page's report\n\(gateway.standardError)", browser.process) {
                try await pages.line(within: 50)
            }
            let sessions: [String: Session]
            do {
                sessions = try JSONDecoder().decode([String: Session].self, from: Data(line.utf8))
            } catch {
                throw HarnessError("the page reports \(line)")
            }
            #expect(Set(sessions.keys) == ["websocket", "xhr-streaming", "xhr-polling"])
            for (transport, session) in sessions {
                for use in [session.before, session.after] {
                    #expect(use.transport == transport)
                    #expect(use.square == 16, "\(transport)")
                    #expect(use.callPage == 42, "\(transport)")
                    #expect(use.counted == [1, 2, 3], "\(transport)")
                    #expect(use.unknown == "methodNotFound", "\(transport)")
                    #expect(use.late == "timeout", "\(transport)")
                    #expect(use.big, "\(transport)")
                }
                #expect(session.waited == 25, "\(transport)")
                #expect(session.events == ["disconnect true", "connect", "disconnect false", "close"], "\(transport)")
            }
        }
    }
}
