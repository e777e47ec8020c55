/// Reads the sections `hosts:` and `routes:` of the configuration file.
import KiteCommand
import KiteGateway

/// All sections of a file, in its order.
struct HostSections: Sendable {
    /// The top-level keys that are no settings but hold sections.
    static let names = ["hosts", "routes"]
    private(set) var all: [HostSection] = []
    private(set) var path = ""

    /// No sections: without a file.
    init() {}

    /// - Throws: ``SettingProblems`` with everything that is wrong, each with file and line.
    init(_ file: SettingsFile, keys: [SectionKey] = HostSection.keys) throws(SettingProblems) {
        path = file.path
        var problems: [String] = []
        var subjects: [String: (section: HostSection, order: Int)?] = [:]
        for entry in file.entries {
            guard let kind = entry.path.first, Self.names.contains(kind) else { continue }
            let place = "\(file.path):\(entry.line)"
            guard entry.path.count >= 3 else {
                let what = kind == "hosts" ? "HOST" : "NAME"
                problems.append("\(place): write `\(kind):` as `\(what):` lines with `key: value` lines under each")
                continue
            }
            let id = kind + "\u{0}" + entry.path[1].lowercased()
            if subjects[id] == nil {
                do throws(InvalidValue) {
                    let section = HostSection(try Self.subject(kind, entry.path[1]), place: place)
                    subjects[id] = (section, subjects.count)
                } catch {
                    problems.append("\(place): `\(entry.path[1])` is not valid: it must be \(error.expected)")
                    subjects[id] = .some(nil)
                }
            }
            guard let known = subjects[id] ?? nil else { continue }
            var section = known.section
            do throws(SettingProblems) {
                try Self.read(entry, place: place, keys: keys, isHost: kind == "hosts", into: &section)
            } catch {
                problems += error.problems
            }
            subjects[id] = (section, known.order)
        }
        all = subjects.values.compactMap { $0 }.sorted { $0.order < $1.order }.map(\.section)
        if all.count > Self.mostSections {
            problems.append("\(file.path): `hosts` and `routes` have more than \(Self.mostSections) sections together")
        }
        for section in all where problems.isEmpty {
            problems += section.contradictions().map { "\(section.place): \($0)" }
        }
        guard problems.isEmpty else { throw SettingProblems(problems) }
    }

    private static let mostSections = 10_000

    private static func subject(_ kind: String, _ name: String) throws(InvalidValue) -> HostSection.Subject {
        if kind == "hosts" {
            guard let pattern = HostPattern(name) else {
                throw InvalidValue("a host such as `shop.example.com`, `*.example.com`, or `*` for all")
            }
            return .host(pattern)
        }
        return .route(try ValueType<String>.routeName.parse(name))
    }

    private static func read(
        _ entry: SettingsFile.Entry, place: String, keys: [SectionKey], isHost: Bool, into section: inout HostSection
    ) throws(SettingProblems) {
        let word = entry.path[2]
        guard let key = keys.first(where: { $0.name == word }) else {
            let hint = nearestWord(to: word, in: keys.map(\.name)).map { "; did you mean `\($0)`?" } ?? ""
            throw SettingProblems("\(place): unknown key `\(entry.key)`\(hint)")
        }
        guard isHost || !key.isForHostsOnly else {
            throw SettingProblems("\(place): `\(word)` is for `hosts` only: it counts before the route is known")
        }
        let isRight: Bool
        let shape: String
        switch key.shape {
        case .single: (isRight, shape) = (entry.path.count == 3 && !entry.isList, "one value")
        case .list: (isRight, shape) = (entry.path.count == 3, "a list of values")
        case .map: (isRight, shape) = (entry.path.count == 4 && !entry.isList, "lines `name: value` under it")
        }
        guard isRight else { throw SettingProblems("\(place): `\(word)` takes \(shape)") }
        do {
            try key.apply(&section, entry.path[entry.path.count - 1], entry.values)
            if !section.keys.contains(word) { section.keys.append(word) }
        } catch {
            let given = entry.values.map { "`\($0.prefix(120))`" }.joined(separator: ", ")
            let what = key.shape == .map ? "`\(word)`: `\(entry.path[3].prefix(120))`: " : "`\(word)`: "
            throw SettingProblems("\(place): \(what)\(given) is not valid: it must be \(error.expected)")
        }
    }
}

extension SettingsFile {
    /// Without the sections of hosts and routes, which are no settings.
    var withoutSections: SettingsFile { HostSections.names.reduce(self) { $0.removing(section: $1) } }
}

extension ValueType where Value == String {
    /// A route's name: what stands after `/proxy/` or in front of the gateway's domain.
    static var routeName: Self {
        ValueType(placeholder: "NAME", range: "1 to 128 letters, digits, `-`, `_`, `.`") {
            (text) throws(InvalidValue) in
            let isName =
                (1...128).contains(text.utf8.count)
                && text.utf8.allSatisfy { byte in
                    switch byte {
                    case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F: true
                    default: false
                    }
                }
            guard isName else { throw InvalidValue("a route's name: 1 to 128 letters, digits, `-`, `_` and `.`") }
            return text.lowercased()
        } describe: {
            "`\($0)`"
        }
    }
}
