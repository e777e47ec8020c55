/// What each tunnel of a new session gets: its names, when they are the user's to have, and where visitors reach it.
import KiteCore
import KiteTunnel
import Logging

extension RouteBoard {
    func grant(_ tunnel: TunnelRequest, index: UInt16, agent: String, username: String, session: String) async
        -> (TunnelGrant, TunnelBinding?, PublicPort?)
    {
        let name = tunnel.name?.lowercased() ?? Self.name(agent: agent, tunnel: index)
        func refused(_ status: Int, _ reason: String) -> (TunnelGrant, TunnelBinding?, PublicPort?) {
            (TunnelGrant(name: name, refusal: TunnelRefusal(status: status, reason: reason)), nil, nil)
        }
        guard index < options.tunnels.tunnelsPerSession else {
            return refused(403, "an agent may have \(options.tunnels.tunnelsPerSession) tunnels here; start another")
        }
        guard Self.isLabel(name) else {
            return refused(
                403, "\"\(name)\" cannot be a name: 1 to 63 of a-z, 0-9 and -, not beginning or ending with -")
        }
        if tunnel.kind == .tcp, options.tunnels.tcpPorts == nil {
            return refused(403, "this gateway gives no ports to tcp tunnels")
        }
        var wanted: [(key: RouteKey, term: ClaimBook.Term)] = [
            (RouteKey(name), tunnel.name == nil || RouteKey(name).isKiteID ? .passing : .lasting)
        ]
        if let id = tunnel.kiteID {
            let key = RouteKey(id)
            guard key.isKiteID else { return refused(403, "the kite's id is no UUID") }
            wanted.append((key, .passing))
        }
        do {
            try await claim(wanted, username, opening: session)
        } catch let refusal as TunnelRefusal {
            return (TunnelGrant(name: name, refusal: refusal), nil, nil)
        } catch {
            return refused(503, "the claim could not be recorded; please try again")
        }
        if tunnel.kind == .tcp, let range = options.tunnels.tcpPorts {
            do throws(TunnelRefusal) {
                let port = try await openPort(
                    RouteKey(name), username: username, session: session, tunnel: index, in: range)
                return (
                    TunnelGrant(name: name, url: portURL(port.number), port: port.number),
                    TunnelBinding(index: index, keys: []), port
                )
            } catch {
                return (TunnelGrant(name: name, refusal: error), nil, nil)
            }
        }
        let keys = wanted.map(\.key)
        let path = tunnel.kind == .kite ? Self.path(tunnel.path ?? "/kite") : ""
        for key in keys {
            let spec = RouteSpec(key: key, kind: .tunnel, owner: username, path: path)
            tunnelSpecs[key] = spec
            await install(spec)
        }
        return (TunnelGrant(name: name, url: url(of: name, path: path)), TunnelBinding(index: index, keys: keys), nil)
    }

    /// Enters names for a user and records those that last.
    /// - Parameter session: the session that is being opened with them, if it is one.
    /// - Throws: ``TunnelRefusal``, or what the store threw.
    func claim(
        _ wanted: [(key: RouteKey, term: ClaimBook.Term)], _ username: String, opening session: String? = nil
    ) async throws {
        for (key, _) in wanted where key.isKiteID { try await checkOwner(of: key, username) }
        for (key, _) in wanted where kiteTunnels.isName(key, ofAnotherThan: username) {
            throw TunnelRefusal(status: 409, reason: "\"\(key)\" is the name of another user's kite")
        }
        switch book.take(wanted, for: username, isServed: isServed) {
        case .heldByAnother(let key): throw TunnelRefusal(status: 409, reason: "\"\(key)\" belongs to another user")
        case .full:
            throw TunnelRefusal(
                status: 429, reason: "you hold \(options.tunnels.namesPerUser) names already, which is the limit here")
        case .taken(let unrecorded, let dropped):
            if let session { opening[session]?.names.formUnion(wanted.map(\.key)) }
            for key in dropped {
                tunnelSpecs[key] = nil
                for worker in workers { worker.run { $0.uninstall(key) } }
            }
            for key in unrecorded { try await record(key, username) }
            for (key, _) in wanted { await noteUse(of: key) }
        }
    }

    /// Makes sure that Kontrol does not know a kite's id as another user's: who claims an id here gets its visitors.
    private func checkOwner(of key: RouteKey, _ username: String) async throws(TunnelRefusal) {
        guard let resolver else { return }
        let known: KontrolKite?
        do {
            known = try await resolver.kite(id: key.description)
        } catch {
            if book.owner(of: key) == username { return }
            logger.warning(
                "Kontrol could not be asked whose a kite is",
                metadata: ["kite": "\(key)", "user": "\(username)", "cause": "\(error)"])
            throw TunnelRefusal(
                status: 503, reason: "the registry cannot be asked now whose kite \(key) is; please try again",
                retryAfter: 1)
        }
        guard let known, known.identity.username != username else { return }
        throw TunnelRefusal(status: 409, reason: "\"\(key)\" belongs to another user")
    }

    private func record(_ key: RouteKey, _ username: String) async throws {
        let time = now()
        do {
            try await claims.save(Claim(name: key.description, username: username, lastUsed: time))
            book.recorded(key, at: time)
        } catch {
            book.notRecorded(key)
            logger.error("a claim could not be recorded", metadata: ["name": "\(key)", "cause": "\(error)"])
            throw error
        }
    }

    /// Records that the owner of a name uses it, when that has not been done for a while.
    func noteUse(of key: RouteKey) async {
        guard let claim = book.used(key, at: now()) else { return }
        do {
            try await claims.save(claim)
        } catch {
            logger.warning("a claim's use could not be recorded", metadata: ["name": "\(key)", "cause": "\(error)"])
        }
    }

    /// Whether a session or a registration stands behind a route.
    func isServed(_ key: RouteKey) -> Bool {
        direct[key] != nil || sessions.values.contains { $0.names.contains(key) }
            || opening.values.contains { $0.names.contains(key) } || kiteTunnels.find(key) != nil
    }

    func isTunnelled(_ key: RouteKey) -> Bool {
        sessions.values.contains { $0.bindings.contains { $0.keys.contains(key) } }
    }
}
