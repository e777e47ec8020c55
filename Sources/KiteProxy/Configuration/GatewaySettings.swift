/// The settings of `kiteproxy`: the one description from which flags' help, validation, `check` and docs/configuration.md derive.
import EmbeddedKontrol
import KiteCommand
import KiteGateway
import KiteHTTP
import NIOCore

/// Every setting of the gateway, in the order of the documentation.
enum GatewaySettings {
    // MARK: Listening

    static let listen = Setting<[ListenAddress]>.list(
        "listen", .listenAddress, default: [ListenAddress(host: "127.0.0.1", port: 3999)],
        meaning: "Plain HTTP listener for visitors, kites and agents; port 0 takes a free one")
    static let listenTLS = Setting<[ListenAddress]>.list(
        "listen-tls", .listenAddress, default: [],
        meaning: "TLS listener. Needs `tls-cert` and `tls-key`, or `acme-domain`")
    static let tlsCertificates = Setting<[String]>.list(
        "tls-cert", .text("FILE"), default: [],
        meaning:
            "Certificate chain (PEM); pairs with the `tls-key` of the same position, chosen by SNI, reloaded when changed"
    )
    static let tlsKeys = Setting<[String]>.list(
        "tls-key", .text("FILE"), default: [], meaning: "Private key (PEM) of the certificate of the same position")
    static let publicURL = Setting<SettingURL?>.optional(
        "public-url", .url(), shown: "from the first listener", meaning: "How the outside reaches this gateway")
    static let domain = Setting<String?>.optional(
        "domain", .domain, shown: "none: path URLs only",
        meaning: "Base domain: each route is served at `<name>.<domain>` too")
    static let adminListen = Setting<ListenAddress>.single(
        "admin-listen", .listenAddress, default: ListenAddress(host: "127.0.0.1", port: 3998),
        meaning: "Metrics, health, admin API and dashboard. It asks nobody for a password: keep it on loopback")
    static let threads = Setting<Int?>.optional(
        "threads", .integer(1...256), shown: "cores", meaning: "Event loops; agents open one lane to each")
    static let takeOver = Setting<Bool>.single(
        "take-over", .flag, default: false,
        meaning:
            "Whether to take the listeners of the gateway that runs with the same data directory, which then lets its visitors finish and ends"
    )

    // MARK: Kontrol

    static let kontrolURL = Setting<SettingURL?>.optional(
        "kontrol-url", .url(["http", "https", "ws", "wss"]), shown: "embedded Kontrol",
        meaning: "An existing Kontrol to register with, such as `http://kontrol.example:4000/kite`")
    static let kontrolListen = Setting<ListenAddress>.single(
        "kontrol-listen", .listenAddress, default: ListenAddress(host: "127.0.0.1", port: 4000),
        meaning: "Where the embedded Kontrol serves `/kite`; not used with `kontrol-url`")
    static let machinePolicy = Setting<MachinePolicy>.single(
        "register-machine", .choice, default: .deny,
        meaning:
            "Whom the embedded Kontrol gives a kite key when they ask by `registerMachine`: nobody, who brings a secret of `kiteproxy keys invite`, or anybody under a user name that is new"
    )
    static let kiteKey = Setting<String?>.optional(
        "kite-key", .text("FILE"), shown: "`$KITE_HOME/kite.key`, else `~/.kite/kite.key`",
        meaning: "Kite key of the gateway; the embedded Kontrol makes it when it is missing")
    static let dataDirectory = Setting<String?>.optional(
        "data-dir", .text("DIR"), shown: "`~/.kiteproxy`", meaning: "Database, key pairs and who owns which name")
    static let environment = Setting<String>.single(
        "environment", .label("NAME"), default: "development", shown: "`development`",
        meaning: "Environment of the gateway's kite; kites look for a gateway in their own")
    static let region = Setting<String>.single(
        "region", .label("NAME"), default: "local", shown: "`local`", meaning: "Region of the gateway's kite")
    static let username = Setting<String?>.optional(
        "username", .label("NAME"), shown: "from the kite key", meaning: "User of the gateway's kite")

    // MARK: Logs

    static let logLevel = Setting<LogLevel>.single(
        "log-level", .choice, default: .info, meaning: "The least important lines that are written")
    static let logFormat = Setting<LogFormat>.single(
        "log-format", .choice, default: .human, meaning: "Text for people, or one JSON object a line")
    static let accessLog = Setting<Bool>.single(
        "access-log", .flag, default: false, meaning: "One line for each request")

    // MARK: Trust

