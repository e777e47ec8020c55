/// Reads a YAML configuration file into keys and texts, remembering the line of each, so that every complaint can name its place.
import Foundation
import Yams

/// A configuration file, read but not yet judged.
package struct SettingsFile: Sendable {
    /// A key with its value or values.
    package struct Entry: Sendable, Hashable {
        /// Keys from the outermost mapping inwards.
        package let path: [String]
        package let values: [String]
        package let isList: Bool
        /// Counted from 1.
        package let line: Int

        package var key: String { path.joined(separator: ".") }
    }
    package let path: String
    package let entries: [Entry]

    /// Larger files are refused.
    package static let maximumSize = 1 << 20

    /// Reads a file. Blocks; call before any event loop matters.
    /// - Throws: ``SettingProblems`` naming file and line.
    package init(contentsOf path: String) throws(SettingProblems) {
        let handle = open(path, O_RDONLY | O_CLOEXEC)
        guard handle >= 0 else {
            throw SettingProblems("\(path): it cannot be read: \(String(cString: strerror(errno)))")
        }
        let file = FileHandle(fileDescriptor: handle, closeOnDealloc: true)
        let data: Data
        do {
            data = try file.read(upToCount: Self.maximumSize + 1) ?? Data()
        } catch {
            throw SettingProblems("\(path): it cannot be read as a file")
        }
        guard data.count <= Self.maximumSize else {
            throw SettingProblems("\(path): it is larger than 1 MiB, which is no configuration")
        }
        try self.init(yaml: String(decoding: data, as: UTF8.self), path: path)
    }

    /// Reads text.
    package init(yaml: String, path: String) throws(SettingProblems) {
        self.path = path
        let root: Node?
        do {
            root = try Yams.compose(yaml: yaml)
        } catch let error as YamlError {
            throw SettingProblems("\(path): \(Self.sentence(error))")
        } catch {
            throw SettingProblems("\(path): it is not YAML: \(error)")
        }
        guard let root, root.null == nil || root.mapping != nil else {
            entries = []
            return
        }
        guard case .mapping = root else {
            throw SettingProblems("\(path): it must be a list of `key: value` lines")
        }
        var entries: [Entry] = []
        var problems: [String] = []
        Self.flatten(root, path: [], file: path, depth: 0, into: &entries, problems: &problems)
        guard problems.isEmpty else { throw SettingProblems(problems) }
        self.entries = entries
    }

    /// Without what stands under a top-level key that is no setting.
    package func removing(section: String) -> SettingsFile {
        SettingsFile(path: path, entries: entries.filter { $0.path.first != section })
    }

    private init(path: String, entries: [Entry]) {
        self.path = path
        self.entries = entries
    }

    private static func flatten(
        _ node: Node, path: [String], file: String, depth: Int, into entries: inout [Entry], problems: inout [String]
    ) {
        guard let mapping = node.mapping else { return }
        guard depth < 8 else {
            problems.append("\(file): `\(path.joined(separator: "."))` is nested too deeply")
            return
        }
        for (keyNode, value) in mapping {
            let line = keyNode.mark?.line ?? 0
            guard let key = keyNode.scalar?.string, !key.isEmpty else {
                problems.append("\(file):\(line): a key must be a word")
                continue
            }
            let path = path + [key]
            switch value {
            case .scalar(let scalar):
                // `key:` with nothing behind it is as good as absent.
                if value.null != nil, scalar.string.isEmpty || scalar.string == "~" || scalar.string == "null" {
                    continue
                }
                entries.append(Entry(path: path, values: [scalar.string], isList: false, line: line))
            case .sequence(let sequence):
                let values = sequence.compactMap { $0.scalar?.string }
                guard values.count == sequence.count else {
                    problems.append("\(file):\(line): `\(key)` must be a list of plain values")
                    continue
                }
                entries.append(Entry(path: path, values: values, isList: true, line: line))
            case .mapping:
                flatten(value, path: path, file: file, depth: depth + 1, into: &entries, problems: &problems)
            default:
                problems.append("\(file):\(line): `\(key)`: anchors and aliases are not used here; write the value out")
            }
        }
    }

    private static func sentence(_ error: YamlError) -> String {
        switch error {
        case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _),
            .composer(_, let problem, let mark, _):
            "line \(mark.line): this is not YAML: \(problem)"
        case .duplicatedKeysInMapping(let duplicates, _):
            "a key stands there twice: \(duplicates.map { "\($0)" }.joined(separator: ", "))"
        default: "this is not YAML"
        }
    }
}

/// What is wrong with a configuration: one sentence each, naming place and cure.
package struct SettingProblems: Error, Sendable, Hashable, CustomStringConvertible {
    package let problems: [String]

    package init(_ problems: [String]) { self.problems = problems }
    package init(_ problem: String) { problems = [problem] }
    package var description: String { problems.joined(separator: "\n") }
}
