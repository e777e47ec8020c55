/// What can be set on a gateway. Plain values: where they come from (flags, environment, file) is the command's business.
package import KiteCore
package import KiteHTTP
package import KiteTLS
package import NIOCore
package import NIOSSL

/// How a ``Gateway`` listens, what it serves and where its limits are.
package struct GatewayOptions: Sendable {
    /// One address to listen on.
    package struct Listener: Sendable, Hashable {
        /// A host name or IP literal, without brackets.
        package var host: String
        /// 0 lets the system choose.
        package var port: Int
        /// Whether TLS is spoken, with ``GatewayOptions/certificates``.
        package var isSecure: Bool

        package init(host: String, port: Int, isSecure: Bool = false) {
            self.host = host
            self.port = port
            self.isSecure = isSecure
        }
    }

    /// Where visitors and agents connect.
    package var listeners = [Listener(host: "127.0.0.1", port: 3999)]
    /// Certificates of the TLS listeners, chosen by name and replaced while running; must be set when there is one.
    package var certificates: CertificateStore?
    /// Answers certificate authorities that ask for a token under `/.well-known/acme-challenge/` of any host, on any listener; nil: nobody
    /// waits for that token. Called on event loops.
    package var challengeAnswer: (@Sendable (_ token: String) -> String?)?
    /// Hosts that take client certificates; the rules themselves are ``certificates``' business.
    package var clientRules = HostTable<ClientRuleName>()
    /// How the outside reaches this gateway, without a trailing slash (`https://gw.example.com`); from the first bound listener when nil.
    package var publicURL: String?
    /// The base domain of host routes, without a leading dot; no host routes when nil.
    package var domain: String?
    /// Event loops, at least 1.
    package var threads = 1

    /// Peers whose `Forwarded` and `X-Forwarded-*` fields are believed and extended; those of anyone else are replaced.
    package var trustedProxies: [AddressRange] = []
    /// Peers whose connections begin with a header of the PROXY protocol, which says for whom they are.
    package var proxyProtocol: [AddressRange] = []
    /// Which addresses a kite may register as its own, and Kontrol may name.
    package var directTargets = DirectTargetPolicy.derived
    /// The name this gateway gives itself in `Via`; must be unique among the gateways that a request can pass, since it is what loops
    /// are found by. A random one when nil.
    package var viaName: String?
    /// Certificates that upstream TLS targets are verified against; the system's when nil.
    package var upstreamTLSContext: NIOSSLContext?

    /// The user and the environment under which kites are looked for that are asked for by name alone.
    package var kontrolUsername = ""
    package var kontrolEnvironment = "development"

    package var limits = Limits()
    package var timeouts = Timeouts()
    package var parking = Parking()
    package var tunnels = Tunnels()
    package var kiteTunnels = KiteTunnels()

    /// Rules for single hosts and routes; nil: there are none.
    package var rules: RuleBook?

    /// One log line per request.
    package var isAccessLogged = false

    /// Bounds on what visitors may send or keep open.
    package struct Limits: Sendable, Hashable {
        /// Bytes of a request head; more is answered 431.
        package var headBytes = 64 * 1024
        /// Bytes of a request target; more is answered 414.
        package var targetBytes = 16 * 1024
        /// Requests that may be under way on one HTTP/2 connection.
        package var streams = 128
        /// Bytes of a request body; more is answered 413. Unlimited when nil.
        package var bodyBytes: Int64?
        /// Open connections from one address, over all listeners; more are closed at once. Trusted proxies are not counted.
        package var connectionsPerAddress = 16_384
        /// Open connections altogether, those to the public ports of tcp tunnels included.
        package var connections = 100_000
        /// Upstream connections to one direct target, open or being opened, per event loop.
        package var connectionsPerTarget = 16_384
        /// Idle upstream connections kept for one target, per event loop.
        package var idleConnectionsPerTarget = 64
        /// Resident memory of the process, in bytes; new requests are refused from nine tenths of it on. The limit of the control group
        /// counts, too. None when nil.
        package var memoryBytes: Int?
        /// The same for open files and sockets, besides what the system allows.
        package var descriptors: Int?
        /// Bytes that the lanes of all agents may hold because nobody takes them.
        package var laneBytes = 512 << 20
        /// Kites that are known through Kontrol at a time.
        package var resolvedRoutes = 10_000
        /// Questions to Kontrol that are under way at a time; a visitor whose question is one too many gets 503.
        package var pendingResolutions = 128

        package init() {}
    }

    /// How long things may take.
    package struct Timeouts: Sendable, Hashable {
        /// From a connection's begin to the end of its TLS handshake; then it is closed.
        package var tlsHandshake = TimeAmount.seconds(10)
        /// Until a request head is complete, from its first byte; then 408.
        package var head = TimeAmount.seconds(10)
        /// Between two requests of a connection.
        package var keepAlive = TimeAmount.seconds(75)
        /// Until a direct target has accepted the connection (TLS included); then 502.
        package var connect = TimeAmount.seconds(5)
        /// From the end of the request until the response's head; then 504.
        package var response = TimeAmount.seconds(120)
        /// Without a byte in a body in either direction while it is wanted, before the exchange is broken off. Event streams and upgraded
        /// connections have no such limit.
        package var bodyIdle = TimeAmount.seconds(300)
        /// How long an idle upstream connection is kept.
        package var upstreamIdle = TimeAmount.seconds(30)
        /// How long the answer to a question to Kontrol is used.
        package var resolved = TimeAmount.seconds(30)
        /// How long it is remembered that Kontrol does not know a kite.
        package var unresolved = TimeAmount.seconds(3)
        /// How long exchanges that are under way may go on after shutdown began.
        package var drain = TimeAmount.seconds(30)

        package init() {}
    }

    /// Requests for a route whose agent is away wait for its return.
    package struct Parking: Sendable, Hashable {
        /// How long; then 503. Zero turns parking off.
        package var time = TimeAmount.seconds(10)
        /// How long after its agent has left, or after the gateway's start, requests for a name are parked at all. Requests for the id of a
        /// kite that has left are not: it has another when it starts again.
        package var grace = TimeAmount.seconds(30)
        /// How many for one route, per event loop.
        package var requestsPerRoute = 256
        /// How many altogether, per event loop.
        package var requests = 4096

        package init() {}
    }

    /// Kites that dial back for each visitor (`kite.tunnel`), as Go's kites do.
    package struct KiteTunnels: Sendable, Hashable {
        /// Whether kites may register for it.
        package var isEnabled = true
        /// Kites that anybody may visit, besides those whose owners say so when they register.
        package var publicKites: [KontrolQuery] = []
        /// Sessions of visitors altogether; further ones are closed at once.
        package var sessions = 16_384
        /// Sessions of visitors with one kite; further ones are closed at once.
        package var sessionsPerKite = 2048
        /// Sessions whose kite has been asked to dial back and has not done so yet.
        package var pendingSessions = 1024
        /// Bytes of a message; a longer one closes its session.
        package var messageBytes = 16 << 20
        /// How long a visitor may take until it has shown that it may reach the kite.
        package var admissionTime = TimeAmount.seconds(120)
        /// How long a kite may take to dial back.
        package var dialBackTime = TimeAmount.seconds(15)

        package init() {}
    }

    /// What agents may do.
    package struct Tunnels: Sendable, Hashable {
        /// Whether the tunnel door is open at all.
        package var isEnabled = true
        /// Where the public ports of tcp tunnels listen.
        package var tcpHost = "127.0.0.1"
        /// Ports that tcp tunnels may get; none are allowed when nil. `0...0` lets the system choose.
        package var tcpPorts: ClosedRange<Int>?
        /// Tunnels of one session.
        package var tunnelsPerSession = 64
        /// Names one user may hold.
        package var namesPerUser = 256
        /// Sessions one user may have.
        package var sessionsPerUser = 256
        /// Public ports one user may have at a time.
        package var portsPerUser = 64

        package init() {}
    }

    package init() {}
}
