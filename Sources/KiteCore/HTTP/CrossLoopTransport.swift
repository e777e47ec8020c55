/// A byte stream that lives on another event loop, for the rare connection whose two ends could not be brought together on one.
public import NIOCore

/// Presents a transport of one loop as one on another. Bytes in flight between the loops are bounded both ways.
public final class CrossLoopTransport: ByteTransport {
    /// How many bytes may be under way in one direction before the sender is slowed down.
    static let highWater = 128 * 1024

    public let eventLoop: any EventLoop
    public let remoteAddress: SocketAddress?
    private let far: NIOLoopBound<FarEnd>
    /// Written here and not yet taken there.
    private var outstanding = 0
    private var toldWritable = true
    private var isReading = true
    private var held: [ByteBuffer] = []
    private var inputClosed = false
    private var ended: TransportError??
    private var isDelivering = false

    public var delegate: (any ByteTransportDelegate)? {
        didSet { if delegate != nil { eventLoop.assumeIsolated().execute { self.deliver() } } }
    }

    private init(eventLoop: any EventLoop, remoteAddress: SocketAddress?, far: NIOLoopBound<FarEnd>) {
        self.eventLoop = eventLoop
        self.remoteAddress = remoteAddress
        self.far = far
    }

    /// Takes over a transport, on its loop, and hands its image to `receive` on the other.
    /// - Parameters:
    ///   - base: must not deliver before: its delegate is set by this call.
    ///   - receive: called on `loop`.
    public static func bridge(
        _ base: any ByteTransport, to loop: any EventLoop, receive: @escaping @Sendable (CrossLoopTransport) -> Void
    ) {
        let end = FarEnd(base)
        let far = NIOLoopBound(end, eventLoop: base.eventLoop)
        let farLoop = base.eventLoop
        let address = base.remoteAddress
        loop.execute {
            let near = CrossLoopTransport(eventLoop: loop, remoteAddress: address, far: far)
            let bound = NIOLoopBound(near, eventLoop: loop)
            // Before anything that `receive` writes: otherwise nobody would be told that it has been taken.
            farLoop.execute { far.value.attach(bound) }
            receive(near)
        }
    }

    public var isWritable: Bool { outstanding < Self.highWater && ended == nil }

    public func write(_ bytes: ByteBuffer) {
        guard bytes.readableBytes > 0, ended == nil else { return }
        outstanding += bytes.readableBytes
        if !isWritable { toldWritable = false }
        onFarLoop {
            $0.base.write(bytes); $0.wrote(bytes.readableBytes)
        }
    }

    public func closeOutput() { onFarLoop { $0.base.closeOutput() } }
    public func close() { onFarLoop { $0.base.close() } }
    public func abort(_ reason: TransportError) { onFarLoop { $0.base.abort(reason) } }

    public func setReading(_ wanted: Bool) {
        guard wanted != isReading else { return }
        isReading = wanted
        if wanted { eventLoop.assumeIsolated().execute { self.deliver() } }
    }

    private func onFarLoop(_ body: @escaping @Sendable (FarEnd) -> Void) {
        let far = far
        far.eventLoop.execute { body(far.value) }
    }

    // MARK: What comes from the other loop

    fileprivate func taken(_ count: Int) {
        outstanding -= count
        if !toldWritable, outstanding <= Self.highWater / 2, ended == nil {
            toldWritable = true
            delegate?.transportWritabilityChanged(true)
        }
    }

    fileprivate func arrived(_ bytes: ByteBuffer) {
        held.append(bytes)
        deliver()
    }

    fileprivate func inputEnded() {
        inputClosed = true
        deliver()
    }

    fileprivate func closed(_ error: TransportError?) {
        if error != nil { held = [] }
        ended = .some(error)
        deliver()
    }

    private func deliver() {
        guard !isDelivering else { return }
        isDelivering = true
        defer { isDelivering = false }
        while isReading, !held.isEmpty, let consumer = delegate {
            let bytes = held.removeFirst()
            let count = bytes.readableBytes
            consumer.transportReceived(bytes)
            onFarLoop { $0.consumed(count) }
        }
        guard held.isEmpty, let consumer = delegate else { return }
        if inputClosed {
            inputClosed = false
            consumer.transportInputClosed()
        }
        if case .some(let error) = ended {
            delegate = nil
            consumer.transportClosed(error)
        }
    }
}

/// The end on the transport's own loop.
private final class FarEnd: ByteTransportDelegate {
    let base: any ByteTransport
    private var near: NIOLoopBound<CrossLoopTransport>?
    /// Sent to the near end and not yet taken there.
    private var outstanding = 0
    /// Given to the base while it was not writable.
    private var unacknowledged = 0

    init(_ base: any ByteTransport) { self.base = base }

    func attach(_ near: NIOLoopBound<CrossLoopTransport>) {
        self.near = near
        base.delegate = self
    }

    private func onNearLoop(_ body: @escaping @Sendable (CrossLoopTransport) -> Void) {
        guard let near else { return }
        near.eventLoop.execute { body(near.value) }
    }

    func wrote(_ count: Int) {
        unacknowledged += count
        if base.isWritable { acknowledge() }
    }

    private func acknowledge() {
        guard unacknowledged > 0 else { return }
        let count = unacknowledged
        unacknowledged = 0
        onNearLoop { $0.taken(count) }
    }

    func consumed(_ count: Int) {
        let wasFull = outstanding >= CrossLoopTransport.highWater
        outstanding -= count
        if wasFull, outstanding < CrossLoopTransport.highWater { base.setReading(true) }
    }

    func transportReceived(_ bytes: ByteBuffer) {
        outstanding += bytes.readableBytes
        if outstanding >= CrossLoopTransport.highWater { base.setReading(false) }
        onNearLoop { $0.arrived(bytes) }
    }

    func transportInputClosed() { onNearLoop { $0.inputEnded() } }
    func transportClosed(_ error: TransportError?) { onNearLoop { $0.closed(error) } }
    func transportWritabilityChanged(_ isWritable: Bool) { if isWritable { acknowledge() } }
}
