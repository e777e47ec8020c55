// Connections in memory, between two event loops or on one, for tests of everything above sockets.
import KiteHTTP
import NIOCore

/// One end of a connection. Bytes reach the other end in a later turn of its loop, in order.
final class MemoryEnd: ByteTransport {
    let eventLoop: any EventLoop
    private var other: NIOLoopBound<MemoryEnd>?
    private var otherLoop: (any EventLoop)?
    private var inbox: [ByteBuffer] = []
    private var inputClosed = false
    private var isOver = false
    private var overError: TransportError?
    private var reading = true
    private var outputClosed = false
    private var isDelivering = false
    private var unacknowledged = 0
    private let highWater: Int
    /// Called when this end is over.
    var onOver: ((TransportError?) -> Void)?
    var remoteAddress: SocketAddress? { nil }
    var isWritable: Bool { unacknowledged < highWater }
    var delegate: (any ByteTransportDelegate)? { didSet { if delegate != nil { deliverSoon() } } }

    init(_ eventLoop: any EventLoop, highWater: Int = 64 << 10) {
        self.eventLoop = eventLoop
        self.highWater = highWater
    }

    /// Two connected ends.
    static func pair(_ left: any EventLoop, _ right: any EventLoop) async throws -> (
        NIOLoopBound<MemoryEnd>, NIOLoopBound<MemoryEnd>
    ) {
        let a = try await left.submit { NIOLoopBound(MemoryEnd(left), eventLoop: left) }.get()
        let b = try await right.submit { NIOLoopBound(MemoryEnd(right), eventLoop: right) }.get()
        try await left.submit { (a.value.other, a.value.otherLoop) = (b, right) }.get()
        try await right.submit { (b.value.other, b.value.otherLoop) = (a, left) }.get()
        return (a, b)
    }

    private func tell(_ what: @escaping @Sendable (MemoryEnd) -> Void) {
        guard let other, let otherLoop else { return }
        otherLoop.execute { what(other.value) }
    }

    func write(_ bytes: ByteBuffer) {
        guard !outputClosed, !isOver, bytes.readableBytes > 0 else { return }
        unacknowledged += bytes.readableBytes
        tell { $0.arrive(bytes) }
    }
    func closeOutput() {
        guard !outputClosed else { return }
        outputClosed = true
        tell { $0.arriveEnd() }
    }
    func close() {
        guard !isOver else { return }
        closeOutput()
        over(nil)
    }
    func abort(_ reason: TransportError) {
        guard !isOver else { return }
        tell { $0.over(TransportError(.reset, "reset by the other end")) }
        over(reason)
    }
    func setReading(_ wanted: Bool) {
        reading = wanted
        if wanted { deliverSoon() }
    }

    private func arrive(_ bytes: ByteBuffer) {
        guard !isOver else { return }
        inbox.append(bytes)
        deliver()
    }
    private func arriveEnd() {
        inputClosed = true
        deliver()
    }
    private func over(_ error: TransportError?) {
        guard !isOver else { return }
        isOver = true
        overError = error
        onOver?(error)
        deliverSoon()
    }
    private func deliverSoon() { eventLoop.assumeIsolated().execute { self.deliver() } }
    private func deliver() {
        guard !isDelivering else { return }
        isDelivering = true
        defer { isDelivering = false }
        while reading, !isOver, delegate != nil, !inbox.isEmpty {
            let bytes = inbox.removeFirst()
            let count = bytes.readableBytes
            tell { $0.acknowledge(count) }
            delegate?.transportReceived(bytes)
        }
        if reading, !isOver, inbox.isEmpty, inputClosed, delegate != nil {
            inputClosed = false
            delegate?.transportInputClosed()
        }
        if isOver, let delegate {
            self.delegate = nil
            delegate.transportClosed(overError)
        }
    }
    private func acknowledge(_ count: Int) {
        let before = isWritable
        unacknowledged -= count
        if !isOver, isWritable != before { delegate?.transportWritabilityChanged(isWritable) }
    }
}
