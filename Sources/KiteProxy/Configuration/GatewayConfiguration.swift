/// What the settings of a gateway come to together: the rules that concern more than one of them, and the paths that follow.
import Foundation
import KiteCommand

/// A configuration that is right in itself.
struct GatewayConfiguration: Sendable {
    let settings: Settings
    /// Database, key pairs, names.
    let dataDirectory: String
    /// Where the kite key is or will be.
    let kiteKeyPath: String
    /// Whether Kontrol runs inside the gateway.
    let usesEmbeddedKontrol: Bool
    /// Certificate and key files, pair by pair.
    let certificates: [(certificate: String, key: String)]
    /// The home directory, for paths that begin with `~`.
    private let home: String
    /// What the file says of single hosts and routes.
    let sections: HostSections

    /// Reads file and environment and lays the flags over them.
    /// - Parameter path: of the file; nil: there is none.
    /// - Throws: ``SettingProblems`` with everything that is wrong with the file, or with the settings.
    init(path: String?, flags: [String: [String]], environment: [String: String]) throws(SettingProblems) {
        let file = try path.map { path throws(SettingProblems) in try SettingsFile(contentsOf: path) }
        var problems: [String] = []
        var sections = HostSections()
        do throws(SettingProblems) {
            if let file { sections = try HostSections(file) }
        } catch {
            problems += error.problems
        }
        do throws(SettingProblems) {
            self = try GatewayConfiguration(
                Settings(
                    schema: GatewaySettings.schema, flags: flags, environment: environment, file: file?.withoutSections),
                environment: environment, sections: sections)
        } catch {
            throw SettingProblems(error.problems + problems)
        }
        guard problems.isEmpty else { throw SettingProblems(problems) }
    }

    /// - Throws: ``SettingProblems`` where settings contradict each other.
    init(
        _ settings: Settings, environment: [String: String], sections: HostSections = HostSections()
    ) throws(SettingProblems) {
        self.settings = settings
        self.sections = sections
        let home = environment["HOME"].flatMap { $0.isEmpty ? nil : $0 } ?? NSHomeDirectory()
        let kiteHome = environment["KITE_HOME"].flatMap { $0.isEmpty ? nil : $0 } ?? home + "/.kite"
        self.home = home
        func expand(_ path: String) -> String { Self.expand(path, home: home) }
        dataDirectory = expand(settings[GatewaySettings.dataDirectory] ?? "~/.kiteproxy")
        kiteKeyPath = expand(settings[GatewaySettings.kiteKey] ?? kiteHome + "/kite.key")
        let files = settings[GatewaySettings.tlsCertificates].map(expand)
        let keys = settings[GatewaySettings.tlsKeys].map(expand)
        certificates = Array(zip(files, keys)).map { ($0, $1) }

        var problems: [String] = []
        if files.count != keys.count {
            problems.append(
                "`tls-cert` is given \(files.count) times and `tls-key` \(keys.count) times: give one key for each certificate"
            )
        }
        let usesACME = Self.usesACME(settings)
        if !settings[GatewaySettings.listenTLS].isEmpty, files.isEmpty, !usesACME {
            problems.append(
                "`listen-tls` needs a certificate: give `tls-cert` and `tls-key`, or have one obtained with `acme-domain`"
            )
        }
        problems += Self.acmeProblems(settings, isUsed: usesACME)
        if settings[GatewaySettings.listenTLS].isEmpty,
            let section = sections.all.first(where: { $0.clientAuthority != nil })
        {
            problems.append("\(section.place): `client-ca` needs `listen-tls`: client certificates are shown over TLS")
        }
        let (kontrolURL, kontrolListen) = (settings.source("kontrol-url"), settings.source("kontrol-listen"))
        // An image or a unit file may set `kontrol-listen`; whoever names a Kontrol in a stronger place means that one, and the other
        // way round.
        usesEmbeddedKontrol = kontrolListen.strength >= kontrolURL.strength
        if settings.isGiven("kontrol-url"), kontrolListen.strength == kontrolURL.strength {
            problems.append(
                "`kontrol-url` means an existing Kontrol and `kontrol-listen` the embedded one: give only one of them")
        }
        var listeners: [(String, ListenAddress)] = settings[GatewaySettings.listen].map { ("listen", $0) }
        listeners += settings[GatewaySettings.listenTLS].map { ("listen-tls", $0) }
        listeners.append(("admin-listen", settings[GatewaySettings.adminListen]))
        if usesEmbeddedKontrol {
            listeners.append(("kontrol-listen", settings[GatewaySettings.kontrolListen]))
        }
        for (index, (key, address)) in listeners.enumerated() {
            guard let (other, taken) = listeners[..<index].first(where: { $0.1.overlaps(address) }) else { continue }
            problems.append(
                taken == address
                    ? "`\(key)` and `\(other)` both say \(address): give each its own port"
                    : "`\(key)` says \(address) and `\(other)` \(taken), which includes it: give each its own port")
        }
        if let url = settings[GatewaySettings.publicURL], !url.path.isEmpty, url.path != "/" {
            problems.append("`public-url` must not have a path: \(url)")
        }
        if settings[GatewaySettings.parkedPerRoute] > settings[GatewaySettings.parked] {
            problems.append("`max-parked-per-route` is larger than `max-parked`: lower it or raise `max-parked`")
        }
        guard problems.isEmpty else { throw SettingProblems(problems) }
    }

    /// Event loops.
    var threads: Int { settings[GatewaySettings.threads] ?? max(1, ProcessInfo.processInfo.activeProcessorCount) }

    /// Where kites find the embedded Kontrol, as their kite keys say it. A Kontrol that listens everywhere is reached by the host of the
    /// public URL.
    var ownKontrolURL: String { ownKontrolURL(port: nil) }

    /// The same, once the port is known that the system chose.
    func ownKontrolURL(port: Int?) -> String {
        let listen = settings[GatewaySettings.kontrolListen]
        var host = listen.host
        if host == "0.0.0.0" || host == "::" { host = settings[GatewaySettings.publicURL]?.host ?? "127.0.0.1" }
        return "http://\(ListenAddress(host: host, port: port ?? listen.port))/kite"
    }

    private static func expand(_ path: String, home: String) -> String {
        path == "~" || path.hasPrefix("~/") ? home + path.dropFirst() : path
    }

    /// A path that a setting names, with the home directory in the place of `~`.
    func expandedPath(_ path: String) -> String { Self.expand(path, home: home) }

    /// What is wrong with the files that the configuration names.
    func missingFiles() -> [String] {
        sections.missingFiles() + acmeFileProblems
            + certificates.flatMap { pair in
                [("tls-cert", pair.certificate), ("tls-key", pair.key)].compactMap { key, path in
                    FileManager.default.isReadableFile(atPath: path)
                        ? nil : "`\(key)`: \(path) cannot be read: does it exist, and may this user read it?"
                }
            }
    }
}
