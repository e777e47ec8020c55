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
    /// Routes that stand for an answer, until it is to be looked at again: with the number of that appointment, the last one made.
    private var known: [RouteKey: UInt64] = [:]
    private var lastAppointment: UInt64 = 0
    private var unknown: [RouteKey: NIODeadline] = [:]

    init(_ worker: Worker) { self.worker = worker }

    /// What becomes of a question.
    enum Answer {
        case route(Route)
        /// Kontrol knows no such kite.
        case unknown
        /// Kontrol did not answer, or too many questions are under way.
        case unavailable
        /// There is a kite, but no room for another route.
        case full
    }

    /// Finds a route for a request that has none; the exchange is told with ``ProxyExchange/resolved(_:_:)``, with its generation.
    func resolve(_ key: RouteKey, for exchange: ProxyExchange, _ generation: UInt64) {
        let now = worker.eventLoop.now
        guard worker.settings.resolver != nil, key.isName else {
            return exchange.resolved(.unknown, generation)
        }
        if let until = unknown[key] {
            if until > now { return exchange.resolved(.unknown, generation) }
            unknown[key] = nil
        }
        if waiting[key] != nil {
            waiting[key]?.append((exchange, generation))
            return
        }
        guard waiting.count < worker.settings.options.limits.pendingResolutions else {
            return exchange.resolved(.unavailable, generation)
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
            let found: Found
            do {
                let kites =
                    isID
                    ? try await resolver.kite(id: name).map { [$0] } ?? [] : try await resolver.kites(matching: query)
                found = .kites(kites)
            } catch {
                found = .unavailable("\(error)")
            }
            reference.run { $0.resolution.answered(key, found) }
        }
        if !accepted { answered(key, .unavailable("too many questions are under way")) }
    }

    private enum Found: Sendable {
        case kites([KontrolKite])
        case unavailable(String)
    }

    private func answered(_ key: RouteKey, _ found: Found) {
        let exchanges = waiting.removeValue(forKey: key) ?? []
        let known = worker.routes.find(asWritten: key)
        let answer: Answer
        switch found {
        case .kites(let kites):
            if let known, known.spec.kind != .kontrol {
                // A route that an agent or a registration has brought meanwhile is better than Kontrol's word.
                answer = .route(known)
            } else {
                answer = install(key, kites)
            }
            if case .unknown = answer { rememberUnknown(key) }
        case .unavailable(let cause):
            // What was known stays in use while Kontrol is away.
            answer = known.map { .route($0) } ?? .unavailable
            if known?.spec.kind == .kontrol { lookAgain(key) }
            worker.settings.logger.warning(
                "Kontrol could not be asked", metadata: ["route": "\(key)", "cause": "\(cause)"])
        }
        for (exchange, generation) in exchanges { exchange.resolved(answer, generation) }
    }

    /// Makes a route of what Kontrol has found, or changes the one made of an earlier answer.
    private func install(_ key: RouteKey, _ kites: [KontrolKite]) -> Answer {
        guard let first = kites.first else {
            worker.uninstall(key)
            return .unknown
        }
        guard known[key] != nil || known.count < worker.settings.options.limits.resolvedRoutes || makeRoom() else {
            return .full
        }
        var targets: [DirectTarget] = []
        var aliases: [RouteKey] = []
        for kite in kites.prefix(64) {
            guard let url = URLParts(kite.url) else { continue }
            // A kite that is reached through this gateway must not lead back here: the route of its agent serves it.
            if let own = ownRoute(url, kite) {
                if own != key, !aliases.contains(own) { aliases.append(own) }
                continue
            }
            let target = DirectTarget(url)
            if !targets.contains(target) { targets.append(target) }
        }
        worker.install(
            RouteSpec(key: key, kind: .kontrol, owner: first.identity.username, path: targets.first?.path ?? ""))
        guard let route = worker.routes.find(key) else { return .unknown }
        route.aliases = aliases
        route.remove { upstream in (upstream as? DirectUpstream).map { !targets.contains($0.target) } ?? false }
        let present = Set(route.upstreams.compactMap { ($0 as? DirectUpstream)?.target })
        for target in targets where !present.contains(target) {
            route.add(
                DirectUpstream(
                    target, dialer: worker.settings.dialer, eventLoop: worker.eventLoop, pool: worker.makePool()))
        }
        lookAgain(key)
        return .route(route)
    }

    /// The route of a kite whose address is one of this gateway's own.
    private func ownRoute(_ url: URLParts, _ kite: KontrolKite) -> RouteKey? {
        if kite.url.hasPrefix(worker.publicURL + "/") { return RouteKey(kite.identity.id) }
        let destination = worker.settings.directory.destination(
            authority: ByteBuffer(string: url.host), target: ByteBuffer(string: url.path))
        if case .route(let key, _, byHost: true) = destination { return key.detached }
        return nil
    }

    /// Forgets those that were used longest ago: several at once, since finding them takes as long as there are many.
    /// - Returns: false when requests wait for all of them.
    private func makeRoom() -> Bool {
        var idle: [(key: RouteKey, lastUsed: NIODeadline)] = []
        for key in known.keys {
            guard let route = worker.routes.find(key), route.spec.kind == .kontrol else {
                known[key] = nil
                continue
            }
            if route.parked.isEmpty { idle.append((key, route.lastUsed)) }
        }
        let limit = worker.settings.options.limits.resolvedRoutes
        idle.sort { $0.lastUsed < $1.lastUsed }
        for (key, _) in idle.prefix(max(known.count - limit + 1 + limit / 64, 0)) {
            known[key] = nil
            worker.uninstall(key)
        }
        return known.count < limit
    }

    private func lookAgain(_ key: RouteKey) {
        lastAppointment += 1
        let appointment = lastAppointment
        known[key] = appointment
        worker.routes.find(key)?.isUsed = false
        worker.eventLoop.assumeIsolated().scheduleTask(in: worker.settings.options.timeouts.resolved) { [weak self] in
            self?.expire(key, appointment)
        }
    }

    /// The answer is old: asks again while it goes on being used, forgets it otherwise. What is under way goes on.
    private func expire(_ key: RouteKey, _ appointment: UInt64) {
        guard known[key] == appointment else { return }
        guard let route = worker.routes.find(key), route.spec.kind == .kontrol else {
            known[key] = nil
            return
        }
        if route.isUsed, waiting[key] == nil, waiting.count < worker.settings.options.limits.pendingResolutions {
            waiting[key] = []
            ask(key)
        } else if route.isUsed {
            lookAgain(key)
        } else {
            known[key] = nil
            worker.uninstall(key)
        }
    }

    private func rememberUnknown(_ key: RouteKey) {
        known[key] = nil
        let now = worker.eventLoop.now
        let limit = worker.settings.options.limits.resolvedRoutes
        if unknown.count >= limit { unknown = unknown.filter { $0.value > now } }
        if unknown.count < limit { unknown[key] = now + worker.settings.options.timeouts.unresolved }
    }
}
