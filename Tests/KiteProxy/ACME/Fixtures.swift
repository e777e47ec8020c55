/// What the tests of automatic certificates have in common: a clock that they move, a network of test authorities, ears for what happens.
import ACMETestServer
import Foundation
import KiteDialing
import Logging
import NIOCore
import Synchronization

@testable import ACME

/// Moves when a test says so, and by itself over the short waits within an order.
final class ManualClock: CertificateClock {
    private struct State {
        var now = Date(timeIntervalSince1970: 1_800_000_000)
        var sleepers: [Int: (time: Date, continuation: CheckedContinuation<Void, any Error>)] = [:]
        var next = 0
    }
    private let state = Mutex(State())

    var now: Date { state.withLock { $0.now } }

    func sleep(until time: Date) async throws {
        if time.timeIntervalSince(now) <= 60 {
            try await Task.sleep(for: .milliseconds(1))
            return state.withLock { $0.now = max($0.now, time) }
        }
        let number = state.withLock { state in
            state.next += 1
            return state.next
        }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
                let isOver = state.withLock { state in
                    if state.now >= time || Task.isCancelled { return true }
                    state.sleepers[number] = (time, continuation)
                    return false
                }
                if isOver { continuation.resume() }
            }
        } onCancel: {
            state.withLock { $0.sleepers.removeValue(forKey: number) }?.continuation.resume(
                throwing: CancellationError())
        }
    }

    func advance(by seconds: TimeInterval) {
        let due = state.withLock { state in
            state.now += seconds
            let due = state.sleepers.filter { $0.value.time <= state.now }
            for number in due.keys { state.sleepers[number] = nil }
            return due.values.map(\.continuation)
        }
        for continuation in due { continuation.resume() }
    }
}

/// Reaches test authorities by the host of the URL.
struct MemoryTransport: ACMETransport {
    let authorities: [String: TestAuthority]

    func send(_ request: IssuanceStateMachine.Request) async throws -> IssuanceStateMachine.Response {
        guard let authority = authorities[request.url.host] else { throw ChannelError.eof }
        let method =
            switch request.method {
            case .get: "GET"
            case .head: "HEAD"
            case .post: "POST"
            }
        let response = await authority.handle(
            .init(
                method: method, path: request.url.path, contentType: request.body.map { _ in "application/jose+json" },
                userAgent: "test", body: Data((request.body ?? "").utf8)))
        return .init(
            status: response.status, nonce: response.fields["Replay-Nonce"], location: response.fields["Location"],
            retryAfter: response.fields["Retry-After"], body: Array(response.body))
    }
}

/// Remembers what is served.
final class RecordingSink: CertificateSink {
    struct Broken: Error {}
    let installed = Mutex<[String: [IssuedCertificate]]>([:])
    let challenges = Mutex<[String: ChallengeCertificate]>([:])
    let isBroken = Mutex(false)

    func install(_ certificate: IssuedCertificate, for name: String) throws {
        if isBroken.withLock({ $0 }) { throw Broken() }
        installed.withLock { $0[name, default: []].append(certificate) }
    }
    func setChallenge(_ certificate: ChallengeCertificate?, for name: String) {
        challenges.withLock { $0[name] = certificate }
    }
    func remove(_ name: String) { installed.withLock { $0[name] = nil } }
    func count(_ name: String) -> Int { installed.withLock { $0[name]?.count ?? 0 } }
}

/// One line of a log.
struct LogLine: Sendable {
    let message: String
    let metadata: [String: String]
}

/// Hands over what is logged.
struct LogListener: LogHandler {
    let lines: AsyncStream<LogLine>.Continuation
    var metadata = Logger.Metadata()
    var logLevel = Logger.Level.info
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }
    func log(event: LogEvent) {
        lines.yield(
            LogLine(message: event.message.description, metadata: (event.metadata ?? [:]).mapValues { "\($0)" }))
    }
}

/// See ``World/failing``.
final class FailingKinds: Sendable { let kinds = Mutex<Set<String>>([]) }

/// Everything around ``AutomaticCertificates``.
final class World: Sendable {
    let clock = ManualClock()
    let sink = RecordingSink()
    let challenges = ChallengeTable()
    let directory: String
    let log: AsyncStream<LogLine>
    private let lines: AsyncStream<LogLine>.Continuation
    let authorities: [String: TestAuthority]
    /// Kinds of challenges that fail though they are answered.
    let failing: FailingKinds

    /// - Parameter change: changes the settings of the authority `host`.
    init(_ hosts: [String] = ["ca.test"], change: @Sendable (inout TestAuthority.Settings) -> Void = { _ in }) throws {
        directory = FileManager.default.temporaryDirectory.path + "/acme-\(UUID().uuidString)"
        (log, lines) = AsyncStream.makeStream()
        let (clock, challenges, sink, failing) = (clock, challenges, sink, FailingKinds())
        self.failing = failing
        var authorities: [String: TestAuthority] = [:]
        for host in hosts {
            var settings = TestAuthority.Settings(base: "http://\(host)")
            change(&settings)
            authorities[host] = TestAuthority(
                settings: settings, ca: try TestCA(now: clock.now), now: { clock.now }
            ) { kind, name, token, keyAuthorization in
                if failing.kinds.withLock({ $0.contains(kind) }) { return "the firewall says no" }
                switch kind {
                case "http-01":
                    return challenges.keyAuthorization(token: token) == keyAuthorization ? nil : "not found"
                case "tls-alpn-01":
                    return sink.challenges.withLock { $0[name] } == nil ? "not found" : nil
                default: return "not supported"
                }
            }
        }
        self.authorities = authorities
    }

    deinit { try? FileManager.default.removeItem(atPath: directory) }

    var authority: TestAuthority {
        get throws {
            guard let authority = authorities["ca.test"] else { throw ChannelError.eof }
            return authority
        }
    }

    func options(_ names: [String] = ["www.example.org"], hosts: [String] = ["ca.test"])
        -> AutomaticCertificates.Options
    {
        var options = AutomaticCertificates.Options(
            servers: hosts.compactMap { URLParts("http://\($0)/directory") }, dataDirectory: directory)
        options.names = names
        options.isAgreed = true
        return options
    }

    func certificates(_ options: AutomaticCertificates.Options, sink: RecordingSink? = nil) throws
        -> AutomaticCertificates
    {
        try AutomaticCertificates(
            options: options, sink: sink ?? self.sink, challenges: challenges,
            transport: MemoryTransport(authorities: authorities), clock: clock,
            logger: Logger(label: "test") { [lines] _ in LogListener(lines: lines) }, isListening: {})
    }

    /// Runs the service while the body does.
    func running(
        _ certificates: AutomaticCertificates, _ body: (inout AsyncStream<LogLine>.Iterator) async throws -> Void
    )
        async throws
    {
        certificates.installStored()
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await certificates.run() }
            var lines = log.makeAsyncIterator()
            try await body(&lines)
            group.cancelAll()
            try await group.waitForAll()
        }
    }
}
