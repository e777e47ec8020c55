import Foundation
import KiteDialing
import Testing

@testable import ACME

/// Times, names, keys and files.
struct RulesTests {
    let now = Date(timeIntervalSince1970: 784_111_777)

    @Test(arguments: [
        ("0", 0), ("120", 120), (" 5 ", 5), ("99999999999999999999999", RetryAfter.longest),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0), ("Sun, 06 Nov 1994 08:50:37 GMT", 60),
        ("Mon, 07 Nov 1994 08:49:37 GMT", 86_400), ("Sat, 05 Nov 1994 08:49:37 GMT", 0),
        ("Fri, 06 Nov 2099 08:49:37 GMT", RetryAfter.longest),
    ])
    func readsRetryAfter(text: String, seconds: TimeInterval) {
        #expect(RetryAfter.date(text, now: now) == now.addingTimeInterval(seconds))
    }

    @Test(arguments: [
        nil, "", "-1", "1.5", "soon", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Foo 1994 08:49:37 GMT",
        "Sun, 99 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 25:49:37 GMT", String(repeating: "1", count: 65),
    ])
    func ignoresRetryAfterThatIsNone(text: String?) { #expect(RetryAfter.date(text, now: now) == nil) }

    @Test func knowsLeapYears() {
        let leap = RetryAfter.date("Thu, 29 Feb 1996 00:00:00 GMT", now: Date(timeIntervalSince1970: 825_500_000))
        #expect(leap == Date(timeIntervalSince1970: 825_552_000))
    }

    @Test func renewsAroundTwoThirds() {
        let end = now.addingTimeInterval(90 * 86_400)
        for (jitter, days) in [(-1, 57.75), (0, 60), (1, 62.25)] as [(Double, Double)] {
            let time = RenewalSchedule.renewal(notBefore: now, notAfter: end, jitter: jitter)
            #expect(abs(time.timeIntervalSince(now) - days * 86_400) < 1)
        }
    }

    @Test func takesWhatIsDueLongestAndNothingTwice() {
        var schedule = RenewalSchedule(namesPerHour: 1, onDemandNames: 1)
        schedule.add("b.test", origin: .configured, at: now)
        schedule.add("a.test", origin: .configured, at: now.addingTimeInterval(1))
        #expect(schedule.take(at: now) == "b.test")
        #expect(schedule.take(at: now) == nil && schedule.nextDue == now.addingTimeInterval(1))
        #expect(schedule.take(at: now.addingTimeInterval(1)) == "a.test")
        #expect(schedule.nextDue == nil)
        schedule.obtained("b.test", notBefore: now, notAfter: now.addingTimeInterval(300), jitter: 0)
        #expect(schedule.nextDue == now.addingTimeInterval(200))
        schedule.failed("a.test", ACMEFailure(.server, "x"), jitter: 0, at: now)
        #expect(schedule.nextDue == now.addingTimeInterval(120))
        for _ in 0..<100 { schedule.failed("a.test", ACMEFailure(.server, "x"), jitter: 1, at: now) }
        #expect(schedule.entries["a.test"]?.due == now.addingTimeInterval(RenewalSchedule.longestRetry * 1.25))
    }

    @Test func boundsNamesOnDemandByTheHourAndInAll() {
        var schedule = RenewalSchedule(namesPerHour: 2, onDemandNames: 3)
        schedule.add("own.test", origin: .configured, at: now)
        #expect(schedule.demand("own.test", at: now) == .known)
        #expect(schedule.demand("a.test", at: now) == .accepted)
        #expect(schedule.demand("b.test", at: now.addingTimeInterval(10)) == .accepted)
        #expect(schedule.demand("c.test", at: now.addingTimeInterval(3599)) == .overBudget)
        #expect(schedule.demand("c.test", at: now.addingTimeInterval(3600)) == .accepted)
        #expect(schedule.demand("d.test", at: now.addingTimeInterval(90_000)) == .full)
    }

    @Test func knowsNamesThatCertificatesCanBeFor() {
        for name in ["a.b", "xn--bcher-kva.example", "a-b.c1.example.org", "1.example"] {
            #expect(HostName.isValid(name))
        }
        let long = Array(repeating: "aaaaaaaaa", count: 26).joined(separator: ".")
        for name in [
            "", ".", "a", "a.", ".a", "a..b", "-a.b", "a-.b", "A.b", "a_b.c", "a b.c", "*.a.b", "1.2.3.4", "a.b/c",
            "../a.b", "a.b\0", "ä.b", "[::1]", long, String(repeating: "a", count: 64) + ".b",
        ] {
            #expect(!HostName.isValid(name), "\(name)")
        }
    }

    @Test func keepsKeysAndLocksInFiles() throws {
        let directory = FileManager.default.temporaryDirectory.path + "/acme-files-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let files = try CertificateFiles(dataDirectory: directory)
        let (one, other) = (try #require(URLParts("https://ca/dir")), try #require(URLParts("https://ca/dir2")))
        let key = try files.accountKey(one)
        #expect(try files.accountKey(one).thumbprint == key.thumbprint)
        #expect(try files.accountKey(other).thumbprint != key.thumbprint)
        #expect(files.accountURL(one) == nil)
        try files.setAccountURL("https://ca/account/1", one)
        #expect(files.accountURL(one) == "https://ca/account/1" && files.accountURL(other) == nil)
        for file in try FileManager.default.subpathsOfDirectory(atPath: directory) {
            let attributes = try FileManager.default.attributesOfItem(atPath: directory + "/" + file)
            let isDirectory = attributes[.type] as? FileAttributeType == .typeDirectory
            #expect(attributes[.posixPermissions] as? Int == (isDirectory ? 0o700 : 0o600), "\(file)")
        }
        do {
            let lock = try #require(try files.lock("a.test"))
            #expect(try files.lock("a.test") == nil)
            #expect(try files.lock("b.test") != nil)
            withExtendedLifetime(lock) {}
        }
        #expect(try files.lock("a.test") != nil)
        #expect(try files.certificate("a.test") == nil)
        for broken in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            try broken.write(
                toFile: directory + "/acme/certificates/a.test.pem", atomically: true, encoding: .utf8)
            #expect(throws: ACMEFailure.self) { try files.certificate("a.test") }
        }
        #expect(files.names(limit: 10) == ["a.test"])
        #expect(throws: ACMEFailure.self) { try CertificateFiles(dataDirectory: "/proc/nothing") }
    }

    @Test func theThumbprintIsThatOfTheCanonicalKey() throws {
        // RFC 7638 section 3: members in lexicographic order, no white space.
        let key = AccountKey()
        let object = try #require(
            try JSONSerialization.jsonObject(with: Data(key.publicJWK.utf8)) as? [String: String])
        #expect(object["crv"] == "P-256" && object["kty"] == "EC")
        #expect(Base64URL.decode(object["x"] ?? "")?.count == 32 && Base64URL.decode(object["y"] ?? "")?.count == 32)
        let order = ["\"crv\"", "\"kty\"", "\"x\"", "\"y\""].compactMap { key.publicJWK.firstRange(of: $0)?.lowerBound }
        #expect(order.count == 4 && order == order.sorted())
        #expect(key.thumbprint.utf8.count == 43 && Base64URL.isPlain(key.thumbprint))
        #expect(try AccountKey(pem: key.pem).thumbprint == key.thumbprint)
    }

    @Test func takesBindingKeysAsAuthoritiesWriteThem() {
        #expect(ExternalAccount(identifier: "k", key: "AAAAAAAAAAAAAAAAAAAAAAAA\n") != nil)
        #expect(ExternalAccount(identifier: "k", key: "AAAAAAAAAAAAAAAAAAAAAA==") != nil)
        for bad in ["", "AAAA", "not base64 at all, this is", "AAAAAAAAAAAAAAAAAAAAAAAA=A"] {
            #expect(ExternalAccount(identifier: "k", key: bad) == nil)
        }
    }

    @Test func keysDoNotShowInText() {
        let issued = IssuedCertificate(names: ["a.test"], chain: "c", key: "SECRET", notBefore: now, notAfter: now)
        let challenge = ChallengeCertificate(certificate: "c", key: "SECRET")
        var dumped = ""
        dump(issued, to: &dumped)
        dump(challenge, to: &dumped)
        #expect(!"\(issued) \(challenge) \(dumped)".contains("SECRET"))
    }
}
