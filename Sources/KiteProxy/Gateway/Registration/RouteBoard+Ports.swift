/// Public ports of tcp tunnels: which tunnel gets which, and how one comes back to its tunnel.
import KiteTunnel
import Logging

extension RouteBoard {
    /// Opens a port for a tunnel of a session: the one that the tunnel had before, where it is free.
    /// - Throws: ``TunnelRefusal``.
    func openPort(_ name: RouteKey, username: String, session: String, tunnel: UInt16, in range: ClosedRange<Int>)
        async throws(TunnelRefusal) -> PublicPort
    {
        for other in ports.sessions(holding: name, of: username) { await takeBack(name, from: other) }
        guard ports.hasRoom(for: username) else {
            throw TunnelRefusal(
                status: 429,
                reason: "you have \(options.tunnels.portsPerUser) public ports already, which is the limit here")
        }
        let holder = PortBook.Holder(name: name, username: username, session: session)
        var failure = "all ports are taken"
        for candidate in ports.candidates(for: name, in: range) {
            guard let place = ports.take(candidate, for: holder) else { continue }
            do {
                let port = try await PublicPort.open(
                    candidate, host: options.tunnels.tcpHost, name: name, session: session, tunnel: tunnel,
                    workers: workers)
                ports.opened(place, as: port.number)
                return port
            } catch {
                ports.release(place)
                failure = "\(error)"
            }
        }
        logger.warning(
            "no public port could be opened",
            metadata: ["name": "\(name)", "user": "\(username)", "cause": "\(failure)"])
        throw TunnelRefusal(status: 503, reason: "no port could be opened: \(failure)", retryAfter: 10)
    }

    /// Closes all ports, before agents are told to go: they want them of the gateway that takes this one's place.
    func closePorts() async {
        let open = sessions.values.flatMap(\.ports)
        for id in sessions.keys { sessions[id]?.ports = [] }
        for port in open { await close(port) }
    }

    func close(_ port: PublicPort) async {
        await port.close()
        ports.release(port.number)
    }

    /// Takes a tunnel's port from a session whose agent does not serve it any more: it has been started anew under the same name before
    /// the old session has ended.
    private func takeBack(_ name: RouteKey, from id: String) async {
        var isAttached = false
        for worker in workers {
            let lanes = await worker.ask { ($0.hasLane(session: id), $0.connectedLane(session: id) != nil) }
            if lanes?.1 == true { return }
            isAttached = isAttached || lanes?.0 == true
        }
        // Without a lane it has only just been opened, or is about to end.
        guard isAttached, let place = sessions[id]?.ports.firstIndex(where: { $0.name == name }),
            let port = sessions[id]?.ports.remove(at: place)
        else { return }
        ports.remember(port.number, of: name)
        await close(port)
        logger.info(
            "public port handed over", metadata: ["name": "\(name)", "session": "\(id)", "port": "\(port.number)"])
    }

    /// Where visitors reach a public port. A host that stands for all addresses of the machine is none that can be visited.
    func portURL(_ port: Int) -> String {
        let given = options.tunnels.tcpHost
        var host = given
        if ["0.0.0.0", "::", "", "*"].contains(given) {
            host = options.publicURL == nil ? options.domain ?? Self.host(of: publicURL) : Self.host(of: publicURL)
        }
        return "tcp://\(host.contains(":") && !host.hasPrefix("[") ? "[\(host)]" : host):\(port)"
    }

    /// The host of a URL, with the brackets of an IPv6 address.
    static func host(of url: String) -> String {
        let rest = url.firstRange(of: "://").map { url[$0.upperBound...] } ?? url[...]
        let authority = rest.prefix { $0 != "/" }
        return String(authority.dropLast(portSuffix(of: String(authority)).count))
    }
}
