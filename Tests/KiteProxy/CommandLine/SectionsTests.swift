/// The sections `hosts:` and `routes:` of the file: what they come to, and what is said of each mistake.
import ArgumentParser
import Foundation
import KiteCommand
import KiteGateway
import Testing

@testable import KiteProxy

@Suite("Sections of hosts and routes")
struct SectionsTests {
    private func problems(_ yaml: String) -> [String] {
        do throws(SettingProblems) {
            _ = try HostSections(SettingsFile(yaml: yaml, path: "f.yaml"))
            return []
        } catch {
            return error.problems
        }
    }

    private static let hash = "$scrypt$ln=4,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

    @Test("All keys are read, and reach the rules")
    func keys() throws {
        let yaml = """
            max-head: 8KiB
            hosts:
              "*":
                https-only: true
                https-port: 8443
                hsts: 365d
                hsts-subdomains: true
                hsts-preload: true
              Shop.Example.com:
                redirect: https://www.example.com
                redirect-status: 301
                redirect-path: drop
                request-headers-set: {X-A: b, Authorization: Basic x}
                request-headers-add: {X-B: "c: d"}
                request-headers-remove: [X-C]
                response-headers-set: {X-Frame-Options: DENY}
                response-headers-add: {X-D: e}
                response-headers-remove: [Server, X-Powered-By]
                request-host: intranet:8080
                compress: true
                compress-types: [text/*, application/json]
                compress-min: 2KiB
                max-body: 10MiB
            routes:
              Math:
                cors-origins: [https://app.example.com]
                users: {alice: "\(Self.hash)"}
                ask-password: true
                realm: Kites of ours
                pass-authorization: true
                allow: [10.0.0.0/8, "2001:db8::/32"]
                deny: []
                rate-limit: 100/s burst 200
                rate-by: token
                error-pages: {404: /tmp/404.html, 5xx: /tmp/5xx.html}
                maintenance: true
                maintenance-page: /tmp/m.html
                maintenance-retry: 1h
                maintenance-allow: [192.0.2.1]
            """
        let file = try SettingsFile(yaml: yaml, path: "f.yaml")
        let sections = try HostSections(file)
        #expect(sections.all.map(\.subject.title) == ["host *", "host shop.example.com", "route math"])
        #expect(sections.all.map(\.place) == ["f.yaml:4", "f.yaml:10", "f.yaml:26"])
        #expect(Set(sections.all.flatMap(\.keys)) == Set(HostSection.ruleKeyNames), "a key is missing here")
        let (all, shop, math) = (sections.all[0].rules, sections.all[1].rules, sections.all[2].rules)
        #expect(all.isHTTPSOnly == true && all.httpsPort == 8443 && all.strictTransport == 31_536_000)
        #expect(shop.redirectStatus == 301 && shop.redirectKeepsPath == false)
        #expect(shop.requestSet == ["X-A": "b", "Authorization": "Basic x"])
        #expect(shop.requestAdded == ["X-B": "c: d"] && shop.requestRemoved == ["X-C"])
        #expect(shop.responseRemoved == ["Server", "X-Powered-By"] && shop.bodyBytes == 10 << 20)
        #expect(math.users?.keys.sorted() == ["alice"] && math.allowed?.count == 2 && math.denied?.isEmpty == true)
        #expect(math.rateKey == .token && math.maintenanceRetry == 3600)
        #expect(sections.all[2].errorPages == ["404": "/tmp/404.html", "5xx": "/tmp/5xx.html"])
        #expect(sections.missingFiles().count == 3)
        #expect(try Settings(schema: GatewaySettings.schema, file: file.withoutSections).isGiven("max-head"))
    }

