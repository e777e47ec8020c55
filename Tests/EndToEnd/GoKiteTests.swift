/// Kites written in Go register as they always have, and their clients reach them through the gateway.
import Foundation
import Testing

@Suite("Go kites", .serialized, .enabled(if: GoPeer.isAvailable))
struct GoKiteTests {
    /// What `gokite visit` saw; a failure is a text that begins with `!!`.
    struct Visit: Decodable {
        enum Value: Decodable, Equatable {
            case number(Double)
            case text(String)
            case truth(Bool)
            case other

            init(from decoder: any Decoder) throws {
                let value = try decoder.singleValueContainer()
                if let truth = try? value.decode(Bool.self) {
                    self = .truth(truth)
                } else if let number = try? value.decode(Double.self) {
                    self = .number(number)
                } else if let text = try? value.decode(String.self) {
                    self = .text(text)
                } else {
                    self = .other
                }
            }
        }
        var square: Value?
        var auth: Value?
        var fail: Value?
        var callme: [String: String]?
        var subscribe: Value?
        var events: [Double]?
        var len: Value?
        var big: Value?
        var close: Value?
    }

    private func visit(
        _ installation: Installation, _ url: String, _ environment: [String: String]
    ) async throws -> Visit {
        try await GoPeer.run("visit", url, environment: installation.goEnvironment(environment))
    }

    /// Everything that a client may do has worked.
    private func check(_ visit: Visit, size: Double = 20_000, _ note: Comment) {
        #expect(visit.square == .number(16), note)
        #expect(visit.fail == .text("!! genericError: something failed"), note)
        #expect(visit.callme == ["youSaid": "hi from client"], note)
        #expect(visit.subscribe == .text("subscribed"), note)
        #expect(visit.events == [0, 1, 2], note)
        #expect(visit.len == .number(size), note)
        #expect(visit.big == .number(size), note)
    }

    @Test("A kite found through Kontrol serves all kinds of clients through kite.tunnel", .timeLimit(.minutes(3)))
    func tunnel() async throws {
        try await withInstallation { installation in
            _ = try await installation.startGateway()
            let (_, url) = try await installation.startGoKite("tunnel", "labtun")
            #expect(url.hasPrefix(installation.url + "/proxy?kiteID="))
            let found = try await installation.findGoKite("labtun")
            #expect(found.url == url)
            let token = ["AUTH": "token:\(found.token)"]

            check(try await visit(installation, url, token), "WebSocket")
            check(
                try await visit(installation, url, token.merging(["TRANSPORT": "XHRPolling"]) { $1 }), "XHR, Go's URL")
            check(try await visit(installation, url, ["AUTH": "kiteKey"]), "kite key")
            check(try await visit(installation, url + "&token=" + found.token, [:]), "token in the query")
            let closed = try await visit(installation, url, token.merging(["CLOSE": "4123"]) { $1 })
            #expect(closed.close == .text("!! closed: 4123 as asked"))
            let vanished = try await visit(installation, url, token.merging(["CLOSE": "0"]) { $1 })
            #expect(vanished.close == .text("!! closed: 3000 Go away!"))

            // The kite trusts whoever comes through its tunnel; the gateway does not.
            for (auth, message) in [
                ("", "No authentication information is provided"), ("token:nonsense", "token: "),
                ("kiteKey:\(found.token)", "kiteKey: "), ("magic:word", "Unknown authentication type: magic"),
            ] {
                let refused = try await visit(installation, url, ["AUTH": auth])
                guard case .text(let text) = refused.square else {
                    Issue.record("\(auth): \(String(describing: refused.square))")
                    continue
                }
                #expect(text.hasPrefix("!! authenticationError: \(message)"), "\(text)")
            }
        }
    }

