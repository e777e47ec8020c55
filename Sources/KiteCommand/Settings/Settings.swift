/// The settings of a program as they apply: flags over environment over file, each checked, each with where it came from.
import Configuration
import Synchronization

/// Resolved settings.
package struct Settings: Sendable {
    /// Where a value came from.
    package enum Source: Sendable, Hashable, CustomStringConvertible {
        case flag
        case environment(String)
        case file(String, line: Int)
        case byDefault

        package var description: String {
            switch self {
            case .flag: "flag"
            case .environment(let name): "environment \(name)"
            case .file(let path, let line): "\(path):\(line)"
            case .byDefault: "default"
            }
        }

        /// The layer's strength: values of a stronger one hide those of weaker ones.
        package var strength: Int {
            switch self {
            case .flag: 3
            case .environment: 2
            case .file: 1
            case .byDefault: 0
            }
        }
    }
    private let values: [String: [String]]
    private let sources: [String: Source]

    /// Lays the three layers over each other and checks what results, and everything that stands in the file.
    /// - Parameters:
    ///   - flags: texts by key, as given on the command line; an empty list means that the flag was not given.
    ///   - environment: all environment variables; those of other names are not looked at.
    /// - Throws: ``SettingProblems`` with everything that is wrong.
    package init(
        schema: SettingSchema, flags: [String: [String]] = [:], environment: [String: String] = [:],
        file: SettingsFile? = nil
    ) throws(SettingProblems) {
        var problems: [String] = []
        var lines: [String: Int] = [:]
        var inFile: [AbsoluteConfigKey: ConfigValue] = [:]
        for entry in file?.entries ?? [] {
            let place = "\(file?.path ?? ""):\(entry.line)"
            guard let setting = schema.setting(entry.key)?.description else {
                let hint = schema.nearest(to: entry.key).map { "; did you mean `\($0)`?" } ?? ""
                problems.append("\(place): unknown key `\(entry.key)`\(hint)")
                continue
            }
            guard setting.isRepeatable || !entry.isList else {
                problems.append("\(place): `\(entry.key)` takes one value, not a list")
                continue
            }
            lines[entry.key] = entry.line
            inFile[AbsoluteConfigKey([entry.key])] = Self.value(entry.values, of: setting)
        }
        var asFlags: [AbsoluteConfigKey: ConfigValue] = [:]
        var asVariables: [AbsoluteConfigKey: ConfigValue] = [:]
        for setting in schema.settings.map(\.description) {
            let key = AbsoluteConfigKey([setting.key])
            if let given = flags[setting.key], !given.isEmpty { asFlags[key] = Self.value(given, of: setting) }
            if let text = environment[schema.environmentName(setting.key)], !text.isEmpty {
                let parts = text.split(separator: ",", omittingEmptySubsequences: true).map { part in
                    String(part.drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
                }
                asVariables[key] = Self.value(setting.isRepeatable ? parts : [text], of: setting)
            }
        }
        let origin = OriginReporter()
        let reader = ConfigReader(
            providers: [
                InMemoryProvider(name: "flag", values: asFlags),
                InMemoryProvider(name: "environment", values: asVariables),
                InMemoryProvider(name: "file", values: inFile),
            ], accessReporter: origin)
        var values: [String: [String]] = [:]
        var sources: [String: Source] = [:]
        for setting in schema.settings {
            let key = setting.description.key
            let found =
                setting.description.isRepeatable
                ? reader.stringArray(forKey: ConfigKey([key]))
                : reader.string(forKey: ConfigKey([key])).map { [$0] }
            guard let found else { continue }
            let source: Source =
                switch origin.last {
                case 0: .flag
                case 1: .environment(schema.environmentName(key))
                default: .file(file?.path ?? "", line: lines[key] ?? 0)
                }
            do {
                try setting.check(found)
                values[key] = found
                sources[key] = source
            } catch {
                let given = found.map { "`\($0.prefix(120))`" }.joined(separator: ", ")
                let name =
                    switch source {
                    case .flag: "--\(key)"
                    case .environment(let variable): variable
                    default: "\(source): `\(key)`"
                    }
                problems.append("\(name): \(given) is not valid: it must be \(error.expected)")
            }
        }
        guard problems.isEmpty else { throw SettingProblems(problems) }
        self.values = values
        self.sources = sources
    }

    /// The value of a setting.
    package subscript<Value>(_ setting: Setting<Value>) -> Value {
        // What is stored has been parsed once already, so that parsing it again does not fail.
        guard let texts = values[setting.key], let value = try? setting.parse(texts) else {
            return setting.defaultValue
        }
        return value
    }

    /// Where the value of a key came from.
    package func source(_ key: String) -> Source { sources[key] ?? .byDefault }

    /// Whether any layer has the key.
    package func isGiven(_ key: String) -> Bool { values[key] != nil }

    /// The effective values that are not defaults, for `check`.
    package var given: [(key: String, values: [String], source: Source)] {
        values.keys.sorted().map { ($0, values[$0] ?? [], source($0)) }
    }

    /// The keys whose values are others than in `other`, in alphabetical order.
    package func keysThatDiffer(from other: Settings) -> [String] {
        Set(values.keys).union(other.values.keys).filter { values[$0] != other.values[$0] }.sorted()
    }

    private static func value(_ texts: [String], of setting: SettingDescription) -> ConfigValue {
        ConfigValue(setting.isRepeatable ? .stringArray(texts) : .string(texts.last ?? ""), isSecret: false)
    }
}

/// Remembers which provider answered last.
private final class OriginReporter: AccessReporter {
    private let position = Mutex(0)

    var last: Int { position.withLock { $0 } }

    func report(_ event: AccessEvent) {
        let found = event.providerResults.firstIndex { result in
            if case .success(let lookup) = result.result { lookup.value != nil } else { false }
        }
        position.withLock { $0 = found ?? 0 }
    }
}
