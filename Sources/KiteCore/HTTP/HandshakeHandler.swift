/// Waits for the TLS handshake of an accepted connection: only then is it known which protocol the visitor speaks, and only then does
/// anybody else hear of the connection.
import KiteSupport
import NIOCore
import NIOTLS

/// Ends with the first of handshake, failure and deadline. Stands behind the TLS handler; who is called takes its place.
final class HandshakeHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = NIOAny

    /// How a handshake ended.
    enum Outcome {
        /// With what ALPN chose (RFC 7301), if anything, and what is known about the client.
        case completed(String?, ConnectionSecurity?)
        case failed(any Error)
        case timedOut
    }

    private let timeout: TimeAmount
    private var timer: WheelTimer?
    private var onEnd: ((HandshakeHandler, Outcome) -> Void)?
    private var security: ConnectionSecurity?

    /// - Parameter onEnd: called once, on the channel's loop. Unless the handshake was completed the channel is closed after the call.
    init(timeout: TimeAmount, onEnd: @escaping (HandshakeHandler, Outcome) -> Void) {
        self.timeout = timeout
        self.onEnd = onEnd
    }

    func handlerAdded(context: ChannelHandlerContext) {
        let channel = context.channel
        let timer = WheelTimer(wheel: LoopFlusher.on(context.eventLoop).wheel) { [weak self] in
            self?.end(.timedOut)
            channel.close(promise: nil)
        }
        self.timer = timer
        timer.start(after: timeout)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .handshakeCompleted(let negotiated)? = event as? TLSUserEvent {
            end(.completed(negotiated, security))
        } else if let security = event as? ConnectionSecurity {
            self.security = security
        } else {
            context.fireUserInboundEventTriggered(event)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard onEnd != nil else { return context.fireErrorCaught(error) }
        end(.failed(error))
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        end(.failed(ChannelError.eof))
        context.fireChannelInactive()
    }

    private func end(_ outcome: Outcome) {
        timer?.cancel()
        timer = nil
        let callback = onEnd
        onEnd = nil
        callback?(self, outcome)
    }
}
