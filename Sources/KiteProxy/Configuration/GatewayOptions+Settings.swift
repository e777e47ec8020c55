/// From settings to the gateway's options.
import KiteCommand
import KiteCore
import KiteGateway
import NIOCore

extension GatewayConfiguration {
    /// The options that the settings come to, without certificates.
    var gatewayOptions: GatewayOptions {
        var options = GatewayOptions()
        options.listeners =
            settings[GatewaySettings.listen].map { .init(host: $0.host, port: $0.port) }
            + settings[GatewaySettings.listenTLS].map { .init(host: $0.host, port: $0.port, isSecure: true) }
        options.publicURL = settings[GatewaySettings.publicURL].map { "\($0.scheme)://\($0.authority)" }
        options.domain = settings[GatewaySettings.domain]
        options.threads = threads
        options.clientRules = clientRules
        options.trustedProxies = settings[GatewaySettings.trustedProxies]
        options.proxyProtocol = settings[GatewaySettings.proxyProtocol]
        options.directTargets =
            switch settings[GatewaySettings.directLoopback] {
            case .auto: isOpenToOthers ? .refusingLoopback : .derived
            case .allow: .allowingLoopback
            case .refuse: .refusingLoopback
            }
        options.directTargets.allowed = settings[GatewaySettings.directAllow]
        options.directTargets.denied = settings[GatewaySettings.directDeny]
        options.isAccessLogged = settings[GatewaySettings.accessLog]
        options.limits = limits
        options.timeouts = timeouts
        options.parking.time = settings[GatewaySettings.parkTime]
        options.parking.requestsPerRoute = settings[GatewaySettings.parkedPerRoute]
        options.parking.requests = settings[GatewaySettings.parked]
        options.tunnels.isEnabled = settings[GatewaySettings.tunnels]
        options.tunnels.tcpHost = settings[GatewaySettings.tcpHost]
        options.tunnels.tcpPorts = settings[GatewaySettings.tcpPorts]
        options.tunnels.tunnelsPerSession = settings[GatewaySettings.tunnelsPerSession]
        options.tunnels.namesPerUser = settings[GatewaySettings.namesPerUser]
        options.tunnels.sessionsPerUser = settings[GatewaySettings.sessionsPerUser]
        options.tunnels.portsPerUser = settings[GatewaySettings.portsPerUser]
        options.kiteTunnels = kiteTunnels
        options.rules = sections.ruleBook()
        return options
    }

    private var kiteTunnels: GatewayOptions.KiteTunnels {
        var tunnels = GatewayOptions.KiteTunnels()
        tunnels.isEnabled = settings[GatewaySettings.kiteTunnels]
        tunnels.publicKites = settings[GatewaySettings.publicKites].compactMap { try? KontrolQuery(parsing: $0) }
        tunnels.sessions = settings[GatewaySettings.kiteSessions]
        tunnels.sessionsPerKite = settings[GatewaySettings.sessionsPerKite]
        tunnels.pendingSessions = settings[GatewaySettings.pendingKiteSessions]
        tunnels.messageBytes = settings[GatewaySettings.messageBytes]
        tunnels.admissionTime = settings[GatewaySettings.admissionTime]
        tunnels.dialBackTime = settings[GatewaySettings.dialBackTime]
        return tunnels
    }

    /// Whether something in front of the gateway lets others in, so that listening on loopback does not mean a machine of one's own.
    private var isOpenToOthers: Bool {
        if !settings[GatewaySettings.trustedProxies].isEmpty { return true }
        guard let host = settings[GatewaySettings.publicURL]?.host else { return false }
        return !ListenAddress(host: host, port: 0).isLoopback && !host.hasSuffix(".localhost")
    }

    private var limits: GatewayOptions.Limits {
        var limits = GatewayOptions.Limits()
        limits.headBytes = settings[GatewaySettings.headBytes]
        limits.targetBytes = settings[GatewaySettings.targetBytes]
        limits.streams = settings[GatewaySettings.streams]
        limits.bodyBytes = settings[GatewaySettings.bodyBytes].map(Int64.init)
        limits.memoryBytes = settings[GatewaySettings.memoryBytes]
        limits.laneBytes = settings[GatewaySettings.laneBytes]
        limits.connections = settings[GatewaySettings.connections]
        limits.connectionsPerAddress = settings[GatewaySettings.connectionsPerAddress]
        limits.connectionsPerTarget = settings[GatewaySettings.connectionsPerTarget]
        limits.idleConnectionsPerTarget = settings[GatewaySettings.idleConnectionsPerTarget]
        limits.resolvedRoutes = settings[GatewaySettings.resolvedRoutes]
        limits.pendingResolutions = settings[GatewaySettings.pendingResolutions]
        return limits
    }

    private var timeouts: GatewayOptions.Timeouts {
        var timeouts = GatewayOptions.Timeouts()
        timeouts.tlsHandshake = settings[GatewaySettings.tlsHandshakeTimeout]
        timeouts.head = settings[GatewaySettings.headTimeout]
        timeouts.keepAlive = settings[GatewaySettings.keepAliveTimeout]
        timeouts.connect = settings[GatewaySettings.connectTimeout]
        timeouts.response = settings[GatewaySettings.responseTimeout]
        timeouts.bodyIdle = settings[GatewaySettings.bodyIdleTimeout]
        timeouts.upstreamIdle = settings[GatewaySettings.upstreamIdleTimeout]
        timeouts.resolved = settings[GatewaySettings.resolvedTime]
        timeouts.unresolved = settings[GatewaySettings.unresolvedTime]
        timeouts.drain = settings[GatewaySettings.drainTime]
        return timeouts
    }
}
