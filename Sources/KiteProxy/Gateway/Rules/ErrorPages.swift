/// Pages in place of the gateway's own one-line refusals, for visitors that want HTML.
import KiteHTTP
import NIOCore

/// Which statuses a page is for.
package enum ErrorPageStatus: Sendable, Hashable {
    case status(UInt16)
    /// 4 or 5: all of that hundred.
    case hundred(UInt16)
    case any

    /// Reads `404`, `4xx`, `5xx` or `default`. Nil when it is none of them.
    package init?(_ text: String) {
        switch text {
        case "default": self = .any
        case "4xx": self = .hundred(4)
        case "5xx": self = .hundred(5)
        default:
            guard text.utf8.count == 3, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
                let status = UInt16(text), (400...599).contains(status)
            else { return nil }
            self = .status(status)
        }
    }
}

extension [ErrorPageStatus: PageTemplate] {
    func page(for status: UInt16) -> PageTemplate? {
        self[.status(status)] ?? self[.hundred(status / 100)] ?? self[.any]
    }
}

/// An HTML page; `{status}` and `{reason}` in it are replaced.
package struct PageTemplate: Sendable, Hashable {
    private enum Part: Sendable, Hashable {
        case text(ByteBuffer)
        case status
        case reason
    }
    private var parts: [Part] = []
    /// Larger pages are refused when the configuration is read.
    package static let mostBytes = 256 << 10

    package init(_ text: String) {
        var rest = text[...]
        while let mark = rest.firstIndex(of: "{") {
            let found: (Part, Int)? =
                rest[mark...].hasPrefix("{status}")
                ? (.status, 8) : rest[mark...].hasPrefix("{reason}") ? (.reason, 8) : nil
            guard let (part, length) = found else {
                append(rest[...mark])
                rest = rest[rest.index(after: mark)...]
                continue
            }
            append(rest[..<mark])
            parts.append(part)
            rest = rest[rest.index(mark, offsetBy: length)...]
        }
        append(rest)
    }

    private mutating func append(_ text: Substring) {
        guard !text.isEmpty else { return }
        if case .text(var before) = parts.last {
            before.writeSubstring(text)
            parts[parts.count - 1] = .text(before)
        } else {
            parts.append(.text(ByteBuffer(substring: text)))
        }
    }

    /// The page for a refusal. What a visitor sent is never part of a reason, and it is escaped nevertheless.
    func filled(status: UInt16, reason: String) -> ByteBuffer {
        var page = ByteBuffer()
        for part in parts {
            switch part {
            case .text(let text): page.writeImmutableBuffer(text)
            case .status: page.writeString(String(status))
            case .reason:
                for byte in reason.utf8 {
                    switch byte {
                    case UInt8(ascii: "<"): page.writeStaticString("&lt;")
                    case UInt8(ascii: ">"): page.writeStaticString("&gt;")
                    case UInt8(ascii: "&"): page.writeStaticString("&amp;")
                    case UInt8(ascii: "\""): page.writeStaticString("&quot;")
                    default: page.writeInteger(byte)
                    }
                }
            }
        }
        return page
    }
}

extension HeaderBlock {
    /// Whether HTML is named in Accept with a quality other than zero: browsers name it, programs do not.
    var namesHTML: Bool {
        guard has(.accept) else { return false }
        for position in 0..<count where field(at: position) == .accept {
            for member in WeightedList(value(at: position)) where member.value.equalsIgnoringCase("text/html") {
                return member.weight > 0
            }
        }
        return false
    }
}
