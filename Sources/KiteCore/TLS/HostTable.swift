/// What is set for hosts by name or pattern.

/// Values by `host.example`, `*.example` (every host below it) and `*` (all hosts); the most specific one counts.
package struct HostTable<Value: Sendable>: Sendable {
    private var exact: [String: Value] = [:]
    private var below: [String: Value] = [:]
    private var any: Value?

    package init() {}

    package var isEmpty: Bool { exact.isEmpty && below.isEmpty && any == nil }

    /// - Parameter pattern: in lower case.
    package subscript(pattern: String) -> Value? {
        get {
            if pattern == "*" { return any }
            return pattern.hasPrefix("*.") ? below[String(pattern.dropFirst(2))] : exact[pattern]
        }
        set {
            if pattern == "*" {
                any = newValue
            } else if pattern.hasPrefix("*.") {
                below[String(pattern.dropFirst(2))] = newValue
            } else {
                exact[pattern] = newValue
            }
        }
    }

    /// - Parameter host: in lower case, without port and full stop at its end; nil where no host is named.
    package func value(for host: String?) -> Value? {
        guard let host, !isEmpty else { return any }
        if let value = exact[host] { return value }
        guard !below.isEmpty else { return any }
        var rest = host[...]
        while let dot = rest.firstIndex(of: ".") {
            rest = rest[rest.index(after: dot)...]
            if let value = below[String(rest)] { return value }
        }
        return any
    }
}

/// A rule for client certificates, as requests are held to it.
package struct ClientRuleName: Sendable, Hashable {
    /// The host or pattern.
    package let pattern: String
    /// Whether nobody is let in without a certificate.
    package let isRequired: Bool

    package init(pattern: String, isRequired: Bool) {
        self.pattern = pattern
        self.isRequired = isRequired
    }

    /// Whether a request may be answered on a connection: one whose handshake was made by the same rule, or, where no certificate is
    /// demanded, one without encryption.
    /// - Parameters:
    ///   - rule: of the host that is asked for.
    ///   - handshake: the rule of the handshake; nil without one, or without TLS.
    ///   - hasCertificate: whether the client has shown one. Connections outlive a rule that did not demand it.
    package static func allows(_ rule: ClientRuleName?, handshake: String?, hasCertificate: Bool, isSecure: Bool)
        -> Bool
    {
        guard let rule else { return handshake == nil }
        if isSecure, handshake != rule.pattern { return false }
        return !rule.isRequired || isSecure && hasCertificate
    }
}
