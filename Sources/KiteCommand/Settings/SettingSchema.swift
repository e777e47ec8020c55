/// All settings of a program, and what follows from having them in one place: environment names, spelling help, the documentation's table.

/// The settings of one program.
package struct SettingSchema: Sendable {
    /// A titled part of the table and of the help.
    package struct Group: Sendable {
        package let title: String
        package let settings: [AnySetting]

        package init(_ title: String, _ settings: [AnySetting]) {
            self.title = title
            self.settings = settings
        }
    }
    /// Before every environment variable, such as `KITEPROXY`.
    package let environmentPrefix: String
    /// Variables that have other names than the rule gives, by key.
    package let environmentNames: [String: String]
    package let groups: [Group]
    package let settings: [AnySetting]
    private let byKey: [String: AnySetting]

    package init(environmentPrefix: String, environmentNames: [String: String] = [:], groups: [Group]) {
        self.environmentPrefix = environmentPrefix
        self.environmentNames = environmentNames
        self.groups = groups
        settings = groups.flatMap(\.settings)
        byKey = Dictionary(settings.map { ($0.description.key, $0) }) { $1 }
    }

    /// The setting with a key.
    package func setting(_ key: String) -> AnySetting? {
        byKey[key]
    }

    /// The environment variable of a key.
    package func environmentName(_ key: String) -> String {
        environmentNames[key] ?? environmentPrefix + "_"
            + key.uppercased().map { $0 == "-" || $0 == "." ? "_" : String($0) }.joined()
    }

    /// The key that somebody probably meant, if one is near enough.
    package func nearest(to key: String) -> String? { nearestWord(to: key, in: settings.map(\.description.key)) }

    /// The table of the documentation.
    package var markdown: String {
        var text = ""
        for group in groups {
            text += "\n### \(group.title)\n\n"
            text += "| flag | key | environment | default | range | meaning | at the limit |\n"
            text += "|---|---|---|---|---|---|---|\n"
            for setting in group.settings {
                let it = setting.description
                let flag = it.placeholder.isEmpty ? "--[no-]\(it.key)" : "--\(it.key) \(it.placeholder)"
                let cells = [
                    "`\(flag.replacing("|", with: "\\|"))`" + (it.isRepeatable ? " (repeatable)" : ""), "`\(it.key)`",
                    "`\(environmentName(it.key))`", it.defaultText, it.range, it.meaning, it.atLimit,
                ]
                text += "| " + cells.joined(separator: " | ") + " |\n"
            }
        }
        return text
    }
}

/// The word that differs least from another, when it differs by at most a third of its letters.
package func nearestWord(to word: String, in candidates: [String]) -> String? {
    let word = word.prefix(64).lowercased().replacing("_", with: "-")
    let nearest = candidates.map { ($0, editDistance(word, $0)) }.min { $0.1 < $1.1 }
    guard let (candidate, distance) = nearest, distance <= max(2, candidate.count / 3) else { return nil }
    return candidate
}

/// How many letters must be inserted, removed or changed.
private func editDistance(_ left: String, _ right: String) -> Int {
    let right = Array(right)
    var row = Array(0...right.count)
    for (i, letter) in left.enumerated() {
        var diagonal = row[0]
        row[0] = i + 1
        for (j, other) in right.enumerated() {
            let changed = diagonal + (letter == other ? 0 : 1)
            diagonal = row[j + 1]
            row[j + 1] = min(changed, row[j] + 1, diagonal + 1)
        }
    }
    return row[right.count]
}
