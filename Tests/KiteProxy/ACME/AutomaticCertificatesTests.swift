import ACMETestServer
import Foundation
import Logging
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import ACME

/// Certificates from a test authority that keeps to the RFC, with a clock that the tests move.
@Suite(.timeLimit(.minutes(1)))
struct AutomaticCertificatesTests {
    let name = "www.example.org"
    let day: TimeInterval = 86_400

    @Test(arguments: ChallengeKind.allCases)
    func obtainsAndKeepsACertificate(kind: ChallengeKind) async throws {
        let world = try World { $0.termsOfService = "http://ca.test/terms" }
        var options = world.options()
        options.kinds = [kind]
        options.contacts = ["ops@example.org"]
        try await world.running(try world.certificates(options)) { log in
            let line = await log.next()
            #expect(line?.message == "Certificate obtained" && line?.metadata["name"] == name)
        }
        let issued = try #require(world.sink.installed.withLock { $0[name]?.first })
        #expect(issued.names == [name])
        #expect(try CertificateChain.parse(issued.chain).count == 2)
        #expect(try await world.authority.contacts == [["mailto:ops@example.org"]])
        // Answers are withdrawn.
        #expect(world.sink.challenges.withLock { $0.isEmpty })
        let path = world.directory + "/acme/certificates/\(name).pem"
        let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
        #expect(mode == 0o600)
    }

    @Test func renewsAtTwoThirdsOfTheLifetimeWithAnotherKey() async throws {
        let world = try World()
        let certificates = try world.certificates(world.options())
        try await world.running(certificates) { log in
            _ = await log.next()
            let due = try #require(certificates.status.first).due
            #expect(abs(due.timeIntervalSince(world.clock.now) - 60 * day) < 2.3 * day)
            world.clock.advance(by: 57 * day)
            #expect(world.sink.count(name) == 1)
            world.clock.advance(by: 6 * day)
            #expect(await log.next()?.message == "Certificate obtained")
        }
        let both = try #require(world.sink.installed.withLock { $0[name] })
        #expect(both.count == 2 && both[0].key != both[1].key)
        #expect(both[1].notAfter.timeIntervalSince(both[0].notAfter) > 60 * day)
        #expect(try await world.authority.accountCount == 1)
    }

    @Test func aRestartUsesWhatWasKept() async throws {
        let world = try World()
        try await world.running(try world.certificates(world.options())) { log in _ = await log.next() }
        try await world.authority.clearLog()
        let sink = RecordingSink()
        let again = try world.certificates(world.options(), sink: sink)
        again.installStored()
        #expect(sink.count(name) == 1)
        #expect(try await world.authority.log.isEmpty)
        // The account is kept as well.
        world.clock.advance(by: 63 * day)
        try await world.running(again) { log in _ = await log.next() }
        #expect(sink.count(name) == 3)
        #expect(try await world.authority.accountCount == 1)
        #expect(try await !world.authority.log.contains("POST /account"))
    }

    @Test func aFailingAuthorityLeavesTheOldOneAndIsAskedLessAndLess() async throws {
        let world = try World()
        let certificates = try world.certificates(world.options())
        try await world.running(certificates) { log in
            _ = await log.next()
            try await world.authority.setDown(true)
            world.clock.advance(by: 63 * day)
            var waits: [TimeInterval] = []
            for _ in 0..<5 {
                let line = await log.next()
                #expect(line?.message == "No certificate was obtained")
                #expect(line?.metadata["code"] == "server")
                let wait = try #require(certificates.status.first).due.timeIntervalSince(world.clock.now)
                waits.append(wait)
                world.clock.advance(by: wait + 1)
            }
            for (index, wait) in waits.enumerated() {
                let expected = 120 * pow(2, Double(index))
                #expect(wait > expected * 0.7 && wait < expected * 1.3, "\(index): \(wait)")
            }
            #expect(world.sink.count(name) == 1)
            #expect(certificates.counts.failures[.server] == 5)
            // The sixth try may have begun with the last advance; let it fail, then the authority is back.
            _ = await log.next()
            try await world.authority.setDown(false)
            world.clock.advance(by: 7 * 3600)
            #expect(await log.next()?.message == "Certificate obtained")
            #expect(certificates.status.first?.failures == 0)
        }
        #expect(world.sink.count(name) == 2)
    }

    @Test func honoursRateLimits() async throws {
        let world = try World()
        try await world.authority.fail("/order", status: 429, type: "rateLimited", retryAfter: "86400")
        let certificates = try world.certificates(world.options())
        try await world.running(certificates) { log in
            #expect(await log.next()?.metadata["code"] == "rateLimited")
            try await world.authority.clearLog()
            let due = try #require(certificates.status.first).due
            #expect(due.timeIntervalSince(world.clock.now) > 86_000)
            world.clock.advance(by: 80_000)
            #expect(try await world.authority.log.isEmpty)
            world.clock.advance(by: 6_500)
            #expect(await log.next()?.message == "Certificate obtained")
        }
    }

