/// What reaches a service through the gateway can be read in one way only, whatever a visitor sends; and so can what reaches a visitor,
/// whatever a service answers.
import Foundation
import NIOCore
import NIOEmbedded
import NIOHTTP1
import Testing

@Suite("Ambiguous messages", .serialized)
struct AmbiguityTests {
    /// What `drive.py` says at the end.
    private struct Outcome: Decodable {
        var cases: Int
        var exchanges: Int
        var requests: Int
        var findings: [String]
    }

    /// A connection to the service, and how the service has read it.
    private struct Stream: Decodable {
        var bytes: Data
        var messages: [Request]
    }

    /// What a visitor got.
    private struct Visitor: Decodable {
        var name: String
        var methods: [String]
        var bytes: Data
    }

    fileprivate struct Request: Decodable, Equatable {
        var method: String
        var target: String
        var host: String
        var body: Data
    }

    fileprivate struct Answer: Decodable, Equatable {
        var status: Int
        var body: Data
    }

    /// How one parser has read the streams and the answers; nil where it was not asked.
    private struct Reading: Decodable {
        var requests: [[Request]]
        var answers: [[Answer]?]
    }

    /// The methods that every parser knows. A parser that refuses another has not misunderstood it.
    private static let knownMethods: Set = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND",
    ]

    @Test(
        "Thousands of malformed and ambiguous messages are refused, or mean the same to everybody",
        .timeLimit(.minutes(3)))
    func corpus() async throws {
        let seed = ProcessInfo.processInfo.environment["AMBIGUITY_SEED"] ?? "6"
        print("Ambiguous messages with seed \(seed) (AMBIGUITY_SEED)")
        try await withInstallation(options: ["--domain", "test.example"]) { installation in
            _ = try await installation.startGateway()
            let service = "127.0.0.1:\(try freePort())"
            // The agent's streams are joined with the service as they are, or read on the way.
            _ = try await installation.startAgent("http", service, "--name", "tunnelled")
            _ = try await installation.startAgent(
                "http", service, "--name", "renamed", "--host-header", "inner.example")
            let folder = installation.directory
            let output = try await ChildProcess.run(
                Place.python,
                [
                    Place.peer("ambiguity/drive.py"), seed, String(service.split(separator: ":")[1]),
                    "\(installation.port)",
                    folder, "0e1d7b54-0000-4000-8000-0000000000aa.test.example", "tunnelled.test.example",
                    "renamed.test.example",
                ], environment: installation.environment, within: 120)
            let outcome = try JSONDecoder().decode(Outcome.self, from: Data(output.utf8))
            print(
                "\(outcome.cases) cases, \(outcome.exchanges) connections, \(outcome.requests) requests at the service")
            #expect(outcome.findings.isEmpty, "\(outcome.findings.prefix(20).joined(separator: "\n"))")
            #expect(outcome.cases > 2_000 && outcome.requests > 2_000)

            _ = try await ChildProcess.run(Place.python, [Place.peer("ambiguity/read.py"), folder])
            _ = try await ChildProcess.run(Place.node, [Place.peer("ambiguity/read.mjs"), folder])
            func decode<Value: Decodable>(_ name: String) throws -> Value {
                let file = URL(fileURLWithPath: "\(folder)/\(name).json")
                let decoder = JSONDecoder()
                decoder.dataDecodingStrategy = .base64
                return try decoder.decode(Value.self, from: Data(contentsOf: file))
            }
            let streams: [Stream] = try decode("streams")
            let visitors: [Visitor] = try decode("answers")
            var readings: [(String, Reading)] = []
            for parser in ["python", "h11", "node"] { readings.append((parser, try decode(parser))) }
            readings.append(
                (
                    "llhttp",
                    Reading(
                        requests: try streams.map { try llhttpRequests(in: $0.bytes) },
                        answers: try visitors.map { try llhttpAnswers(in: $0.bytes, methods: $0.methods) })
                ))
            for (parser, reading) in readings {
                let stranger = zip(streams, reading.requests).first { stream, read in
                    stream.messages != read
                        && !(stream.messages.starts(with: read)
                            && !Self.knownMethods.contains(stream.messages[read.count].method))
                }
                if let (stream, read) = stranger {
                    let text = String(decoding: stream.bytes, as: UTF8.self).debugDescription
                    Issue.record("\(parser) reads \(read) and the service \(stream.messages): \(text.prefix(4_000))")
                }
                #expect(reading.requests.count == streams.count && reading.answers.count == visitors.count)
            }
            for (index, visitor) in visitors.enumerated() {
                let expected = readings[0].1.answers[index]
                for (parser, reading) in readings.dropFirst() {
                    guard let answers = reading.answers[index] else { continue }
                    #expect(
                        answers == expected,
                        "\(parser): \(visitor.name): \(String(decoding: visitor.bytes.prefix(2_000), as: UTF8.self).debugDescription)"
                    )
                }
            }
        }
    }
}

/// The requests that are complete.
private func llhttpRequests(in bytes: Data) throws -> [AmbiguityTests.Request] {
    let channel = EmbeddedChannel(
        handler: ByteToMessageHandler(HTTPRequestDecoder(leftOverBytesStrategy: .dropBytes)))
    defer { _ = try? channel.finish(acceptAlreadyClosed: true) }
    // What comes before an error counts.
    _ = try? channel.writeInbound(ByteBuffer(bytes: bytes))
    var requests: [AmbiguityTests.Request] = []
    var current: AmbiguityTests.Request?
    while let part = try channel.readInbound(as: HTTPServerRequestPart.self) {
        switch part {
        case .head(let head):
            current = AmbiguityTests.Request(
                method: head.method.rawValue, target: head.uri, host: head.headers["host"].joined(separator: ","),
                body: Data())
        case .body(let body): current?.body.append(contentsOf: body.readableBytesView)
        case .end:
            if let current { requests.append(current) }
            current = nil
        }
    }
    return requests
}

/// The answers that are complete, informational ones left out.
private func llhttpAnswers(in bytes: Data, methods: [String]) throws -> [AmbiguityTests.Answer] {
    let channel = EmbeddedChannel()
    try channel.pipeline.syncOperations.addHandlers([
        HTTPRequestEncoder(),
        ByteToMessageHandler(
            HTTPResponseDecoder(leftOverBytesStrategy: .dropBytes, informationalResponseStrategy: .drop)),
    ])
    for method in methods {
        let head = HTTPRequestHead(version: .http1_1, method: HTTPMethod(rawValue: method), uri: "/")
        channel.write(HTTPClientRequestPart.head(head), promise: nil)
        channel.writeAndFlush(HTTPClientRequestPart.end(nil), promise: nil)
    }
    _ = try? channel.writeInbound(ByteBuffer(bytes: bytes))
    // The visitor's connection has ended.
    _ = try? channel.finish(acceptAlreadyClosed: true)
    var answers: [AmbiguityTests.Answer] = []
    var current: AmbiguityTests.Answer?
    while let part = try channel.readInbound(as: HTTPClientResponsePart.self) {
        switch part {
        case .head(let head): current = AmbiguityTests.Answer(status: Int(head.status.code), body: Data())
        case .body(let body): current?.body.append(contentsOf: body.readableBytesView)
        case .end:
            if let current { answers.append(current) }
            current = nil
        }
    }
    return answers
}
