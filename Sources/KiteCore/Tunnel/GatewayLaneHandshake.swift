/// The gateway's half of a lane's beginning: waits for HELLO on a connection that was just upgraded, and answers it.
package import KiteHTTP
package import KiteSupport
package import NIOCore

/// Reads HELLO under a deadline and a size limit. ``onHello`` is called with it and may answer later, by exactly one of
/// ``accept(_:configuration:delegate:)``, ``resume(_:welcome:peerReceived:)`` and ``refuse(_:)``. Event-loop bound.
package final class GatewayLaneHandshake {
    package let eventLoop: any EventLoop
    /// HELLO has arrived. Taken back once the handshake is over.
    package var onHello: ((GatewayLaneHandshake, AgentHello) -> Void)?
    /// The connection ended, was silent or spoke nonsense before it became a lane; it is closed already.
    package var onFailure: ((TransportError) -> Void)?

    private let transport: any ByteTransport
    private let wheel: TimerWheel
    private var reader = HandshakeReader()
    private var timer: WheelTimer?
    private var isOver = false

    /// Keeps itself alive until it is over. Set the closures before returning to the loop.
    /// - Parameters:
    ///   - wheel: The loop's timers; those that all transports of the loop share where nil.
    ///   - timeout: Until HELLO must have arrived, and again until it must have been answered.
    package init(transport: any ByteTransport, wheel: TimerWheel? = nil, timeout: TimeAmount = .seconds(10)) {
        eventLoop = transport.eventLoop
        self.transport = transport
        self.wheel = wheel ?? LoopFlusher.on(transport.eventLoop).wheel
        let timer = WheelTimer(wheel: self.wheel) { [weak self] in
            guard let self else { return }
            if self.reader.isDone {
                self.refuse(TunnelRefusal(status: 503, reason: "the gateway is too busy to answer", retryAfter: 1))
            } else {
                self.refuse(TunnelRefusal(status: 400, reason: "no HELLO came in time"))
                self.fail(TransportError(.idleTimeout, "no HELLO came in time"))
            }
        }
        self.timer = timer
        timer.start(after: timeout)
        transport.delegate = self
    }

    /// Answers with a WELCOME; the connection is a lane, whose limit of streams, ping interval and resume window are those of the
    /// WELCOME. Nil when the connection has gone or the WELCOME says it is surplus.
    package func accept(
        _ welcome: GatewayWelcome, configuration: LaneConfiguration, delegate: any TunnelLaneDelegate
    ) -> TunnelLane? {
        guard answer(.welcome(welcome)) else { return nil }
        if welcome.isSurplus {
            transport.delegate = nil
            transport.close()
            return nil
        }
        var configuration = configuration
        // Both sides go by what the WELCOME says.
        configuration.maximumStreams = min(max(welcome.maximumStreams, 1), TunnelWire.slots)
        configuration.pingInterval = .milliseconds(Int64(max(welcome.pingInterval, 100)))
        configuration.resumeWindow = .milliseconds(Int64(max(welcome.resumeWindow, 0)))
        return TunnelLane(
            transport: transport, role: .gateway, configuration: configuration, wheel: wheel, received: reader.rest,
            delegate: delegate)
    }

    /// Answers with a WELCOME (its ``GatewayWelcome/received`` is filled in) and goes on with a lane of the same loop, whose old
    /// connection, if it is still there, is dropped.
    /// - Parameter peerReceived: From HELLO.
    /// - Returns: Whether the lane has a connection again. When not, the agent has been refused.
    package func resume(_ lane: TunnelLane, welcome: GatewayWelcome, peerReceived: UInt64) -> Bool {
        guard !isOver, lane.eventLoop === eventLoop else {
            refuse(TunnelRefusal(status: 404, reason: "the lane is on another loop"))
            return false
        }
        end()
        transport.delegate = nil
        return Self.resume(
            lane, over: transport, welcome: welcome, peerReceived: peerReceived, rest: reader.rest)
    }

    /// The same for a lane on whatever loop: where it is another one, the connection reaches it through a bridge between the loops.
    /// - Parameter completion: Called on some loop with what the other call would have returned.
    package func resume(
        _ lane: NIOLoopBound<TunnelLane>, welcome: GatewayWelcome, peerReceived: UInt64,
        completion: @escaping @Sendable (Bool) -> Void
    ) {
        guard lane.eventLoop !== eventLoop else {
            return completion(resume(lane.value, welcome: welcome, peerReceived: peerReceived))
        }
        guard !isOver else { return completion(false) }
        end()
        transport.delegate = nil
        let rest = reader.rest
        CrossLoopTransport.bridge(transport, to: lane.eventLoop) { transport in
            completion(
                Self.resume(lane.value, over: transport, welcome: welcome, peerReceived: peerReceived, rest: rest))
        }
    }

    private static func resume(
        _ lane: TunnelLane, over transport: any ByteTransport, welcome: GatewayWelcome, peerReceived: UInt64,
        rest: ByteBuffer
    ) -> Bool {
        // A HELLO that was long under way and says less than the agent has acknowledged since must not cost the lane its connection.
        let mayResume = !lane.isClosed && lane.mayResume(peerReceived: peerReceived)
        if mayResume { lane.disconnect(TransportError(.cancelled, "the agent has a new connection")) }
        guard mayResume, !lane.isClosed else {
            let refusal = TunnelRefusal(status: 404, reason: "the lane can't be resumed")
            transport.write(Self.welcomeFrame(.refused(refusal)))
            transport.close()
            return false
        }
        var welcome = welcome
        welcome.received = lane.receivedCount
        transport.write(Self.welcomeFrame(.welcome(welcome)))
        do { try lane.resume(over: transport, peerReceived: peerReceived, received: rest) } catch {
            transport.abort(error)
            return false
        }
        return true
    }

    /// Answers with why not, and closes.
    package func refuse(_ refusal: TunnelRefusal) {
        guard answer(.refused(refusal)) else { return }
        transport.delegate = nil
        transport.close()
    }

    private func answer(_ answer: GatewayAnswer) -> Bool {
        guard !isOver else { return false }
        end()
        transport.write(Self.welcomeFrame(answer))
        return true
    }

    private static func welcomeFrame(_ answer: GatewayAnswer) -> ByteBuffer {
        var bytes = ByteBuffer()
        bytes.writeTunnelFrame(.welcome(answer.json()))
        return bytes
    }

    private func end() {
        isOver = true
        timer?.cancel()
        timer = nil
        onHello = nil
    }

    private func fail(_ error: TransportError) {
        end()
        transport.delegate = nil
        let onFailure = self.onFailure
        self.onFailure = nil
        onFailure?(error)
    }
}

