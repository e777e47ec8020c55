/// What is configured for one host (`hosts:`) or one route (`routes:`) in the file.
import Foundation
import KiteCommand
import KiteGateway

/// One section: everything that stands under a host's or a route's name. What a key stores is nil or empty where it is not written.
struct HostSection: Sendable {
    enum Subject: Sendable, Hashable {
        case host(HostPattern)
        /// A route's name, in lower case.
        case route(String)

        var title: String {
            switch self {
            case .host(let pattern): "host \(pattern)"
            case .route(let name): "route \(name)"
            }
        }
    }
    let subject: Subject
    /// `file:line` of the first key, for complaints.
    let place: String
    /// The keys that are written, in the file's order.
    var keys: [String] = []
    /// What happens to requests.
    var rules = RuleSet()
    /// Who issues the client certificates that the host takes: a file.
    var clientAuthority: String?
    var clientCertificatePolicy: ClientCertificatePolicy?
    /// Files of error pages, by the status as it is written, with their keys' places.
    var errorPages: [String: String] = [:]
    var maintenancePage: String?

    init(_ subject: Subject, place: String) {
        self.subject = subject
        self.place = place
    }

    /// All keys that a section may have, in the order of the documentation. A key's effect on requests goes into ``rules``; for anything
    /// else add a member to this struct and an array of keys beside ``ruleKeys``.
    static let keys: [SectionKey] = ruleKeys + clientCertificateKeys

    /// What keys say that do not go together: one sentence each.
    func contradictions() -> [String] {
        var problems: [String] = []
        if rules.strictTransportPreload == true {
            let isLong = (rules.strictTransport ?? 0) >= 31_536_000
            if !isLong || rules.strictTransportSubdomains != true {
                problems.append(
                    "`hsts-preload` needs `hsts` of at least 365d and `hsts-subdomains: true` in the same section: the lists of browsers ask for both"
                )
            }
        }
        if clientCertificatePolicy != nil && clientAuthority == nil {
            problems.append("`client-cert` needs `client-ca` in the same section")
        }
        return problems
    }

    /// What is wrong with the files that the section names.
    func missingFiles() -> [String] {
        let authority = clientAuthority.flatMap { path in
            FileManager.default.isReadableFile(atPath: path)
                ? nil : "\(place): `client-ca`: \(path) cannot be read: does it exist, and may this user read it?"
        }
        return (authority.map { [$0] } ?? [])
            + pageFiles.compactMap { key, path in
                switch Self.read(path) {
                case .success: nil
                case .failure(let error): "\(place): `\(key)`: \(path) \(error.expected)"
                }
            }
    }

    private var pageFiles: [(key: String, path: String)] {
        errorPages.sorted { $0.key < $1.key }.map { ("error-pages: \($0.key)", $0.value) }
            + (maintenancePage.map { [("maintenance-page", $0)] } ?? [])
    }

    /// The rules with the pages read from their files.
    func loaded() -> RuleSet {
        var rules = rules
        if !errorPages.isEmpty {
            var pages: [ErrorPageStatus: PageTemplate] = [:]
            for (text, path) in errorPages {
                guard let status = ErrorPageStatus(text), case .success(let page) = Self.read(path) else { continue }
                pages[status] = page
            }
            rules.errorPages = pages
        }
        if let maintenancePage, case .success(let page) = Self.read(maintenancePage) { rules.maintenancePage = page }
        return rules
    }

    private static func read(_ path: String) -> Result<PageTemplate, InvalidValue> {
        var isDirectory: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory), !isDirectory.boolValue,
            let file = FileHandle(forReadingAtPath: path),
            let data = try? file.read(upToCount: PageTemplate.mostBytes + 1)
        else { return .failure(InvalidValue("cannot be read: does it exist, and may this user read it?")) }
        guard data.count <= PageTemplate.mostBytes else {
            return .failure(InvalidValue("is larger than \(byteText(PageTemplate.mostBytes)), which is no error page"))
        }
        guard let text = String(data: data, encoding: .utf8) else {
            return .failure(InvalidValue("is not UTF-8"))
        }
        return .success(PageTemplate(text))
    }
}

extension HostSections {
    func missingFiles() -> [String] { all.flatMap { $0.missingFiles() } }

    /// The rules of all sections; nil where there are none.
    func ruleBook() -> RuleBook? {
        var hosts: [(pattern: HostPattern, rules: RuleSet)] = []
        var routes: [(name: String, rules: RuleSet)] = []
        for section in all where section.keys.contains(where: HostSection.ruleKeyNames.contains) {
            switch section.subject {
            case .host(let pattern): hosts.append((pattern, section.loaded()))
            case .route(let name): routes.append((name, section.loaded()))
            }
        }
        return RuleBook(hosts: hosts, routes: routes)
    }
}
