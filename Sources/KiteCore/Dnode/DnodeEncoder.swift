/// From Swift's `Encodable` values to dnode's: the arguments of a call and the result of a method.

/// Encodes values; ``DnodeValue`` and ``DnodeFunction`` may stand anywhere in them and pass as they are.
public struct DnodeEncoder: Sendable {
    public init() {}

    /// - Throws: `EncodingError` for integers beyond 64 signed bits and numbers that are not finite, and what the value throws.
    public func encode(_ value: some Encodable) throws -> DnodeValue {
        let node = DnodeEncodingNode()
        try DnodeValueEncoder(node: node, codingPath: []).encode(value)
        return node.value
    }
}

/// A value under construction; a class, since several containers may write to it in turn.
final class DnodeEncodingNode {
    enum Content {
        case empty
        case value(DnodeValue)
        case array([DnodeEncodingNode])
        case object([(String, DnodeEncodingNode)])
    }
    var content = Content.empty

    var value: DnodeValue {
        switch content {
        case .empty: .null
        case .value(let value): value
        case .array(let nodes): .array(nodes.map(\.value))
        case .object(let members): .object(DnodeObject(members.map { ($0, $1.value) }))
        }
    }

    func appendElement() -> DnodeEncodingNode {
        let node = DnodeEncodingNode()
        if case .array(var nodes) = content {
            content = .empty
            nodes.append(node)
            content = .array(nodes)
        } else {
            content = .array([node])
        }
        return node
    }

    func appendMember(_ key: String) -> DnodeEncodingNode {
        let node = DnodeEncodingNode()
        if case .object(var members) = content {
            content = .empty
            members.append((key, node))
            content = .object(members)
        } else {
            content = .object([(key, node)])
        }
        return node
    }

    var count: Int {
        switch content {
        case .array(let nodes): nodes.count
        case .object(let members): members.count
        case .empty, .value: 0
        }
    }
}

/// Writes one value into a node.
struct DnodeValueEncoder: Encoder, SingleValueEncodingContainer {
    let node: DnodeEncodingNode
    let codingPath: [any CodingKey]
    var userInfo: [CodingUserInfoKey: Any] { [:] }

    func container<Key: CodingKey>(keyedBy type: Key.Type) -> KeyedEncodingContainer<Key> {
        if case .object = node.content {} else { node.content = .object([]) }
        return KeyedEncodingContainer(KeyedContainer(node: node, codingPath: codingPath))
    }

    func unkeyedContainer() -> any UnkeyedEncodingContainer {
        if case .array = node.content {} else { node.content = .array([]) }
        return UnkeyedContainer(node: node, codingPath: codingPath)
    }

    func singleValueContainer() -> any SingleValueEncodingContainer { self }

    func encodeNil() { node.content = .value(.null) }
    func encode(_ value: Bool) { node.content = .value(.bool(value)) }
    func encode(_ value: String) { node.content = .value(.string(value)) }
    func encode(_ value: Double) throws {
        guard value.isFinite else { throw invalid(value, "a number that is not finite") }
        node.content = .value(.double(value))
    }
    // By way of the text, so that 0.1 stays 0.1.
    func encode(_ value: Float) throws { try encode(Double("\(value)") ?? Double(value)) }
    func encode(_ value: Int) throws { try encode(integer: value) }
    func encode(_ value: Int8) throws { try encode(integer: value) }
    func encode(_ value: Int16) throws { try encode(integer: value) }
    func encode(_ value: Int32) throws { try encode(integer: value) }
    func encode(_ value: Int64) throws { try encode(integer: value) }
    func encode(_ value: UInt) throws { try encode(integer: value) }
    func encode(_ value: UInt8) throws { try encode(integer: value) }
    func encode(_ value: UInt16) throws { try encode(integer: value) }
    func encode(_ value: UInt32) throws { try encode(integer: value) }
    func encode(_ value: UInt64) throws { try encode(integer: value) }

    func encode(_ value: some Encodable) throws {
        switch value {
        case let value as DnodeValue: node.content = .value(value)
        case let value as DnodeFunction: node.content = .value(.function(value))
        default: try value.encode(to: self)
        }
    }

    private func encode(integer value: some BinaryInteger) throws {
        guard let value = Int64(exactly: value) else { throw invalid(value, "an integer beyond 64 signed bits") }
        node.content = .value(.int(value))
    }

    private func invalid(_ value: Any, _ reason: String) -> EncodingError {
        .invalidValue(value, EncodingError.Context(codingPath: codingPath, debugDescription: reason))
    }
}

private struct KeyedContainer<Key: CodingKey>: KeyedEncodingContainerProtocol {
    let node: DnodeEncodingNode
    let codingPath: [any CodingKey]

    private func member(_ key: any CodingKey) -> DnodeValueEncoder {
        DnodeValueEncoder(node: node.appendMember(key.stringValue), codingPath: codingPath + [key])
    }

