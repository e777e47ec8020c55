/// Waits for the PROXY protocol's header at the beginning of an accepted connection; nobody hears of the connection before.
import KiteSupport
import NIOCore

/// The first handler of a connection from a load balancer. Ends with the header, an error or the deadline.
final class ProxyHeaderHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer

    /// The error is nil when the header did not come in time.
    enum Outcome {
        case header(ProxyHeader)
        case failed(ProxyHeaderError?)
    }

    private var received = ByteBuffer()
    private let timeout: TimeAmount
    private var timer: WheelTimer?
    private var onEnd: ((Outcome) -> Void)?

    /// - Parameter onEnd: called once, on the channel's loop. It adds further handlers after a header, or else the channel is closed.
    init(timeout: TimeAmount, onEnd: @escaping (Outcome) -> Void) {
        self.timeout = timeout
        self.onEnd = onEnd
    }

    func handlerAdded(context: ChannelHandlerContext) {
        let channel = context.channel
        let timer = WheelTimer(wheel: LoopFlusher.on(context.eventLoop).wheel) { [weak self] in
            self?.end(.failed(nil))
            channel.close(promise: nil)
        }
        self.timer = timer
        timer.start(after: timeout)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard onEnd != nil else { return context.fireChannelRead(data) }
        let bytes = unwrapInboundIn(data)
        if received.readableBytes == 0 { received = bytes } else { received.writeImmutableBuffer(bytes) }
        switch ProxyHeaderParser.parse(received) {
        case .incomplete: return
        case .failed(let error):
            received = ByteBuffer()
            end(.failed(error))
            context.close(promise: nil)
        case .header(let header, let length):
            received.moveReaderIndex(forwardBy: min(length, received.readableBytes))
            let rest = received
            received = ByteBuffer()
            end(.header(header))
            if rest.readableBytes > 0 { context.fireChannelRead(wrapInboundOut(rest)) }
            context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        end(.failed(ProxyHeaderError("the connection was closed before its header")))
        context.fireChannelInactive()
    }

    private func end(_ outcome: Outcome) {
        timer?.cancel()
        timer = nil
        let callback = onEnd
        onEnd = nil
        callback?(outcome)
    }
}
