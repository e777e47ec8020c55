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
    /// The high-water mark was reached and not half of it has been taken since.
    private var isFull = false
    private var toldWritable = true
    private var isReading = true
    private var held: [ByteBuffer] = []
    private var inputClosed = false
    private var ended: TransportError??
    private var isDelivering = false
    /// The consumer is done with the input.
    private var isDiscarding = false
    public private(set) var isInputTruncated = false

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

    public var isWritable: Bool { !isFull && ended == nil }
    public var queuedBytes: Int { outstanding }

    public func write(_ bytes: ByteBuffer) {
        guard bytes.readableBytes > 0, ended == nil else { return }
        outstanding += bytes.readableBytes
        if outstanding >= Self.highWater, !isFull {
            isFull = true
            eventLoop.assumeIsolated().execute { self.tellFull() }
        }
        onFarLoop {
            $0.base.write(bytes); $0.wrote(bytes.readableBytes)
        }
    }

    private func tellFull() {
        guard isFull, toldWritable, ended == nil else { return }
        toldWritable = false
        delegate?.transportWritabilityChanged(false)
    }

    public func closeOutput() { onFarLoop { $0.base.closeOutput() } }

    public func breakOutput(_ reason: TransportError) { onFarLoop { $0.base.breakOutput(reason) } }

    public func close() {
        discard()
        onFarLoop { $0.base.close() }
    }

    public func abort(_ reason: TransportError) {
        discard()
        onFarLoop { $0.base.abort(reason) }
    }

    private func discard() {
        isDiscarding = true
        held = []
    }

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
        if isFull, outstanding <= Self.highWater / 2, ended == nil {
            // Also to one who was not told yet: it may have looked meanwhile, and waits.
            isFull = false
            toldWritable = true
            delegate?.transportWritabilityChanged(true)
        }
    }

    fileprivate func arrived(_ bytes: ByteBuffer) {
        guard !isDiscarding else { return }
        held.append(bytes)
        deliver()
    }

    fileprivate func inputEnded(isTruncated: Bool) {
        inputClosed = true
        isInputTruncated = isTruncated
        deliver()
    }

    fileprivate func closed(_ error: TransportError?) {
        ended = .some(error)
        deliver()
    }

    private func deliver() {
        guard !isDelivering else { return }
        isDelivering = true
        defer { isDelivering = false }
        // As with any transport, a break is told at once, after what came before it.
        let isBroken = if case .some(.some) = ended { true } else { false }
        while isReading || isBroken, !held.isEmpty, let consumer = delegate {
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

    func transportInputClosed() {
        let isTruncated = base.isInputTruncated
        onNearLoop { $0.inputEnded(isTruncated: isTruncated) }
    }

    func transportClosed(_ error: TransportError?) {
        onNearLoop { $0.closed(error) }
        // Nothing else comes, and the ends hold each other.
        near = nil
    }

    func transportWritabilityChanged(_ isWritable: Bool) { if isWritable { acknowledge() } }
}