    @Test func triesTheNextServer() async throws {
        let world = try World(["ca.test", "other.test"])
        try await world.authority.setDown(true)
        try await world.running(try world.certificates(world.options(hosts: ["ca.test", "other.test"]))) { log in
            let first = await log.next()
            #expect(first?.message == "A server gives no certificate" && first?.metadata["server"] == "ca.test")
            let second = await log.next()
            #expect(second?.message == "Certificate obtained" && second?.metadata["server"] == "other.test")
        }
    }

    @Test func getsOverBadNoncesAndFaults() async throws {
        let world = try World()
        try await world.authority.refuseNonces(5)
        try await world.authority.fail("/order/0/finalize", status: 503, type: "serverInternal", retryAfter: "2")
        try await world.running(try world.certificates(world.options())) { log in
            #expect(await log.next()?.message == "Certificate obtained")
        }
    }

    @Test func makesAnAccountAgainThatTheServerHasLost() async throws {
        let world = try World()
        let certificates = try world.certificates(world.options())
        try await world.running(certificates) { log in
            _ = await log.next()
            try await world.authority.forgetAccounts()
            world.clock.advance(by: 63 * day)
            #expect(await log.next()?.message == "Certificate obtained")
        }
        #expect(try await world.authority.accountCount == 2)
    }

