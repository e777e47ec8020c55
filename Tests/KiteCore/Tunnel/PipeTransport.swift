/// Two ends of an in-memory connection whose bytes move only when a test says so, in pieces of random size.
import KiteHTTP
import KiteTunnel
import NIOCore
import NIOEmbedded

/// One end.
final class PipeTransport: ByteTransport {
    let eventLoop: any EventLoop
    var delegate: (any ByteTransportDelegate)?
    var remoteAddress: SocketAddress? { nil }
    private(set) var isReading = true
    private(set) var isCut = false
    private var outputEnded = false
    private var toldWritable = true
    private var outgoing = ByteBuffer()
    weak var peer: PipeTransport?
    var highWater = 64 << 10
    /// What is written vanishes under way, and so does the news of the connection's end.
    var drops = false
    /// The process is stopped: nothing is read or written, its connection stays.
    var isFrozen = false
    /// How many buffers and bytes were written.
    private(set) var writes = 0

    init(eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    static func pair(_ loop: any EventLoop) -> (PipeTransport, PipeTransport) {
        let one = PipeTransport(eventLoop: loop)
        let other = PipeTransport(eventLoop: loop)
        one.peer = other
        other.peer = one
        return (one, other)
    }

    var isWritable: Bool { outgoing.readableBytes < highWater }
    var queued: Int { outgoing.readableBytes }

    func write(_ bytes: ByteBuffer) {
        guard !isCut, !outputEnded else { return }
        writes += 1
        outgoing.writeImmutableBuffer(bytes)
        toldWritable = isWritable
    }
    func closeOutput() { outputEnded = true }
    func close() { outputEnded = true }
    func abort(_ reason: TransportError) { cut() }
    func setReading(_ wanted: Bool) { isReading = wanted }

    /// Loses the connection: what is under way is gone.
    func cut() {
        guard !isCut else { return }
        isCut = true
        outgoing.clear()
        let delegate = self.delegate
        self.delegate = nil
        delegate?.transportClosed(TransportError(.reset, "cut"))
        if !drops, !isFrozen, peer?.isFrozen != true { peer?.cut() }
    }

    /// Moves at most so many bytes to the peer.
    /// - Returns: Whether anything moved.
    @discardableResult
    func pump(_ limit: Int) -> Bool {
        if drops {
            outgoing.clear()
            return false
        }
        guard let peer, !isCut, !isFrozen, !peer.isFrozen, peer.isReading, let target = peer.delegate else {
            return false
        }
        let length = min(limit, outgoing.readableBytes)
        if length > 0, let bytes = outgoing.readSlice(length: length) {
            outgoing.discardReadBytes()
            target.transportReceived(bytes)
            if isWritable, !toldWritable {
                toldWritable = true
                delegate?.transportWritabilityChanged(true)
            }
            return true
        }
        if outputEnded, !isCut {
            isCut = true
            target.transportInputClosed()
            return true
        }
        return false
    }
}

/// SplitMix64: the same numbers for the same seed.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }
}

/// Keeps what a lane says.
final class LaneRecorder: TunnelLaneDelegate {
    var onStream: ((TunnelStream, StreamOpening) -> Void)?
    private(set) var goAways: [TunnelGoAway] = []
    private(set) var notes: [TunnelNote] = []
    private(set) var suspensions: [TransportError] = []
    private(set) var closed: [TransportError?] = []

    func laneAccepted(_ lane: TunnelLane, stream: TunnelStream, opening: StreamOpening) { onStream?(stream, opening) }
    func laneReceived(_ lane: TunnelLane, goAway: TunnelGoAway) { goAways.append(goAway) }
    func laneReceived(_ lane: TunnelLane, note: TunnelNote) { notes.append(note) }
    func laneSuspended(_ lane: TunnelLane, cause: TransportError) { suspensions.append(cause) }
    func laneClosed(_ lane: TunnelLane, error: TransportError?) { closed.append(error) }
}

/// Keeps what a stream says.
final class StreamRecorder: ByteTransportDelegate {
    private(set) var received = ByteBuffer()
    private(set) var inputClosed = 0
    private(set) var closed: [TransportError?] = []
    private(set) var writability: [Bool] = []
    var onBytes: ((ByteBuffer) -> Void)?
    var onInputClosed: (() -> Void)?
    var onClosed: ((TransportError?) -> Void)?

    func transportReceived(_ bytes: ByteBuffer) {
        received.writeImmutableBuffer(bytes)
        onBytes?(bytes)
    }
    func transportInputClosed() {
        inputClosed += 1
        onInputClosed?()
    }
    func transportClosed(_ error: TransportError?) {
        closed.append(error)
        onClosed?(error)
    }
    func transportWritabilityChanged(_ isWritable: Bool) { writability.append(isWritable) }

    var text: String { String(buffer: received) }
}

/// A gateway's and an agent's end of one lane.
final class LanePair {
    let loop = EmbeddedEventLoop()
    let gatewayDelegate = LaneRecorder()
    let agentDelegate = LaneRecorder()
    var gatewayEnd: PipeTransport
    var agentEnd: PipeTransport
    let gateway: TunnelLane
    let agent: TunnelLane

    init(_ configuration: LaneConfiguration = LaneConfiguration()) {
        (gatewayEnd, agentEnd) = PipeTransport.pair(loop)
        gateway = TunnelLane(
            transport: gatewayEnd, role: .gateway, configuration: configuration, delegate: gatewayDelegate)
        agent = TunnelLane(transport: agentEnd, role: .agent, configuration: configuration, delegate: agentDelegate)
    }

    /// Moves everything until nothing moves any more.
    func settle() {
        repeat { loop.run() } while gatewayEnd.pump(.max) || agentEnd.pump(.max)
    }

    /// A new connection after the old one was lost on both sides.
    func reconnect() throws {
        (gatewayEnd, agentEnd) = PipeTransport.pair(loop)
        let agentReceived = agent.receivedCount
        try agent.resume(over: agentEnd, peerReceived: gateway.receivedCount)
        try gateway.resume(over: gatewayEnd, peerReceived: agentReceived)
    }

    /// A stream opened by the gateway, with both its ends.
    func stream(
        _ opening: StreamOpening = StreamOpening(kind: .http)
    ) throws -> (near: TunnelStream, nearSees: StreamRecorder, far: TunnelStream?, farSees: StreamRecorder) {
        let farSees = StreamRecorder()
        var far: TunnelStream?
        agentDelegate.onStream = { stream, _ in
            far = stream
            stream.delegate = farSees
        }
        let near = try gateway.openStream(opening)
        let nearSees = StreamRecorder()
        near.delegate = nearSees
        settle()
        return (near, nearSees, far, farSees)
    }
}
