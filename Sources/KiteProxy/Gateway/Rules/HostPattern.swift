/// Which hosts a section is for.
import KiteHTTP

/// One host, all hosts below a domain, or all hosts.
package enum HostPattern: Sendable, Hashable, CustomStringConvertible {
    case any
    /// In lower case, without port and full stop at the end; an IPv6 literal in brackets.
    case exact(String)
    /// Every host that ends with a full stop and this.
    case below(String)

    /// Reads `shop.example.com`, `192.0.2.1`, `[2001:db8::1]`, `*.example.com` or `*`. Nil when it is none of them.
    package init?(_ text: String) {
        if text == "*" {
            self = .any
        } else if text.hasPrefix("*.") {
            guard let name = Self.name(text.dropFirst(2)) else { return nil }
            self = .below(name)
        } else if text.hasPrefix("[") {
            guard text.hasSuffix("]"), let address = AddressBytes(String(text.dropFirst().dropLast())),
                address.bitCount == 128
            else { return nil }
            self = .exact(text.lowercased())
        } else {
            guard let name = Self.name(text[...]) else { return nil }
            self = .exact(name)
        }
    }

    private static func name(_ text: Substring) -> String? {
        let name = text.lowercased()
        let labels = name.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        let isName =
            name.utf8.count <= 253
            && labels.allSatisfy { label in
                (1...63).contains(label.count) && label.first != UInt8(ascii: "-") && label.last != UInt8(ascii: "-")
                    && label.allSatisfy {
                        (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == UInt8(ascii: "-")
                            || $0 == UInt8(ascii: "_")
                    }
            }
        return isName ? name : nil
    }

    package var description: String {
        switch self {
        case .any: "*"
        case .exact(let name): name
        case .below(let name): "*.\(name)"
        }
    }
}
