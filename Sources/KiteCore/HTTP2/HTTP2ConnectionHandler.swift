/// The places that a ``HTTP2ServerConnection`` has in its channel's pipeline.
import NIOCore
import NIOHTTP2

/// The connection's place in the channel's pipeline, behind the frames.
final class HTTP2ConnectionHandler: ChannelInboundHandler {
    typealias InboundIn = HTTP2Frame

    private let connection: HTTP2ServerConnection

    init(_ connection: HTTP2ServerConnection) { self.connection = connection }

    func handlerAdded(context: ChannelHandlerContext) { connection.added(context) }
    func channelRead(context: ChannelHandlerContext, data: NIOAny) { connection.received(unwrapInboundIn(data)) }
    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) { connection.happened(event) }
    func errorCaught(context: ChannelHandlerContext, error: any Error) { connection.failed(error) }
    func channelInactive(context: ChannelHandlerContext) { connection.becameInactive() }
}

/// Tells the connection which frames have been written.
final class WrittenFrames: NIOHTTP2FrameDelegate {
    private weak var connection: HTTP2ServerConnection?

    init(_ connection: HTTP2ServerConnection) { self.connection = connection }

    func wroteFrame(_ frame: HTTP2Frame) { connection?.wrote(frame) }
}
