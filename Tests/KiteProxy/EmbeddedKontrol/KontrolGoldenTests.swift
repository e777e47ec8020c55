/// Whole sessions that Go clients had with a Go Kontrol, played to ours: what it sends must be the same.
import Foundation
import KiteCore
import Testing

@testable import EmbeddedKontrol

@Suite("Golden sessions with Kontrol", .timeLimit(.minutes(1)))
struct KontrolGoldenTests {
    /// The kites that Kontrol knew.
    private static let known: [(name: String, id: String, url: String)] = [
        ("math", "4695c4bd-e2bd-4ba9-ab7c-4a160349ac62", "http://localhost:6667/kite"),
        ("labhttp", "e734ce2c-b0dd-4122-9665-c3b3dfbde836", "http://127.0.0.1:7002/kite"),
        // Go's Kontrol was registered with itself.
        ("kontrol", "35f7e52d-9c43-4608-8a73-c58a29510a61", "http://127.0.0.1:6000/kite"),
        ("labk2", "45fdc635-c9b2-4d68-89b2-ca2ce07bf66e", "http://127.0.0.1:7006/kite"),
    ]

    /// The messages, and whether the client has sent them.
    private func lines(_ name: String, key: String) throws -> [(isSent: Bool, text: String)] {
        let tests = "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
        let text = try String(contentsOfFile: "\(tests)/Fixtures/Golden/\(name)", encoding: .utf8)
        return text.split(separator: "\n").filter { !$0.hasPrefix("#") }.map { line in
            (line.hasPrefix(">"), String(line.dropFirst(2)).replacing("\"KEY\"", with: "\"\(key)\""))
        }
    }

    /// Without what is another in each run: request ids, keys and tokens, who Kontrol is, the order of kites.
    private func normalised(_ value: Any) throws -> NSObject {
        switch value {
        case let array as [Any]: return try NSArray(array: array.map(normalised))
        case let object as [String: Any]:
            var members: [String: Any] = [:]
            for (key, value) in object {
                switch (key, value) {
                case ("id", let text as String) where text.count == 16: members[key] = "request id"
                case ("token", let text as String), ("result", let text as String):
                    members[key] = try placeholder(text)
                case ("keyId", is String): members[key] = "key id"
                case ("kites", let kites as [[String: Any]]):
                    members[key] = try NSArray(
                        array: kites.sorted { "\($0["url"] ?? "")" < "\($1["url"] ?? "")" }.map(normalised))
                case ("kite", let kite as [String: String]) where kite["name"] == "kontrol":
                    // All of it is filled.
                    members[key] = kite.mapValues { $0.isEmpty ? "" : "*" }
                default: members[key] = try normalised(value)
                }
            }
            return NSDictionary(dictionary: members)
        default: return try #require(value as? NSObject)
        }
    }

    private func placeholder(_ text: String) throws -> String {
        if text.hasPrefix("-----BEGIN PUBLIC KEY-----\n") { return "PEM" }
        guard text.hasPrefix("eyJ") else { return text }
        _ = try SignedToken(parsing: text)
        return "TOKEN"
    }

    @Test(
        "Kontrol answers as Go's does, message for message",
        arguments: [
            ("kontrol-register.txt", [], .deny), ("kontrol-find.txt", ["math"], .deny),
            ("kontrol-rpc.txt", ["math", "labhttp", "kontrol"], .deny), ("kontrol-anonymous.txt", ["math"], .deny),
            ("kontrol-machines.txt", [], .open), ("kontrol-renew.txt", ["labk2"], .deny),
        ] as [(String, [String], MachinePolicy)])
    func sessions(name: String, kites: [String], policy: MachinePolicy) async throws {
        try await withService(policy: policy) { service, _, _ in
            for kite in Self.known where kites.contains(kite.name) {
                try await service.enter(identity(kite.name, id: kite.id), url: kite.url)
            }
            let key = try await TokenIssuer(issuer: "kontrol", keyPair: Keys.first)
                .kiteKey(for: "kontrol", kontrolURL: "http://127.0.0.1:6000/kite", now: 0)
            let server = KontrolServer(service: service, logger: quiet)
            let (mine, theirs) = MemoryChannel.pair()
            async let served: Void = server.kite.serve(theirs)
            var early: [[String: Any]] = []
            for line in try lines(name, key: key.text) {
                if line.isSent {
                    try await mine.send(line.text)
                    continue
                }
                let expected = try normalised(JSONSerialization.jsonObject(with: Data(line.text.utf8)))
                let method = try #require((expected as? NSDictionary)?["method"] as? NSObject)
                // What belongs to different calls may come in another order.
                var found = early.firstIndex { $0["method"] as? NSObject == method }.map { early.remove(at: $0) }
                while found == nil {
                    let message = try await mine.next()
                    if message["method"] as? NSObject == method { found = message } else { early.append(message) }
                }
                #expect(try normalised(#require(found)) == expected, "in answer to \(line.text)")
            }
            #expect(early.isEmpty)
            mine.close(code: 1000, reason: "")
            await served
        }
    }
}
