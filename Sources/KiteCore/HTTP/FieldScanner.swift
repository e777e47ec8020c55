/// Scans a field section, the lines after the start line of a head or the trailers of a chunked body, where it lies in the
/// receive buffer.

/// Finds field lines (RFC 9112 section 5) incrementally. Positions count from the first byte of the message's head, so that it
/// does not matter where in which buffer the head lies when more of it arrives.
///
/// Every byte must conform: names are tokens directly followed by a colon, lines end with CR LF, values have no control
/// character but HTAB, no line begins with white space.
struct FieldScanner {
    private(set) var entries: [HeaderBlock.Entry] = []
    /// ``KnownField/bit`` of the fields found.
    private(set) var present: UInt64 = 0
    /// ``KnownField/bit`` of the fields found more than once.
    private(set) var repeated: UInt64 = 0
    /// Where the first line that is not yet complete begins.
    private(set) var position = 0

    /// Starts a section that begins at a position. The storage of earlier entries is used again unless somebody still
    /// holds a block that was made of them.
    mutating func begin(at position: Int) {
        entries.removeAll(keepingCapacity: true)
        if entries.capacity == 0 { entries.reserveCapacity(24) }
        present = 0
        repeated = 0
        self.position = position
    }

    /// Lets go of all memory.
    mutating func release() {
        entries = []
    }

    /// Gives the storage of the entries away, or puts some in; so connections at rest hold none and allocate none.
    mutating func exchangeStorage(_ storage: [HeaderBlock.Entry]) -> [HeaderBlock.Entry] {
        let old = entries
        entries = storage
        return old
    }

    /// Scans the lines that are there.
    /// - Parameter bytes: the head from its first byte, as far as it is there.
    /// - Returns: where the section ends, after its empty line; nil while that is not there.
    mutating func scan(_ bytes: UnsafeRawBufferPointer, maximumFields: Int) throws(HTTPError) -> Int? {
        let end = bytes.count
        var line = position
        while line < end {
            let first = bytes[line]
            if first == 0x0D {
                guard line &+ 1 < end else { break }
                guard bytes[line &+ 1] == 0x0A else { throw .lineEnd }
                position = line &+ 2
                return position
            }
            let colon = bytes.firstNonToken(from: line, to: end)
            guard colon < end else { break }
            guard bytes[colon] == 0x3A, colon > line else {
                if first == 0x20 || first == 0x09 { throw .folding }
                if bytes[colon] == 0x0A || bytes[colon] == 0x0D { throw .lineEnd }
                throw .fieldName
            }
            var valueStart = colon &+ 1
            while valueStart < end, bytes[valueStart] == 0x20 || bytes[valueStart] == 0x09 { valueStart &+= 1 }
            var stop = bytes.firstControl(from: valueStart, to: end)
            while stop < end, bytes[stop] == 0x09 { stop = bytes.firstControl(from: stop &+ 1, to: end) }
            guard stop < end else { break }
            guard bytes[stop] == 0x0D else {
                if bytes[stop] == 0x0A { throw .lineEnd }
                throw .fieldValue
            }
            guard stop &+ 1 < end else { break }
            guard bytes[stop &+ 1] == 0x0A else { throw .lineEnd }
            guard entries.count < maximumFields else { throw .manyFields }
            var valueEnd = stop
            while valueEnd > valueStart, bytes[valueEnd &- 1] == 0x20 || bytes[valueEnd &- 1] == 0x09 {
                valueEnd &-= 1
            }
            let field = KnownField(in: bytes, at: line, length: colon &- line)
            repeated |= present & field.bit
            present |= field.bit
            entries.append(
                HeaderBlock.Entry(
                    field: field, nameStart: line, nameLength: colon &- line, valueStart: valueStart,
                    valueLength: valueEnd &- valueStart))
            line = stop &+ 2
            position = line
        }
        return nil
    }
}

extension FieldScanner {
    /// Reads the length and the connection options of a message from its fields (RFC 9112 sections 6 and 9.3).
    struct Framing {
        var contentLength: Int64?
        var isChunked = false
        var isClose = false
        var isKeepAlive = false
        var hasUpgradeOption = false
    }

    /// - Throws: whatever is ambiguous: both framings, a repeated or malformed length, an encoding other than chunked.
    func framing(_ bytes: UnsafeRawBufferPointer, minorVersion: UInt8) throws(HTTPError) -> Framing {
        var framing = Framing()
        let interesting: UInt64 =
            KnownField.contentLength.bit | KnownField.transferEncoding.bit | KnownField.connection.bit
        guard present & interesting != 0 else { return framing }
        if repeated & KnownField.contentLength.bit != 0 { throw .manyLengths }
        if repeated & KnownField.transferEncoding.bit != 0 { throw .transferEncoding }
        for entry in entries where entry.field.bit & interesting != 0 {
            let start = Int(entry.valueStart)
            let length = Int(entry.valueLength)
            switch entry.field {
            case .contentLength:
                framing.contentLength = try Self.decimal(bytes, start, length)
            case .transferEncoding:
                guard minorVersion > 0, bytes.matches(start, length, "chunked") else { throw .transferEncoding }
                framing.isChunked = true
            default:
                var index = start
                let end = start &+ length
                while index < end {
                    var stop = index
                    while stop < end, bytes[stop] != 0x2C { stop &+= 1 }
                    var last = stop
                    while index < last, bytes[index] == 0x20 || bytes[index] == 0x09 { index &+= 1 }
                    while last > index, bytes[last &- 1] == 0x20 || bytes[last &- 1] == 0x09 { last &-= 1 }
                    if bytes.matches(index, last &- index, "close") {
                        framing.isClose = true
                    } else if bytes.matches(index, last &- index, "keep-alive") {
                        framing.isKeepAlive = true
                    } else if bytes.matches(index, last &- index, "upgrade") {
                        framing.hasUpgradeOption = true
                    }
                    index = stop &+ 1
                }
            }
        }
        if framing.isChunked, framing.contentLength != nil { throw .bothFramings }
        return framing
    }

    /// `1*DIGIT` that fits.
    private static func decimal(_ bytes: UnsafeRawBufferPointer, _ start: Int, _ length: Int) throws(HTTPError) -> Int64
    {
        guard length > 0 else { throw .contentLength }
        var value: Int64 = 0
        for index in start..<(start &+ length) {
            guard bytes[index].isDigit else { throw .contentLength }
            let (tenfold, overflow) = value.multipliedReportingOverflow(by: 10)
            let (sum, carried) = tenfold.addingReportingOverflow(Int64(bytes[index] &- 0x30))
            guard !overflow, !carried else { throw .contentLength }
            value = sum
        }
        return value
    }
}
