/// The types that settings have: how each is read from text, shown, and bounded.
package import NIOCore

/// A type of values that are written as text.
package struct ValueType<Value: Sendable>: Sendable {
    /// What stands for a value in help.
    package let placeholder: String
    /// Which values are allowed, in words.
    package let range: String
    package let parse: @Sendable (String) throws(InvalidValue) -> Value
    /// The text for a value.
    package let describe: @Sendable (Value) -> String

    package init(
        placeholder: String, range: String, parse: @escaping @Sendable (String) throws(InvalidValue) -> Value,
        describe: @escaping @Sendable (Value) -> String
    ) {
        self.placeholder = placeholder
        self.range = range
        self.parse = parse
        self.describe = describe
    }
}

extension ValueType where Value == String {
    /// Any text that is not empty and has no control characters, such as a path.
    package static func text(_ placeholder: String, maximum: Int = 4096) -> Self {
        let range = "1 to \(maximum) characters"
        return ValueType(placeholder: placeholder, range: range) { (text) throws(InvalidValue) in
            guard !text.isEmpty, text.utf8.count <= maximum, text.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7F })
            else { throw InvalidValue("\(range), none of them a control character") }
            return text
        } describe: {
            $0
        }
    }

    /// A label: letters, digits, `-`, `_` and `.`, as in names of users, environments and regions.
    package static func label(_ placeholder: String) -> Self {
        let range = "1 to 63 letters, digits, `-`, `_`, `.`"
        return ValueType(placeholder: placeholder, range: range) { (text) throws(InvalidValue) in
            guard !text.isEmpty, text.utf8.count <= 63,
                text.utf8.allSatisfy({ byte in
                    switch byte {
                    case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F: true
                    default: false
                    }
                })
            else { throw InvalidValue(range) }
            return text
        } describe: {
            $0
        }
    }

    /// A DNS name in lower case without a port and without a full stop at its end.
    package static var domain: Self {
        ValueType(placeholder: "NAME", range: "a DNS name") { (text) throws(InvalidValue) in
            let name = text.lowercased()
            let labels = name.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
            guard name.utf8.count <= 253,
                labels.allSatisfy({ label in
                    !label.isEmpty && label.count <= 63 && label.first != 0x2D && label.last != 0x2D
                        && label.allSatisfy { ($0 >= 0x61 && $0 <= 0x7A) || ($0 >= 0x30 && $0 <= 0x39) || $0 == 0x2D }
                })
            else { throw InvalidValue("a DNS name such as `kites.example.org`, without scheme, port or `*`") }
            return name
        } describe: {
            $0
        }
    }
}

extension ValueType where Value == Bool {
    package static var flag: Self {
        ValueType(placeholder: "", range: "`true`, `false`") { (text) throws(InvalidValue) in
            switch text.lowercased() {
            case "true", "yes", "on", "1": return true
            case "false", "no", "off", "0": return false
            default: throw InvalidValue("`true` or `false`")
            }
        } describe: {
            "`\($0)`"
        }
    }
}

extension ValueType where Value == Int {
    package static func integer(_ range: ClosedRange<Int>, placeholder: String = "N") -> Self {
        let words = range.upperBound == .max ? "from \(range.lowerBound)" : "\(range.lowerBound) to \(range.upperBound)"
        return ValueType(placeholder: placeholder, range: words) { (text) throws(InvalidValue) in
            guard let value = Int(text), range.contains(value) else { throw InvalidValue("a whole number, \(words)") }
            return value
        } describe: {
            "`\($0)`"
        }
    }

