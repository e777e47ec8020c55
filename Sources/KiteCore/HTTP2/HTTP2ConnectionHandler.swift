/// The places that a ``HTTP2ServerConnection`` has in its channel's pipeline.
import KiteHTTP
import KiteSupport
import NIOCore
import NIOHTTP2

/// The connection's place in the channel's pipeline, behind the frames.
final class HTTP2ConnectionHandler: ChannelInboundHandler {
    typealias InboundIn = HTTP2Frame

    private let connection: HTTP2ServerConnection
    private var channel: (any Channel)?
    /// Runs while the visitor does not take what has been written.
    private var stall: WheelTimer?
    private var queuedAtDeadline = 0

    init(_ connection: HTTP2ServerConnection) { self.connection = connection }

    func handlerAdded(context: ChannelHandlerContext) {
        channel = context.channel
        connection.added(context)
    }
    func channelRead(context: ChannelHandlerContext, data: NIOAny) { connection.received(unwrapInboundIn(data)) }
    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) { connection.happened(event) }
    func errorCaught(context: ChannelHandlerContext, error: any Error) { connection.failed(error) }
    func channelInactive(context: ChannelHandlerContext) {
        stall?.cancel()
        channel = nil
        connection.becameInactive()
    }

    /// No frame leaves a channel that is not writable, not even a reset: a visitor that reads nothing at all is cut off here.
    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable { stall?.cancel() } else { awaitProgress() }
        context.fireChannelWritabilityChanged()
    }

    private func awaitProgress() {
        guard channel != nil else { return }
        queuedAtDeadline = queuedBytes
        let timer = stall ?? WheelTimer(wheel: connection.resources.wheel) { [weak self] in self?.deadlinePassed() }
        stall = timer
        timer.start(after: connection.limits.stalledWriteTimeout)
    }

    private func deadlinePassed() {
        guard channel != nil else { return }
        if queuedBytes < queuedAtDeadline { return awaitProgress() }
        connection.close(TransportError(.idleTimeout, "The visitor took nothing for too long."))
    }

    private var queuedBytes: Int { (try? channel?.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0 }
}

/// Tells the connection which frames have been written.
final class WrittenFrames: NIOHTTP2FrameDelegate {
    private weak var connection: HTTP2ServerConnection?

    init(_ connection: HTTP2ServerConnection) { self.connection = connection }

    func wroteFrame(_ frame: HTTP2Frame) { connection?.wrote(frame) }
}
