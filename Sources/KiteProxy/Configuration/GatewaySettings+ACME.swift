/// Settings of certificates that come by themselves (ACME, RFC 8555), and what they come to.
import ACME
import Foundation
import KiteCommand
import KiteDialing

extension GatewaySettings {
    static let acmeDomains = Setting<[String]>.list(
        "acme-domain", .certificateName, default: [],
        meaning:
            "Host names to obtain certificates for by ACME and to renew them; each must lead here, with port 80 to a `listen` or port 443 to a `listen-tls`"
    )
    static let acmeDirectories = Setting<[SettingURL]>.list(
        "acme-directory", .url(),
        default: [SettingURL(scheme: "https", host: "acme-v02.api.letsencrypt.org", port: nil, path: "/directory")],
        meaning: "Directory URL of an ACME server; where there are several they are tried in turn")
    static let acmeAgree = Setting<Bool>.single(
        "acme-agree", .flag, default: false,
        meaning: "Whether you agree to the terms of service of the ACME servers")
    static let acmeContacts = Setting<[String]>.list(
        "acme-contact", .mailAddress, default: [], meaning: "Mail address that the ACME servers may write to")
    static let acmeChallenges = Setting<[ChallengeKind]>.list(
        "acme-challenge", .choice, default: [.http01, .tlsALPN01],
        meaning:
            "How names are shown to be ours, the preferred way first: `http-01` comes to port 80, `tls-alpn-01` to port 443"
    )
    static let acmeAccountID = Setting<String?>.optional(
        "acme-eab-kid", .text("ID", maximum: 1024), shown: "none",
        meaning: "Key identifier of external account binding, where the ACME server wants that")
    static let acmeAccountKeyFile = Setting<String?>.optional(
        "acme-eab-hmac-file", .text("FILE"), shown: "none",
        meaning: "File with the MAC key (base64url) of external account binding")
    static let acmeAuthorities = Setting<String?>.optional(
        "acme-ca-file", .text("FILE"), shown: "the system's",
        meaning: "Certificates (PEM) that the ACME servers' own certificates are verified with")
    static let acmeOnDemand = Setting<OnDemandPolicy>.single(
        "acme-on-demand", .choice, default: .off,
        meaning:
            "Whether the first visitor's handshake obtains a certificate for the host of a route: `claimed`, for names under `domain` that a user has claimed"
    )
    static let acmeOnDemandNames = Setting<[String]>.list(
        "acme-on-demand-allow", .certificatePattern, default: [],
        meaning:
            "Further host names that get certificates on demand; `*.` in front stands for one label, and whoever connects can make names up for it: they use up what the authority gives an account"
    )
    static let acmeOnDemandRate = Setting<Int>.single(
        "acme-on-demand-rate", .integer(1...10_000), default: 20,
        meaning: "New names that get certificates on demand, per hour", atLimit: "further names go without for a while"
    )

    static let automaticCertificates: [AnySetting] = [
        AnySetting(acmeDomains), AnySetting(acmeDirectories), AnySetting(acmeAgree), AnySetting(acmeContacts),
        AnySetting(acmeChallenges), AnySetting(acmeAccountID), AnySetting(acmeAccountKeyFile),
        AnySetting(acmeAuthorities), AnySetting(acmeOnDemand), AnySetting(acmeOnDemandNames),
        AnySetting(acmeOnDemandRate),
    ]
}

/// Which hosts of routes get certificates on demand.
enum OnDemandPolicy: String, Sendable, CaseIterable {
    case off, claimed
}

extension ValueType where Value == String {
    /// A host name that a certificate can be for.
    static var certificateName: Self {
        ValueType(placeholder: "HOSTNAME", range: "a host name with at least two labels") {
            (text) throws(InvalidValue) in
            let name = text.lowercased()
            guard HostName.isValid(name) else {
                throw InvalidValue(
                    "a host name such as `www.example.org`; names with `*` cannot be validated over HTTP or TLS")
            }
            return name
        } describe: {
            "`\($0)`"
        }
    }

    /// A host name, perhaps with `*` as its first label.
    static var certificatePattern: Self {
        ValueType(placeholder: "HOSTNAME", range: "a host name, or `*.` and one") { (text) throws(InvalidValue) in
            let name = text.lowercased()
            let rest = name.hasPrefix("*.") ? String(name.dropFirst(2)) : name
            guard HostName.isValid(rest) else {
                throw InvalidValue("a host name such as `www.example.org` or `*.example.org`")
            }
            return name
        } describe: {
            "`\($0)`"
        }
    }

    static var mailAddress: Self {
        ValueType(placeholder: "ADDRESS", range: "a mail address") { (text) throws(InvalidValue) in
            let parts = text.split(separator: "@", omittingEmptySubsequences: false)
            guard parts.count == 2, parts.allSatisfy({ !$0.isEmpty }), text.utf8.count <= 254,
                text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != 0x2C && $0 != 0x3F && $0 != 0x25 })
            else { throw InvalidValue("a mail address such as `ops@example.org`") }
            return text
        } describe: {
            "`\($0)`"
        }
    }
}

extension GatewayConfiguration {
    /// Whether certificates come by themselves.
    static func usesACME(_ settings: Settings) -> Bool {
        !settings[GatewaySettings.acmeDomains].isEmpty || settings[GatewaySettings.acmeOnDemand] != .off
            || !settings[GatewaySettings.acmeOnDemandNames].isEmpty
    }

