/// Has a channel's connection carried on by a proxy, then leaves the pipeline.
import KiteHTTP
import NIOCore

/// Executes a ``ProxyHandshake`` on a connected channel.
final class ProxyHandshakeHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private var handshake: ProxyHandshake
    private var completion: ((Result<Void, TransportError>) -> Void)?

    /// - Parameter completion: called once, on the loop; on success it must add the handlers that take what the target sends.
    init(_ handshake: ProxyHandshake, completion: @escaping (Result<Void, TransportError>) -> Void) {
        self.handshake = handshake
        self.completion = completion
    }

    func handlerAdded(context: ChannelHandlerContext) {
        context.writeAndFlush(wrapOutboundOut(handshake.opening()), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard completion != nil else { return context.fireChannelRead(data) }
        do throws(TransportError) {
            switch try handshake.received(unwrapInboundIn(data)) {
            case .wait: break
            case .send(let bytes): context.writeAndFlush(wrapOutboundOut(bytes), promise: nil)
            case .done(let surplus):
                finish(.success(()))
                if surplus.readableBytes > 0 { context.fireChannelRead(wrapInboundOut(surplus)) }
                context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
            }
        } catch {
            finish(.failure(error))
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard completion != nil else { return context.fireErrorCaught(error) }
        finish(.failure(TransportError(.connectFailed, "The connection to the proxy broke: \(error)")))
    }

    func channelInactive(context: ChannelHandlerContext) {
        finish(.failure(TransportError(.connectFailed, "The proxy closed the connection")))
        context.fireChannelInactive()
    }

    private func finish(_ result: Result<Void, TransportError>) {
        let last = completion
        completion = nil
        last?(result)
    }
}
