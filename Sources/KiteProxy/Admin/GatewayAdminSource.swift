/// What the admin listener shows, asked of the running gateway.
import ACME
import Foundation
import KiteCommand
import KiteGateway
import KiteTLS
import NIOPosix

struct GatewayAdminSource: AdminSource {
    let gateway: Gateway
    /// Of the TLS listeners, where there are any.
    let certificates: ServerCertificates?
    /// Obtains certificates, where that is wanted.
    let automatic: AutomaticCertificates?
    /// Why Kontrol is not to be had; nil when all is well.
    let kontrolProblem: @Sendable () async -> String?

    init(
        gateway: Gateway, certificates: ServerCertificates? = nil, automatic: AutomaticCertificates? = nil,
        kontrolProblem: @escaping @Sendable () async -> String?
    ) {
        self.gateway = gateway
        self.certificates = certificates
        self.automatic = automatic
        self.kontrolProblem = kontrolProblem
        // The uptime counts from here, not from the first question.
        _ = ProcessStatistics.start
    }

    func metrics() async -> String {
        let process =
            (try? await NIOThreadPool.singleton.runIfActive { ProcessStatistics.now() }) ?? ProcessStatistics()
        let statistics = certificates.map {
            CertificateStatistics(
                $0.store.status, reloadFailures: $0.reloadFailures, now: Int64(Date().timeIntervalSince1970))
        }
        return MetricsText.text(
            await gateway.metrics(), process, isReady: await unreadiness() == nil, certificates: statistics,
            automatic: automatic.map { AutomaticStatistics($0, now: Date()) })
    }

    func unreadiness() async -> String? {
        guard gateway.isReady else { return "the gateway is starting or shutting down" }
        return await kontrolProblem()
    }

    func routes() async -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let routes = await gateway.routes()
        let data = (try? encoder.encode(["routes": routes])) ?? Data("{\"routes\":[]}".utf8)
        return String(decoding: data, as: UTF8.self)
    }

    func agents() async -> String { Self.agents(of: await gateway.routes()) }

    /// JSON of the agents: tunnels that share owner and address are one agent's.
    static func agents(of routes: [RouteStatus]) -> String {
        struct Key: Hashable {
            let user: String
            let address: String
        }
        let tunnels = Dictionary(grouping: routes.filter { $0.kind == "tunnel" && $0.isServing }) {
            Key(user: $0.owner, address: $0.targets.joined(separator: ", "))
        }
        var json = JSONText()
        json.beginObject()
        json.name("agents")
        json.beginArray()
        for (key, routes) in tunnels.sorted(by: { ($0.key.user, $0.key.address) < ($1.key.user, $1.key.address) }) {
            json.beginObject()
            json.member("user", key.user)
            json.member("address", key.address)
            json.member("lanes", routes.map(\.lanes).max() ?? 0)
            json.name("tunnels")
            json.beginArray()
            for route in routes.sorted(by: { $0.name < $1.name }) { json.string(route.name) }
            json.endArray()
            json.endObject()
        }
        json.endArray()
        json.endObject()
        return json.text
    }
}