    /// What is wrong with the settings among themselves.
    static func acmeProblems(_ settings: Settings, isUsed: Bool) -> [String] {
        var problems: [String] = []
        let (hasID, hasKey) = (settings.isGiven("acme-eab-kid"), settings.isGiven("acme-eab-hmac-file"))
        if hasID != hasKey {
            problems.append("`acme-eab-kid` and `acme-eab-hmac-file` belong together: give both or none")
        }
        guard isUsed else { return problems }
        if settings[GatewaySettings.listenTLS].isEmpty {
            problems.append("certificates by ACME are for a `listen-tls`: give one, such as `0.0.0.0:443`")
        }
        if !settings[GatewaySettings.acmeAgree], !settings.isGiven("acme-directory") {
            problems.append(
                "certificates by ACME need your agreement to the terms of service of Let's Encrypt: read them at https://letsencrypt.org/repository/ and set `acme-agree`, or name another server with `acme-directory`"
            )
        }
        if settings[GatewaySettings.acmeOnDemand] == .claimed, settings[GatewaySettings.domain] == nil {
            problems.append("`acme-on-demand: claimed` is about names under `domain`: give that")
        }
        if settings[GatewaySettings.acmeChallenges] == [.http01], settings[GatewaySettings.listen].isEmpty {
            problems.append("`acme-challenge: http-01` needs a `listen`")
        }
        return problems
    }

    /// What is wrong with the files that the settings name.
    var acmeFileProblems: [String] {
        var problems: [String] = []
        do { _ = try externalAccount() } catch { problems.append(error.description) }
        if let path = acmeAuthorities {
            do { _ = try Dialer.tlsContext(trusting: path) } catch {
                problems.append("`acme-ca-file`: \(path) holds no certificates in PEM that can be read")
            }
        }
        return problems
    }

    private var acmeAuthorities: String? { settings[GatewaySettings.acmeAuthorities].map(expandedPath) }

    private func externalAccount() throws(CommandFailure) -> ExternalAccount? {
        guard let identifier = settings[GatewaySettings.acmeAccountID],
            let path = settings[GatewaySettings.acmeAccountKeyFile].map(expandedPath)
        else { return nil }
        guard let text = try? String(contentsOfFile: path, encoding: .utf8), text.utf8.count <= 4096,
            let account = ExternalAccount(identifier: identifier, key: text)
        else { throw CommandFailure(.failed, "`acme-eab-hmac-file`: \(path) holds no key in base64url") }
        return account
    }

    /// What the settings come to; nil where there are to be no certificates by ACME.
    /// - Parameter isClaimed: whether a user has claimed a name under the domain.
    func automaticCertificates(isClaimed: @escaping @Sendable (_ label: String) async -> Bool)
        throws(CommandFailure) -> AutomaticCertificates.Options?
    {
        guard Self.usesACME(settings) else { return nil }
        var options = AutomaticCertificates.Options(
            servers: settings[GatewaySettings.acmeDirectories].compactMap { URLParts("\($0)") },
            dataDirectory: dataDirectory)
        options.names = settings[GatewaySettings.acmeDomains]
        options.contacts = settings[GatewaySettings.acmeContacts]
        options.isAgreed = settings[GatewaySettings.acmeAgree]
        options.externalAccount = try externalAccount()
        options.kinds = settings[GatewaySettings.acmeChallenges]
        options.userAgent = "kiteproxy/\(programVersion)"
        let patterns = settings[GatewaySettings.acmeOnDemandNames]
        let domain =
            settings[GatewaySettings.acmeOnDemand] == .claimed ? settings[GatewaySettings.domain].map { "." + $0 } : nil
        if domain != nil || !patterns.isEmpty {
            /// The label below the domain.
            let label: @Sendable (String) -> String? = { name in
                guard let domain, name.hasSuffix(domain) else { return nil }
                let label = String(name.dropLast(domain.utf8.count))
                return label.contains(".") ? nil : label
            }
            let isListed: @Sendable (String) -> Bool = { name in patterns.contains { Self.matches($0, name) } }
            options.onDemand = .init(
                namesPerHour: settings[GatewaySettings.acmeOnDemandRate],
                isConceivable: { isListed($0) || label($0) != nil },
                isAllowed: { name in
                    if isListed(name) { return true }
                    guard let label = label(name) else { return false }
                    return await isClaimed(label)
                })
        }
        return options
    }

    /// Reaches ACME servers, through the proxies that the environment names.
    func acmeDialer() throws -> Dialer {
        var dialer = try Dialer.ofProcess()
        if let path = acmeAuthorities {
            dialer = try Dialer(configuration: dialer.configuration, tls: Dialer.tlsContext(trusting: path))
        }
        return dialer
    }

    /// Whether a pattern stands for a host; `*` stands for one label (RFC 9525 section 6.3).
    static func matches(_ pattern: String, _ name: String) -> Bool {
        guard pattern.hasPrefix("*.") else { return pattern == name }
        guard let dot = name.firstIndex(of: "."), dot > name.startIndex else { return false }
        return name[dot...] == pattern.dropFirst()
    }
}