    @Test("Large messages pass, and hundreds of sessions at a time", .timeLimit(.minutes(3)))
    func size() async throws {
        try await withInstallation { installation in
            _ = try await installation.startGateway()
            let (_, url) = try await installation.startGoKite("tunnel", "labtun")
            // Just below 16 MiB with what is around it, in fragments of 4096 bytes.
            let size = 16 * 1024 * 1024 - 4096
            check(
                try await visit(installation, url, ["AUTH": "kiteKey", "SIZE": "\(size)"]), size: Double(size), "large")
            struct Crowd: Decodable {
                var good: Int
                var failures: [String: Int]
            }
            let crowd: Crowd = try await GoPeer.run(
                "crowd", url, "400", environment: installation.goEnvironment(["AUTH": "kiteKey"]))
            #expect(crowd.good == 400)
            #expect(crowd.failures == [:])
            check(try await visit(installation, url, ["AUTH": "kiteKey"]), "afterwards")
        }
    }

    @Test("A kite with an address of its own registers it, and is reached directly", .timeLimit(.minutes(3)))
    func direct() async throws {
        try await withInstallation { installation in
            _ = try await installation.startGateway()
            let (_, url) = try await installation.startGoKite("direct", "lab")
            #expect(url.hasPrefix(installation.url + "/proxy/"))
            let found = try await installation.findGoKite("lab")
            #expect(found.url == url)
            for transport in ["WebSocket", "XHRPolling"] {
                check(
                    try await visit(
                        installation, url, ["AUTH": "token:\(found.token)", "TRANSPORT": transport]), "\(transport)")
            }
        }
    }

    @Test("KITE_PROXY_URL and a kite key are enough; a missing argument means a tunnel", .timeLimit(.minutes(3)))
    func withoutKontrol() async throws {
        try await withInstallation { installation in
            _ = try await installation.startGateway()
            let (_, url) = try await installation.startGoKite(
                "tunnel", "lab",
                [
                    "KITE_PROXY_URL": installation.url + "/kite", "NO_KONTROL": "1", "NO_ARGUMENT": "1",
                    "KITE_TRANSPORT": "XHRPolling",
                ])
            check(try await visit(installation, url, ["AUTH": "kiteKey"]), "kite key")
        }
    }

    @Test("A kite that its owner declared public asks nobody", .timeLimit(.minutes(3)))
    func publicKite() async throws {
        try await withInstallation { installation in
            _ = try await installation.startGateway()
            let (_, url) = try await installation.startGoKite("tunnel", "open", ["PUBLIC": "1"])
            check(try await visit(installation, url, [:]), "no credentials")
            check(try await visit(installation, url, ["TRANSPORT": "XHRPolling"]), "no credentials, XHR")
        }
    }

    @Test("A kite comes back by itself after the gateway was restarted", .timeLimit(.minutes(3)))
    func restart() async throws {
        try await withInstallation { installation in
            let first = try await installation.startGateway()
            let id = "6b2c3d4e-0000-4000-8000-0000000000aa"
            let (kite, url) = try await installation.startGoKite(
                "tunnel", "lab",
                ["KITE_PROXY_URL": installation.url + "/kite", "NO_KONTROL": "1", "KITE_ID": id])
            #expect(url.hasSuffix(id))
            try await first.terminate()
            _ = try await installation.startGateway()
            _ = try await kite.line { $0.contains("\"url\"") }
            check(try await visit(installation, url, ["AUTH": "kiteKey"]), "after the restart")
        }
    }

    @Test("Visitors of kites that open no tunnel are told so", .timeLimit(.minutes(3)))
    func refusals() async throws {
        try await withInstallation { installation in
            _ = try await installation.startGateway()
            let (_, url) = try await installation.startGoKite("tunnel", "lab", ["REFUSE_TUNNELS": "1"])
            let seen = try await visit(installation, url, ["AUTH": "kiteKey"])
            #expect(seen.square == .text("!! closed: 3000 The kite could not open a tunnel: no tunnels today"))
            // Nobody has registered this one.
            let unknown = try await curl("\(installation.url)/proxy/info?kiteID=6b2c3d4e-0000-4000-8000-0000000000bb")
            #expect(unknown.status == 404)
        }
    }
}
