/// Bytes that arrived together with a head belong to whoever takes over the connection after it.
public import NIOCore

/// A transport that delivers given bytes before what its base delivers; after that it only passes calls on. Used where a connection
/// changes its protocol (RFC 9110 section 7.8). The base must not have a delegate when it is handed over.
public final class PrefixedTransport: ByteTransport {
    private let base: any ByteTransport
    private var prefix: ByteBuffer
    private var isReading = true
    private var isListed = false

    /// - Parameters:
    ///   - base: what carries the connection on.
    ///   - prefix: delivered first.
    public init(_ base: any ByteTransport, prefix: ByteBuffer) {
        self.base = base
        self.prefix = prefix
    }

    public var eventLoop: any EventLoop { base.eventLoop }
    public var isWritable: Bool { base.isWritable }
    public var remoteAddress: SocketAddress? { base.remoteAddress }

    public var delegate: (any ByteTransportDelegate)? {
        didSet {
            if prefix.readableBytes == 0 { base.delegate = delegate } else { enlist() }
        }
    }

    public func write(_ bytes: ByteBuffer) { base.write(bytes) }
    public func closeOutput() { base.closeOutput() }

    public func close() {
        release()
        base.close()
    }

    public func abort(_ reason: TransportError) {
        release()
        base.abort(reason)
    }

    public func setReading(_ wanted: Bool) {
        isReading = wanted
        base.setReading(wanted)
        enlist()
    }

    private func enlist() {
        guard prefix.readableBytes > 0, isReading, delegate != nil, !isListed else { return }
        isListed = true
        eventLoop.assumeIsolated().execute { self.deliverPrefix() }
    }

    private func deliverPrefix() {
        isListed = false
        guard prefix.readableBytes > 0, isReading, let consumer = delegate else { return }
        let bytes = prefix
        prefix = ByteBuffer()
        consumer.transportReceived(bytes)
        base.delegate = delegate
    }

    /// The end is near: nothing is held back any longer, and the delegate hears of the end from the base.
    private func release() {
        guard prefix.readableBytes > 0 else { return }
        prefix = ByteBuffer()
        base.delegate = delegate
    }
}
