/// The places that a ``SocketTransport`` has in its channel's pipeline.
import NIOCore

/// The place below TLS.
final class BottomHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = NIOAny

    private let transport: SocketTransport

    init(_ transport: SocketTransport) { self.transport = transport }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard let end = event as? ChannelEvent, end == .inputClosed else {
            return context.fireUserInboundEventTriggered(event)
        }
        transport.bottomEnded { context.fireUserInboundEventTriggered(event) }
    }

    func channelInactive(context: ChannelHandlerContext) {
        transport.bottomBecameInactive { context.fireChannelInactive() }
    }
}

/// The transport's place in the channel's pipeline.
final class SocketTransportHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer

    private let transport: SocketTransport

    init(_ transport: SocketTransport) { self.transport = transport }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) { transport.received(unwrapInboundIn(data)) }
    func channelWritabilityChanged(context: ChannelHandlerContext) { transport.writabilityChanged() }
    func errorCaught(context: ChannelHandlerContext, error: any Error) { transport.failed(error) }
    func channelInactive(context: ChannelHandlerContext) { transport.becameInactive() }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if let event = event as? ChannelEvent, event == .inputClosed { transport.inputEnded() }
    }
}
