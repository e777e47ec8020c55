/// Log lines for programs: one JSON object per event.
package import Logging

/// Writes one JSON object per line: `time`, `level`, `message`, `logger`, and the metadata as members beside them.
package struct JSONLogHandler: LogHandler {
    package var metadataProvider: Logger.MetadataProvider?
    package var metadata: Logger.Metadata = [:]
    package var logLevel: Logger.Level = .info
    private let label: String
    private let output: LogOutput
    private let now: @Sendable () -> String

    package init(label: String, output: LogOutput, now: @escaping @Sendable () -> String = { Timestamp.now() }) {
        self.label = label
        self.output = output
        self.now = now
    }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    package func log(event: LogEvent) {
        var fields = metadata
        if let provided = metadataProvider?.get() { fields.merge(provided) { $1 } }
        if let own = event.metadata { fields.merge(own) { $1 } }
        if let error = event.error { fields["error"] = .string("\(error)") }
        var json = JSONText()
        json.beginObject()
        json.member("time", now())
        json.member("level", event.level.rawValue)
        json.member("logger", label)
        json.member("message", Redaction.clean(event.message.description))
        for (key, value) in fields.sorted(by: { $0.key < $1.key }) {
            let reserved = ["time", "level", "logger", "message"].contains(key)
            json.name(reserved ? key + "_" : key)
            Self.write(value, secret: Redaction.isSecret(field: key), depth: 0, to: &json)
        }
        json.endObject()
        output.write(json.text + "\n")
    }

    private static func write(_ value: Logger.MetadataValue, secret: Bool, depth: Int, to json: inout JSONText) {
        guard !secret, depth < 8 else { return json.string(secret ? Redaction.mark : "…") }
        switch value {
        case .string(let text): json.string(Redaction.clean(text))
        case .stringConvertible(let value): json.string(Redaction.clean(value.description))
        case .array(let values):
            json.beginArray()
            for value in values { write(value, secret: false, depth: depth + 1, to: &json) }
            json.endArray()
        case .dictionary(let members):
            json.beginObject()
            for (key, value) in members.sorted(by: { $0.key < $1.key }) {
                json.name(key)
                write(value, secret: Redaction.isSecret(field: key), depth: depth + 1, to: &json)
            }
            json.endObject()
        }
    }
}
