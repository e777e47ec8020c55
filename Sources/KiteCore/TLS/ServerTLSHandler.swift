/// The first handler of an accepted TLS connection: looks at the ClientHello, has a certificate chosen, and lets the TLS library do the
/// handshake with it.
import KiteHTTP
package import NIOCore
import NIOSSL
import NIOTLS

/// Stands where TLS is to be. Leaves the pipeline when TLS is there, or after the handshake where it has something to say about it.
///
/// What cannot become a handshake is answered with an alert and closed; the error goes through the pipeline first. How long all this may
/// take is the business of who waits for the handshake.
package final class ServerTLSHandler: ChannelInboundHandler, RemovableChannelHandler {
    package typealias InboundIn = ByteBuffer
    package typealias OutboundOut = ByteBuffer

    private enum State {
        case reading(ClientHelloParser)
        /// A certificate may come.
        case waiting(ClientHelloParser, ClientHello)
        /// TLS is in front of this handler.
        case shaking(NIOSSLServerHandler, rule: String?)
        case challenged
        case over
    }

    private let store: CertificateStore
    private var state = State.reading(ClientHelloParser())

    package init(store: CertificateStore) { self.store = store }

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch state {
        case .reading(var parser):
            state = .over
            let outcome = parser.receive(unwrapInboundIn(data))
            switch outcome {
            case .incomplete: state = .reading(parser)
            case .hello(let hello): choose(context, parser, hello, mayWait: true)
            case .failed(let error): refuse(context, error)
            }
        case .waiting(var parser, let hello):
            // Nothing is due from the client now but perhaps early data, which nobody wants.
            state = .over
            guard parser.keep(unwrapInboundIn(data)) else { return refuse(context, ClientHelloError.tooLong) }
            state = .waiting(parser, hello)
        case .shaking: context.fireChannelRead(data)
        case .challenged, .over: break
        }
    }

    private func choose(
        _ context: ChannelHandlerContext, _ parser: ClientHelloParser, _ hello: ClientHello, mayWait: Bool
    ) {
        let selection = store.select(hello)
        if mayWait, let name = hello.serverName, Self.isMissing(selection),
            let certificate = store.demand(name, on: context.eventLoop)
        {
            state = .waiting(parser, hello)
            let context = NIOLoopBound(context, eventLoop: context.eventLoop)
            let handler = NIOLoopBound(self, eventLoop: context.eventLoop)
            certificate.hop(to: context.eventLoop).whenComplete { _ in handler.value.goOn(context.value) }
            return
        }
        switch selection {
        case .context(let tls, let rule, _): start(context, parser, tls, rule: rule, isChallenge: false)
        case .challenge(let tls): start(context, parser, tls, rule: nil, isChallenge: true)
        case .refused(let alert): refuse(context, HandshakeRefusal(alert: alert, name: hello.serverName))
        }
    }

    private static func isMissing(_ selection: CertificateStore.Selection) -> Bool {
        switch selection {
        case .context(_, _, let isFallback): isFallback
        case .refused(let alert): alert == .unrecognizedName
        case .challenge: false
        }
    }

    private func goOn(_ context: ChannelHandlerContext) {
        guard case .waiting(let parser, let hello) = state, context.channel.isActive else { return }
        choose(context, parser, hello, mayWait: false)
        context.channel.pipeline.syncOperations.fireChannelReadComplete()
    }

    private func start(
        _ context: ChannelHandlerContext, _ parser: ClientHelloParser, _ tls: NIOSSLContext, rule: String?,
        isChallenge: Bool
    ) {
        var parser = parser
        let handler = NIOSSLServerHandler(context: tls)
        let pipeline = context.pipeline.syncOperations
        do {
            try pipeline.addHandler(handler, position: .before(self))
            let tlsContext = try pipeline.context(handler: handler)
            if isChallenge {
                state = .challenged
            } else {
                state = .shaking(handler, rule: rule)
                if rule == nil { pipeline.removeHandler(context: context, promise: nil) }
            }
            handler.channelRead(context: tlsContext, data: NIOAny(parser.takeBytes()))
        } catch {
            refuse(context, error)
        }
    }

    package func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard let end = event as? TLSUserEvent, case .handshakeCompleted = end else {
            return context.fireUserInboundEventTriggered(event)
        }
        switch state {
        case .shaking(let handler, let rule?):
            state = .over
            context.fireUserInboundEventTriggered(
                ConnectionSecurity(
                    clientRule: rule, clientCertificate: handler.peerCertificate.flatMap(ClientCertificate.init)))
            context.fireUserInboundEventTriggered(event)
            context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
        case .challenged:
            // The certificate was what mattered; nothing else is said (RFC 8737 section 3).
            state = .over
            context.fireErrorCaught(ChallengeAnswered())
            context.close(promise: nil)
        default: context.fireUserInboundEventTriggered(event)
        }
    }

    /// Says why in the clear, and closes.
    private func refuse(_ context: ChannelHandlerContext, _ error: any Error) {
        state = .over
        let answer: [UInt8]? =
            switch error {
            case ClientHelloError.malformed(let alert, _): alert.record
            case ClientHelloError.tooLong: TLSAlert.illegalParameter.record
            case ClientHelloError.notTLS(true): Array(Self.answerToHTTP.utf8)
            case ClientHelloError.notTLS(false): nil
            case let refusal as HandshakeRefusal: refusal.alert.record
            default: TLSAlert.internalError.record
            }
        if let answer { context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: answer)), promise: nil) }
        context.fireErrorCaught(error)
        context.close(promise: nil)
    }

    private static let answerToHTTP =
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 31\r\nConnection: close\r\n\r\n"
        + "HTTPS is spoken on this port.\r\n"
}

/// Why the gateway does not do a handshake.
package struct HandshakeRefusal: Error, Sendable, Hashable, CustomStringConvertible {
    package let alert: TLSAlert
    /// What the client asked for.
    package let name: String?

    package var description: String {
        switch alert {
        case .unrecognizedName: "no certificate for \(name ?? "a client that names no host")"
        case .noApplicationProtocol: "none of the protocols that the client speaks (ALPN)"
        default: "alert \(alert.rawValue)"
        }
    }
}

/// A validation by TLS-ALPN-01 has seen its certificate; its connection ends.
package struct ChallengeAnswered: Error, Sendable, Hashable, CustomStringConvertible {
    package init() {}
    package var description: String { "a certificate authority has looked at its challenge" }
}