    mutating func encodeNil(forKey key: Key) { member(key).encodeNil() }
    mutating func encode(_ value: Bool, forKey key: Key) { member(key).encode(value) }
    mutating func encode(_ value: String, forKey key: Key) { member(key).encode(value) }
    mutating func encode(_ value: Double, forKey key: Key) throws { try member(key).encode(value) }
    mutating func encode(_ value: Float, forKey key: Key) throws { try member(key).encode(value) }
    mutating func encode(_ value: Int, forKey key: Key) throws { try member(key).encode(value) }
    mutating func encode(_ value: Int8, forKey key: Key) throws { try member(key).encode(value) }
    mutating func encode(_ value: Int16, forKey key: Key) throws { try member(key).encode(value) }
    mutating func encode(_ value: Int32, forKey key: Key) throws { try member(key).encode(value) }
    mutating func encode(_ value: Int64, forKey key: Key) throws { try member(key).encode(value) }
    mutating func encode(_ value: UInt, forKey key: Key) throws { try member(key).encode(value) }
    mutating func encode(_ value: UInt8, forKey key: Key) throws { try member(key).encode(value) }
    mutating func encode(_ value: UInt16, forKey key: Key) throws { try member(key).encode(value) }
    mutating func encode(_ value: UInt32, forKey key: Key) throws { try member(key).encode(value) }
    mutating func encode(_ value: UInt64, forKey key: Key) throws { try member(key).encode(value) }
    mutating func encode(_ value: some Encodable, forKey key: Key) throws { try member(key).encode(value) }

    mutating func nestedContainer<NestedKey: CodingKey>(
        keyedBy keyType: NestedKey.Type, forKey key: Key
    ) -> KeyedEncodingContainer<NestedKey> { member(key).container(keyedBy: keyType) }
    mutating func nestedUnkeyedContainer(forKey key: Key) -> any UnkeyedEncodingContainer {
        member(key).unkeyedContainer()
    }
    mutating func superEncoder() -> any Encoder { member(DnodeCodingKey("super")) }
    mutating func superEncoder(forKey key: Key) -> any Encoder { member(key) }
}

private struct UnkeyedContainer: UnkeyedEncodingContainer {
    let node: DnodeEncodingNode
    let codingPath: [any CodingKey]
    var count: Int { node.count }

    private func element() -> DnodeValueEncoder {
        let key = DnodeCodingKey(count)
        return DnodeValueEncoder(node: node.appendElement(), codingPath: codingPath + [key])
    }

    mutating func encodeNil() { element().encodeNil() }
    mutating func encode(_ value: Bool) { element().encode(value) }
    mutating func encode(_ value: String) { element().encode(value) }
    mutating func encode(_ value: Double) throws { try element().encode(value) }
    mutating func encode(_ value: Float) throws { try element().encode(value) }
    mutating func encode(_ value: Int) throws { try element().encode(value) }
    mutating func encode(_ value: Int8) throws { try element().encode(value) }
    mutating func encode(_ value: Int16) throws { try element().encode(value) }
    mutating func encode(_ value: Int32) throws { try element().encode(value) }
    mutating func encode(_ value: Int64) throws { try element().encode(value) }
    mutating func encode(_ value: UInt) throws { try element().encode(value) }
    mutating func encode(_ value: UInt8) throws { try element().encode(value) }
    mutating func encode(_ value: UInt16) throws { try element().encode(value) }
    mutating func encode(_ value: UInt32) throws { try element().encode(value) }
    mutating func encode(_ value: UInt64) throws { try element().encode(value) }
    mutating func encode(_ value: some Encodable) throws { try element().encode(value) }

    mutating func nestedContainer<NestedKey: CodingKey>(
        keyedBy keyType: NestedKey.Type
    ) -> KeyedEncodingContainer<NestedKey> { element().container(keyedBy: keyType) }
    mutating func nestedUnkeyedContainer() -> any UnkeyedEncodingContainer { element().unkeyedContainer() }
    mutating func superEncoder() -> any Encoder { element() }
}

/// A place in an array, or a name that is no key of the type in question.
struct DnodeCodingKey: CodingKey {
    let stringValue: String
    let intValue: Int?

    init(_ position: Int) {
        stringValue = String(position)
        intValue = position
    }
    init(_ name: String) {
        stringValue = name
        intValue = nil
    }
    init?(stringValue: String) { self.init(stringValue) }
    init?(intValue: Int) { self.init(intValue) }
}

extension DnodeValue: Encodable {
    /// Works with every encoder; functions need a ``DnodeEncoder``.
    public func encode(to encoder: any Encoder) throws {
        if let encoder = encoder as? DnodeValueEncoder {
            encoder.node.content = .value(self)
            return
        }
        var container = encoder.singleValueContainer()
        switch self {
        case .null: try container.encodeNil()
        case .bool(let value): try container.encode(value)
        case .int(let value): try container.encode(value)
        case .double(let value): try container.encode(value)
        case .string(let value): try container.encode(value)
        case .array(let value): try container.encode(value)
        case .function(let value): try container.encode(value)
        case .object(let members):
            var keyed = encoder.container(keyedBy: DnodeCodingKey.self)
            for (key, value) in members { try keyed.encode(value, forKey: DnodeCodingKey(key)) }
        }
    }
}
