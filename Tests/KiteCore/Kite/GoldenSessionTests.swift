/// Whole sessions that a Go client had with a Go kite, played to ours: what it sends must be the same.
import KiteCore
import KiteHTTP
import NIOCore
import Testing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

@Suite(.timeLimit(.minutes(1))) struct GoldenSessionTests {
    /// Believes everybody who brings a kite key.
    struct AnyKiteKey: KiteAuthenticator {
        func authenticate(_ authentication: Authentication?, for kite: KiteIdentity) async throws(KiteError) -> String {
            guard authentication?.type == "kiteKey" else {
                throw KiteError(.authentication, "No authentication information is provided")
            }
            return "kontrol"
        }
    }

    /// The kite of the transcripts.
    func labKite() -> Kite {
        var configuration = KiteConfiguration()
        configuration.username = "kontrol"
        configuration.id = "dc79f641-2493-4458-9c08-790481b37036"
        configuration.environment = "dev"
        configuration.region = "lo"
        configuration.hostname = "vm"
        let kite = Kite(name: "lab", version: "1.0.0", configuration: configuration, authenticator: AnyKiteKey())
        struct Failure: Error, CustomStringConvertible { let description: String }
        struct Subscription: Decodable {
            var n: Int
            var onEvent: DnodeFunction
        }
        kite.handle("square") { (_, number: Double) in number * number }
        kite.handle("open", .anonymous) { _ in "open!" }
        kite.handle("echo") { request in request.arguments.first ?? .null }
        kite.handle("whoami") { request -> DnodeValue in
            [
                "auth": try DnodeEncoder().encode(request.authentication),
                "clientKite": try DnodeEncoder().encode(request.caller), "remote": "", "reqid": .string(request.id),
                "username": .string(request.username ?? "-"),
            ]
        }
        kite.handle("fail") { (_) throws -> String in throw Failure(description: "something failed") }
        kite.handle("failtyped") { (_) throws -> String in throw KiteError("myType", "typed failure", code: "E42") }
        kite.handle("boom") { (_) throws -> String in throw Failure(description: "kaboom") }
        kite.handle("limited", .authenticated.limited(burst: 2, every: .seconds(3600))) { _ in "ok" }
        kite.handle("cb") { (_, name: String, function: DnodeFunction) in
            try await function.call("called back", name)
        }
        kite.handle("subscribe") { (request, subscription: Subscription) in
            request.runAfterAnswer {
                for number in 0..<subscription.n { try? await subscription.onEvent.call(number, "event") }
            }
            return "subscribed"
        }
        kite.handle("callme") { (request, method: String) -> DnodeValue in
            ["youSaid": try await request.remote.tell(method, "hello from \(kite.identity.id)")]
        }
        kite.handle("sleep") { (_, seconds: Double) in seconds }
        return kite
    }

    @Test(arguments: ["session-with-kite-key.txt", "session-anonymous.txt"])
    func kiteSendsWhatGoSends(_ name: String) async throws {
        try await withPeer(of: labKite()) { peer in
            var early: [DnodeValue] = []
            for line in try lines(name) {
                let text = String(line.dropFirst(2))
                guard line.hasPrefix("<") else {
                    try await peer.send(text)
                    continue
                }
                let expected = try DnodeValue(parsing: ByteBuffer(string: text))
                // Answers to different calls may come in another order.
                var found = early.firstIndex { $0["method"] == expected["method"] }.map { early.remove(at: $0) }
                while found == nil {
                    let message = try #require(try await peer.next())
                    if message["method"] == expected["method"] { found = message } else { early.append(message) }
                }
                #expect(normalised(try #require(found)) == normalised(expected), "in answer to \(line)")
            }
            #expect(early.isEmpty)
        }
    }

    /// Without what differs from run to run (request ids, figures of the machine) or between Go and Swift (how a decoder puts it).
    func normalised(_ value: DnodeValue) -> DnodeValue {
        switch value {
        case .array(let elements): return .array(elements.map(normalised))
        case .object(var members):
            for (key, value) in members {
                switch (key, value) {
                case ("id", .string(let text)) where text.utf8.count == 16, ("reqid", .string(let text)):
                    #expect(text.utf8.allSatisfy { ($0 >= 0x30 && $0 <= 0x39) || ($0 >= 0x61 && $0 <= 0x66) })
                    members[key] = "request id"
                case ("message", .string) where members["type"] == "argumentError": members[key] = "message"
                case ("diskUsage", .int), ("diskTotal", .int), ("memoryUsage", .int), ("totalMemoryLimit", .int):
                    members[key] = "figure"
                case ("homeDir", .string): members[key] = "directory"
                default: members[key] = normalised(value)
                }
            }
            return .object(members)
        // 16 and 16.0 are the same number in JSON; Go knows doubles only.
        case .int(let number): return .double(Double(number))
        default: return value
        }
    }

    private func lines(_ name: String) throws -> [Substring] {
        let folder = #filePath.split(separator: "/").dropLast(2).joined(separator: "/")
        let file = try #require(fopen("/\(folder)/Dnode/Fixtures/\(name)", "r"))
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        let count = fread(&bytes, 1, bytes.count, file)
        return String(decoding: bytes[..<count], as: UTF8.self).split(separator: "\n")
    }
}