    static let trustedProxies = Setting<[AddressRange]>.list(
        "trusted-proxy", .addressRange, default: [],
        meaning:
            "Proxies in front of the gateway: their `Forwarded` and `X-Forwarded-*` are believed, others' replaced; each must set or extend `X-Forwarded-For`"
    )
    static let directLoopback = Setting<LoopbackPolicy>.single(
        "direct-loopback", .choice, default: .auto,
        meaning:
            "Whether kites may register loopback addresses; `auto`: only where the gateway listens on loopback alone and neither `public-url` nor `trusted-proxy` says that something in front lets others in"
    )
    static let directAllow = Setting<[AddressRange]>.list(
        "direct-allow", .addressRange, default: [],
        meaning: "Addresses that kites may register whatever else says no")
    static let directDeny = Setting<[AddressRange]>.list(
        "direct-deny", .addressRange, default: [],
        meaning: "Addresses that kites may not register, besides link-local and multicast ones")

    // MARK: Tunnels

    static let tunnels = Setting<Bool>.single(
        "tunnels", .flag, default: true, meaning: "Whether agents may open tunnels (`/-/tunnel`)")
    static let tcpHost = Setting<String>.single(
        "tcp-host", .text("HOST", maximum: 253), default: "127.0.0.1", shown: "`127.0.0.1`",
        meaning: "Where the public ports of tcp tunnels listen")
    static let tcpPorts = Setting<ClosedRange<Int>?>.optional(
        "tcp-ports", .ports, shown: "none: no tcp tunnels",
        meaning: "Public ports that tcp tunnels may get; `0` lets the system choose",
        atLimit: "tcp tunnels beyond are refused")
    static let tunnelsPerSession = Setting<Int>.single(
        "max-tunnels-per-agent", .integer(1...64), default: 64, meaning: "Tunnels of one agent",
        atLimit: "further tunnels of the agent are refused")
    static let namesPerUser = Setting<Int>.single(
        "max-names-per-user", .integer(1...1_000_000), default: 256, meaning: "Names that one user may hold",
        atLimit: "new names of the user are refused")
    static let sessionsPerUser = Setting<Int>.single(
        "max-agents-per-user", .integer(1...1_000_000), default: 256,
        meaning: "Agents that one user may have connected, those that have just lost their connection included",
        atLimit: "further agents of the user are refused")
    static let portsPerUser = Setting<Int>.single(
        "max-ports-per-user", .integer(1...65535), default: 64,
        meaning: "Public ports of tcp tunnels that one user may have at a time",
        atLimit: "further tcp tunnels of the user are refused")

    // MARK: Limits

    static let headBytes = Setting<Int>.single(
        "max-head", .bytes(4096...(1 << 20)), default: 64 << 10, meaning: "Size of a request's head",
        atLimit: "431, connection closed")
    static let targetBytes = Setting<Int>.single(
        "max-target", .bytes(256...(1 << 20)), default: 16 << 10, meaning: "Length of a request's target",
        atLimit: "414, connection closed")
    static let bodyBytes = Setting<Int?>.optional(
        "max-body", .bytes(0...(1 << 50)), shown: "unlimited", meaning: "Size of a request's body", atLimit: "413")
    static let connections = Setting<Int>.single(
        "max-connections", .integer(1...10_000_000), default: 100_000,
        meaning: "Open connections altogether, over all listeners and the ports of tcp tunnels",
        atLimit: "further connections are closed at once")
    static let connectionsPerAddress = Setting<Int>.single(
        "max-connections-per-address", .integer(1...1_000_000), default: 16_384,
        meaning: "Open connections from one address, over all listeners (trusted proxies are not counted)",
        atLimit: "further connections are closed at once")
    static let connectionsPerTarget = Setting<Int>.single(
        "max-connections-per-target", .integer(1...1_000_000), default: 16_384,
        meaning: "Connections to one direct target, those being opened included, per thread",
        atLimit: "503 with `Retry-After`")
    static let idleConnectionsPerTarget = Setting<Int>.single(
        "max-idle-connections-per-target", .integer(0...100_000), default: 64,
        meaning: "Idle connections kept for one target, per thread", atLimit: "the oldest is closed")
    static let memoryBytes = Setting<Int?>.optional(
        "max-memory", .bytes(4096...(1 << 50)), shown: "the control group's limit, if it has one",
        meaning: "Resident memory of the process; the control group's limit counts, too",
        atLimit: "from nine tenths on 503 with `Retry-After` for what is new")
    static let laneBytes = Setting<Int>.single(
        "max-buffered", .bytes(4096...(1 << 50)), default: 512 << 20,
        meaning: "Bytes from agents that wait to be taken by visitors, over all lanes",
        atLimit: "of the lane that brings more the stream is broken off that holds most")
    static let resolvedRoutes = Setting<Int>.single(
        "max-resolved-routes", .integer(1...10_000_000), default: 10_000,
        meaning: "Kites known through Kontrol at a time", atLimit: "the least recently used is forgotten")
    static let pendingResolutions = Setting<Int>.single(
        "max-pending-resolutions", .integer(1...100_000), default: 128,
        meaning: "Questions to Kontrol under way at a time", atLimit: "503 with `Retry-After`")
    static let parkedPerRoute = Setting<Int>.single(
        "max-parked-per-route", .integer(0...1_000_000), default: 256,
        meaning: "Requests that wait for one route's agent, per thread", atLimit: "503 with `Retry-After`")
    static let parked = Setting<Int>.single(
        "max-parked", .integer(0...1_000_000), default: 4096, meaning: "Requests that wait for agents, per thread",
        atLimit: "503 with `Retry-After`")

