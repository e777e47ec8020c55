/// How the agent connects: to the gateway, through a proxy where the environment names one, and to private services.
import KiteCommand
import KiteDialing
import KiteHTTP
import KiteTunnel
import NIOCore

struct AgentDialers: Sendable {
    let lane: LaneDialer
    let target: TargetDialer

    /// - Throws: ``CommandFailure`` when certificates or the proxy cannot be used.
    init(_ settings: Settings) throws {
        var configuration = Dialer.Configuration()
        configuration.connectTimeout = settings[AgentSettings.connectTimeout]
        let dialer: Dialer
        do {
            let tls = try settings[AgentSettings.certificateAuthorities].map { file in
                try Dialer.tlsContext(trusting: expandHome(file))
            }
            dialer = try Dialer(configuration: configuration, tls: tls)
        } catch {
            throw CommandFailure(.failed, "the certificate authorities of --ca-file cannot be used: \(error)")
        }
        target = { endpoint, loop, completion in dialer.dial(endpoint, on: loop, completion: completion) }
        lane = { endpoint, loop in
            let promise = loop.makePromise(of: NIOLoopBound<any ByteTransport>.self)
            loop.execute {
                dialer.dial(endpoint, on: loop) { result in
                    promise.completeWith(
                        result.map { NIOLoopBound($0, eventLoop: loop) }.mapError { $0 as any Error })
                }
            }
            return try await promise.futureResult.get()
        }
    }
}
