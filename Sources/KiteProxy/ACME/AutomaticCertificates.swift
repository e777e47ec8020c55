/// Certificates that come by themselves: obtained for configured names and on demand, kept, renewed in time.
import Foundation
package import KiteDialing
package import Logging
package import NIOCore
import ServiceLifecycle
import Synchronization

/// Run it as a service. What was kept from before is installed by ``installStored()``, which should come before anybody connects.
package final class AutomaticCertificates: Service {
    private enum Event: Sendable {
        case wanted(String)
        case allowed(String)
        case refused(String)
        case finished
        case tick(Date)
    }

    private struct State {
        var schedule: RenewalSchedule
        /// What is being served.
        var installed: [String: IssuedCertificate] = [:]
        var obtained: UInt64 = 0
        var failures: [ACMEFailure.Code: UInt64] = [:]
        /// Names that visitors asked for and that are being looked at, or were refused a short while ago.
        var asked: [String: Date] = [:]
        /// Handshakes that wait for a certificate.
        var waiting: [String: [EventLoopPromise<Void>]] = [:]
        var waitingCount = 0
        /// Whether the service runs, so that whoever waits is told at the end.
        var isRunning = false
    }

    /// Names that are remembered to have been asked for.
    private static let maximumAsked = 4096
    /// Handshakes that may wait at a time, and for one name.
    private static let maximumWaiting = 4096
    private static let maximumWaitingForName = 64
    /// How long a name that is not allowed is not looked at again, in seconds.
    private static let refusedTime: TimeInterval = 60
    /// A name on demand that has never had a certificate is given up after so many failures, for so long, in seconds.
    private static let mostFailuresOnDemand = 3
    private static let givenUpTime: TimeInterval = 24 * 3600
    /// The longest sleep, in seconds, so that few are under way however often something else is due first.
    private static let longestSleep: TimeInterval = 300

    private let options: Options
    private let sink: any CertificateSink
    private let files: CertificateFiles
    private let issuer: CertificateIssuer
    private let clock: any CertificateClock
    private let logger: Logger
    private let isListening: @Sendable () async throws -> Void
    private let state: Mutex<State>
    private let events: AsyncStream<Event>
    private let send: AsyncStream<Event>.Continuation

    /// - Parameters:
    ///   - sink: serves the certificates.
    ///   - challenges: is read by the listeners.
    ///   - dialer: reaches the servers.
    ///   - isListening: returns once challenges can be answered.
    /// - Throws: ``ACMEFailure`` when the data directory cannot be used.
    package convenience init(
        options: Options, sink: any CertificateSink, challenges: ChallengeTable, dialer: Dialer,
        clock: any CertificateClock = SystemCertificateClock(), logger: Logger,
        isListening: @escaping @Sendable () async throws -> Void
    ) throws {
        try self.init(
            options: options, sink: sink, challenges: challenges,
            transport: HTTPACMETransport(dialer, userAgent: options.userAgent), clock: clock, logger: logger,
            isListening: isListening)
    }

    init(
        options: Options, sink: any CertificateSink, challenges: ChallengeTable, transport: any ACMETransport,
        clock: any CertificateClock, logger: Logger, isListening: @escaping @Sendable () async throws -> Void
    ) throws(ACMEFailure) {
        self.options = options
        self.sink = sink
        self.clock = clock
        self.logger = logger
        self.isListening = isListening
        files = try CertificateFiles(dataDirectory: options.dataDirectory)
        issuer = CertificateIssuer(
            files: files, challenges: challenges, sink: sink, transport: transport, clock: clock,
            terms: .init(
                contacts: options.contacts, isAgreed: options.isAgreed, externalAccount: options.externalAccount,
                kinds: options.kinds), time: options.orderTime)
        state = Mutex(
            State(
                schedule: RenewalSchedule(
                    namesPerHour: options.onDemand?.namesPerHour ?? 0, onDemandNames: options.onDemand?.names ?? 0)))
        (events, send) = AsyncStream.makeStream(bufferingPolicy: .unbounded)
    }

    // MARK: What others ask

    /// Of all names, in order.
    package var status: [Status] {
        state.withLock { state in
            state.schedule.entries.map { name, entry in
                Status(
                    name: name, notAfter: entry.notAfter, due: entry.due, failures: entry.failures,
                    lastFailure: entry.lastFailure?.time)
            }
        }.sorted { $0.name < $1.name }
    }

    /// Certificates obtained since the start, and failures by cause.
    package var counts: (obtained: UInt64, failures: [ACMEFailure.Code: UInt64]) {
        state.withLock { ($0.obtained, $0.failures) }
    }

    /// A visitor asks for a name without a certificate. Cheap, and may be asked from any thread and as often as one likes.
    /// - Returns: completed once there is a certificate, or it has turned out that there will be none for now; nil: it is no use waiting.
    package func wanted(_ name: String, on eventLoop: any EventLoop) -> EventLoopFuture<Void>? {
        guard HostName.isValid(name) else { return nil }
        let now = clock.now
        var isNew = false
        let promise: EventLoopPromise<Void>? = state.withLock { state in
            guard state.isRunning else { return nil }
            if let entry = state.schedule.entries[name] {
                // A name that has failed is obtained in its own time.
                guard entry.isRunning || entry.failures == 0 && entry.notAfter == nil else { return nil }
            } else {
                guard let onDemand = options.onDemand, onDemand.isConceivable(name) else { return nil }
                if let end = state.asked[name], end > now {
                    guard state.waiting[name] != nil else { return nil }
                } else {
                    if state.asked.count >= Self.maximumAsked { state.asked = state.asked.filter { $0.value > now } }
                    if state.asked.count >= Self.maximumAsked {
                        let waiting = state.waiting
                        state.asked = state.asked.filter { waiting[$0.key] != nil }
                    }
                    guard state.asked.count < Self.maximumAsked else { return nil }
                    state.asked[name] = now.addingTimeInterval(Self.refusedTime)
                    isNew = true
                }
            }
            guard state.waitingCount < Self.maximumWaiting,
                state.waiting[name, default: []].count < Self.maximumWaitingForName
            else { return nil }
            let promise = eventLoop.makePromise(of: Void.self)
            state.waiting[name, default: []].append(promise)
            state.waitingCount += 1
            return promise
        }
        if isNew { send.yield(.wanted(name)) }
        return promise?.futureResult
    }

    /// Whoever waits for a name looks again.
    private func release(_ name: String) {
        let promises = state.withLock { state in
            let promises = state.waiting.removeValue(forKey: name) ?? []
            state.waitingCount -= promises.count
            return promises
        }
        for promise in promises { promise.succeed() }
    }

    private func releaseAll() {
        let promises = state.withLock { state in
            let promises = state.waiting.values.flatMap(\.self)
            state.waiting = [:]
            state.waitingCount = 0
            state.isRunning = false
            return promises
        }
        for promise in promises { promise.succeed() }
    }

    /// Serves what was kept from before and begins to plan. Call it once, before ``run()``.
    package func installStored() {
        let now = clock.now
        state.withLock { state in
            for name in options.names { state.schedule.add(name, origin: .configured, at: now) }
        }
        var names = options.names
        if let onDemand = options.onDemand {
            names += files.names(limit: onDemand.names).filter { !options.names.contains($0) }
        }
        for name in names {
            do throws(ACMEFailure) {
                guard let stored = try files.certificate(name) else { continue }
                guard stored.notAfter > now else {
                    if !options.names.contains(name) { try files.remove(name) }
                    continue
                }
                if !options.names.contains(name) {
                    state.withLock { $0.schedule.add(name, origin: .onDemand, at: now) }
                }
                try install(stored, name)
            } catch {
                logger.error(
                    "A certificate that was kept cannot be used; another is obtained",
                    metadata: ["name": "\(name)", "cause": "\(error.message)"])
            }
        }
    }

    // MARK: The service

    package func run() async throws {
        await cancelWhenGracefulShutdown {
            do { try await self.isListening() } catch { return }
            self.state.withLock { $0.isRunning = true }
            defer { self.releaseAll() }
            await withDiscardingTaskGroup { group in
                var running = 0
                var armed: Date?
                self.send.yield(.tick(.distantPast))
                for await event in self.events {
                    switch event {
                    case .wanted(let name): group.addTask { await self.consider(name) }
                    case .allowed(let name): self.accept(name)
                    case .refused(let name): self.release(name)
                    case .finished: running -= 1
                    case .tick(let time): if armed == time { armed = nil }
                    }
                    while running < self.options.orders, let name = self.take() {
                        running += 1
                        group.addTask {
                            await self.attempt(name)
                            self.send.yield(.finished)
                        }
                    }
                    guard running < self.options.orders, let due = self.state.withLock({ $0.schedule.nextDue }) else {
                        continue
                    }
                    let next = min(due, self.clock.now.addingTimeInterval(Self.longestSleep))
                    guard armed.map({ next < $0 }) ?? true else { continue }
                    armed = next
                    group.addTask {
                        guard (try? await self.clock.sleep(until: next)) != nil else { return }
                        self.send.yield(.tick(next))
                    }
                }
            }
        }
    }

    private func take() -> String? {
        let now = clock.now
        return state.withLock { $0.schedule.take(at: now) }
    }

    /// Whether a name that a visitor asked for may have a certificate.
    private func consider(_ name: String) async {
        guard let onDemand = options.onDemand else { return }
        send.yield(await onDemand.isAllowed(name) ? .allowed(name) : .refused(name))
    }

    private func accept(_ name: String) {
        let now = clock.now
        let outcome = state.withLock { state in
            let outcome = state.schedule.demand(name, at: now)
            if outcome == .accepted { state.asked[name] = nil }
            return outcome
        }
        switch outcome {
        case .accepted, .known: return
        case .overBudget:
            logger.warning(
                "No certificate on demand: too many new names within an hour", metadata: ["name": "\(name)"])
        case .full:
            logger.warning("No certificate on demand: too many names in all", metadata: ["name": "\(name)"])
        }
        release(name)
    }

    private func jitter() -> Double { Double.random(in: -1...1) }

    /// Obtains or renews a certificate, unless another process has done so or is at it.
    private func attempt(_ name: String) async {
        let entry = state.withLock { $0.schedule.entries[name] }
        guard let entry else { return }
        if entry.origin == .onDemand, await options.onDemand?.isAllowed(name) != true {
            logger.notice(
                "A certificate on demand is not renewed: its name is not allowed any more",
                metadata: ["name": "\(name)"])
            state.withLock { state in
                state.schedule.forget(name)
                state.installed[name] = nil
            }
            sink.remove(name)
            return release(name)
        }
        do throws(ACMEFailure) {
            guard let lock = try files.lock(name) else {
                let time = clock.now.addingTimeInterval(RenewalSchedule.lockRetry)
                return state.withLock { $0.schedule.postpone(name, until: time) }
            }
            defer { withExtendedLifetime(lock) {} }
            if takeOver(name) { return }
            try await obtain(name, failures: entry.failures)
        } catch {
            failed(name, error)
        }
    }

    /// Serves what another process has obtained meanwhile.
    /// - Returns: whether there is something that is not to be renewed yet.
    private func takeOver(_ name: String) -> Bool {
        let now = clock.now
        // What cannot be read or served is replaced.
        guard let stored = try? files.certificate(name),
            RenewalSchedule.renewal(notBefore: stored.notBefore, notAfter: stored.notAfter, jitter: -1) > now
        else { return false }
        let isServed = state.withLock { $0.installed[name] == stored }
        if isServed { return false }
        do { try install(stored, name) } catch { return false }
        return true
    }

    private func install(_ certificate: IssuedCertificate, _ name: String) throws(ACMEFailure) {
        do { try sink.install(certificate, for: name) } catch {
            throw ACMEFailure(.badCertificate, "the certificate cannot be served: \(error)")
        }
        let jitter = jitter()
        state.withLock { state in
            state.installed[name] = certificate
            state.schedule.obtained(
                name, notBefore: certificate.notBefore, notAfter: certificate.notAfter, jitter: jitter)
        }
        release(name)
    }

    private func obtain(_ name: String, failures: Int) async throws(ACMEFailure) {
        var last: ACMEFailure?
        for server in options.servers {
            let now = clock.now
            if state.withLock({ $0.schedule.isBlocked(name, server: server.description, at: now) }) { continue }
            do throws(ACMEFailure) {
                let certificate = try await issuer.obtain(name, from: server, rotation: failures)
                do throws(ACMEFailure) {
                    try files.save(certificate, name)
                } catch {
                    logger.error(
                        "The certificate that was obtained could not be kept: the next start obtains another",
                        metadata: ["name": "\(name)", "cause": "\(error.message)"])
                }
                try install(certificate, name)
                state.withLock { $0.obtained += 1 }
                logger.notice(
                    "Certificate obtained",
                    metadata: [
                        "name": "\(name)", "server": "\(server.authority)",
                        "expires": "\(certificate.notAfter.formatted(.iso8601))",
                    ])
                return
            } catch {
                if Task.isCancelled { throw error }
                last = error
                state.withLock { state in
                    state.failures[error.code, default: 0] += 1
                    if let time = error.retryAfter {
                        state.schedule.block(name, server: server.description, until: time)
                    }
                }
                if options.servers.count > 1 {
                    logger.warning(
                        "A server gives no certificate",
                        metadata: [
                            "name": "\(name)", "server": "\(server.authority)", "cause": "\(error.message)",
                        ])
                }
            }
        }
        // Others may be asked before the one that wants to be left alone.
        guard var failure = last else {
            throw ACMEFailure(.rateLimited, "every server wants to be left alone for a while")
        }
        if options.servers.count > 1 { failure = ACMEFailure(failure.code, failure.message) }
        throw failure
    }

    private func failed(_ name: String, _ failure: ACMEFailure) {
        guard !Task.isCancelled else { return }
        let (now, jitter) = (clock.now, jitter())
        let (next, notAfter) = state.withLock { state -> (Date?, Date?) in
            let next = state.schedule.failed(name, failure, jitter: jitter, at: now)
            guard let entry = state.schedule.entries[name] else { return (next, nil) }
            // Whoever invents names must not keep the authority busy with them for ever.
            if entry.origin == .onDemand, entry.notAfter == nil, entry.failures >= Self.mostFailuresOnDemand {
                let end = max(now.addingTimeInterval(Self.givenUpTime), entry.due)
                state.schedule.forget(name)
                state.asked[name] = end
                return (end, nil)
            }
            return (next, entry.notAfter)
        }
        release(name)
        let isUrgent = notAfter.map { $0.timeIntervalSince(now) < 3 * 24 * 3600 } ?? true
        logger.log(
            level: isUrgent ? .error : .warning, "No certificate was obtained",
            metadata: [
                "name": "\(name)", "cause": "\(failure.message)", "code": "\(failure.code.rawValue)",
                "next": "\(next?.formatted(.iso8601) ?? "-")",
                "present one expires": "\(notAfter?.formatted(.iso8601) ?? "there is none")",
            ])
    }
}