    @Test(
        "Each mistake is told with its line and how to mend it",
        arguments: [
            ("hosts:\n  a b:\n    compress: true", "f.yaml:3: `a b` is not valid: it must be a host such as"),
            ("hosts:\n  a.b: true", "f.yaml:2: write `hosts:` as"), ("hosts: x", "f.yaml:1: write `hosts:` as"),
            ("routes:\n  a/b:\n    compress: true", "f.yaml:3: `a/b` is not valid"),
            (
                "hosts:\n  a.b:\n    compres: true",
                "f.yaml:3: unknown key `hosts.a.b.compres`; did you mean `compress`?"
            ),
            (
                "hosts:\n  a.b:\n    compress: maybe",
                "f.yaml:3: `compress`: `maybe` is not valid: it must be `true` or `false`"
            ),
            ("hosts:\n  a.b:\n    compress: [true]", "f.yaml:3: `compress` takes one value"),
            ("hosts:\n  a.b:\n    compress: {x: y}", "f.yaml:3: `compress` takes one value"),
            ("hosts:\n  a.b:\n    users: alice", "f.yaml:3: `users` takes lines"),
            ("hosts:\n  a.b:\n    users: {alice: geheim}", "f.yaml:3: `users`: `alice`: "),
            ("hosts:\n  a.b:\n    users: {\"a:b\": x}", "it must be a user's name"),
            (
                "hosts:\n  a.b:\n    request-headers-set:\n      Content-Length: 1",
                "f.yaml:4: `request-headers-set`: `Content-Length`"
            ),
            ("hosts:\n  a.b:\n    request-headers-set:\n      Host: x", "for `Host` there is `request-host`"),
            (
                "hosts:\n  a.b:\n    request-headers-set:\n      X-A: \"a\\r\\nb\"",
                "f.yaml:4: `request-headers-set`: `X-A`"
            ),
            ("hosts:\n  a.b:\n    request-headers-set:\n      \"X-A\\r\\nB\": a", "it must be a field's name"),
            ("hosts:\n  a.b:\n    response-headers-remove: [Transfer-Encoding]", "f.yaml:3: `response-headers-remove`"),
            ("hosts:\n  a.b:\n    redirect: /x", "f.yaml:3: `redirect`: `/x` is not valid"),
            ("hosts:\n  a.b:\n    redirect-status: 303", "`301`, `302`, `307` or `308`"),
            ("hosts:\n  a.b:\n    hsts: 1y", "a time such as `365d`"),
            ("hosts:\n  a.b:\n    hsts: 99999d", "a time such as `365d`"),
            ("hosts:\n  a.b:\n    hsts-preload: true", "f.yaml:3: `hsts-preload` needs `hsts`"),
            ("hosts:\n  a.b:\n    rate-limit: 0/s", "a rate such as `100/s`"),
            ("hosts:\n  a.b:\n    allow: [10.0.0.0/33]", "an IP address or a range"),
            ("hosts:\n  a.b:\n    cors-origins: [https://a/b]", "an origin such as"),
            ("hosts:\n  a.b:\n    error-pages: {200: /x}", "`400` to `599`"),
            ("hosts:\n  a.b:\n    compress-types: [text]", "a media type such as"),
            ("hosts:\n  a.b:\n    request-host: http://x", "a host such as"),
            ("hosts:\n  a.b:\n    request-host: x:0", "a host such as"),
        ])
    func mistakes(yaml: String, complaint: String) {
        let problems = problems(yaml)
        #expect(problems.count == 1, "\(problems)")
        #expect(problems.first?.contains(complaint) == true, "\(problems)")
    }

    @Test("All mistakes are told at once, those of settings among them")
    func several() throws {
        let path = NSTemporaryDirectory() + "sections-\(UUID().uuidString).yaml"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try "max-head: x\nhosts:\n  a.b:\n    nonsense-here: 1\n    max-body: -1\n".write(
            toFile: path, atomically: true, encoding: .utf8)
        do throws(SettingProblems) {
            _ = try GatewayConfiguration(path: path, flags: [:], environment: [:])
            Issue.record("that is no configuration")
        } catch {
            #expect(error.problems.count == 3, "\(error)")
        }
    }

    @Test("The table in docs/configuration.md is that of the keys")
    func table() throws {
        let path = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath().deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("docs/configuration.md")
        let document = try String(contentsOf: path, encoding: .utf8)
        let begin = try #require(document.range(of: "<!-- table of sections -->\n"))
        let end = try #require(document.range(of: "<!-- end of table -->", range: begin.upperBound..<document.endIndex))
        let table = SectionKey.markdown(HostSection.keys)
        if ProcessInfo.processInfo.environment["UPDATE_DOCS"] != nil {
            try document.replacingCharacters(in: begin.upperBound..<end.lowerBound, with: table).write(
                to: path, atomically: true, encoding: .utf8)
        } else {
            #expect(document[begin.upperBound..<end.lowerBound] == table, "run the tests once with UPDATE_DOCS=1")
        }
    }
}
