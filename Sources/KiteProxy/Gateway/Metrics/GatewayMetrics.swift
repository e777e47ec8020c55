/// The numbers a gateway keeps: plain integers on each event loop, added up when somebody asks.
package import KiteHTTP2
package import NIOCore

/// A sum over all event loops at about one moment.
package struct GatewayMetrics: Sendable, Equatable {
    /// Requests answered, by the hundred of the status: `responses[2]` counts 2xx. Seven places; 0 counts exchanges that
    /// ended without an answer.
    package var responses = [UInt64](repeating: 0, count: 7)
    /// From the request's head to the last byte of its response; upgraded connections are left out.
    package var latency = LatencyHistogram()
    /// Connections of visitors and agents that are open.
    package var openConnections = 0
    package var acceptedConnections: UInt64 = 0
    /// TLS handshakes that failed or took too long.
    package var failedHandshakes: UInt64 = 0
    /// Connections of load balancers without a proper PROXY protocol header.
    package var failedProxyHeaders: UInt64 = 0
    /// Of those, the ones that speak HTTP/2.
    package var http2Connections = 0
    /// Requests that came over HTTP/2.
    package var http2Requests: UInt64 = 0
    /// What visitors did wrong on HTTP/2 connections.
    package var http2Faults: [HTTP2Fault: UInt64] = [:]
    /// Exchanges that are being answered, upgraded connections not included.
    package var activeRequests = 0
    /// Upgraded connections (WebSockets) that are open.
    package var openUpgrades = 0
    /// Tunnel streams that are open.
    package var openStreams = 0
    package var openedStreams: UInt64 = 0
    /// Lanes that agents hold.
    package var lanes = 0
    package var acceptedLanes: UInt64 = 0
    /// Lanes that came for a session known before.
    package var reconnects: UInt64 = 0
    /// Requests waiting for an agent or for Kontrol.
    package var parkedRequests = 0
    /// Connections to direct targets that are open, idle ones included.
    package var upstreamConnections = 0
    /// Requests sent a second time because a pooled connection was dead or an agent had vanished.
    package var retries: UInt64 = 0
    /// Bytes of bodies and upgraded connections from visitors.
    package var bytesIn: UInt64 = 0
    /// The same towards visitors.
    package var bytesOut: UInt64 = 0
    /// Requests refused, by cause.
    package var refusals: [RefusalCause: UInt64] = [:]
    /// Targets left out for a while because they failed.
    package var ejections: UInt64 = 0
    /// Routes known, and of those the ones that can serve now.
    package var routes = 0
    package var servingRoutes = 0
    /// Sessions of agents.
    package var sessions = 0
    /// Visitors' sessions with kites that dial back.
    package var kiteSessions = 0
    /// Whether new requests are refused since memory or descriptors run out.
    package var isShort = false

    package init() {}

    /// Requests answered, whatever the status.
    package var requests: UInt64 { responses.reduce(0, &+) }
}

/// Durations in fixed buckets, as Prometheus wants them.
package struct LatencyHistogram: Sendable, Equatable {
    /// Upper bounds, in nanoseconds; one more bucket counts what is longer.
    package static let bounds: [Int64] = [
        500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 50_000_000, 100_000_000, 250_000_000,
        500_000_000, 1_000_000_000, 2_500_000_000, 5_000_000_000, 10_000_000_000, 30_000_000_000,
    ]
    /// How many fell into each bucket (not cumulative), in the order of ``bounds``, and one more.
    package private(set) var counts = [UInt64](repeating: 0, count: Self.bounds.count + 1)
    /// The sum of all durations, in nanoseconds.
    package private(set) var sum: UInt64 = 0

    package init() {}

    /// How many durations were recorded.
    package var count: UInt64 { counts.reduce(0, &+) }

    package mutating func record(_ duration: TimeAmount) {
        let nanoseconds = max(duration.nanoseconds, 0)
        var index = 0
        while index < Self.bounds.count, nanoseconds > Self.bounds[index] { index += 1 }
        counts[index] &+= 1
        sum &+= UInt64(nanoseconds)
    }

    package mutating func add(_ other: LatencyHistogram) {
        for index in counts.indices { counts[index] &+= other.counts[index] }
        sum &+= other.sum
    }
}

extension GatewayMetrics {
    /// Adds what another loop counted.
    mutating func add(_ other: GatewayMetrics) {
        for index in responses.indices { responses[index] &+= other.responses[index] }
        latency.add(other.latency)
        openConnections += other.openConnections
        acceptedConnections &+= other.acceptedConnections
        failedHandshakes &+= other.failedHandshakes
        failedProxyHeaders &+= other.failedProxyHeaders
        http2Connections += other.http2Connections
        http2Requests &+= other.http2Requests
        http2Faults.merge(other.http2Faults, uniquingKeysWith: &+)
        activeRequests += other.activeRequests
        openUpgrades += other.openUpgrades
        openStreams += other.openStreams
        openedStreams &+= other.openedStreams
        lanes += other.lanes
        acceptedLanes &+= other.acceptedLanes
        reconnects &+= other.reconnects
        parkedRequests += other.parkedRequests
        upstreamConnections += other.upstreamConnections
        retries &+= other.retries
        bytesIn &+= other.bytesIn
        bytesOut &+= other.bytesOut
        refusals.merge(other.refusals, uniquingKeysWith: &+)
        ejections &+= other.ejections
    }
}
