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
    /// Routes that stand for an answer, until it is to be looked at again.
    private var known: Set<RouteKey> = []
    private var unknown: [RouteKey: NIODeadline] = [:]

    init(_ worker: Worker) { self.worker = worker }

    /// Finds a route for a request that has none; the exchange is told with ``ProxyExchange/resolved(_:unavailable:_:)``, with its generation.
    func resolve(_ key: RouteKey, for exchange: ProxyExchange, _ generation: UInt64) {
        let now = worker.eventLoop.now
        guard worker.settings.resolver != nil, key.isName else {
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
        let key = key.detached
        waiting[key] = [(exchange, generation)]
        ask(key)
    }

    private func ask(_ key: RouteKey) {
        guard let resolver = worker.settings.resolver else { return }
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
            // A route that an agent or a registration has brought meanwhile is better than Kontrol's word.
            if route == nil || route?.spec.kind == .kontrol { route = install(key, kites) }
            if route == nil { rememberUnknown(key) }
        case .unavailable(let cause):
            // What was known stays in use while Kontrol is away.
            isUnavailable = true
            if route?.spec.kind == .kontrol { lookAgain(key) }
            worker.settings.logger.warning(
                "Kontrol could not be asked", metadata: ["route": "\(key)", "cause": "\(cause)"])
        }
        for (exchange, generation) in exchanges { exchange.resolved(route, unavailable: isUnavailable, generation) }
    }

    /// Makes a route of Kontrol's answer, or changes the one made of an earlier answer.
    private func install(_ key: RouteKey, _ kites: [KontrolKite]) -> Route? {
        guard let first = kites.first else {
            worker.uninstall(key)
            return nil
        }
        guard known.contains(key) || known.count < worker.settings.options.limits.resolvedRoutes else { return nil }
        var endpoints: Set<Endpoint> = []
        var path: String?
        for kite in kites.prefix(64) {
            // A kite that is reached through this gateway must not lead back here: its agent is away, and is waited for.
            guard !kite.url.hasPrefix(worker.publicURL + "/"), let url = URLParts(kite.url) else { continue }
            let own = url.path.hasSuffix("/") ? String(url.path.dropLast()) : url.path
            if path == nil { path = own }
            if own == path { endpoints.insert(url.endpoint) }
        }
        worker.install(RouteSpec(key: key, kind: .kontrol, owner: first.identity.username, path: path ?? ""))
        guard let route = worker.routes.find(key) else { return nil }
        route.remove { upstream in (upstream as? DirectUpstream).map { !endpoints.contains($0.endpoint) } ?? false }
        for upstream in route.upstreams {
            if let direct = upstream as? DirectUpstream { endpoints.remove(direct.endpoint) }
        }
        for endpoint in endpoints {
            route.add(
                DirectUpstream(
                    endpoint: endpoint, dialer: worker.settings.dialer, eventLoop: worker.eventLoop,
                    pool: worker.makePool()))
        }
        lookAgain(key)
        return route
    }

    private func lookAgain(_ key: RouteKey) {
        known.insert(key)
        worker.routes.find(key)?.isUsed = false
        worker.eventLoop.assumeIsolated().scheduleTask(in: worker.settings.options.timeouts.resolved) { [weak self] in
            self?.expire(key)
        }
    }

    /// The answer is old: asks again while it goes on being used, forgets it otherwise. What is under way goes on.
    private func expire(_ key: RouteKey) {
        guard let route = worker.routes.find(key), route.spec.kind == .kontrol else {
            known.remove(key)
            return
        }
        if route.isUsed, waiting[key] == nil, waiting.count < worker.settings.options.limits.pendingResolutions {
            waiting[key] = []
            ask(key)
        } else if route.isUsed {
            lookAgain(key)
        } else {
            known.remove(key)
            worker.uninstall(key)
        }
    }

    private func rememberUnknown(_ key: RouteKey) {
        known.remove(key)
        let now = worker.eventLoop.now
        let limit = worker.settings.options.limits.resolvedRoutes
        if unknown.count >= limit { unknown = unknown.filter { $0.value > now } }
        if unknown.count < limit { unknown[key] = now + worker.settings.options.timeouts.unresolved }
    }
}
