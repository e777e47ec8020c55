/// What the event loops tell each other of the lanes they have.
import NIOCore

extension Worker {
    /// After a change of this loop's lanes for a route.
    func tellNeighbours(of key: RouteKey) {
        guard !neighbours.isEmpty else { return }
        let lanes = routes.find(key)?.lanes ?? LanesHere()
        let index = index
        for neighbour in neighbours { neighbour.run { $0.neighbour(index, has: lanes, for: key) } }
    }

    /// Another event loop has got, or lost, lanes for a route.
    private func neighbour(_ index: Int, has lanes: LanesHere, for key: RouteKey) {
        guard let route = routes.find(key), let reference = neighbours.first(where: { $0.index == index }) else {
            return
        }
        var fresh = lanes.connected
        var gone: [NeighbourUpstream] = []
        for case let known as NeighbourUpstream in route.upstreams where known.loopIndex == index {
            if let place = fresh.firstIndex(of: known.session) {
                fresh.remove(at: place)
                known.isLost(false)
            } else if lanes.lost.contains(known.session) {
                known.isLost(true)
                stalled.add(known)
            } else {
                gone.append(known)
            }
        }
        route.remove { upstream in gone.contains { $0 === upstream } }
        for session in fresh {
            route.add(
                NeighbourUpstream(
                    neighbour: reference, route: key, session: session, eventLoop: eventLoop, pool: makePool()))
        }
        if !lanes.connected.isEmpty { unpark(route) }
    }
}
