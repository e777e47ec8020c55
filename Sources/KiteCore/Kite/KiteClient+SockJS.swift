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
        try await sockJS(systemDialer.get())(url, configuration)
    }

    /// Made once: loading the system's certificates takes a while.
    private static let systemDialer = Result { try Dialer.ofProcess() }

    /// Dials over SockJS, by the transport that the kite's configuration names.
    /// - Parameter dialer: makes the connections; decides which certificates and addresses are accepted.
    public static func sockJS(_ dialer: Dialer) -> KiteConnector {
        { url, configuration in
            let transport: SockJSTransport =
                switch configuration.transport {
                case .webSocket: .webSocket
                case .xhrPolling: .xhrPolling
                case .auto: .auto
                }
            var options = SockJSClientOptions()
            options.openTimeout = TimeAmount(configuration.handshakeTimeout)
            options.maxMessageBytes = configuration.limits.dnode.maximumMessageSize
            return try await SockJSClient.connect(
                url: url, transport: transport, on: MultiThreadedEventLoopGroup.singleton.next(), dialer: dialer,
                options: options)
        }
    }
}
