/// Compares the versions of kites with each other and with what a query asks for.

/// A version of the form `1.2.3-beta.1+build`: one to eight numbers, then optionally a pre-release and build metadata.
/// Numbers that are missing count as zero; metadata does not take part in comparison (Semantic Versioning 2.0.0, section 11).
public struct SemanticVersion: Sendable, Hashable, Comparable, CustomStringConvertible {
    /// At least three numbers.
    let numbers: [UInt64]
    /// How many numbers were written, which matters to `~>`.
    let written: Int
    let prerelease: [Substring]
    /// As it was written.
    public let description: String

    /// Nil for text that is no version.
    public init?(_ text: String) {
        guard !text.isEmpty, text.utf8.count <= 128 else { return nil }
        let core = text.utf8.first == UInt8(ascii: "v") ? text.dropFirst() : text[...]
        let withoutMetadata = core.split(separator: "+", maxSplits: 1, omittingEmptySubsequences: false)[0]
        let parts = withoutMetadata.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
        var numbers: [UInt64] = []
        for part in parts[0].split(separator: ".", omittingEmptySubsequences: false) {
            guard numbers.count < 8, part.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }), let number = UInt64(part)
            else { return nil }
            numbers.append(number)
        }
        let prerelease = parts.count > 1 ? parts[1].split(separator: ".", omittingEmptySubsequences: false) : []
        guard prerelease.allSatisfy({ !$0.isEmpty && $0.utf8.allSatisfy(Self.isIdentifierCharacter) }) else {
            return nil
        }
        written = numbers.count
        while numbers.count < 3 { numbers.append(0) }
        self.numbers = numbers
        self.prerelease = prerelease
        description = text
    }

    private static func isIdentifierCharacter(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, UInt8(ascii: "-"): true
        default: false
        }
    }

    /// Precedence: negative when `self` comes first.
    private func order(_ other: SemanticVersion) -> Int {
        for position in 0..<max(numbers.count, other.numbers.count) {
            let mine = position < numbers.count ? numbers[position] : 0
            let theirs = position < other.numbers.count ? other.numbers[position] : 0
            if mine != theirs { return mine < theirs ? -1 : 1 }
        }
        if prerelease.isEmpty || other.prerelease.isEmpty {
            // A pre-release comes before its release.
            return (prerelease.isEmpty ? 1 : 0) - (other.prerelease.isEmpty ? 1 : 0)
        }
        for (mine, theirs) in zip(prerelease, other.prerelease) where mine != theirs {
            switch (UInt64(mine), UInt64(theirs)) {
            case (let left?, let right?) where left != right: return left < right ? -1 : 1
            case (.some, nil): return -1
            case (nil, .some): return 1
            default: return mine < theirs ? -1 : 1
            }
        }
        return prerelease.count - other.prerelease.count
    }

    public static func == (left: Self, right: Self) -> Bool { left.order(right) == 0 }
    public static func < (left: Self, right: Self) -> Bool { left.order(right) < 0 }
    public func hash(into hasher: inout Hasher) {
        // Trailing zeros do not count, as in comparison.
        for number in numbers.reversed().drop(while: { $0 == 0 }) { hasher.combine(number) }
    }
}

/// Which versions a query wants: conditions joined by commas, all of which must hold. Each is a version with `=` (or
/// nothing), `!=`, `>`, `>=`, `<`, `<=` or `~>` in front; `~> 1.2.3` lets only the last number written grow.
public struct VersionConstraint: Sendable, Hashable, CustomStringConvertible {
    enum Comparison: String, CaseIterable {
        // Longer signs first, so that they are found first.
        case atLeast = ">="
        case atMost = "<="
        case not = "!="
        case compatible = "~>"
        case above = ">"
        case below = "<"
        case equal = "="
    }

    struct Condition: Sendable, Hashable {
        let comparison: Comparison
        let version: SemanticVersion
    }

    private let conditions: [Condition]
    /// As it was written.
    public let description: String

    /// Nil for text that is no constraint.
    public init?(_ text: String) {
        guard text.utf8.count <= 256 else { return nil }
        var conditions: [Condition] = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            let part = part.drop(while: \.isWhitespace)
            let comparison = Comparison.allCases.first { part.hasPrefix($0.rawValue) }
            let rest = String(part.dropFirst(comparison?.rawValue.count ?? 0)).trimmingWhitespaceAndNewlines()
            guard conditions.count < 16, let version = SemanticVersion(rest) else { return nil }
            conditions.append(Condition(comparison: comparison ?? .equal, version: version))
        }
        self.conditions = conditions
        description = text
    }

    /// Whether a version fulfils every condition.
    public func allows(_ version: SemanticVersion) -> Bool {
        conditions.allSatisfy { condition in
            switch condition.comparison {
            case .equal: version == condition.version
            case .not: version != condition.version
            case .above: version > condition.version
            case .atLeast: version >= condition.version
            case .below: version < condition.version
            case .atMost: version <= condition.version
            case .compatible:
                version >= condition.version
                    && version.numbers.starts(with: condition.version.numbers.prefix(condition.version.written - 1))
            }
        }
    }
}
