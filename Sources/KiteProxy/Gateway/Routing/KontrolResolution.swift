/// Asks Kontrol for kites that no agent and no registration has brought here, and remembers the answers for a while.
import KiteCore
import KiteDialing
import KiteHTTP
import KiteSupport
import Logging
import NIOCore

/// The questions of one event loop and their answers. Several requests for one unknown kite share a question.
final class KontrolResolution {
    private unowned let worker: Worker
    private var waiting: [RouteKey: [(exchange: ProxyExchange, generation: UInt64)]] = [:]
    private var known: [RouteKey: NIODeadline] = [:]
    private var unknown: [RouteKey: NIODeadline] = [:]

    init(_ worker: Worker) { self.worker = worker }

    /// Finds a route for a request that has none; the exchange is told with ``ProxyExchange/resolved(_:unavailable:_:)``, with its generation.
    func resolve(_ key: RouteKey, for exchange: ProxyExchange, _ generation: UInt64) {
        let now = worker.eventLoop.now
        guard let resolver = worker.settings.resolver else {
            return exchange.resolved(nil, unavailable: false, generation)
        }
        if let until = unknown[key] {
            if until > now { return exchange.resolved(nil, unavailable: false, generation) }
            unknown[key] = nil
        }
        if waiting[key] != nil {
            waiting[key]?.append((exchange, generation))
            return
        }
        guard waiting.count < worker.settings.options.limits.pendingResolutions else {
            return exchange.resolved(nil, unavailable: true, generation)
        }
        waiting[key] = [(exchange, generation)]
        let name = key.description
        let isID = key.isKiteID
        let reference = WorkerReference(worker)
        let query = KontrolQuery(
            username: worker.settings.options.kontrolUsername, environment: worker.settings.options.kontrolEnvironment,
            name: name)
        let accepted = worker.settings.pool.spawn {
            let answer: Answer
            do {
                let kites =
                    isID
                    ? try await resolver.kite(id: name).map { [$0] } ?? [] : try await resolver.kites(matching: query)
                answer = .kites(kites)
            } catch {
                answer = .unavailable("\(error)")
            }
            reference.run { $0.resolution.answered(key, answer) }
        }
        if !accepted { answered(key, .unavailable("too many questions are under way")) }
    }

    private enum Answer: Sendable {
        case kites([KontrolKite])
        case unavailable(String)
    }

    private func answered(_ key: RouteKey, _ answer: Answer) {
        let exchanges = waiting.removeValue(forKey: key) ?? []
        var route = worker.routes.find(key)
        var isUnavailable = false
        switch answer {
        case .kites(let kites):
            if route == nil { route = install(key, kites) }
            if route == nil { remember(&unknown, key, for: worker.settings.options.timeouts.unresolved) }
        case .unavailable(let cause):
            isUnavailable = true
            worker.settings.logger.warning(
                "Kontrol could not be asked", metadata: ["route": "\(key)", "cause": "\(cause)"])
        }
        for (exchange, generation) in exchanges { exchange.resolved(route, unavailable: isUnavailable, generation) }
    }

    private func install(_ key: RouteKey, _ kites: [KontrolKite]) -> Route? {
        var endpoints: [(Endpoint, String)] = []
        for kite in kites.prefix(64) {
            // A kite that is reached through this gateway, and whose agent is away, must not lead back here.
            guard !kite.url.hasPrefix(worker.settings.publicURL + "/"), let url = URLParts(kite.url) else { continue }
            endpoints.append((url.endpoint, url.path == "/" ? "" : url.path))
        }
        guard let (_, path) = endpoints.first, known.count < worker.settings.options.limits.resolvedRoutes else {
            return nil
        }
        worker.install(RouteSpec(key: key, kind: .kontrol, owner: kites.first?.identity.username ?? "", path: path))
        guard let route = worker.routes.find(key) else { return nil }
        for (endpoint, otherPath) in endpoints where otherPath == path {
            route.add(
                DirectUpstream(
                    endpoint: endpoint, dialer: worker.settings.dialer, eventLoop: worker.eventLoop,
                    pool: worker.makePool()))
        }
        remember(&known, key, for: worker.settings.options.timeouts.resolved)
        worker.eventLoop.assumeIsolated().scheduleTask(in: worker.settings.options.timeouts.resolved) { [weak self] in
            self?.expire(key)
        }
        return route
    }

    /// The answer is too old: the next request asks again. What is under way goes on.
    private func expire(_ key: RouteKey) {
        known[key] = nil
        if worker.routes.find(key)?.spec.kind == .kontrol { worker.uninstall(key) }
    }

    private func remember(_ answers: inout [RouteKey: NIODeadline], _ key: RouteKey, for time: TimeAmount) {
        let now = worker.eventLoop.now
        if answers.count >= worker.settings.options.limits.resolvedRoutes {
            answers = answers.filter { $0.value > now }
        }
        if answers.count < worker.settings.options.limits.resolvedRoutes { answers[key] = now + time }
    }
}