    // MARK: Times

    static let headTimeout = Setting<TimeAmount>.single(
        "head-timeout", .time(.milliseconds(100) ... .minutes(10)), default: .seconds(10),
        meaning: "From the first byte of a request's head to its last", atLimit: "408, connection closed")
    static let keepAliveTimeout = Setting<TimeAmount>.single(
        "keep-alive-timeout", .time(.seconds(1) ... .hours(24)), default: .seconds(75),
        meaning: "Between two requests of a connection", atLimit: "connection closed")
    static let connectTimeout = Setting<TimeAmount>.single(
        "connect-timeout", .time(.milliseconds(100) ... .minutes(5)), default: .seconds(5),
        meaning: "Until a direct target has accepted (TLS included)", atLimit: "502")
    static let responseTimeout = Setting<TimeAmount>.single(
        "response-timeout", .time(.milliseconds(100) ... .hours(24)), default: .seconds(120),
        meaning: "From the end of a request to the head of its response", atLimit: "504")
    static let bodyIdleTimeout = Setting<TimeAmount>.single(
        "body-idle-timeout", .time(.seconds(1) ... .hours(24)), default: .seconds(300),
        meaning:
            "Without a byte of body either way, while whoever receives it takes it; event streams and upgraded connections have no such limit",
        atLimit: "408, or 504 where the target takes nothing; the exchange is broken off once its response has begun"
    )
    static let upstreamIdleTimeout = Setting<TimeAmount>.single(
        "upstream-idle-timeout", .time(.seconds(1) ... .hours(1)), default: .seconds(30),
        meaning: "How long an idle connection to a target is kept", atLimit: "connection closed")
    static let resolvedTime = Setting<TimeAmount>.single(
        "resolved-time", .time(.seconds(1) ... .hours(1)), default: .seconds(30),
        meaning: "How long Kontrol's answer about a kite is used", atLimit: "Kontrol is asked again")
    static let unresolvedTime = Setting<TimeAmount>.single(
        "unresolved-time", .time(.milliseconds(100) ... .minutes(10)), default: .seconds(3),
        meaning: "How long it is remembered that Kontrol does not know a kite", atLimit: "Kontrol is asked again")
    static let parkTime = Setting<TimeAmount>.single(
        "park-time", .time(.seconds(0) ... .minutes(10)), default: .seconds(10),
        meaning: "How long requests wait for an agent that is away, until 30 s after it left; `0` turns waiting off",
        atLimit: "503 with `Retry-After`")
    static let drainTime = Setting<TimeAmount>.single(
        "drain-time", .time(.seconds(0) ... .hours(1)), default: .seconds(30),
        meaning: "How long exchanges may go on after shutdown began", atLimit: "they are broken off")

