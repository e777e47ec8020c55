/// What one section of the configuration says about requests, as it is written: nil is what it does not say.
package import KiteHTTP
package import NIOCore

/// The rules of one host or one route. Laid over those of less specific sections key by key (``over(_:)``), then compiled to ``Rules``.
package struct RuleSet: Sendable {
    // MARK: Encryption
    /// Requests that came unencrypted are sent to `https`.
    package var isHTTPSOnly: Bool?
    /// Where `https` is reached from outside.
    package var httpsPort: Int?
    /// Seconds for which browsers are to use `https` only (RFC 6797).
    package var strictTransport: Int64?
    package var strictTransportSubdomains: Bool?
    package var strictTransportPreload: Bool?

    // MARK: Redirects
    package var redirect: RedirectTarget?
    /// 301, 302, 307 or 308.
    package var redirectStatus: UInt16?
    package var redirectKeepsPath: Bool?

    // MARK: Fields
    package var requestSet: [String: String]?
    package var requestAdded: [String: String]?
    package var requestRemoved: [String]?
    package var responseSet: [String: String]?
    package var responseAdded: [String: String]?
    package var responseRemoved: [String]?
    /// What `Host` says to the upstream.
    package var hostField: String?

    // MARK: Content
    package var compresses: Bool?
    /// Media types in lower case, `text/*` allowed.
    package var compressedTypes: [String]?
    package var compressedBytes: Int?
    package var bodyBytes: Int?

    // MARK: Who may come
    /// Origins as browsers write them, or `*`.
    package var origins: [String]?
    package var users: [String: PasswordHash]?
    package var asksForPassword: Bool?
    package var realm: String?
    package var passesAuthorization: Bool?
    package var allowed: [AddressRange]?
    package var denied: [AddressRange]?
    package var rateLimit: RateLimit?
    package var rateKey: RateKey?

    // MARK: Pages
    package var errorPages: [ErrorPageStatus: PageTemplate]?
    package var isInMaintenance: Bool?
    package var maintenancePage: PageTemplate?
    package var maintenanceRetry: Int64?
    package var maintenanceAllowed: [AddressRange]?

    // MARK: What belongs to the section that says it
    /// Tells the buckets of one section's rate limit from those of others.
    var rateLimitNumber: Int?
    /// Of ``users``.
    var passwords: PasswordList?

    package init() {}

    /// These rules, and those of a less specific section where these say nothing.
    func over(_ lower: RuleSet) -> RuleSet {
        var result = self
        result.rateLimitNumber = rateLimitNumber ?? lower.rateLimitNumber
        result.passwords = passwords ?? lower.passwords
        result.isHTTPSOnly = isHTTPSOnly ?? lower.isHTTPSOnly
        result.httpsPort = httpsPort ?? lower.httpsPort
        result.strictTransport = strictTransport ?? lower.strictTransport
        result.strictTransportSubdomains = strictTransportSubdomains ?? lower.strictTransportSubdomains
        result.strictTransportPreload = strictTransportPreload ?? lower.strictTransportPreload
        result.redirect = redirect ?? lower.redirect
        result.redirectStatus = redirectStatus ?? lower.redirectStatus
        result.redirectKeepsPath = redirectKeepsPath ?? lower.redirectKeepsPath
        result.requestSet = requestSet ?? lower.requestSet
        result.requestAdded = requestAdded ?? lower.requestAdded
        result.requestRemoved = requestRemoved ?? lower.requestRemoved
        result.responseSet = responseSet ?? lower.responseSet
        result.responseAdded = responseAdded ?? lower.responseAdded
        result.responseRemoved = responseRemoved ?? lower.responseRemoved
        result.hostField = hostField ?? lower.hostField
        result.compresses = compresses ?? lower.compresses
        result.compressedTypes = compressedTypes ?? lower.compressedTypes
        result.compressedBytes = compressedBytes ?? lower.compressedBytes
        result.bodyBytes = bodyBytes ?? lower.bodyBytes
        result.origins = origins ?? lower.origins
        result.users = users ?? lower.users
        result.asksForPassword = asksForPassword ?? lower.asksForPassword
        result.realm = realm ?? lower.realm
        result.passesAuthorization = passesAuthorization ?? lower.passesAuthorization
        result.allowed = allowed ?? lower.allowed
        result.denied = denied ?? lower.denied
        result.rateLimit = rateLimit ?? lower.rateLimit
        result.rateKey = rateKey ?? lower.rateKey
        result.errorPages = errorPages ?? lower.errorPages
        result.isInMaintenance = isInMaintenance ?? lower.isInMaintenance
        result.maintenancePage = maintenancePage ?? lower.maintenancePage
        result.maintenanceRetry = maintenanceRetry ?? lower.maintenanceRetry
        result.maintenanceAllowed = maintenanceAllowed ?? lower.maintenanceAllowed
        return result
    }
}

/// Where a redirect leads.
package enum RedirectTarget: Sendable, Hashable {
    /// Takes a less specific section's redirect back.
    case nowhere
    /// An absolute URL without query and fragment. `authority` is host and port in lower case.
    case url(String, scheme: String, authority: String)

    /// Reads `none` or a URL such as `https://www.example.com/new`. Nil when it is neither.
    package init?(_ text: String) {
        guard text != "none" else {
            self = .nowhere
            return
        }
        guard let mark = text.firstRange(of: "://"), text.utf8.count <= 2048 else { return nil }
        let scheme = text[..<mark.lowerBound].lowercased()
        let rest = text[mark.upperBound...]
        let authority = rest.prefix { $0 != "/" }
        let isRight =
            ["http", "https"].contains(scheme) && !authority.isEmpty && authority.first != ":"
            && text.utf8.allSatisfy { byte in
                // No query, fragment, quotes, backslash or brackets that some read otherwise.
                byte > 0x20 && byte < 0x7F && !"?#\"<>\\^`{|}".utf8.contains(byte)
            } && !authority.contains("@")
        guard isRight else { return nil }
        self = .url(text, scheme: scheme, authority: authority.lowercased())
    }
}

/// Which bucket a request is taken from.
package enum RateKey: String, Sendable, CaseIterable {
    /// The visitor's address.
    case address
    /// What stands in `Authorization`; the address where there is none.
    case token
}

/// A rate with what may come at once.
package enum RateLimit: Sendable, Hashable {
    case unlimited
    /// - Parameters:
    ///   - interval: between two requests in the long run.
    ///   - burst: how many may come at once, at least 1.
    case every(interval: TimeAmount, burst: Int)

    /// Reads `off`, `100/s`, `20/m`, `1000/h`, each with ` burst N` behind it if wanted. Nil when it is none of them.
    package init?(_ text: String) {
        guard text != "off" else {
            self = .unlimited
            return
        }
        let words = text.split(separator: " ")
        guard let rate = words.first, words.count == 1 || (words.count == 3 && words[1] == "burst") else { return nil }
        let parts = rate.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, let count = Self.number(parts[0]) else { return nil }
        let period: Int64
        switch parts[1] {
        case "s": period = 1_000_000_000
        case "m": period = 60_000_000_000
        case "h": period = 3_600_000_000_000
        default: return nil
        }
        var burst = count
        if words.count == 3 {
            guard let given = Self.number(words[2]) else { return nil }
            burst = given
        }
        self = .every(interval: .nanoseconds(period / Int64(count)), burst: burst)
    }

    private static func number(_ text: Substring) -> Int? {
        guard text.utf8.count <= 7, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let number = Int(text),
            (1...1_000_000).contains(number)
        else { return nil }
        return number
    }
}