    @Test func bindsTheAccountWhereTheServerWantsIt() async throws {
        let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
        let world = try World { $0.externalAccounts = ["kid-1": key] }
        var options = world.options()
        try await world.running(try world.certificates(options)) { log in
            #expect(await log.next()?.metadata["code"] == "accountBindingNeeded")
        }
        options.externalAccount = ExternalAccount(identifier: "kid-1", key: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
        try await world.running(try world.certificates(options)) { log in
            #expect(await log.next()?.metadata["code"] == "rejected")
        }
        options.externalAccount = ExternalAccount(identifier: "kid-1", key: key)
        try await world.running(try world.certificates(options)) { log in
            #expect(await log.next()?.message == "Certificate obtained")
        }
    }

    @Test func agreesToNothingByItself() async throws {
        let world = try World { $0.termsOfService = "http://ca.test/terms" }
        var options = world.options()
        options.isAgreed = false
        try await world.running(try world.certificates(options)) { log in
            let line = await log.next()
            #expect(line?.metadata["code"] == "termsNotAgreed")
            #expect(line?.metadata["cause"]?.contains("http://ca.test/terms") == true)
        }
        #expect(try await world.authority.accountCount == 0)
    }

    @Test func takesTheOtherChallengeAfterAFailedValidation() async throws {
        let world = try World()
        let certificates = try world.certificates(world.options())
        world.failing.kinds.withLock { $0 = ["http-01"] }
        try await world.running(certificates) { log in
            let line = await log.next()
            #expect(line?.metadata["code"] == "validationFailed")
            #expect(line?.metadata["cause"]?.contains("the firewall says no") == true)
            world.clock.advance(by: 200)
            #expect(await log.next()?.message == "Certificate obtained")
        }
    }

    @Test func saysWhereTheServerOffersNothingUsable() async throws {
        let world = try World { $0.kinds = ["dns-01"] }
        try await world.running(try world.certificates(world.options())) { log in
            #expect(await log.next()?.metadata["code"] == "noUsableChallenge")
        }
    }

    @Test func whatCannotBeServedDoesNotReplaceWhatIs() async throws {
        let world = try World()
        let certificates = try world.certificates(world.options())
        try await world.running(certificates) { log in
            _ = await log.next()
            world.sink.isBroken.withLock { $0 = true }
            world.clock.advance(by: 63 * day)
            #expect(await log.next()?.metadata["code"] == "badCertificate")
        }
        #expect(world.sink.count(name) == 1)
    }

    @Test func onlyOneProcessObtains() async throws {
        let world = try World()
        let options = world.options()
        let lock = try #require(try CertificateFiles(dataDirectory: world.directory).lock(name))
        let certificates = try world.certificates(options)
        try await world.running(certificates) { log in
            // While another process has the name, it is looked at again and again, but nobody is asked.
            let before = world.clock.now
            while world.clock.now.timeIntervalSince(before) < 30 { try await Task.sleep(for: .milliseconds(2)) }
            #expect(try await world.authority.log.isEmpty)
            // The other one is done.
            let other = try World()
            try await other.running(try other.certificates(other.options())) { log in _ = await log.next() }
            let issued = try #require(other.sink.installed.withLock { $0[name]?.first })
            try CertificateFiles(dataDirectory: world.directory).save(issued, name)
            withExtendedLifetime(lock) {}
        }
        #expect(try await world.authority.log.isEmpty)
    }

    @Test func servesWhatAnotherProcessHasObtained() async throws {
        let world = try World()
        let first = try world.certificates(world.options())
        let second = RecordingSink()
        let other = try world.certificates(world.options(), sink: second)
        try await world.running(first) { log in
            _ = await log.next()
            other.installStored()
            world.clock.advance(by: 63 * day)
            _ = await log.next()
            try await world.authority.clearLog()
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await other.run() }
                while second.count(name) < 2 { try await Task.sleep(for: .milliseconds(2)) }
                group.cancelAll()
            }
        }
        #expect(try await world.authority.log.isEmpty)
        #expect(second.installed.withLock { $0[name]?.last } == world.sink.installed.withLock { $0[name]?.last })
    }

    // MARK: On demand

    @Test func obtainsOnDemandWhatIsAllowedAndOnlySoMuch() async throws {
        let world = try World()
        var options = world.options([])
        options.onDemand = .init(namesPerHour: 2) { $0.hasSuffix(".kites.test") }
        let certificates = try world.certificates(options)
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        #expect(certificates.wanted("a.kites.test", on: loop) == nil, "nobody would answer")
        try await world.running(certificates) { log in
            func ask(_ name: String) async throws {
                while certificates.wanted("localhost", on: loop) != nil {}
                var future = certificates.wanted(name, on: loop)
                // The service may not run yet.
                while future == nil, certificates.status.isEmpty, try await world.authority.log.isEmpty {
                    try await Task.sleep(for: .milliseconds(1))
                    future = certificates.wanted(name, on: loop)
                }
                try await future?.get()
            }
            try await ask("a.kites.test")
            #expect(world.sink.count("a.kites.test") == 1)
            _ = await log.next()
            try await ask("evil.test")
            #expect(world.sink.count("evil.test") == 0)
            try await ask("b.kites.test")
            _ = await log.next()
            try await ask("c.kites.test")
            #expect(await log.next()?.message == "No certificate on demand: too many new names within an hour")
            #expect(world.sink.count("c.kites.test") == 0)
            world.clock.advance(by: 3700)
            try await ask("c.kites.test")
            #expect(world.sink.count("c.kites.test") == 1)
            for bad in ["", "127.0.0.1", "*.kites.test", "A.kites.test", "a..kites.test", "../kites.test", "localhost"]
            {
                #expect(certificates.wanted(bad, on: loop) == nil)
            }
        }
        #expect(certificates.wanted("d.kites.test", on: loop) == nil, "nobody would answer")
        // A restart knows them.
        let sink = RecordingSink()
        let again = try world.certificates(options, sink: sink)
        again.installStored()
        #expect(sink.count("a.kites.test") == 1 && sink.count("b.kites.test") == 1)
    }

    @Test func whoeverWaitsIsToldOfFailures() async throws {
        let world = try World()
        try await world.authority.setDown(true)
        var options = world.options([])
        options.onDemand = .init(namesPerHour: 10) { _ in true }
        let certificates = try world.certificates(options)
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        try await world.running(certificates) { log in
            var future = certificates.wanted("a.kites.test", on: loop)
            while future == nil {
                try await Task.sleep(for: .milliseconds(1))
                future = certificates.wanted("a.kites.test", on: loop)
            }
            try await future?.get()
            #expect(await log.next()?.metadata["code"] == "server")
            #expect(certificates.wanted("a.kites.test", on: loop) == nil)
        }
    }

    @Test func namesThatAreNotAllowedAnyMoreAreNotRenewed() async throws {
        let world = try World()
        let isAllowed = Mutex(true)
        var options = world.options([])
        options.onDemand = .init(namesPerHour: 10) { _ in isAllowed.withLock { $0 } }
        let certificates = try world.certificates(options)
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        try await world.running(certificates) { log in
            while certificates.wanted("a.kites.test", on: loop) == nil { try await Task.sleep(for: .milliseconds(1)) }
            _ = await log.next()
            isAllowed.withLock { $0 = false }
            try await world.authority.clearLog()
            world.clock.advance(by: 63 * day)
            #expect(await log.next()?.message.hasPrefix("A certificate on demand is not renewed") == true)
            #expect(certificates.status.isEmpty)
        }
        #expect(try await world.authority.log.isEmpty)
        #expect(world.sink.count("a.kites.test") == 0)
    }
}
