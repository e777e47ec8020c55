/// The flags of the gateway, one per setting. What each means stands in ``GatewaySettings``; here are only their names, which
/// ArgumentParser wants as stored properties.
import ArgumentParser
import KiteCommand

/// The help of each setting, from its description. Made once: ArgumentParser asks again for every flag it decodes.
private let helpByKey: [String: ArgumentHelp] = Dictionary(
    GatewaySettings.schema.settings.map(\.description).map { setting in
        let shown = setting.defaultText.replacing("`", with: "")
        let help = ArgumentHelp(
            "\(setting.meaning.replacing("`", with: "")). (default: \(shown))",
            valueName: setting.placeholder.isEmpty ? nil : setting.placeholder)
        return (setting.key, help)
    }
) { $1 }

func settingHelp(_ key: String) -> ArgumentHelp { helpByKey[key] ?? "" }
private func help(_ key: String) -> ArgumentHelp { settingHelp(key) }

/// Flags that become texts by key.
protocol SettingFlags: ParsableArguments {
    /// What was given; an empty list for what was not.
    var given: [String: [String]] { get }
}

/// All flags of `serve` and `check`, in the order of the help.
struct GatewayFlags: SettingFlags {
    @OptionGroup(title: "Listening") var listening: ListeningFlags
    @OptionGroup(title: "Automatic certificates") var acme: ACMEFlags
    @OptionGroup(title: "Kontrol and identity") var kontrol: KontrolFlags
    @OptionGroup(title: "Logs") var log: LogFlags
    @OptionGroup(title: "Trust") var trust: TrustFlags
    @OptionGroup(title: "Tunnels") var tunnel: TunnelFlags
    @OptionGroup(title: "Limits") var limit: LimitFlags
    @OptionGroup(title: "Times") var time: TimeFlags

    var given: [String: [String]] {
        [listening.given, acme.given, kontrol.given, log.given, trust.given, tunnel.given, limit.given, time.given]
            .reduce(into: [:]) { all, part in all.merge(part) { $1 } }
    }
}

struct ListeningFlags: SettingFlags {
    @Option(name: .customLong("listen"), help: help("listen"))
    var listen: [String] = []
    @Option(name: .customLong("listen-tls"), help: help("listen-tls"))
    var listenTLS: [String] = []
    @Option(name: .customLong("tls-cert"), help: help("tls-cert"))
    var tlsCertificates: [String] = []
    @Option(name: .customLong("tls-key"), help: help("tls-key"))
    var tlsKeys: [String] = []
    @Option(name: .customLong("tls-default"), help: help("tls-default"))
    var tlsDefault: String?
    @Option(name: .customLong("tls-min-version"), help: help("tls-min-version"))
    var tlsMinimumVersion: String?
    @Option(name: .customLong("proxy-protocol"), help: help("proxy-protocol"))
    var proxyProtocol: [String] = []
    @Flag(name: .customLong("http2"), inversion: .prefixedNo, help: help("http2"))
    var http2: Bool?
    @Option(name: .customLong("public-url"), help: help("public-url"))
    var publicURL: String?
    @Option(name: .customLong("domain"), help: help("domain"))
    var domain: String?
    @Option(name: .customLong("admin-listen"), help: help("admin-listen"))
    var adminListen: String?
    @Option(name: .customLong("threads"), help: help("threads"))
    var threads: String?
    @Flag(name: .customLong("take-over"), inversion: .prefixedNo, help: help("take-over"))
    var takeOver: Bool?

    var given: [String: [String]] {
        [
            "take-over": takeOver.map { [String($0)] } ?? [],
            "listen": listen,
            "listen-tls": listenTLS,
            "tls-cert": tlsCertificates,
            "tls-key": tlsKeys,
            "tls-default": one(tlsDefault),
            "tls-min-version": one(tlsMinimumVersion),
            "proxy-protocol": proxyProtocol,
            "http2": http2.map { [String($0)] } ?? [],
            "public-url": one(publicURL),
            "domain": one(domain),
            "admin-listen": one(adminListen),
            "threads": one(threads),
        ]
    }
}

struct KontrolFlags: SettingFlags {
    @Option(name: .customLong("kontrol-url"), help: help("kontrol-url"))
    var kontrolURL: String?
    @Option(name: .customLong("kontrol-listen"), help: help("kontrol-listen"))
    var kontrolListen: String?
    @Option(name: .customLong("register-machine"), help: help("register-machine"))
    var machinePolicy: String?
    @Option(name: .customLong("kite-key"), help: help("kite-key"))
    var kiteKey: String?
    @Option(name: .customLong("data-dir"), help: help("data-dir"))
    var dataDirectory: String?
    @Option(name: .customLong("environment"), help: help("environment"))
    var environment: String?
    @Option(name: .customLong("region"), help: help("region"))
    var region: String?
    @Option(name: .customLong("username"), help: help("username"))
    var username: String?

    var given: [String: [String]] {
        [
            "kontrol-url": one(kontrolURL),
            "kontrol-listen": one(kontrolListen),
            "register-machine": one(machinePolicy),
            "kite-key": one(kiteKey),
            "data-dir": one(dataDirectory),
            "environment": one(environment),
            "region": one(region),
            "username": one(username),
        ]
    }
}

struct LogFlags: SettingFlags {
    @Option(name: .customLong("log-level"), help: help("log-level"))
    var logLevel: String?
    @Option(name: .customLong("log-format"), help: help("log-format"))
    var logFormat: String?
    @Flag(name: .customLong("access-log"), inversion: .prefixedNo, help: help("access-log"))
    var accessLog: Bool?

    var given: [String: [String]] {
        [
            "log-level": one(logLevel),
            "log-format": one(logFormat),
            "access-log": accessLog.map { [String($0)] } ?? [],
        ]
    }
}

struct TrustFlags: SettingFlags {
    @Option(name: .customLong("trusted-proxy"), help: help("trusted-proxy"))
    var trustedProxies: [String] = []
    @Option(name: .customLong("direct-loopback"), help: help("direct-loopback"))
    var directLoopback: String?
    @Option(name: .customLong("direct-allow"), help: help("direct-allow"))
    var directAllow: [String] = []
    @Option(name: .customLong("direct-deny"), help: help("direct-deny"))
    var directDeny: [String] = []

    var given: [String: [String]] {
        [
            "trusted-proxy": trustedProxies,
            "direct-loopback": one(directLoopback),
            "direct-allow": directAllow,
            "direct-deny": directDeny,
        ]
    }
}

struct TunnelFlags: SettingFlags {
    @Flag(name: .customLong("tunnels"), inversion: .prefixedNo, help: help("tunnels"))
    var tunnels: Bool?
    @Option(name: .customLong("tcp-host"), help: help("tcp-host"))
    var tcpHost: String?
    @Option(name: .customLong("tcp-ports"), help: help("tcp-ports"))
    var tcpPorts: String?
    @Option(name: .customLong("max-tunnels-per-agent"), help: help("max-tunnels-per-agent"))
    var tunnelsPerSession: String?
    @Option(name: .customLong("max-names-per-user"), help: help("max-names-per-user"))
    var namesPerUser: String?
    @Option(name: .customLong("max-agents-per-user"), help: help("max-agents-per-user"))
    var sessionsPerUser: String?
    @Option(name: .customLong("max-ports-per-user"), help: help("max-ports-per-user"))
    var portsPerUser: String?
    @Flag(name: .customLong("kite-tunnels"), inversion: .prefixedNo, help: help("kite-tunnels"))
    var kiteTunnels: Bool?
    @Option(name: .customLong("public-kite"), help: help("public-kite"))
    var publicKites: [String] = []

    var given: [String: [String]] {
        [
            "tunnels": tunnels.map { [String($0)] } ?? [],
            "tcp-host": one(tcpHost),
            "tcp-ports": one(tcpPorts),
            "max-tunnels-per-agent": one(tunnelsPerSession),
            "max-names-per-user": one(namesPerUser),
            "max-agents-per-user": one(sessionsPerUser),
            "max-ports-per-user": one(portsPerUser),
            "kite-tunnels": kiteTunnels.map { [String($0)] } ?? [],
            "public-kite": publicKites,
        ]
    }
}

struct LimitFlags: SettingFlags {
    @Option(name: .customLong("max-head"), help: help("max-head"))
    var headBytes: String?
    @Option(name: .customLong("max-target"), help: help("max-target"))
    var targetBytes: String?
    @Option(name: .customLong("max-body"), help: help("max-body"))
    var bodyBytes: String?
    @Option(name: .customLong("max-streams"), help: help("max-streams"))
    var streams: String?
    @Option(name: .customLong("max-connections"), help: help("max-connections"))
    var connections: String?
    @Option(name: .customLong("max-connections-per-address"), help: help("max-connections-per-address"))
    var connectionsPerAddress: String?
    @Option(name: .customLong("max-connections-per-target"), help: help("max-connections-per-target"))
    var connectionsPerTarget: String?
    @Option(name: .customLong("max-idle-connections-per-target"), help: help("max-idle-connections-per-target"))
    var idleConnectionsPerTarget: String?
    @Option(name: .customLong("max-memory"), help: help("max-memory"))
    var memoryBytes: String?
    @Option(name: .customLong("max-buffered"), help: help("max-buffered"))
    var laneBytes: String?
    @Option(name: .customLong("max-resolved-routes"), help: help("max-resolved-routes"))
    var resolvedRoutes: String?
    @Option(name: .customLong("max-pending-resolutions"), help: help("max-pending-resolutions"))
    var pendingResolutions: String?
    @Option(name: .customLong("max-parked-per-route"), help: help("max-parked-per-route"))
    var parkedPerRoute: String?
    @Option(name: .customLong("max-parked"), help: help("max-parked"))
    var parked: String?
    @Option(name: .customLong("max-message"), help: help("max-message"))
    var messageBytes: String?
    @Option(name: .customLong("max-kite-sessions"), help: help("max-kite-sessions"))
    var kiteSessions: String?
    @Option(name: .customLong("max-sessions-per-kite"), help: help("max-sessions-per-kite"))
    var sessionsPerKite: String?
    @Option(name: .customLong("max-pending-kite-sessions"), help: help("max-pending-kite-sessions"))
    var pendingKiteSessions: String?

    var given: [String: [String]] {
        [
            "max-head": one(headBytes),
            "max-target": one(targetBytes),
            "max-body": one(bodyBytes),
            "max-streams": one(streams),
            "max-connections": one(connections),
            "max-connections-per-address": one(connectionsPerAddress),
            "max-connections-per-target": one(connectionsPerTarget),
            "max-idle-connections-per-target": one(idleConnectionsPerTarget),
            "max-memory": one(memoryBytes),
            "max-buffered": one(laneBytes),
            "max-resolved-routes": one(resolvedRoutes),
            "max-pending-resolutions": one(pendingResolutions),
            "max-parked-per-route": one(parkedPerRoute),
            "max-parked": one(parked),
            "max-message": one(messageBytes),
            "max-kite-sessions": one(kiteSessions),
            "max-sessions-per-kite": one(sessionsPerKite),
            "max-pending-kite-sessions": one(pendingKiteSessions),
        ]
    }
}

struct TimeFlags: SettingFlags {
    @Option(name: .customLong("tls-handshake-timeout"), help: help("tls-handshake-timeout"))
    var tlsHandshakeTimeout: String?
    @Option(name: .customLong("head-timeout"), help: help("head-timeout"))
    var headTimeout: String?
    @Option(name: .customLong("keep-alive-timeout"), help: help("keep-alive-timeout"))
    var keepAliveTimeout: String?
    @Option(name: .customLong("connect-timeout"), help: help("connect-timeout"))
    var connectTimeout: String?
    @Option(name: .customLong("response-timeout"), help: help("response-timeout"))
    var responseTimeout: String?
    @Option(name: .customLong("body-idle-timeout"), help: help("body-idle-timeout"))
    var bodyIdleTimeout: String?
    @Option(name: .customLong("upstream-idle-timeout"), help: help("upstream-idle-timeout"))
    var upstreamIdleTimeout: String?
    @Option(name: .customLong("resolved-time"), help: help("resolved-time"))
    var resolvedTime: String?
    @Option(name: .customLong("unresolved-time"), help: help("unresolved-time"))
    var unresolvedTime: String?
    @Option(name: .customLong("park-time"), help: help("park-time"))
    var parkTime: String?
    @Option(name: .customLong("drain-time"), help: help("drain-time"))
    var drainTime: String?
    @Option(name: .customLong("admission-time"), help: help("admission-time"))
    var admissionTime: String?
    @Option(name: .customLong("dial-back-time"), help: help("dial-back-time"))
    var dialBackTime: String?

    var given: [String: [String]] {
        [
            "tls-handshake-timeout": one(tlsHandshakeTimeout),
            "head-timeout": one(headTimeout),
            "keep-alive-timeout": one(keepAliveTimeout),
            "connect-timeout": one(connectTimeout),
            "response-timeout": one(responseTimeout),
            "body-idle-timeout": one(bodyIdleTimeout),
            "upstream-idle-timeout": one(upstreamIdleTimeout),
            "resolved-time": one(resolvedTime),
            "unresolved-time": one(unresolvedTime),
            "park-time": one(parkTime),
            "drain-time": one(drainTime),
            "admission-time": one(admissionTime),
            "dial-back-time": one(dialBackTime),
        ]
    }
}

func one(_ value: String?) -> [String] { value.map { [$0] } ?? [] }