    /// A number of bytes: digits, and optionally `KiB`, `MiB`, `GiB`.
    package static func bytes(_ range: ClosedRange<Int>) -> Self {
        let words = "\(byteText(range.lowerBound)) to \(byteText(range.upperBound))"
        return ValueType(placeholder: "SIZE", range: words) { (text) throws(InvalidValue) in
            let digits = text.prefix { $0.isASCII && $0.isNumber }
            let unit = text.dropFirst(digits.count).drop { $0 == " " }
            let factor: Int? =
                switch unit.lowercased() {
                case "", "b": 1
                case "k", "kb", "kib": 1 << 10
                case "m", "mb", "mib": 1 << 20
                case "g", "gb", "gib": 1 << 30
                default: nil
                }
            guard let number = Int(digits), let factor,
                case let (value, overflow) = number.multipliedReportingOverflow(by: factor), !overflow,
                range.contains(value)
            else { throw InvalidValue("a size such as `64KiB`, \(words)") }
            return value
        } describe: {
            "`\(byteText($0))`"
        }
    }
}

/// A size as one reads it: `64KiB`.
package func byteText(_ bytes: Int) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] where bytes != 0 && bytes % (1 << shift) == 0 {
        return "\(bytes >> shift)\(unit)"
    }
    return "\(bytes)"
}

extension ValueType where Value == TimeAmount {
    /// A time: digits and `ms`, `s` (the default), `m` or `h`.
    package static func time(_ range: ClosedRange<TimeAmount>) -> Self {
        let words = "\(timeText(range.lowerBound)) to \(timeText(range.upperBound))"
        return ValueType(placeholder: "TIME", range: words) { (text) throws(InvalidValue) in
            let digits = text.prefix { $0.isASCII && ($0.isNumber) }
            let factor: Int64? =
                switch text.dropFirst(digits.count) {
                case "ms": 1_000_000
                case "", "s": 1_000_000_000
                case "m", "min": 60_000_000_000
                case "h": 3_600_000_000_000
                default: nil
                }
            guard let number = Int64(digits), let factor,
                case let (value, overflow) = number.multipliedReportingOverflow(by: factor), !overflow,
                range.contains(.nanoseconds(value))
            else { throw InvalidValue("a time such as `10s`, `500ms` or `5m`, \(words)") }
            return .nanoseconds(value)
        } describe: {
            "`\(timeText($0))`"
        }
    }
}

/// A time as one reads it: `10s`.
package func timeText(_ time: TimeAmount) -> String {
    for (unit, size) in [("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000)] as [(String, Int64)]
    where time.nanoseconds != 0 && time.nanoseconds % size == 0 {
        return "\(time.nanoseconds / size)\(unit)"
    }
    return time.nanoseconds == 0 ? "0s" : "\(time.nanoseconds / 1_000_000)ms"
}

/// An address to listen on: a host (empty means all) and a port.
package struct ListenAddress: Sendable, Hashable, CustomStringConvertible {
    /// A name or an IP literal without brackets.
    package let host: String
    /// 0 to 65535; 0 takes any free port.
    package let port: Int

    package init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    package var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }

    /// Whether a socket for one address takes connections to the other: the same port, and the same host or all hosts.
    package func overlaps(_ other: ListenAddress) -> Bool {
        func plain(_ host: String) -> String { host == "localhost" ? "127.0.0.1" : host.lowercased() }
        let everywhere = ["0.0.0.0", "::"]
        return port == other.port && port != 0
            && (plain(host) == plain(other.host) || everywhere.contains(host) || everywhere.contains(other.host))
    }

    /// Whether only this machine reaches it.
    package var isLoopback: Bool { host == "localhost" || host == "::1" || host.hasPrefix("127.") }

    /// Reads `HOST:PORT` with IPv6 literals in brackets.
    package init?(_ text: String, ports: ClosedRange<Int> = 0...65535) {
        guard let colon = text.lastIndex(of: ":") else { return nil }
        var host = text[..<colon]
        if host.first == "[" {
            guard host.last == "]", host.count > 2 else { return nil }
            host = host.dropFirst().dropLast()
            guard host.contains(":") else { return nil }
        } else if host.contains(":") {
            return nil
        }
        let digits = text[text.index(after: colon)...]
        guard !host.isEmpty, host.utf8.count <= 253, host.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != 0x2F }),
            !digits.isEmpty, digits.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }), let port = Int(digits),
            ports.contains(port)
        else { return nil }
        self.init(host: String(host), port: port)
    }
}

