/// Writes JSON text piece by piece: log lines, events and the admin API need no more.

/// JSON under construction. The caller keeps to the order of JSON's grammar; commas come by themselves.
package struct JSONText: Sendable {
    package private(set) var text = ""
    private var needsComma = false

    package init() {}

    package mutating func beginObject() { open("{") }
    package mutating func endObject() { close("}") }
    package mutating func beginArray() { open("[") }
    package mutating func endArray() { close("]") }

    /// The name of the member that follows.
    package mutating func name(_ name: String) {
        string(name)
        text += ":"
        needsComma = false
    }

    package mutating func string(_ value: String) {
        separate()
        text += "\""
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\"": text += "\\\""
            case "\\": text += "\\\\"
            case "\n": text += "\\n"
            case "\r": text += "\\r"
            case "\t": text += "\\t"
            // The separators are legal in JSON but break JavaScript of old; the rest are controls.
            case _
            where scalar.value < 0x20 || scalar.value == 0x7F || scalar.value == 0x2028 || scalar.value == 0x2029:
                let hex = String(scalar.value, radix: 16)
                text += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: text.unicodeScalars.append(scalar)
            }
        }
        text += "\""
        needsComma = true
    }

    package mutating func integer(_ value: some BinaryInteger) { literal("\(value)") }
    package mutating func boolean(_ value: Bool) { literal(value ? "true" : "false") }
    package mutating func null() { literal("null") }
    /// A number with a fraction; null where JSON has no number for it.
    package mutating func number(_ value: Double) { literal(value.isFinite ? "\(value)" : "null") }

    package mutating func member(_ name: String, _ value: String) {
        self.name(name)
        string(value)
    }
    package mutating func member(_ name: String, _ value: some BinaryInteger) {
        self.name(name)
        integer(value)
    }
    package mutating func member(_ name: String, _ value: Bool) {
        self.name(name)
        boolean(value)
    }
    package mutating func member(_ name: String, _ value: Double) {
        self.name(name)
        number(value)
    }

    private mutating func literal(_ value: String) {
        separate()
        text += value
        needsComma = true
    }

    private mutating func separate() {
        if needsComma { text += "," }
    }

    private mutating func open(_ bracket: String) {
        separate()
        text += bracket
        needsComma = false
    }

    private mutating func close(_ bracket: String) {
        text += bracket
        needsComma = true
    }
}
