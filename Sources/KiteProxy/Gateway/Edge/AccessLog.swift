/// One log line per request, for those who turn it on.
import KiteHTTP
import Logging
import NIOCore

/// Writes access log lines. Query strings are left out: they may hold secrets.
enum AccessLog {
    /// - Parameters:
    ///   - request: nil where there was none that could be read.
    ///   - status: 0 where nothing was answered.
    ///   - error: why the exchange was broken off; nil when it was not.
    static func write(
        _ request: RequestHead?, peer: ExchangePeer, status: UInt16, route: RouteKey?, duration: TimeAmount?,
        error: TransportError? = nil, logger: Logger
    ) {
        var metadata: Logger.Metadata = [
            "protocol": "\(peer.version.name)", "method": "\(request?.method.name ?? "-")",
            "host": "\(request.map { String(buffer: $0.authority) } ?? "-")",
            "path": "\(request?.path ?? "-")", "status": "\(status)", "route": "\(route.map(\.description) ?? "-")",
            "visitor": "\(peer.address?.ipAddress ?? "-")",
            "microseconds": "\((duration?.nanoseconds ?? 0) / 1_000)",
        ]
        if let error { metadata["broken"] = "\(error)" }
        logger.info("request", metadata: metadata)
    }
}
