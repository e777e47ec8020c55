/// One setting of a program: its names in the three layers (flag, environment, file), its type, default, range and meaning. Help,
/// validation, `check` and the table in the documentation all derive from this one description.

/// What is told of a setting, without its type.
package struct SettingDescription: Sendable, Hashable {
    /// The key in the configuration file. The flag is `--key`; the environment variable is the schema's prefix and the key in
    /// upper case with `_` for `-`.
    package let key: String
    /// What stands for the value in help and documentation, such as `HOST:PORT`; empty for a switch.
    package let placeholder: String
    /// Whether it may be given several times (a list in the file, separated by commas in the environment).
    package let isRepeatable: Bool
    /// The default as documentation shows it.
    package let defaultText: String
    /// Which values are allowed, for documentation and errors.
    package let range: String
    /// What it is for: one sentence without a full stop.
    package let meaning: String
    /// What happens when a limit is reached; empty for settings that are no limits.
    package let atLimit: String
}

/// A setting with the type of its value.
package struct Setting<Value: Sendable>: Sendable {
    package let description: SettingDescription
    /// The value when no layer has one.
    package let defaultValue: Value
    /// Makes the value from text; more than one element only where the setting is repeatable.
    package let parse: @Sendable ([String]) throws(InvalidValue) -> Value

    package var key: String { description.key }
}

/// Why a text is no value of a setting: completes the sentence "… is not valid: it must be …".
package struct InvalidValue: Error, Sendable, Hashable {
    /// What the value must be.
    package let expected: String

    package init(_ expected: String) { self.expected = expected }
}

/// Any setting: what a schema holds.
package struct AnySetting: Sendable {
    package let description: SettingDescription
    /// Checks values given as text.
    package let check: @Sendable ([String]) throws(InvalidValue) -> Void

    package init<Value>(_ setting: Setting<Value>) {
        description = setting.description
        check = { (values) throws(InvalidValue) in _ = try setting.parse(values) }
    }
}

extension Setting {
    /// A setting that is given once.
    /// - Parameter fallback: the default as documentation shows it; nil describes `defaultValue` itself.
    package static func single(
        _ key: String, _ type: ValueType<Value>, default defaultValue: Value, shown: String? = nil, meaning: String,
        atLimit: String = ""
    ) -> Setting<Value> {
        Setting(
            description: SettingDescription(
                key: key, placeholder: type.placeholder, isRepeatable: false,
                defaultText: shown ?? type.describe(defaultValue), range: type.range, meaning: meaning, atLimit: atLimit
            ),
            defaultValue: defaultValue
        ) { (values) throws(InvalidValue) in
            guard let text = values.last, values.count == 1 else { throw InvalidValue("one value") }
            return try type.parse(text)
        }
    }

    /// A setting that may be absent.
    package static func optional<Wrapped>(
        _ key: String, _ type: ValueType<Wrapped>, shown: String, meaning: String, atLimit: String = ""
    ) -> Setting<Value> where Value == Wrapped? {
        Setting(
            description: SettingDescription(
                key: key, placeholder: type.placeholder, isRepeatable: false, defaultText: shown, range: type.range,
                meaning: meaning, atLimit: atLimit),
            defaultValue: nil
        ) { (values) throws(InvalidValue) in
            guard let text = values.last, values.count == 1 else { throw InvalidValue("one value") }
            return try type.parse(text)
        }
    }

    /// A setting that may be given several times.
    package static func list<Element>(
        _ key: String, _ type: ValueType<Element>, default defaultValue: [Element], shown: String? = nil,
        meaning: String
    ) -> Setting<Value> where Value == [Element] {
        let described = defaultValue.map(type.describe).joined(separator: ", ")
        return Setting(
            description: SettingDescription(
                key: key, placeholder: type.placeholder, isRepeatable: true,
                defaultText: shown ?? (described.isEmpty ? "none" : described), range: type.range, meaning: meaning,
                atLimit: ""),
            defaultValue: defaultValue
        ) { (values) throws(InvalidValue) in
            guard values.count <= 256 else { throw InvalidValue("at most 256 values") }
            var parsed: [Element] = []
            for text in values { parsed.append(try type.parse(text)) }
            return parsed
        }
    }
}
