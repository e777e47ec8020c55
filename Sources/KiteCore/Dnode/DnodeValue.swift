/// What dnode carries: JSON's values, and functions.

/// A value as an argument or a result of a call.
public enum DnodeValue: Sendable, Hashable {
    case null
    case bool(Bool)
    /// A number written without fraction and exponent that fits.
    case int(Int64)
    /// Every other number; finite on the wire.
    case double(Double)
    case string(String)
    case array([DnodeValue])
    case object(DnodeObject)
    /// A function of this side (to be given to the peer) or of the peer.
    case function(DnodeFunction)
}

extension DnodeValue {
    /// Whether it is null.
    public var isNull: Bool { self == .null }
    /// The truth value; nil for anything else.
    public var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
    /// The number, where it is a whole one that fits.
    public var int: Int? {
        switch self {
        case .int(let value): Int(exactly: value)
        case .double(let value): Int(exactly: value)
        default: nil
        }
    }
    /// The number, whichever way it was written.
    public var double: Double? {
        switch self {
        case .int(let value): Double(value)
        case .double(let value): value
        default: nil
        }
    }
    /// The text; nil for anything else.
    public var string: String? { if case .string(let value) = self { value } else { nil } }
    /// The elements; nil for anything else.
    public var array: [DnodeValue]? { if case .array(let value) = self { value } else { nil } }
    /// The object; nil for anything else.
    public var object: DnodeObject? { if case .object(let value) = self { value } else { nil } }
    /// The function; nil for anything else.
    public var function: DnodeFunction? { if case .function(let value) = self { value } else { nil } }

    /// The member of an object; nil where there is none or this is no object.
    public subscript(key: String) -> DnodeValue? { object?[key] }
    /// The element of an array; nil where there is none or this is no array.
    public subscript(position: Int) -> DnodeValue? {
        guard case .array(let elements) = self, elements.indices.contains(position) else { return nil }
        return elements[position]
    }

    /// What kind of value this is, in words for an error message.
    var kind: String {
        switch self {
        case .null: "null"
        case .bool: "a boolean"
        case .int, .double: "a number"
        case .string: "a string"
        case .array: "an array"
        case .object: "an object"
        case .function: "a function"
        }
    }
}

extension DnodeValue: ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral,
    ExpressibleByFloatLiteral, ExpressibleByStringLiteral, ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
    public init(booleanLiteral value: Bool) { self = .bool(value) }
    public init(integerLiteral value: Int64) { self = .int(value) }
    public init(floatLiteral value: Double) { self = .double(value) }
    public init(stringLiteral value: String) { self = .string(value) }
    public init(arrayLiteral elements: DnodeValue...) { self = .array(elements) }
    public init(dictionaryLiteral elements: (String, DnodeValue)...) {
        self = .object(DnodeObject(elements))
    }
}

/// An object: members in the order in which they arrived or were set, each name once. Names are the same when their UTF-8 is, as in
/// other languages: Swift's `==` would take two spellings of "é" for one name.
///
/// Comparing and hashing take no account of the order, as in JSON.
public struct DnodeObject: Sendable {
    /// Beyond so many members names are found through an index.
    private static let indexThreshold = 8

    private var entries: [(key: String, value: DnodeValue)] = []
    private var index: [Name: Int] = [:]

    /// A name as its bytes.
    private struct Name: Hashable {
        let text: String

        static func == (left: Self, right: Self) -> Bool { isSame(left.text, right.text) }
        func hash(into hasher: inout Hasher) {
            var text = text
            text.withUTF8 { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
        }
    }

    private static func isSame(_ left: String, _ right: String) -> Bool {
        left.utf8.count == right.utf8.count && left.utf8.elementsEqual(right.utf8)
    }

    public init() {}

    /// Of members with equal names the last one counts.
    public init(_ members: some Sequence<(String, DnodeValue)>) {
        for (key, value) in members { self[key] = value }
    }

    public subscript(key: String) -> DnodeValue? {
        get { position(of: key).map { entries[$0].value } }
        set {
            switch (position(of: key), newValue) {
            case (let position?, let value?):
                entries[position].value = value
            case (let position?, nil):
                entries.remove(at: position)
                index = [:]
                if entries.count > Self.indexThreshold { rebuildIndex() }
            case (nil, let value?):
                append(key, value)
            case (nil, nil):
                break
            }
        }
    }

    /// Appends a member.
    /// - Returns: false, and nothing is changed, when the name is taken.
    mutating func appendUnique(_ key: String, _ value: DnodeValue) -> Bool {
        guard position(of: key) == nil else { return false }
        append(key, value)
        return true
    }

    /// Changes the value at a position in `0..<count` in place, keeping its name.
    mutating func change<Outcome>(at position: Int, _ change: (inout DnodeValue) -> Outcome) -> Outcome {
        change(&entries[position].value)
    }

    /// Where a member stands.
    func position(of key: String) -> Int? {
        if entries.count > Self.indexThreshold { return index[Name(text: key)] }
        return entries.firstIndex { Self.isSame($0.key, key) }
    }

    private mutating func append(_ key: String, _ value: DnodeValue) {
        entries.append((key, value))
        if entries.count > Self.indexThreshold + 1 {
            index[Name(text: key)] = entries.count - 1
        } else if entries.count > Self.indexThreshold {
            rebuildIndex()
        }
    }

    private mutating func rebuildIndex() {
        index = Dictionary(minimumCapacity: entries.count)
        for (position, entry) in entries.enumerated() { index[Name(text: entry.key)] = position }
    }
}

extension DnodeObject: RandomAccessCollection {
    public var startIndex: Int { 0 }
    public var endIndex: Int { entries.count }
    public subscript(position: Int) -> (key: String, value: DnodeValue) { entries[position] }
}

extension DnodeObject: Hashable, ExpressibleByDictionaryLiteral {
    public init(dictionaryLiteral elements: (String, DnodeValue)...) { self.init(elements) }

    public static func == (left: DnodeObject, right: DnodeObject) -> Bool {
        left.count == right.count && left.allSatisfy { right[$0.key] == $0.value }
    }

    public func hash(into hasher: inout Hasher) {
        var combined = 0
        for entry in entries {
            var member = Hasher()
            member.combine(entry.key)
            member.combine(entry.value)
            combined ^= member.finalize()
        }
        hasher.combine(combined)
    }
}
