/// How the agent connects: to the gateway, through a proxy where the environment names one, and to private services.
import Foundation
import KiteCommand
import KiteDialing
import KiteHTTP
import KiteTunnel
import NIOCore

struct AgentDialers: Sendable {
    let lane: LaneDialer
    let target: TargetDialer

    /// - Parameter environment: names the proxy to the gateway, if there is one; targets are never reached through it.
    /// - Throws: ``CommandFailure`` when certificates or the proxy cannot be used.
    init(_ settings: Settings, environment: [String: String] = ProcessInfo.processInfo.environment) throws {
        var configuration = Dialer.Configuration()
        configuration.connectTimeout = settings[AgentSettings.connectTimeout]
        var throughProxy = configuration
        do {
            throughProxy.proxies = try ProxyEnvironment(environment: environment)
        } catch {
            throw CommandFailure(.failed, "\(error)")
        }
        let file = settings[AgentSettings.certificateAuthorities]
        do {
            let tls = try file.map { try Dialer.tlsContext(trusting: expandHome($0)) }
            lane = laneDialer(try Dialer(configuration: throughProxy, tls: tls))
            let direct = try Dialer(configuration: configuration, tls: tls)
            target = { endpoint, loop, completion in direct.dial(endpoint, on: loop, completion: completion) }
        } catch {
            throw CommandFailure(
                .failed,
                file.map { "the certificate authorities of --ca-file \($0) cannot be used: \(error)" }
                    ?? "the system's certificate authorities cannot be used: \(error). Name a file of them with --ca-file."
            )
        }
    }
}
