/// The types of values that stand only in sections of hosts and routes.
import KiteCommand
import KiteGateway

/// A type that is read by an initialiser which gives nil for what is none.
private func read<Value>(
    _ placeholder: String, _ range: String, _ parse: @escaping @Sendable (String) -> Value?
) -> ValueType<Value> {
    ValueType(placeholder: placeholder, range: range) { (text) throws(InvalidValue) in
        guard let value = parse(text) else { throw InvalidValue(range) }
        return value
    } describe: {
        "`\($0)`"
    }
}

extension ValueType where Value == Int64 {
    /// Seconds, written in `s`, `m`, `h` or `d`, up to ten years.
    static var days: Self {
        read("TIME", "a time such as `365d` or `12h`, at most `3650d`") { text in
            let digits = text.prefix { $0.isASCII && $0.isNumber }
            let factor: Int64? =
                switch text.dropFirst(digits.count) {
                case "", "s": 1
                case "m": 60
                case "h": 3600
                case "d": 86_400
                default: nil
                }
            guard digits.count <= 9, let number = Int64(digits), let factor, number * factor <= 315_360_000 else {
                return nil
            }
            return number * factor
        }
    }
}

extension ValueType where Value == RedirectTarget {
    static var redirect: Self {
        read("URL", "`http://…` or `https://…` without query and fragment, or `none`") { RedirectTarget($0) }
    }
}

extension ValueType where Value == UInt16 {
    static var redirectStatus: Self {
        read("STATUS", "`301`, `302`, `307` or `308`") { text in
            UInt16(text).flatMap { [301, 302, 307, 308].contains($0) ? $0 : nil }
        }
    }
}

extension ValueType where Value == Bool {
    static var keepOrDrop: Self {
        read("keep|drop", "`keep` or `drop`") { ["keep": true, "drop": false][$0] }
    }
}

extension ValueType where Value == RateLimit {
    static var rate: Self {
        read("RATE", "a rate such as `100/s`, `20/m burst 40` or `1000/h`, or `off`") { RateLimit($0) }
    }
}

extension ValueType where Value == PasswordHash {
    static var passwordHash: Self {
        ValueType(placeholder: "HASH", range: "`$scrypt$…` as `kiteproxy keys password` makes it") {
            (text) throws(InvalidValue) in
            guard let hash = PasswordHash(text) else {
                throw InvalidValue("a hash made by `kiteproxy keys password`; it begins with `$scrypt$`")
            }
            return hash
        } describe: { _ in
            "a hash"
        }
    }
}

extension ValueType where Value == String {
    static func fieldName(inRequest: Bool) -> Self {
        ValueType(placeholder: "NAME", range: "a field's name") { (text) throws(InvalidValue) in
            guard FieldRuleText.allows(name: text, inRequest: inRequest) else {
                throw InvalidValue(
                    "a field's name, and none that frames the message or belongs to the connection, to a handshake or to what the gateway itself says of the visitor (for `Host` there is `request-host`)"
                )
            }
            return text
        } describe: {
            "`\($0)`"
        }
    }

    static var fieldValue: Self {
        read("VALUE", "a value without control characters and without space at its ends, at most 8 KiB") {
            FieldRuleText.allows(value: $0) ? $0 : nil
        }
    }

    /// Host and optionally port, as in `Host`.
    static var authority: Self {
        read("HOST", "a host such as `intranet:8080`, without scheme and path") { text in
            let name = text.hasPrefix("[") ? text : String(text.prefix { $0 != ":" })
            let rest = text.hasPrefix("[") ? "" : text.dropFirst(name.count)
            guard let pattern = HostPattern(name), case .exact = pattern else { return nil }
            guard !rest.isEmpty else { return text }
            guard let port = UInt16(rest.dropFirst()), port > 0, rest.dropFirst().allSatisfy(\.isNumber) else {
                return nil
            }
            return text
        }
    }

    static var mediaType: Self {
        read("TYPE", "a media type such as `application/json`, or `text/*`") { text in
            let parts = text.lowercased().split(separator: "/", omittingEmptySubsequences: false)
            guard parts.count == 2,
                parts.allSatisfy({ part in
                    !part.isEmpty
                        && (part == "*"
                            || part.utf8.allSatisfy { byte in
                                switch byte {
                                case 0x30...0x39, 0x61...0x7A: true
                                default: "!#$&-^_.+".utf8.contains(byte)
                                }
                            })
                }), parts[0] != "*"
            else { return nil }
            return text.lowercased()
        }
    }

    static var origin: Self {
        read("ORIGIN", "an origin such as `https://app.example.com`, without a path, or `*`") {
            OriginText.isOrigin($0) ? $0 : nil
        }
    }

    static var userName: Self {
        read("USER", "a user's name of 1 to 128 characters without `:`") { text in
            (1...128).contains(text.utf8.count) && text.utf8.allSatisfy { $0 > 0x20 && $0 != 0x7F && $0 != 0x3A }
                ? text : nil
        }
    }

    static var realm: Self {
        read("TEXT", "1 to 128 printable ASCII characters without quotes and backslashes") { text in
            (1...128).contains(text.utf8.count)
                && text.utf8.allSatisfy { $0 >= 0x20 && $0 < 0x7F && $0 != 0x22 && $0 != 0x5C } ? text : nil
        }
    }

    static var errorStatus: Self {
        read("STATUS", "`400` to `599`, `4xx`, `5xx` or `default`") { ErrorPageStatus($0) == nil ? nil : $0 }
    }
}
