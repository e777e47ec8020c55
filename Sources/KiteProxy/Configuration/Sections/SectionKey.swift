/// One key that may stand under a host or a route: name, type, meaning, and where its value goes. Validation, `check` and the table in
/// the documentation derive from it.
import KiteCommand

/// A key of the sections under `hosts:` and `routes:`.
struct SectionKey: Sendable {
    /// How its value is written.
    enum Shape: Sendable, Hashable {
        case single
        case list
        /// Names with a value each.
        case map
    }
    let name: String
    let shape: Shape
    /// Whether it makes sense only for a host, because it concerns what happens before a route is known (certificates, for example).
    let isForHostsOnly: Bool
    /// What holds without the key.
    let defaultText: String
    /// Which values are allowed.
    let range: String
    /// What it is for: one sentence without a full stop.
    let meaning: String
    /// Reads the texts (of a map: of one of its names) into a section.
    let apply: @Sendable (inout HostSection, _ name: String, _ values: [String]) throws(InvalidValue) -> Void

    /// A key with one value.
    static func single<Value>(
        _ name: String, _ type: ValueType<Value>, shown defaultText: String, isForHostsOnly: Bool = false,
        meaning: String, _ store: @escaping @Sendable (inout HostSection, Value) -> Void
    ) -> SectionKey {
        SectionKey(
            name: name, shape: .single, isForHostsOnly: isForHostsOnly, defaultText: defaultText, range: type.range,
            meaning: meaning
        ) { (section, _, values) throws(InvalidValue) in
            store(&section, try type.parse(values.first ?? ""))
        }
    }

    /// A key with a list of values; an empty list takes back what a less specific section says.
    static func list<Value>(
        _ name: String, _ type: ValueType<Value>, shown defaultText: String = "none", isForHostsOnly: Bool = false,
        maximum: Int = 1024, meaning: String, _ store: @escaping @Sendable (inout HostSection, [Value]) -> Void
    ) -> SectionKey {
        SectionKey(
            name: name, shape: .list, isForHostsOnly: isForHostsOnly, defaultText: defaultText, range: type.range,
            meaning: meaning
        ) { (section, _, values) throws(InvalidValue) in
            guard values.count <= maximum else { throw InvalidValue("at most \(maximum) values") }
            var parsed: [Value] = []
            for text in values { parsed.append(try type.parse(text)) }
            store(&section, parsed)
        }
    }

    /// A key with names under it, each with one value.
    static func map<Value>(
        _ name: String, names: ValueType<String>, _ type: ValueType<Value>, isForHostsOnly: Bool = false,
        meaning: String, _ store: @escaping @Sendable (inout HostSection, String, Value) throws(InvalidValue) -> Void
    ) -> SectionKey {
        SectionKey(
            name: name, shape: .map, isForHostsOnly: isForHostsOnly, defaultText: "none",
            range: "\(names.range): \(type.range)", meaning: meaning
        ) { (section, name, values) throws(InvalidValue) in
            try store(&section, try names.parse(name), try type.parse(values.first ?? ""))
        }
    }

    /// The table of the documentation.
    static func markdown(_ keys: [SectionKey]) -> String {
        var text = "\n| key | value | default | meaning |\n|---|---|---|---|\n"
        for key in keys {
            let shape =
                switch key.shape {
                case .single: ""
                case .list: "list of: "
                case .map: "`NAME: VALUE` lines, "
                }
            let place = key.isForHostsOnly ? " (hosts only)" : ""
            text += "| `\(key.name)`\(place) | \(shape)\(key.range) | \(key.defaultText) | \(key.meaning) |\n"
        }
        return text
    }
}
