/// A block of header or trailer fields: one buffer of bytes and an index of where each name and value lies in it, so that
/// reading a head neither copies nor allocates per field.
public import NIOCore

/// Fields in the order in which they arrived or were appended. Names compare case-insensitively (RFC 9110 section 5.1).
///
/// A block from the head scanner holds validated fields only. ``append(_:_:)`` validates as well: a name that is no token or a
/// value with CR, LF or NUL is left out, so that no response can be split by what a value contains.
public struct HeaderBlock: Sendable {
    /// Where one field lies in ``bytes``, in absolute indices of the buffer.
    @usableFromInline
    struct Entry: Sendable {
        @usableFromInline var field: KnownField
        @usableFromInline var nameStart: Int32
        @usableFromInline var nameLength: Int32
        @usableFromInline var valueStart: Int32
        @usableFromInline var valueLength: Int32

        @inlinable
        init(field: KnownField, nameStart: Int, nameLength: Int, valueStart: Int, valueLength: Int) {
            self.field = field
            self.nameStart = Int32(truncatingIfNeeded: nameStart)
            self.nameLength = Int32(truncatingIfNeeded: nameLength)
            self.valueStart = Int32(truncatingIfNeeded: valueStart)
            self.valueLength = Int32(truncatingIfNeeded: valueLength)
        }
    }

    /// The bytes the entries point into. Its reader index is without meaning.
    @usableFromInline var bytes: ByteBuffer
    @usableFromInline var entries: [Entry]
    /// ``KnownField/bit`` of every field that occurs, so that asking for an absent one costs nothing.
    @usableFromInline var present: UInt64

    /// An empty block.
    public init() {
        bytes = ByteBuffer()
        entries = []
        present = 0
    }

    /// A block whose entries were validated against `bytes`.
    init(bytes: ByteBuffer, entries: [Entry], present: UInt64) {
        self.bytes = bytes
        self.entries = entries
        self.present = present
    }

    /// A block built from text, for heads that we make ourselves.
    public init(_ fields: KeyValuePairs<String, String>) {
        self.init()
        for (name, value) in fields { append(name, value) }
    }

    /// The number of fields (a repeated name counts each time).
    public var count: Int { entries.count }

    /// The name of the field at a position in `0..<count`, as it was spelled.
    public func name(at position: Int) -> ByteBufferView {
        view(entries[position].nameStart, entries[position].nameLength)
    }

    /// The value of the field at a position in `0..<count`, without surrounding white space.
    public func value(at position: Int) -> ByteBufferView {
        view(entries[position].valueStart, entries[position].valueLength)
    }

    /// Which of the fields that the code has a name for stands at a position in `0..<count`.
    public func field(at position: Int) -> KnownField { entries[position].field }

    /// Whether a known field occurs.
    @inlinable
    public func has(_ field: KnownField) -> Bool { present & field.bit != 0 }

    /// The first value of a known field.
    public func first(_ field: KnownField) -> ByteBufferView? {
        guard has(field) else { return nil }
        for entry in entries where entry.field == field { return view(entry.valueStart, entry.valueLength) }
        return nil
    }

    /// The first value of a known field as text (invalid UTF-8 is repaired). Not for the hot path.
    public func text(_ field: KnownField) -> String? { first(field).map { String(decoding: $0, as: UTF8.self) } }

    /// The first value of any field as text. Not for the hot path.
    public func text(_ name: String) -> String? {
        for position in entries.indices where self.name(at: position).equalsIgnoringCase(name) {
            return String(decoding: value(at: position), as: UTF8.self)
        }
        return nil
    }

    /// How often a known field occurs.
    public func occurrences(_ field: KnownField) -> Int {
        guard has(field) else { return 0 }
        var found = 0
        for entry in entries where entry.field == field { found += 1 }
        return found
    }

    /// Whether a comma-separated list field has a member, compared case-insensitively, over all its occurrences
    /// (RFC 9110 section 5.6.1).
    public func contains(_ field: KnownField, token: String) -> Bool {
        guard has(field) else { return false }
        for entry in entries where entry.field == field {
            var rest = view(entry.valueStart, entry.valueLength)
            while let member = rest.nextListMember() {
                if member.equalsIgnoringCase(token) { return true }
            }
        }
        return false
    }

    /// Appends a field. Left out when the name is no token or the value has a control character other than HTAB.
    public mutating func append(_ name: String, _ value: String) {
        guard !name.isEmpty, name.utf8.allSatisfy(\.isTokenCharacter), value.utf8.allSatisfy(\.isFieldValueCharacter)
        else { return }
        let nameStart = bytes.writerIndex
        bytes.writeString(name)
        bytes.writeStaticString(": ")
        let valueStart = bytes.writerIndex
        bytes.writeString(value)
        let valueEnd = bytes.writerIndex
        bytes.writeStaticString("\r\n")
        let field = KnownField(bytes.viewBytes(at: nameStart, length: name.utf8.count) ?? ByteBufferView())
        present |= field.bit
        entries.append(
            Entry(
                field: field, nameStart: nameStart, nameLength: name.utf8.count, valueStart: valueStart,
                valueLength: valueEnd - valueStart))
    }

    /// Drops all occurrences of a known field.
    public mutating func remove(_ field: KnownField) {
        guard has(field) else { return }
        entries.removeAll { $0.field == field }
        present &= ~field.bit
    }

    func view(_ start: Int32, _ length: Int32) -> ByteBufferView {
        bytes.viewBytes(at: Int(start), length: Int(length)) ?? ByteBufferView()
    }
}

extension ByteBufferView {
    /// Compares ASCII text without regard to case.
    public func equalsIgnoringCase(_ text: String) -> Bool {
        guard count == text.utf8.count else { return false }
        for (mine, other) in zip(self, text.utf8) where mine.lowercasedASCII != other.lowercasedASCII { return false }
        return true
    }

    /// Without SP and HTAB at both ends.
    public func trimmingWhitespace() -> ByteBufferView {
        var slice = self[...]
        while let first = slice.first, first == 0x20 || first == 0x09 { slice = slice.dropFirst() }
        while let last = slice.last, last == 0x20 || last == 0x09 { slice = slice.dropLast() }
        return slice
    }

    /// Takes the next member off a comma-separated list, without the white space around it; nil at the end. Commas in
    /// quoted strings are not told apart, which the lists this is used for do not have.
    mutating func nextListMember() -> ByteBufferView? {
        guard !isEmpty else { return nil }
        let comma = firstIndex(of: UInt8(ascii: ",")) ?? endIndex
        let member = self[startIndex..<comma]
        self = comma == endIndex ? self[endIndex..<endIndex] : self[(comma + 1)..<endIndex]
        return member.trimmingWhitespace()
    }
}
