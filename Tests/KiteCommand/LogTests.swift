/// What log lines look like, and what they never contain.
import Foundation
import KiteCommand
import Logging
import Synchronization
import Testing

private final class Lines: Sendable {
    private let lines = Mutex<[String]>([])
    var all: [String] { lines.withLock { $0 } }
    var output: LogOutput { LogOutput { line in self.lines.withLock { $0.append(line) } } }
}

@Suite("Logs")
struct LogTests {
    private let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl_-x"

    @Test("A human line has time, level, message and sorted metadata")
    func human() {
        let lines = Lines()
        var logger = Logger(label: "x") { _ in HumanLogHandler(label: "x", output: lines.output, now: { "T" }) }
        logger[metadataKey: "route"] = "shop"
        logger.info("Lane up", metadata: ["agent": "a b", "lanes": "\(2)"])
        #expect(lines.all == ["T info   Lane up agent=\"a b\" lanes=2 route=shop\n"])
    }

    @Test("A terminal gets colours")
    func colours() {
        let lines = Lines()
        let output = LogOutput(isTerminal: true, write: lines.output.write)
        Logger(label: "x") { _ in HumanLogHandler(label: "x", output: output, now: { "T" }) }.warning("Hm")
        #expect(lines.all.first?.contains("\u{1B}[33mwarn  \u{1B}[0m") == true)
    }

    @Test("A JSON line is one object; members do not collide")
    func json() throws {
        let lines = Lines()
        let logger = Logger(label: "x") { _ in JSONLogHandler(label: "x", output: lines.output, now: { "T" }) }
        logger.notice(
            "Quote \" and\nline", metadata: ["level": "mine", "list": .array(["a", .dictionary(["k": "v"])])])
        let line = try #require(lines.all.first)
        #expect(line.split(separator: "\n").count == 1)
        let object = try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
        #expect(object["level"] as? String == "notice")
        #expect(object["level_"] as? String == "mine")
        #expect(object["message"] as? String == "Quote \" and\nline")
        #expect((object["list"] as? [Any])?.count == 2)
    }

    @Test("Levels below the chosen one are not written")
    func levels() {
        let lines = Lines()
        let logger = Logs.logger("x", format: .human, level: .warning, output: lines.output)
        logger.info("no")
        logger.warning("yes")
        #expect(lines.all.count == 1)
    }

    @Test("Secrets never reach a line, in message, metadata or nested metadata", arguments: [LogFormat.human, .json])
    func secrets(format: LogFormat) {
        let lines = Lines()
        let logger = Logs.logger("x", format: format, level: .trace, output: lines.output)
        let pem = "-----BEGIN RSA PRIVATE KEY-----\nMIIEvSECRET\n-----END RSA PRIVATE KEY-----"
        logger.info(
            "Got \(token) from \(pem) at /tunnel?token=abcdef&x=1",
            metadata: [
                "kiteKey": "plain-SECRET", "Authorization": "Bearer SECRET", "set-cookie": "SECRET",
                "inner": .dictionary(["password": "SECRET", "fine": "\(token)"]), "target": "/x?token=SECRET",
            ])
        let line = lines.all.joined()
        #expect(!line.contains("SECRET"), "\(line)")
        #expect(!line.contains("c2lnbmF0dXJl"), "\(line)")
        #expect(!line.contains("abcdef"), "\(line)")
        #expect(line.contains("x=1"))
    }

    @Test("What a peer sent cannot forge lines or move the cursor")
    func controls() {
        let lines = Lines()
        Logs.logger("x", format: .human, level: .info, output: lines.output).info(
            "a\nb\u{1B}[2J", metadata: ["k": "c\r\nd"])
        let line = lines.all.joined()
        #expect(line.filter { $0 == "\n" || $0 == "\r\n" }.count == 1)
        #expect(!line.contains("\u{1B}"))
    }

    @Test("Text without secrets stays as it is", arguments: ["", "eyJ is a prefix", "a.b.c", "BEGIN PUBLIC KEY"])
    func untouched(text: String) {
        #expect(Redaction.clean(text) == text)
    }

    @Test("Times are RFC 3339 in UTC")
    func timestamps() {
        #expect(Timestamp.text(seconds: 0, milliseconds: 7) == "1970-01-01T00:00:00.007Z")
        #expect(Timestamp.text(seconds: 1_709_210_096, milliseconds: 120) == "2024-02-29T12:34:56.120Z")
    }
}
