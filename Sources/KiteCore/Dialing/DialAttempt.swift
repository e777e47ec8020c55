/// One connection being opened: name, socket, proxy, TLS, in this order.
import KiteHTTP
import NIOCore
import NIOPosix
import NIOSSL
import NIOTLS

/// Carries out one ``Dialer/dial(_:on:completion:)``. Completes once.
final class DialAttempt {
    private let endpoint: Endpoint
    private let configuration: Dialer.Configuration
    private let tls: NIOSSLContext?
    private let proxy: ProxyServer?
    private let loop: any EventLoop
    private var completion: ((Result<any ByteTransport, TransportError>) -> Void)?
    private var channel: (any Channel)?
    private var timeout: Scheduled<Void>?

    /// - Parameter tls: nil for an endpoint without TLS.
    init(
        endpoint: Endpoint, configuration: Dialer.Configuration, tls: NIOSSLContext?, loop: any EventLoop,
        completion: @escaping (Result<any ByteTransport, TransportError>) -> Void
    ) {
        self.endpoint = endpoint
        self.configuration = configuration
        self.tls = tls
        proxy = configuration.proxies.proxy(for: endpoint)
        self.loop = loop
        self.completion = completion
    }

    // MARK: The socket

    func start() {
        let isAllowed = configuration.isAllowed
        let bootstrap = ClientBootstrap(group: loop)
            .connectTimeout(configuration.connectTimeout)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    guard let isAllowed else { return }
                    try channel.pipeline.syncOperations.addHandler(AddressPolicyHandler(isAllowed))
                }
            }
        let connected: EventLoopFuture<any Channel>
        switch endpoint.address {
        case .tcp(let targetHost, let targetPort):
            let (host, port) = proxy.map { ($0.host, $0.port) } ?? (targetHost, targetPort)
            connected = bootstrap.channelOption(.tcpOption(.tcp_nodelay), value: 1).connect(host: host, port: port)
        case .unix(let path):
            connected = bootstrap.connect(unixDomainSocketPath: path)
        }
        timeout = loop.assumeIsolated().scheduleTask(in: configuration.connectTimeout) {
            self.fail(DialFailure.timeout(self.endpoint, self.proxy))
        }
        connected.assumeIsolated().whenComplete { result in
            switch result {
            case .success(let channel): self.connected(channel)
            case .failure(let error): self.fail(DialFailure.describe(error, self.endpoint, self.proxy))
            }
        }
    }

    private func connected(_ channel: any Channel) {
        guard completion != nil else { return channel.close(promise: nil) }
        self.channel = channel
        guard let proxy, case .tcp(let host, let port) = endpoint.address else { return secure(channel) }
        guard ProxyHandshake.canName(host) else {
            return fail(TransportError(.refused, "the target's name has spaces or control characters"))
        }
        let handler = ProxyHandshakeHandler(ProxyHandshake(proxy: proxy, host: host, port: port)) { result in
            switch result {
            case .success: self.secure(channel)
            case .failure(let error): self.fail(error)
            }
        }
        do {
            try channel.pipeline.syncOperations.addHandler(handler)
        } catch {
            fail(TransportError(.connectFailed, "The proxy closed the connection at once"))
        }
    }

    // MARK: TLS

    private func secure(_ channel: any Channel) {
        guard completion != nil else { return channel.close(promise: nil) }
        guard let tls else { return succeed(channel) }
        do {
            if proxy != nil && endpoint.tlsServerName == nil {
                throw TransportError(
                    .tlsFailed, "The certificate of an IP address cannot be verified through a proxy; use a name")
            }
            let pipeline = channel.pipeline.syncOperations
            let ready = TLSReadyHandler { error in
                if let error {
                    self.fail(TransportError(.tlsFailed, "TLS with \(self.endpoint) failed: \(error)"))
                } else if self.isRightServer(channel) {
                    self.succeed(channel)
                } else {
                    self.fail(
                        TransportError(.tlsFailed, "The certificate of \(self.endpoint) is for another name"))
                }
            }
            try pipeline.addHandler(ready)
            // Last, for it begins to speak as soon as it is there.
            try pipeline.addHandler(
                NIOSSLClientHandler(context: tls, serverHostname: endpoint.tlsServerName), position: .before(ready))
        } catch {
            fail(
                error as? TransportError
                    ?? TransportError(.tlsFailed, "TLS with \(endpoint) could not be set up: \(error)"))
        }
    }

    private func isRightServer(_ channel: any Channel) -> Bool {
        guard let name = endpoint.tlsServerName else { return true }
        let handler = try? channel.pipeline.syncOperations.handler(type: NIOSSLClientHandler.self)
        return handler?.peerCertificate.map { CertificateName.bears($0, name: name) } ?? false
    }

    // MARK: The end

    private func succeed(_ channel: any Channel) {
        guard let completion else { return channel.close(promise: nil) }
        do {
            let transport = try SocketTransport.install(
                on: channel, marks: configuration.waterMarks, isSecure: endpoint.isSecure)
            end()
            completion(.success(transport))
        } catch {
            fail(TransportError(.connectFailed, "\(endpoint) closed the connection at once"))
        }
    }

    private func fail(_ error: TransportError) {
        guard let completion else { return }
        let channel = channel
        // First, for closing makes the handlers report failures of their own.
        end()
        channel?.close(promise: nil)
        completion(.failure(error))
    }

    private func end() {
        completion = nil
        channel = nil
        timeout?.cancel()
        timeout = nil
    }
}

/// Asks whether an address may be connected to, once it is known.
private final class AddressPolicyHandler: ChannelOutboundHandler {
    typealias OutboundIn = ByteBuffer
    private let isAllowed: @Sendable (SocketAddress) -> Bool

    init(_ isAllowed: @escaping @Sendable (SocketAddress) -> Bool) { self.isAllowed = isAllowed }

    func connect(context: ChannelHandlerContext, to address: SocketAddress, promise: EventLoopPromise<Void>?) {
        if case .unixDomainSocket = address { return context.connect(to: address, promise: promise) }
        guard isAllowed(address) else {
            promise?.fail(TransportError(.refused, "\(address.ipAddress ?? "the address") may not be connected to"))
            return
        }
        context.connect(to: address, promise: promise)
    }
}

/// Reports the end of the TLS handshake, then takes itself out.
private final class TLSReadyHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    private let completion: ((any Error)?) -> Void
    private var isDone = false

    /// - Parameter completion: called once, with what went wrong, if anything did.
    init(completion: @escaping ((any Error)?) -> Void) { self.completion = completion }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .handshakeCompleted? = event as? TLSUserEvent, !isDone {
            isDone = true
            context.pipeline.syncOperations.removeHandler(self, promise: nil)
            completion(nil)
            return
        }
        context.fireUserInboundEventTriggered(event)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if isDone { return context.fireErrorCaught(error) }
        isDone = true
        completion(error)
    }

    func channelInactive(context: ChannelHandlerContext) {
        if !isDone {
            isDone = true
            completion(ChannelError.eof)
        }
        context.fireChannelInactive()
    }
}
