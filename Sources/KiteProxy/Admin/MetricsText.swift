/// The gateway's numbers and the process's as Prometheus text. docs/operations.md explains each family.
import KiteCommand
import KiteGateway
import KiteHTTP2
import KiteTLS

enum MetricsText {
    /// The text of `/metrics`.
    static func text(
        _ metrics: GatewayMetrics, _ process: ProcessStatistics, isReady: Bool,
        certificates: CertificateStatistics? = nil, automatic: AutomaticStatistics? = nil
    ) -> String {
        var text = PrometheusText()
        requests(metrics, &text)
        connections(metrics, &text)
        if let certificates {
            text.metric(
                "kiteproxy_certificate_expiry_seconds", .gauge, "Time until a host's certificate expires",
                label: "name", certificates.secondsLeft)
            text.metric(
                "kiteproxy_certificate_reload_failures_total", .counter,
                "Changed certificate files that could not be used", certificates.reloadFailures)
        }
        if let automatic { automatic.write(&text) }
        text.metric("kiteproxy_ready", .gauge, "Whether /readyz answers 200", isReady ? 1 : 0)
        text.metric(
            "kiteproxy_short", .gauge, "Whether new requests are refused since memory or file descriptors run out",
            metrics.isShort ? 1 : 0)
        text.info("kiteproxy_build_info", "The version that runs", [("version", programVersion)])
        text.metric(
            "process_resident_memory_bytes", .gauge, "Memory in use, in bytes", process.residentBytes)
        text.metric("process_open_fds", .gauge, "Open file descriptors", process.openFiles)
        text.metric("process_max_fds", .gauge, "The most file descriptors allowed", process.maximumFiles)
        text.metric(
            "process_cpu_seconds_total", .counter, "Processor time used, user and system", process.cpuSeconds)
        text.metric("kiteproxy_uptime_seconds", .gauge, "Time since the start", process.uptimeSeconds)
        return text.text
    }

    /// What a gateway without traffic says, for tests and documentation.
    static var sample: String {
        text(
            GatewayMetrics(), ProcessStatistics(), isReady: true,
            certificates: CertificateStatistics([], reloadFailures: 0, now: 0), automatic: AutomaticStatistics())
    }

    private static func requests(_ metrics: GatewayMetrics, _ text: inout PrometheusText) {
        let classes = metrics.responses.enumerated().map { index, count in
            (index == 0 ? "none" : "\(index)xx", count)
        }
        text.metric(
            "kiteproxy_requests_total", .counter,
            "Requests answered, by class of status; none: the visitor went before an answer", label: "class", classes)
        text.histogram(
            "kiteproxy_request_duration_seconds", "From a request's head to the last byte of its response",
            bounds: LatencyHistogram.bounds.map { Double($0) / 1e9 }, counts: metrics.latency.counts,
            sum: Double(metrics.latency.sum) / 1e9)
        text.metric("kiteproxy_requests_active", .gauge, "Requests being answered", metrics.activeRequests)
        text.metric(
            "kiteproxy_requests_parked", .gauge, "Requests waiting for an agent or for Kontrol", metrics.parkedRequests)
        text.metric(
            "kiteproxy_retries_total", .counter,
            "Requests sent again, since a pooled connection was dead or an agent had vanished",
            metrics.retries)
        text.metric(
            "kiteproxy_refusals_total", .counter, "Requests and tunnels that the gateway refused itself, by cause",
            label: "cause", RefusalCause.allCases.map { ($0.rawValue, metrics.refusals[$0] ?? 0) })
        text.metric(
            "kiteproxy_received_bytes_total", .counter, "Bytes of bodies and upgraded connections from visitors",
            metrics.bytesIn)
        text.metric(
            "kiteproxy_sent_bytes_total", .counter, "Bytes of bodies and upgraded connections to visitors",
            metrics.bytesOut)
    }

    private static func connections(_ metrics: GatewayMetrics, _ text: inout PrometheusText) {
        text.metric(
            "kiteproxy_connections_open", .gauge, "Open connections of visitors and agents", metrics.openConnections)
        text.metric(
            "kiteproxy_connections_total", .counter, "Connections accepted from visitors and agents",
            metrics.acceptedConnections)
        text.metric(
            "kiteproxy_tls_handshakes_failed_total", .counter, "TLS handshakes that failed or took too long",
            metrics.failedHandshakes)
        text.metric(
            "kiteproxy_proxy_headers_failed_total", .counter,
            "Connections of load balancers without a proper PROXY protocol header", metrics.failedProxyHeaders)
        text.metric(
            "kiteproxy_http2_connections_open", .gauge, "Open HTTP/2 connections", metrics.http2Connections)
        text.metric(
            "kiteproxy_http2_requests_total", .counter, "Requests that came over HTTP/2", metrics.http2Requests)
        text.metric(
            "kiteproxy_http2_faults_total", .counter,
            "Breaches of HTTP/2 by visitors, which cost them a stream or the connection, by cause", label: "cause",
            HTTP2Fault.allCases.map { ($0.rawValue, metrics.http2Faults[$0] ?? 0) })
        text.metric("kiteproxy_upgrades_open", .gauge, "Open upgraded connections (WebSockets)", metrics.openUpgrades)
        text.metric(
            "kiteproxy_upstream_connections_open", .gauge, "Open connections to direct targets, idle ones included",
            metrics.upstreamConnections)
        text.metric("kiteproxy_streams_open", .gauge, "Open tunnel streams", metrics.openStreams)
        text.metric("kiteproxy_streams_total", .counter, "Tunnel streams opened", metrics.openedStreams)
        text.metric("kiteproxy_lanes_open", .gauge, "Lanes that agents hold", metrics.lanes)
        text.metric("kiteproxy_lanes_total", .counter, "Lanes accepted", metrics.acceptedLanes)
        text.metric(
            "kiteproxy_reconnects_total", .counter, "Lanes that came for a session known before", metrics.reconnects)
        text.metric("kiteproxy_sessions", .gauge, "Sessions of agents", metrics.sessions)
        text.metric(
            "kiteproxy_kite_sessions", .gauge, "Visitors' sessions with kites that dial back", metrics.kiteSessions)
        text.metric("kiteproxy_routes", .gauge, "Routes known", metrics.routes)
        text.metric("kiteproxy_routes_serving", .gauge, "Routes that can serve now", metrics.servingRoutes)
        text.metric(
            "kiteproxy_ejections_total", .counter, "Targets left out for a while because they failed",
            metrics.ejections)
    }
}

/// What `/metrics` says about certificates.
struct CertificateStatistics: Sendable {
    /// By host name, of the certificate that expires first where a name has several; names in order.
    let secondsLeft: [(String, Int64)]
    let reloadFailures: Int

    /// - Parameter now: seconds since 1970.
    init(_ certificates: [CertificateStore.Status], reloadFailures: Int, now: Int64) {
        var left: [String: Int64] = [:]
        for certificate in certificates {
            for name in certificate.names { left[name] = min(left[name] ?? .max, certificate.notAfter - now) }
        }
        secondsLeft = left.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
        self.reloadFailures = reloadFailures
    }
}
