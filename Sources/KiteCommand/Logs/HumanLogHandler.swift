/// Log lines for people: time, level, message, then the metadata as `key=value`.
package import Logging

/// Writes one line of text per event.
package struct HumanLogHandler: LogHandler {
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
        var line = paint(now(), "2") + " " + paint(Self.name(event.level), Self.colour(event.level)) + " "
        line += HumanText.oneLine(Redaction.clean(event.message.description))
        for (key, value) in fields.sorted(by: { $0.key < $1.key }) {
            let text = Redaction.text(of: value, named: key)
            line += " " + paint("\(key)=", "2") + Self.quoted(text)
        }
        output.write(line + "\n")
    }

    private func paint(_ text: String, _ code: String) -> String {
        output.isTerminal ? "\u{1B}[\(code)m\(text)\u{1B}[0m" : text
    }

    private static func name(_ level: Logger.Level) -> String {
        switch level {
        case .trace: "trace "
        case .debug: "debug "
        case .info: "info  "
        case .notice: "notice"
        case .warning: "warn  "
        case .error: "error "
        case .critical: "crit  "
        }
    }

    private static func colour(_ level: Logger.Level) -> String {
        switch level {
        case .trace, .debug: "2"
        case .info: "32"
        case .notice: "36"
        case .warning: "33"
        case .error, .critical: "31;1"
        }
    }

    private static func quoted(_ text: String) -> String {
        let text = HumanText.oneLine(text)
        guard text.isEmpty || text.contains(where: { $0 == " " || $0 == "\"" || $0 == "=" }) else { return text }
        return "\"" + text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"") + "\""
    }
}
