/// What the gateway sends in the scenarios of recorded traffic is what Go's proxies sent, the order of keys aside.
import Foundation
import Testing

@Suite("Golden sessions of Go's proxies", .serialized, .enabled(if: GoPeer.isAvailable))
struct GoGoldenTests {
    /// A frame of a Go peer with `SHOW_WIRE`.
    private struct Frame: Decodable {
        var wire: String?
        var sent: String?
        var received: String?
    }

    private func frames(_ lines: [String]) -> [Frame] {
        lines.compactMap { try? JSONDecoder().decode(Frame.self, from: Data($0.utf8)) }.filter { $0.wire != nil }
    }

    /// The messages in frames of a SockJS server (`a[…]`) or of a client (`[…]`).
    private func messages(_ frames: [String]) -> [String] {
        frames.flatMap { frame in
            (try? JSONDecoder().decode([String].self, from: Data(frame.drop { $0 == "a" }.utf8))) ?? []
        }
    }

    /// A message with everything replaced that is another in each installation.
    private func normalised(_ text: String, gateway: String, id: String) throws -> NSDictionary {
        var text = text.replacing(gateway, with: "GATEWAY").replacing(id, with: "ID")
        text = text.replacing(
            try Regex(#"/tunnel/\d{3}/[0-9a-z]+/websocket\?token=[0-9A-Za-z._-]+"#),
            with: "/tunnel/SERVER/SESSION/websocket?token=TOKEN")
        // Who the proxy is: the names of the fields count, and that all are filled.
        text = text.replacing(
            try Regex(#""(name|username|id|environment|region|version|hostname)":"[^"]+""#)
        ) { match in String(text[match.range].prefix { $0 != ":" }) + #":"*""# }
        return try #require(JSONSerialization.jsonObject(with: Data(text.utf8)) as? NSDictionary)
    }

    private static let fixture: [String: String] = {
        let path = Place.checkout + "/Tests/Fixtures/Gateway/go-proxies.txt"
        let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
        return Dictionary(
            text.split(separator: "\n").filter { !$0.hasPrefix("#") }.compactMap { line in
                let parts = line.split(separator: "\t")
                return parts.count == 2 ? (String(parts[0]), String(parts[1])) : nil
            }
        ) { $1 }
    }()

    private func expect(_ message: String?, _ name: String, gateway: String, id: String) throws {
        let expected = try #require(Self.fixture[name])
        #expect(
            try normalised(try #require(message), gateway: gateway, id: id)
                == normalised(expected, gateway: "GATEWAY", id: "ID"), "\(name)")
    }

    @Test("Registration, kite.tunnel and the frames of both sides", .timeLimit(.minutes(3)))
    func tunnel() async throws {
        try await withInstallation { installation in
            _ = try await installation.startGateway()
            let id = "75d65cb3-be6b-4325-90c1-8b69ae0cc7b7"
            let (kite, url) = try await installation.startGoKite(
                "tunnel", "labtun", ["SHOW_WIRE": "1", "KITE_ID": id])
            let output = try await ChildProcess.run(
                try await GoPeer.path, ["wire", url, "square", "4"],
                environment: installation.goEnvironment(["SHOW_WIRE": "1", "AUTH": "kiteKey"]))
            // The kite hears that its visitor has gone.
            _ = try await kite.line { $0.contains(#""tunnel""#) && $0.contains("Go away!") }
            let gateway = "127.0.0.1:\(installation.port)"

            let kiteFrames = frames(kite.standardOutput)
            let fromProxy = kiteFrames.filter { $0.wire == "proxy" }.compactMap(\.received)
            #expect(fromProxy.first == "o")
            let calls = messages(fromProxy.filter { $0.hasPrefix("a") })
            try expect(calls.first, "tunnel register", gateway: gateway, id: id)
            try expect(
                calls.first { $0.contains("kite.tunnel") }, "tunnel kite.tunnel", gateway: gateway, id: id)

            let visitorFrames = frames(output.components(separatedBy: "\n"))
            let toVisitor = visitorFrames.compactMap(\.received).filter { $0 != "h" }
            let toKite = kiteFrames.filter { $0.wire == "tunnel" }.compactMap(\.received).filter { $0 != "h" }
            #expect(toVisitor.first == "o")
            #expect(toKite.first == "o")
            #expect(toKite.last == #"c[3000,"Go away!"]"#)
            // Byte for byte what the other side said.
            #expect(messages(toKite.filter { $0.hasPrefix("a") }) == messages(visitorFrames.compactMap(\.sent)))
            #expect(
                messages(toVisitor.filter { $0.hasPrefix("a") })
                    == messages(kiteFrames.filter { $0.wire == "tunnel" }.compactMap(\.sent)))
            #expect(messages(toVisitor.filter { $0.hasPrefix("a") }).count == 1)
        }
    }

    @Test("Registration with an address", .timeLimit(.minutes(3)))
    func direct() async throws {
        try await withInstallation { installation in
            _ = try await installation.startGateway()
            let id = "75d65cb3-be6b-4325-90c1-8b69ae0cc7b7"
            let (kite, _) = try await installation.startGoKite("direct", "lab", ["SHOW_WIRE": "1", "KITE_ID": id])
            let calls = messages(
                frames(kite.standardOutput).filter { $0.wire == "proxy" }.compactMap(\.received).filter {
                    $0.hasPrefix("a")
                })
            try expect(calls.first, "direct register", gateway: "127.0.0.1:\(installation.port)", id: id)
        }
    }
}