extension ValueType where Value == ListenAddress {
    package static var listenAddress: Self {
        ValueType(placeholder: "HOST:PORT", range: "host or IP (IPv6 in brackets), port 0 to 65535") {
            (text) throws(InvalidValue) in
            guard let address = ListenAddress(text) else {
                throw InvalidValue("HOST:PORT such as `127.0.0.1:3999` or `[::1]:3999`, with a port from 0 to 65535")
            }
            return address
        } describe: {
            "`\($0)`"
        }
    }
}

/// A URL of one of a few schemes, taken apart as far as settings need it.
package struct SettingURL: Sendable, Hashable, CustomStringConvertible {
    package let scheme: String
    /// A name or an IP literal without brackets.
    package let host: String
    /// The port that was given.
    package let port: Int?
    /// Starts with `/`, or is empty.
    package let path: String

    package var isSecure: Bool { scheme == "https" || scheme == "wss" }
    package var effectivePort: Int { port ?? (isSecure ? 443 : 80) }
    /// Host and port as they stand in `Host`.
    package var authority: String {
        let name = host.contains(":") ? "[\(host)]" : host
        return port.map { "\(name):\($0)" } ?? name
    }
    package var description: String { "\(scheme)://\(authority)\(path)" }

    package init(scheme: String, host: String, port: Int?, path: String = "") {
        self.scheme = scheme
        self.host = host
        self.port = port
        self.path = path
    }

    /// Without user information, query and fragment: those have no place in a setting.
    package init?(_ text: String, schemes: [String] = ["http", "https"]) {
        guard let mark = text.firstRange(of: "://"), text.utf8.count <= 2048,
            text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F })
        else { return nil }
        scheme = text[..<mark.lowerBound].lowercased()
        guard schemes.contains(scheme) else { return nil }
        let rest = text[mark.upperBound...]
        let slash = rest.firstIndex(of: "/") ?? rest.endIndex
        path = String(rest[slash...])
        guard !path.contains(where: { $0 == "?" || $0 == "#" }) else { return nil }
        let authority = String(rest[..<slash])
        guard !authority.isEmpty, !authority.contains(where: { $0 == "@" || $0 == "?" || $0 == "#" }) else {
            return nil
        }
        if let address = ListenAddress(authority, ports: 1...65535) {
            host = address.host
            port = address.port
        } else if authority.first == "[", authority.last == "]", authority.contains(":") {
            host = String(authority.dropFirst().dropLast())
            port = nil
        } else if !authority.contains(":"), !authority.contains("[") {
            host = authority
            port = nil
        } else {
            return nil
        }
    }
}

extension ValueType where Value == SettingURL {
    package static func url(_ schemes: [String] = ["http", "https"]) -> Self {
        ValueType(placeholder: "URL", range: schemes.map { "`\($0)://…`" }.joined(separator: ", ")) {
            (text) throws(InvalidValue) in
            guard let url = SettingURL(text, schemes: schemes) else {
                throw InvalidValue(
                    "a URL such as `\(schemes.first ?? "http")://host:3999`, without user, query or fragment")
            }
            return url
        } describe: {
            "`\($0)`"
        }
    }
}

extension ValueType where Value: RawRepresentable<String> & CaseIterable {
    /// One of the cases of an enumeration.
    package static var choice: Self {
        let names = Value.allCases.map { "`\($0.rawValue)`" }.joined(separator: ", ")
        return ValueType(placeholder: Value.allCases.map(\.rawValue).joined(separator: "|"), range: names) {
            (text) throws(InvalidValue) in
            guard let value = Value(rawValue: text.lowercased()) else { throw InvalidValue("one of \(names)") }
            return value
        } describe: {
            "`\($0.rawValue)`"
        }
    }
}
