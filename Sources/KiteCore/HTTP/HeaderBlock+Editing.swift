/// Changing fields of a received head by rules.
package import NIOCore

extension HeaderBlock {
    /// A block with bytes of its own that has the fields at the positions for which `isKept` says so. What is appended to it afterwards
    /// copies nothing of what was received with the original.
    package func copy(reserving bytesToCome: Int = 0, keeping isKept: (_ position: Int) -> Bool) -> HeaderBlock {
        var result = HeaderBlock()
        var size = bytesToCome
        for entry in entries { size += Int(entry.nameLength) + Int(entry.valueLength) + 4 }
        result.bytes.reserveCapacity(size)
        result.entries.reserveCapacity(entries.count + 4)
        for position in entries.indices where isKept(position) {
            result.appendValidated(entries[position].field, name(at: position), value(at: position))
        }
        return result
    }

    /// The fields without those that `Connection` takes out of the message here (RFC 9110 section 7.6.1), and without their names in it: so
    /// what is put in afterwards is not taken out again by what the sender of the message wrote.
    package func resolvingConnection() -> HeaderBlock {
        guard has(.connection) else { return self }
        var result = copy(reserving: 32) { position in
            let field = field(at: position)
            guard field != .connection else { return false }
            return MessageWriter.hopByHop.contains(field) || MessageWriter.protected.contains(field)
                || !connectionNames(name(at: position))
        }
        if contains(.connection, token: "upgrade") { result.append("Connection", "Upgrade") }
        return result
    }

    /// Appends a field given in bytes. Left out, with `false`, when the name is no token or the value has a control character other than HTAB.
    @discardableResult
    package mutating func append(name: ByteBufferView, value: ByteBufferView) -> Bool {
        guard !name.isEmpty, name.allSatisfy(\.isTokenCharacter), value.allSatisfy(\.isFieldValueCharacter) else {
            return false
        }
        appendValidated(KnownField(name), name, value)
        return true
    }

    private mutating func appendValidated(_ field: KnownField, _ name: ByteBufferView, _ value: ByteBufferView) {
        let nameStart = bytes.writerIndex
        bytes.writeBytes(name)
        bytes.writeStaticString(": ")
        let valueStart = bytes.writerIndex
        bytes.writeBytes(value)
        bytes.writeStaticString("\r\n")
        present |= field.bit
        entries.append(
            Entry(
                field: field, nameStart: nameStart, nameLength: name.count, valueStart: valueStart,
                valueLength: value.count))
    }
}
