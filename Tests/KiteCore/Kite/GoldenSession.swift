/// Recorded sessions of Go's kites, and what makes two messages the same.
import Foundation
import KiteCore
import KiteHTTP
import NIOCore
import Testing

/// The messages of one connection.
struct GoldenSession {
    struct Line {
        /// Whether the side that dialled has sent it.
        var isOfDialler: Bool
        var text: String
    }
    var lines: [Line] = []

    /// - Parameters:
    ///   - name: a file below `Tests`; in it `>` stands before what the dialling side sends and `<` before what the other does.
    ///   - replacements: what stands in the file for what differs from run to run.
    init(_ name: String, _ replacements: [String: String] = [:]) throws {
        let tests = "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
        let text = try String(contentsOfFile: "\(tests)/\(name)", encoding: .utf8)
        for line in text.split(separator: "\n") where !line.hasPrefix("#") {
            var message = String(line.dropFirst(2))
            for (word, value) in replacements { message = message.replacing("\"\(word)\"", with: "\"\(value)\"") }
            lines.append(Line(isOfDialler: line.hasPrefix(">"), text: message))
        }
    }

    /// Plays one side to the other, whose messages must be the recorded ones.
    /// - Parameter isDialler: which side is played.
    func play(asDialler isDialler: Bool, on channel: MemoryChannel) async throws {
        var early: [DnodeValue] = []
        for line in lines {
            if line.isOfDialler == isDialler {
                try await channel.send(line.text)
                continue
            }
            let expected = try DnodeValue(parsing: ByteBuffer(string: line.text))
            // Answers to different calls may come in another order.
            var found = early.firstIndex { $0["method"] == expected["method"] }.map { early.remove(at: $0) }
            while found == nil {
                let message = try #require(try await channel.next(), "instead of \(line.text)")
                if message["method"] == expected["method"] { found = message } else { early.append(message) }
            }
            #expect(Self.normalised(try #require(found)) == Self.normalised(expected), "instead of \(line.text)")
        }
        #expect(early.isEmpty)
    }

    /// Without what differs from run to run (request ids, figures of the machine) or between Go and Swift (how a decoder puts it).
    static func normalised(_ value: DnodeValue) -> DnodeValue {
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
}
