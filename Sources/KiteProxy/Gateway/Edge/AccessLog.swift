/// One log line per request, for those who turn it on.
import KiteHTTP
import Logging
import NIOCore

/// Writes access log lines. Query strings are left out: they may hold secrets.
enum AccessLog {
    static func write(_ exchange: any Exchange, status: UInt16, route: RouteKey, duration: TimeAmount, logger: Logger) {
        let request = exchange.request
        logger.info(
            "request",
            metadata: [
                "method": "\(request.method.name)", "host": "\(String(buffer: request.authority))",
                "path": "\(request.path)",
                "status": "\(status)", "route": "\(route)", "visitor": "\(exchange.peer.address?.ipAddress ?? "-")",
                "microseconds": "\(duration.nanoseconds / 1_000)",
            ])
    }
}
