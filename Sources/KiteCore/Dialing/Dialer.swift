/// Opens outward connections: to targets, to gateways, to kites; the start of every way out.
public import KiteHTTP
public import NIOCore
import NIOPosix
public import NIOSSL
import NIOTLS

/// Connects to an ``Endpoint`` and hands over a ``ByteTransport``, with TLS where the endpoint asks for it.
public struct Dialer: Sendable {
    /// How connections are opened.
    public struct Configuration: Sendable {
        /// Until the connection stands, name resolution and TLS included.
        public var connectTimeout = TimeAmount.seconds(10)
        /// Decides about the address a name resolved to, just before connecting. Nil: every address is allowed. UNIX sockets are not asked about.
        public var isAllowed: (@Sendable (SocketAddress) -> Bool)?
        /// What may wait in a connection to be written.
        public var waterMarks = SocketTransport.WaterMarks()

        public init() {}
    }

    public var configuration: Configuration
    private let tls: NIOSSLContext?

    /// - Parameter tls: verifies servers; nil makes one with the system's certificates.
    /// - Throws: when the system's certificates cannot be loaded.
    public init(configuration: Configuration = Configuration(), tls: NIOSSLContext? = nil) throws {
        self.configuration = configuration
        if let tls {
            self.tls = tls
        } else {
            var settings = TLSConfiguration.makeClientConfiguration()
            settings.applicationProtocols = ["http/1.1"]
            self.tls = try NIOSSLContext(configuration: settings)
        }
    }

    /// A TLS context that trusts the certificates of a PEM file, for ``init(configuration:tls:)``.
    /// - Throws: when the file cannot be read or holds no certificate.
    public static func tlsContext(trusting file: String) throws -> NIOSSLContext {
        var settings = TLSConfiguration.makeClientConfiguration()
        settings.applicationProtocols = ["http/1.1"]
        settings.trustRoots = .file(file)
        return try NIOSSLContext(configuration: settings)
    }

    /// Connects. Must be called on `loop`.
    /// - Parameters:
    ///   - loop: where the transport lives.
    ///   - completion: called on `loop` with the transport, whose delegate must be set before it returns or soon after, or
    ///     with the cause: `.connectFailed`, `.connectTimeout`, `.tlsFailed` or `.refused`.
    public func dial(
        _ endpoint: Endpoint, on loop: any EventLoop,
        completion: @escaping (Result<any ByteTransport, TransportError>) -> Void
    ) {
        let attempt = DialAttempt(endpoint: endpoint, loop: loop, completion: completion)
        let bound = NIOLoopBound(attempt, eventLoop: loop)
        let configuration = configuration
        let tls = endpoint.isSecure ? tls : nil
        let serverName = endpoint.tlsServerName
        let bootstrap = ClientBootstrap(group: loop)
            .connectTimeout(configuration.connectTimeout)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    if let isAllowed = configuration.isAllowed {
                        try pipeline.addHandler(AddressPolicyHandler(isAllowed))
                    }
                    if let tls {
                        try pipeline.addHandler(NIOSSLClientHandler(context: tls, serverHostname: serverName))
                        try pipeline.addHandler(TLSReadyHandler(bound.value))
                    }
                }
            }
        let connected: EventLoopFuture<any Channel>
        switch endpoint.address {
        case .tcp(let host, let port):
            connected = bootstrap.channelOption(.tcpOption(.tcp_nodelay), value: 1).connect(host: host, port: port)
        case .unix(let path):
            connected = bootstrap.connect(unixDomainSocketPath: path)
        }
        attempt.timeout = loop.assumeIsolated().scheduleTask(in: configuration.connectTimeout) {
            attempt.fail(TransportError(.connectTimeout, "\(endpoint) did not accept the connection in time"))
        }
        connected.assumeIsolated().whenComplete { result in
            switch result {
            case .success(let channel):
                attempt.channel = channel
                if tls == nil {
                    attempt.succeed(marks: configuration.waterMarks)
                } else {
                    attempt.awaitTLS(marks: configuration.waterMarks)
                }
            case .failure(let error): attempt.fail(Self.cause(error, endpoint))
            }
        }
    }

    private static func cause(_ error: any Error, _ endpoint: Endpoint) -> TransportError {
        if let error = error as? TransportError { return error }
        if let failures = (error as? NIOConnectionError)?.connectionErrors.compactMap({ $0.error as? TransportError }),
            let first = failures.first
        {
            return first
        }
        if case .connectTimeout? = error as? ChannelError {
            return TransportError(.connectTimeout, "\(endpoint) did not accept the connection in time")
        }
        return TransportError(.connectFailed, "\(endpoint) could not be connected to: \(error)")
    }
}

extension Endpoint {
    /// The name that the server's certificate must have; nil for an IP address, whose certificate must name the address.
    var tlsServerName: String? {
        if let serverName { return serverName }
        guard case .tcp(let host, _) = address, (try? SocketAddress(ipAddress: host, port: 0)) == nil else {
            return nil
        }
        return host
    }
}

/// One connection being opened. Completes once.
private final class DialAttempt {
    private let endpoint: Endpoint
    private let loop: any EventLoop
    private var completion: ((Result<any ByteTransport, TransportError>) -> Void)?
    var channel: (any Channel)?
    var timeout: Scheduled<Void>?
    private var isSecured = false
    private var marks: SocketTransport.WaterMarks?

    init(
        endpoint: Endpoint, loop: any EventLoop,
        completion: @escaping (Result<any ByteTransport, TransportError>) -> Void
    ) {
        self.endpoint = endpoint
        self.loop = loop
        self.completion = completion
    }

    func succeed(marks: SocketTransport.WaterMarks) {
        guard let completion, let channel else {
            channel?.close(promise: nil)
            return
        }
        do {
            let transport = try SocketTransport.install(on: channel, marks: marks, isSecure: endpoint.isSecure)
            end()
            completion(.success(transport))
        } catch {
            fail(TransportError(.connectFailed, "\(endpoint) closed the connection at once: \(error)"))
        }
    }

    /// The connection stands, TLS perhaps not yet.
    func awaitTLS(marks: SocketTransport.WaterMarks) {
        self.marks = marks
        if isSecured { succeed(marks: marks) }
    }

    func secured() {
        isSecured = true
        if let marks { succeed(marks: marks) }
    }

    func failedTLS(_ error: any Error) {
        fail(TransportError(.tlsFailed, "TLS with \(endpoint) failed: \(error)"))
    }

    func fail(_ error: TransportError) {
        guard let completion else { return }
        end()
        channel?.close(promise: nil)
        completion(.failure(error))
    }

    private func end() {
        completion = nil
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
    private let attempt: DialAttempt
    private var isDone = false

    init(_ attempt: DialAttempt) { self.attempt = attempt }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .handshakeCompleted? = event as? TLSUserEvent, !isDone {
            isDone = true
            context.pipeline.syncOperations.removeHandler(self, promise: nil)
            attempt.secured()
            return
        }
        context.fireUserInboundEventTriggered(event)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if isDone { return context.fireErrorCaught(error) }
        isDone = true
        attempt.failedTLS(error)
    }

    func channelInactive(context: ChannelHandlerContext) {
        if !isDone {
            isDone = true
            attempt.failedTLS(ChannelError.eof)
        }
        context.fireChannelInactive()
    }
}
