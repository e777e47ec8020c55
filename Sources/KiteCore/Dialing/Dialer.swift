/// Opens outward connections: to targets, to gateways, to kites; the start of every way out.
import Foundation
public import KiteHTTP
public import NIOCore
public import NIOSSL

/// Connects to an ``Endpoint`` and hands over a ``ByteTransport``, with TLS where the endpoint asks for it.
public struct Dialer: Sendable {
    /// How connections are opened.
    public struct Configuration: Sendable {
        /// Until the connection stands, name resolution, proxy and TLS included.
        public var connectTimeout = TimeAmount.seconds(10)
        /// Decides about the address a name resolved to, just before connecting. Nil: every address is allowed. UNIX sockets are not asked about.
        public var isAllowed: (@Sendable (SocketAddress) -> Bool)?
        /// The proxies to go through. The proxy resolves the target's name then, and `isAllowed` is asked about the proxy only.
        public var proxies = ProxyEnvironment()
        /// What may wait in a connection to be written.
        public var waterMarks = SocketTransport.WaterMarks()

        public init() {}
    }

    /// How it behaves.
    public var configuration: Configuration
    private let tls: NIOSSLContext?

    /// - Parameter tls: verifies servers; nil makes one with the system's certificates.
    /// - Throws: when the system's certificates cannot be loaded.
    public init(configuration: Configuration = Configuration(), tls: NIOSSLContext? = nil) throws {
        self.configuration = configuration
        if let tls {
            self.tls = tls
        } else {
            self.tls = try NIOSSLContext(configuration: Self.tlsSettings)
        }
    }

    /// A dialer as the user of the process expects it: it trusts the system's certificates and goes through the proxies that the
    /// environment names (`HTTPS_PROXY`, `NO_PROXY`, ...; see ``ProxyEnvironment``).
    /// - Throws: ``ProxyEnvironment/Invalid``, or when the system's certificates cannot be loaded.
    public static func ofProcess() throws -> Dialer {
        var configuration = Configuration()
        configuration.proxies = try ProxyEnvironment(environment: ProcessInfo.processInfo.environment)
        return try Dialer(configuration: configuration)
    }

    /// A TLS context that trusts the certificates of a PEM file, for ``init(configuration:tls:)``.
    /// - Throws: when the file cannot be read or holds no certificate.
    public static func tlsContext(trusting file: String) throws -> NIOSSLContext {
        var settings = tlsSettings
        settings.trustRoots = .file(file)
        return try NIOSSLContext(configuration: settings)
    }

    /// Verifies certificates in full, offers HTTP/1.1, takes no TLS older than 1.2 (RFC 8996).
    private static var tlsSettings: TLSConfiguration {
        var settings = TLSConfiguration.makeClientConfiguration()
        settings.minimumTLSVersion = .tlsv12
        settings.applicationProtocols = [HTTPVersion.http1.name]
        return settings
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
        let attempt = DialAttempt(
            endpoint: endpoint, configuration: configuration, tls: endpoint.isSecure ? tls : nil, loop: loop,
            completion: completion)
        attempt.start()
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
