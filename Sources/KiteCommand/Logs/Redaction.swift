/// Keeps secrets out of log lines whoever writes them: by the name of a field, and by what looks like a token or a private key.
import Logging

/// Replaces secrets in text that goes to a log.
package enum Redaction {
    /// What stands in place of a secret.
    package static let mark = "[redacted]"

    /// Whether a field of this name is never written.
    package static func isSecret(field name: String) -> Bool {
        let name = name.lowercased().filter { $0 != "-" && $0 != "_" && $0 != "." }
        return secretNames.contains { name.hasSuffix($0) }
    }

    private static let secretNames = [
        "token", "secret", "password", "authorization", "cookie", "kitekey", "privatekey", "privatepem", "apikey",
        "credentials",
    ]

    /// The text with JSON web tokens, PEM private keys and `token=` in queries replaced.
    package static func clean(_ text: String) -> String {
        guard text.contains("eyJ") || text.contains("PRIVATE KEY") || text.contains("token=") else { return text }
        var text = replace("eyJ", in: text) { rest in
            let end = rest.firstIndex { !isTokenCharacter($0) && $0 != "." } ?? rest.endIndex
            // A JSON web token has three parts; two are enough to be careful.
            return rest[..<end].contains(".") ? end : nil
        }
        text = replace("token=", in: text, keeping: 6) { rest in
            rest.firstIndex { $0 == "&" || $0 == " " || $0 == "\"" } ?? rest.endIndex
        }
        return replace("-----BEGIN", in: text) { rest in
            guard rest.prefix(40).contains("PRIVATE KEY") else { return nil }
            let end = rest.firstRange(of: "-----END")
            return end.map { range in
                let tail = rest[range.upperBound...]
                return tail.firstRange(of: "-----")?.upperBound ?? rest.endIndex
            } ?? rest.endIndex
        }
    }

    /// The text of a metadata value without secrets, also those in nested values.
    static func text(of value: Logger.MetadataValue, named name: String, depth: Int = 0) -> String {
        guard !isSecret(field: name) else { return mark }
        guard depth < 8 else { return "…" }
        switch value {
        case .string(let text): return clean(text)
        case .stringConvertible(let value): return clean(value.description)
        case .array(let values):
            return "[" + values.map { text(of: $0, named: "", depth: depth + 1) }.joined(separator: ", ") + "]"
        case .dictionary(let members):
            let texts = members.sorted { $0.key < $1.key }.map { key, value in
                "\(key): \(text(of: value, named: key, depth: depth + 1))"
            }
            return "{" + texts.joined(separator: ", ") + "}"
        }
    }

    private static func isTokenCharacter(_ character: Character) -> Bool {
        character.isASCII && (character.isLetter || character.isNumber || character == "-" || character == "_")
    }

    /// Replaces what starts with a needle up to where `end` says.
    private static func replace(
        _ needle: String, in text: String, keeping kept: Int = 0, end: (Substring) -> String.Index?
    ) -> String {
        var result = ""
        var rest = text[...]
        while let found = rest.firstRange(of: needle) {
            result += rest[..<found.lowerBound]
            let tail = rest[found.lowerBound...]
            if let stop = end(tail) {
                result += tail.prefix(kept) + mark
                rest = rest[stop...]
            } else {
                result += rest[found]
                rest = rest[found.upperBound...]
            }
        }
        return result + rest
    }
}
