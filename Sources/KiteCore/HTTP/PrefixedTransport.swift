/// Bytes that arrived together with a head belong to whoever takes over the connection after it.
public import NIOCore

/// A transport that delivers given bytes before what its base delivers; after that it only passes calls on. Used where a connection
/// changes its protocol (RFC 9110 section 7.8).
public final class PrefixedTransport: ByteTransport, ByteTransportDelegate {
    private let base: any ByteTransport
    /// The prefix and what the base brought before that could be delivered; the base is paused meanwhile.
    private var held: [ByteBuffer]
    private var isReading = true
    private var isListed = false
    private var owesInputClosed = false
    /// How the base ended, until the delegate has been told.
    private var ending: TransportError??
    /// The consumer is done with the input.
    private var isDiscarding = false

    /// - Parameters:
    ///   - base: what carries the connection on. This becomes its delegate.
    ///   - prefix: delivered first.
    public init(_ base: any ByteTransport, prefix: ByteBuffer) {
        self.base = base
        held = prefix.readableBytes > 0 ? [prefix] : []
        base.setReading(false)
        base.delegate = self
    }

    public var eventLoop: any EventLoop { base.eventLoop }
    public var isWritable: Bool { base.isWritable }
    public var queuedBytes: Int { base.queuedBytes }
    public var isInputTruncated: Bool { base.isInputTruncated }
    public var remoteAddress: SocketAddress? { base.remoteAddress }

    public var delegate: (any ByteTransportDelegate)? {
        didSet { if delegate != nil { enlist() } }
    }

    public func write(_ bytes: ByteBuffer) { base.write(bytes) }
    public func closeOutput() { base.closeOutput() }
    public func breakOutput(_ reason: TransportError) { base.breakOutput(reason) }

    public func close() {
        discard()
        base.close()
    }

    public func abort(_ reason: TransportError) {
        discard()
        base.abort(reason)
    }

    public func setReading(_ wanted: Bool) {
        guard wanted != isReading else { return }
        isReading = wanted
        if wanted { enlist() } else { base.setReading(false) }
    }

    private func discard() {
        isDiscarding = true
        held = []
        base.setReading(true)
    }

    // MARK: What the base brings

    public func transportReceived(_ bytes: ByteBuffer) {
        guard !isDiscarding else { return }
        if held.isEmpty, isReading, let delegate { return delegate.transportReceived(bytes) }
        held.append(bytes)
        base.setReading(false)
    }

    public func transportInputClosed() {
        owesInputClosed = true
        deliverEnd()
    }

    public func transportClosed(_ error: TransportError?) {
        ending = .some(error)
        if held.isEmpty { deliverEnd() } else { enlist() }
    }

    public func transportWritabilityChanged(_ isWritable: Bool) { delegate?.transportWritabilityChanged(isWritable) }

    // MARK: What was held back

    private func enlist() {
        guard !isListed else { return }
        isListed = true
        eventLoop.assumeIsolated().execute { self.deliver() }
    }

    private func deliver() {
        isListed = false
        // As with any transport, a break is told at once, after what came before it.
        let isBroken = if case .some(.some) = ending { true } else { false }
        while let delegate, !held.isEmpty, isReading || isBroken { delegate.transportReceived(held.removeFirst()) }
        if held.isEmpty, isReading, delegate != nil { base.setReading(true) }
        deliverEnd()
    }

    private func deliverEnd() {
        guard held.isEmpty, delegate != nil else { return }
        if owesInputClosed {
            owesInputClosed = false
            delegate?.transportInputClosed()
        }
        if case .some(let error) = ending, let last = delegate {
            ending = nil
            delegate = nil
            last.transportClosed(error)
        }
    }
}