extension GatewayLaneHandshake: ByteTransportDelegate {
    package func transportReceived(_ bytes: ByteBuffer) {
        guard !isOver else { return }
        do {
            guard let frame = try reader.receive(bytes) else { return }
            guard case .hello(let json) = frame else {
                throw TransportError(.protocolViolation, "the first frame was no HELLO")
            }
            let hello = try AgentHello(json: json)
            onHello?(self, hello)
        } catch let refusal as TunnelRefusal {
            refuse(refusal)
            fail(TransportError(.protocolViolation, refusal.reason))
        } catch {
            let error = error as? TransportError ?? TransportError(.protocolViolation, "\(error)")
            refuse(TunnelRefusal(status: 400, reason: error.message))
            fail(error)
        }
    }

    package func transportInputClosed() {
        guard !isOver else { return }
        transport.close()
        fail(TransportError(.reset, "the connection ended before HELLO was answered"))
    }

    package func transportClosed(_ error: TransportError?) {
        guard !isOver else { return }
        fail(error ?? TransportError(.reset, "the connection ended before HELLO was answered"))
    }

    package func transportWritabilityChanged(_ isWritable: Bool) {}
}

/// Takes the first frame off a connection and keeps the rest for the lane. At most two frames' worth is held.
struct HandshakeReader {
    private var decoder = TunnelFrameDecoder()
    private(set) var isDone = false
    private(set) var rest = ByteBuffer()

    /// - Returns: The first frame once it is complete, then never again.
    mutating func receive(_ bytes: ByteBuffer) throws(TransportError) -> TunnelFrame? {
        if isDone {
            guard rest.readableBytes + bytes.readableBytes <= 256 << 10 else {
                throw TransportError(.limitExceeded, "too much before HELLO was answered")
            }
            rest.writeImmutableBuffer(bytes)
            return nil
        }
        decoder.receive(bytes)
        guard let frame = try decoder.next() else { return nil }
        isDone = true
        rest = decoder.remaining
        decoder = TunnelFrameDecoder()
        return frame
    }
}
