/// How a client reaches a kite unless told otherwise: SockJS over TCP or TLS.
public import KiteDialing
import KiteHTTP
import KiteSockJS
import NIOCore
import NIOPosix

extension KiteClient {
    /// Dials over SockJS, by the transport that the kite's configuration names; servers are verified with the system's certificates, and
    /// reached through the proxy that the process's environment names, if it does.
    public static let sockJS: KiteConnector = { url, configuration in
        try await systemConnector.get()(url, configuration)
    }

    /// Made once: loading the system's certificates takes a while, and what is learnt of servers is for all clients.
    private static let systemConnector = Result { sockJS(try Dialer.ofProcess()) }

    /// Dials over SockJS, by the transport that the kite's configuration names. With ``KiteConfiguration/Transport/auto`` what is returned
    /// remembers for ten minutes which transport a server was reached by.
    /// - Parameter dialer: makes the connections; decides which certificates and addresses are accepted.
    public static func sockJS(_ dialer: Dialer) -> KiteConnector {
        let choice = TransportChoice()
        return { url, configuration in
            @Sendable func open(_ transport: SockJSTransport, _ timeout: Duration) async throws -> any MessageChannel {
                var options = SockJSClientOptions()
                options.openTimeout = TimeAmount(timeout)
                options.maxMessageBytes = configuration.limits.dnode.maximumMessageSize
                return try await SockJSClient.connect(
                    url: url, transport: transport, on: MultiThreadedEventLoopGroup.singleton.next(), dialer: dialer,
                    options: options)
            }
            let timeout = configuration.handshakeTimeout
            guard let transport = configuration.transport.sockJS else {
                return try await choice.open(url, timeout: timeout, open)
            }
            return try await open(transport, timeout)
        }
    }
}

extension KiteConfiguration.Transport {
    /// Nil where the client chooses.
    fileprivate var sockJS: SockJSTransport? {
        switch self {
        case .webSocket: .webSocket
        case .rawWebSocket: .rawWebSocket
        case .xhrPolling: .xhrPolling
        case .xhrStreaming: .xhrStreaming
        case .eventSource: .eventSource
        case .auto: nil
        }
    }
}
