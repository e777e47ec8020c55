/// Lets a SockJS client open its connections with the common dialler.
public import KiteDialing
public import KiteHTTP
public import NIOCore

extension Dialer: SockJSConnector {
    package func connect(
        to endpoint: Endpoint, on eventLoop: any EventLoop,
        completion: @escaping @Sendable (Result<NIOLoopBound<any ByteTransport>, TransportError>) -> Void
    ) {
        dial(endpoint, on: eventLoop) { result in
            completion(result.map { NIOLoopBound($0, eventLoop: eventLoop) })
        }
    }
}

extension SockJSClient {
    /// Opens a session.
    /// - Parameters:
    ///   - url: the service's URL (`http`, `https`, `ws`, `wss`); its query goes along with every request.
    ///   - fields: sent with every request, `Authorization` for example.
    ///   - eventLoop: where the session's connections live.
    /// - Returns: the channel, once the server has said that the session is open.
    /// - Throws: ``TransportError``, `CancellationError`.
    public static func connect(
        url: String, transport: SockJSTransport = .auto, fields: HeaderBlock = HeaderBlock(),
        on eventLoop: any EventLoop, dialer: Dialer, options: SockJSClientOptions = SockJSClientOptions()
    ) async throws -> any MessageChannel {
        try await connect(
            url: url, transport: transport, fields: fields, on: eventLoop, connector: dialer, options: options)
    }
}