    static let schema = SettingSchema(
        environmentPrefix: "KITEPROXY",
        groups: [
            .init(
                "Listening",
                [
                    AnySetting(listen), AnySetting(listenTLS), AnySetting(tlsCertificates), AnySetting(tlsKeys),
                    AnySetting(tlsDefault), AnySetting(tlsMinimumVersion), AnySetting(proxyProtocol),
                    AnySetting(http2),
                    AnySetting(publicURL), AnySetting(domain), AnySetting(adminListen), AnySetting(threads),
                    AnySetting(takeOver),
                ]),
            .init("Automatic certificates", automaticCertificates),
            .init(
                "Kontrol and identity",
                [
                    AnySetting(kontrolURL), AnySetting(kontrolListen), AnySetting(machinePolicy), AnySetting(kiteKey),
                    AnySetting(dataDirectory), AnySetting(environment), AnySetting(region), AnySetting(username),
                ]),
            .init("Logs", [AnySetting(logLevel), AnySetting(logFormat), AnySetting(accessLog)]),
            .init(
                "Trust",
                [
                    AnySetting(trustedProxies), AnySetting(directLoopback), AnySetting(directAllow),
                    AnySetting(directDeny),
                ]),
            .init(
                "Tunnels",
                [
                    AnySetting(tunnels), AnySetting(tcpHost), AnySetting(tcpPorts), AnySetting(tunnelsPerSession),
                    AnySetting(namesPerUser), AnySetting(sessionsPerUser), AnySetting(portsPerUser),
                    AnySetting(kiteTunnels), AnySetting(publicKites),
                ]),
            .init(
                "Limits",
                [
                    AnySetting(headBytes), AnySetting(targetBytes), AnySetting(bodyBytes), AnySetting(streams),
                    AnySetting(connections),
                    AnySetting(connectionsPerAddress), AnySetting(connectionsPerTarget),
                    AnySetting(idleConnectionsPerTarget), AnySetting(memoryBytes), AnySetting(laneBytes),
                    AnySetting(resolvedRoutes), AnySetting(pendingResolutions),
                    AnySetting(parkedPerRoute), AnySetting(parked), AnySetting(messageBytes), AnySetting(kiteSessions),
                    AnySetting(sessionsPerKite), AnySetting(pendingKiteSessions),
                ]),
            .init(
                "Times",
                [
                    AnySetting(tlsHandshakeTimeout), AnySetting(headTimeout), AnySetting(keepAliveTimeout),
                    AnySetting(connectTimeout),
                    AnySetting(responseTimeout), AnySetting(bodyIdleTimeout), AnySetting(upstreamIdleTimeout),
                    AnySetting(resolvedTime), AnySetting(unresolvedTime), AnySetting(parkTime), AnySetting(drainTime),
                    AnySetting(admissionTime), AnySetting(dialBackTime),
                ]),
        ])
}

extension GatewaySettings {
    /// Keys whose new values are put into effect by `SIGHUP`, for what begins afterwards.
    static let reloadable: Set<String> = [
        http2.key, tlsDefault.key, tlsMinimumVersion.key, trustedProxies.key, directLoopback.key, directAllow.key,
        directDeny.key,
        accessLog.key, headBytes.key, targetBytes.key, bodyBytes.key, memoryBytes.key, streams.key,
        connectionsPerTarget.key,
        idleConnectionsPerTarget.key, resolvedRoutes.key,
        pendingResolutions.key, parkedPerRoute.key, parked.key, parkTime.key, headTimeout.key, keepAliveTimeout.key,
        connectTimeout.key, responseTimeout.key, bodyIdleTimeout.key, upstreamIdleTimeout.key, resolvedTime.key,
        unresolvedTime.key, tunnels.key, tunnelsPerSession.key, namesPerUser.key, tcpHost.key, tcpPorts.key,
    ]
}

/// Whether kites may register addresses of this machine.
enum LoopbackPolicy: String, Sendable, CaseIterable {
    case auto, allow, refuse
}

extension ValueType where Value == AddressRange {
    /// An IP address, or a range of them such as `10.0.0.0/8`.
    static var addressRange: Self {
        ValueType(placeholder: "CIDR", range: "IP address or range such as `10.0.0.0/8`") {
            (text) throws(InvalidValue) in
            guard let range = AddressRange(text) else {
                throw InvalidValue("an IP address or a range such as `10.0.0.0/8` or `2001:db8::/32`")
            }
            return range
        } describe: {
            "`\($0)`"
        }
    }
}

extension ValueType where Value == ClosedRange<Int> {
    /// A port, or a range of ports such as `20000-20100`.
    static var ports: Self {
        ValueType(placeholder: "FIRST-LAST", range: "ports 1 to 65535, or `0`") { (text) throws(InvalidValue) in
            let parts = text.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false).map { Int($0) }
            let (first, last) = (parts.first ?? nil, parts.last ?? nil)
            guard let first, let last, first <= last, last <= 65535, first > 0 || last == 0 else {
                throw InvalidValue("a range of ports such as `20000-20100`, or `0`")
            }
            return first...last
        } describe: {
            "`\($0.lowerBound)-\($0.upperBound)`"
        }
    }
}
