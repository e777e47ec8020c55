/// The examples in docs/tunnel-wire.md are what the code writes and reads.
import Foundation
import KiteHTTP
import KiteTunnel
import NIOCore
import Testing

@Suite struct WireDocumentTests {
    /// What each example stands for.
    static func frames() throws -> [String: TunnelFrame] {
        let agent = "0123456789abcdef"
        let session = "fedcba9876543210"
        let secret = SessionSecret(text: "s3cret")
        func hello(_ purpose: AgentHello.Purpose, notes: Bool = false) -> TunnelFrame {
            .hello(
                AgentHello(agent: agent, epoch: 1, software: "tunnelclient/1.0", purpose: purpose, wantsNotes: notes)
                    .json())
        }
        let stream = TunnelStreamID(rawValue: 3)
        return [
            "hello": hello(.open([TunnelRequest(name: "blog", kind: .http)]), notes: true),
            "hello-join": hello(.join(session: session, secret: secret)),
            "hello-resume": hello(.resume(session: session, secret: secret, lane: 0, received: 41)),
            "welcome": .welcome(
                GatewayAnswer.welcome(
                    GatewayWelcome(
                        session: session, secret: secret, lane: 0, lanes: 2, loop: 1,
                        tunnels: [TunnelGrant(name: "blog", url: "https://blog.example.org/")])
                ).json()),
            "welcome-refused": .welcome(
                GatewayAnswer.refused(
                    TunnelRefusal(status: 409, reason: "The name blog belongs to another user")
                ).json()),
            "ping": .ping(0x0102_0304_0506_0708),
            "pong": .pong(0x0102_0304_0506_0708),
            "ack": .ack(258),
            "note": .note(TunnelNote(tunnel: 0, method: "GET", path: "/kite", status: 200, microseconds: 1_500)),
            "open": .open(
                stream,
                StreamOpening(
                    kind: .http, tunnel: 0, clientAddress: try SocketAddress(ipAddress: "192.0.2.7", port: 50_000),
                    host: ByteBuffer(string: "blog.example.org"), isSecure: true)),
            "open-v6": .open(
                TunnelStreamID(openedByAgent: false, generation: 1, slot: 2),
                StreamOpening(
                    kind: .upgrade, tunnel: 1, clientAddress: try SocketAddress(ipAddress: "2001:db8::1", port: 443))),
            "open-tcp": .open(
                TunnelStreamID(openedByAgent: true, generation: 0, slot: 0), StreamOpening(kind: .tcp)),
            "data": .data(stream, ByteBuffer(string: "Hello"), isEnd: false),
            "data-end": .data(stream, ByteBuffer(), isEnd: true),
            "credit": .credit(stream, 32_768),
            "reset": .reset(stream, .cancelled, reason: ByteBuffer(string: "visitor went away")),
            "goaway": .goAway(TunnelGoAway(reason: "restart", next: "https://gw2.example.org/")),
        ]
    }

    /// The blocks that begin with "```frame NAME".
    static func examples() throws -> [String: [UInt8]] {
        let here = URL(filePath: #filePath).resolvingSymlinksInPath()
        var root = here
        for _ in 0..<4 { root.deleteLastPathComponent() }
        let text = try String(contentsOf: root.appending(path: "docs/tunnel-wire.md"), encoding: .utf8)
        var examples: [String: [UInt8]] = [:]
        var name: String?
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            if line.hasPrefix("```frame ") {
                name = String(line.dropFirst(9))
                examples[String(line.dropFirst(9))] = []
            } else if line.hasPrefix("```") {
                name = nil
            } else if let name {
                examples[name]?.append(
                    contentsOf: try line.split(separator: " ").map { try #require(UInt8($0, radix: 16)) })
            }
        }
        return examples
    }

    @Test func everyExampleIsWrittenAndReadByteForByte() throws {
        let examples = try Self.examples()
        let frames = try Self.frames()
        #expect(Set(examples.keys) == Set(frames.keys))
        for (name, frame) in frames {
            var written = ByteBuffer()
            written.writeTunnelFrame(frame)
            #expect(Array(written.readableBytesView) == examples[name], "\(name)")
            var decoder = TunnelFrameDecoder()
            decoder.receive(ByteBuffer(bytes: examples[name] ?? []))
            do {
                let next = try decoder.next()
                #expect(next == frame, "\(name)")
            }
            do {
                let next = try decoder.next()
                #expect(next == nil)
            }
        }
    }

    @Test func everyTypeHasAnExample() throws {
        let types = Set(try Self.examples().values.compactMap(\.first))
        #expect(types == Set(TunnelFrameType.allCases.map(\.rawValue)))
    }
}
