/// Clients that are not ours, a browser and Node with Debian's node-sockjs-client, call a kite behind a tunnel over each transport they have,
/// and are called back.
import Foundation
import Testing

@Suite("SockJS through the tunnel", .serialized)
struct SockJSTests {
    /// What session.js saw over one transport.
    struct Session: Decodable {
        let transport: String?
        let square: Double?
        let callPage: Double?
        let counted: [Int]?
        let unknown: String?
        let done: Bool?
        let error: String?
    }

    private func check(_ session: Session, over transport: String) {
        #expect(session.done == true, "\(transport): \(session.error ?? "")")
        #expect(session.transport == transport)
        #expect(session.square == 16, "\(transport)")
        #expect(session.callPage == 42, "\(transport)")
        #expect(session.counted == [1, 2, 3], "\(transport)")
        #expect(session.unknown == "methodNotFound", "\(transport)")
    }

    private func checkBrowser(_ installation: Installation, kite: String, _ gateway: ChildProcess) async throws {
        let (pages, port) = try await installation.startTarget("pages")
        let (_, url) = try await installation.startAgent("http", "\(port)", "--name", "pages")
        let browser = try Browser(installation, "\(url)browser.html?kite=\(kite)")
        let line = try await deadline(50, "the page's report\n\(gateway.standardError)", browser.process) {
            try await pages.line(within: 50) { $0.hasPrefix("{") }
        }
        let sessions = try JSONDecoder().decode([String: Session].self, from: Data(line.utf8))
        #expect(sessions.count == 5)
        for (transport, session) in sessions { check(session, over: transport) }
    }

    @Test("A browser reaches a kite through an agent over each transport, both ways", .timeLimit(.minutes(2)))
    func browserThroughAgent() async throws {
        try await withInstallation { installation in
            let gateway = try await installation.startGateway()
            let kite = try installation.testKite("listen")
            let (_, url) = try await installation.startAgent("kite", try await kite.line(), "--name", "math")
            try await checkBrowser(installation, kite: url, gateway)
        }
    }

    @Test("A browser reaches a kite that exposes itself and listens nowhere", .timeLimit(.minutes(2)))
    func browserToEmbedded() async throws {
        try await withInstallation { installation in
            let gateway = try await installation.startGateway()
            let kite = try installation.testKite("expose", installation.url, "math")
            try await checkBrowser(installation, kite: try await kite.line(), gateway)
        }
    }

    @Test(
        "A browser reaches a kite written in Go that dials back", .timeLimit(.minutes(2)),
        .enabled(if: GoPeer.isAvailable))
    func browserToGo() async throws {
        try await withInstallation { installation in
            let gateway = try await installation.startGateway()
            let (_, url) = try await installation.startGoKite("tunnel", "math", ["PUBLIC": "1"])
            try await checkBrowser(installation, kite: url, gateway)
        }
    }

    @Test("node-sockjs-client reaches a kite through an agent over each transport, both ways", .timeLimit(.minutes(1)))
    func node() async throws {
        try await withInstallation { installation in
            _ = try await installation.startGateway()
            let kite = try installation.testKite("listen")
            let (_, url) = try await installation.startAgent("kite", try await kite.line(), "--name", "math")
            for transport in ["websocket", "xhr-streaming", "eventsource", "xhr-polling"] {
                let program = try installation.run(
                    Place.node, [Place.peer("sockjs.js"), url, transport],
                    environment: ["NODE_PATH": "/usr/share/nodejs"])
                let session = try JSONDecoder().decode(Session.self, from: Data(try await program.line().utf8))
                check(session, over: transport)
                #expect(try await program.waitForEnd() == 0)
            }
        }
    }
}
