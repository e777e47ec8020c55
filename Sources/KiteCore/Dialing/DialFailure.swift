/// Turns what the system says when a connection can't be opened into a ``TransportError`` with a sentence for people.
import KiteHTTP
import NIOCore
import NIOPosix

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// Explains failed connections.
enum DialFailure {
    static func timeout(_ endpoint: Endpoint, _ proxy: ProxyServer?) -> TransportError {
        TransportError(.connectTimeout, "\(place(endpoint, proxy)) did not accept the connection in time")
    }

    private static func place(_ endpoint: Endpoint, _ proxy: ProxyServer?) -> String {
        proxy.map { "The proxy \($0.host):\($0.port) for \(endpoint)" } ?? "\(endpoint)"
    }

    static func describe(_ error: any Error, _ endpoint: Endpoint, _ proxy: ProxyServer?) -> TransportError {
        let place = place(endpoint, proxy)
        let causes: [any Error]
        if let failure = error as? NIOConnectionError {
            if failure.connectionErrors.isEmpty {
                return TransportError(.connectFailed, "\(place) could not be connected to: unknown host name")
            }
            causes = failure.connectionErrors.map(\.error)
        } else {
            causes = [error]
        }
        // Of several addresses the most telling failure: what we forbid, then what the other side said, then silence.
        if let refused = causes.lazy.compactMap({ $0 as? TransportError }).first { return refused }
        if let system = causes.lazy.compactMap({ $0 as? IOError }).first {
            return TransportError(.connectFailed, "\(place) could not be connected to: \(reason(system))")
        }
        for cause in causes {
            if case .connectTimeout? = cause as? ChannelError {
                return timeout(endpoint, proxy)
            }
        }
        return TransportError(.connectFailed, "\(place) could not be connected to: \(error)")
    }

    private static func reason(_ error: IOError) -> String {
        switch error.errnoCode {
        case ECONNREFUSED: "connection refused"
        case EHOSTUNREACH, ENETUNREACH: "not reachable"
        case ENOENT: "no such socket"
        case EACCES: "permission denied"
        case ETIMEDOUT: "timed out"
        default: "\(error)"
        }
    }
}
