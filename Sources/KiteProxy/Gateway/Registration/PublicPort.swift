/// The public port of a tcp tunnel: each connection becomes a stream to the agent.
import KiteHTTP
import KiteTunnel
import NIOCore

/// A listener that belongs to one tunnel of one session.
final class PublicPort: Sendable {
    let number: Int
    /// The tunnel it belongs to.
    let name: RouteKey
    private let listener: Listener

    private init(number: Int, name: RouteKey, listener: Listener) {
        self.number = number
        self.name = name
        self.listener = listener
    }

    /// Opens a port that nobody else may have; 0 lets the system choose.
    static func open(
        _ port: Int, host: String, name: RouteKey, session: String, tunnel: UInt16, workers: [WorkerReference]
    ) async throws -> PublicPort {
        let address = try SocketAddress.makeAddressResolvingHost(host, port: port)
        var configuration = Listener.Configuration(limiter: workers.first?.limiter)
        configuration.sharesPort = false
        // One loop accepts: which loops have lanes of the session is known only then.
        let listener = try await Listener.bind(
            to: address, loops: workers.prefix(1).map(\.eventLoop), configuration: configuration,
            onEvent: { workers.first?.here.notAccepted($0) },
            onAccept: { workers.first?.here.serve($0, session: session, tunnel: tunnel) })
        return PublicPort(number: listener.address.port ?? port, name: name, listener: listener)
    }

    func close() async { await listener.close() }
}

extension Worker {
    /// Joins a visitor's connection with a new stream to the agent of a session.
    func serve(_ visitor: SocketTransport, session: String, tunnel: UInt16) {
        guard settings.pressure.shortage == nil else {
            return visitor.abort(TransportError(.limitExceeded, "The gateway is short of memory or descriptors"))
        }
        visitor.setReading(false)
        let opening = StreamOpening(kind: .tcp, tunnel: tunnel, clientAddress: visitor.remoteAddress)
        if let lane = connectedLane(session: session) {
            return join(visitor, Self.stream(lane, opening))
        }
        let here = eventLoop
        let waiting = NIOLoopBound(visitor, eventLoop: here)
        let reference = WorkerReference(self)
        guard !neighbours.isEmpty else { return join(visitor, nil) }
        // Asks the other loops one after the other, the first with a lane takes it.
        Self.ask(neighbours[...], session: session, opening: opening, loop: here) { transport in
            reference.here.join(waiting.value, transport)
        }
    }

    private static func ask(
        _ neighbours: ArraySlice<WorkerReference>, session: String, opening: StreamOpening, loop: any EventLoop,
        done: @escaping @Sendable ((any ByteTransport)?) -> Void
    ) {
        guard let next = neighbours.first else { return loop.execute { done(nil) } }
        next.run { worker in
            guard let lane = worker.connectedLane(session: session), let stream = stream(lane, opening) else {
                return ask(neighbours.dropFirst(), session: session, opening: opening, loop: loop, done: done)
            }
            CrossLoopTransport.bridge(stream, to: loop) { done($0) }
        }
    }

    private static func stream(_ lane: TunnelLane, _ opening: StreamOpening) -> (any ByteTransport)? {
        do throws(TransportError) { return try lane.openStream(opening) } catch { return nil }
    }

    private func join(_ visitor: SocketTransport, _ stream: (any ByteTransport)?) {
        guard let stream else { return visitor.abort(TransportError(.laneLost, "The service is away")) }
        let end = RelayEnd()
        let relay = TransportRelay(visitor, stream) { [weak self] outcome in
            if let relay = end.relay { self?.untrack(relay, outcome) }
            end.relay = nil
        }
        end.relay = relay
        track(relay)
        visitor.setReading(stream.isWritable)
    }
}

/// Lets the end of a relay find the relay.
final class RelayEnd {
    var relay: TransportRelay?
}
