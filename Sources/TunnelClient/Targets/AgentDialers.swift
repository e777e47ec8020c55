/// How the agent connects: to the gateway, and to private services.
import KiteCommand
import KiteDialing
import KiteHTTP
import KiteTunnel
import NIOCore
import NIOPosix

struct AgentDialers: Sendable {
    let lane: LaneDialer
    let target: TargetDialer

    init(_ settings: Settings) throws {
        let timeout = settings[AgentSettings.connectTimeout]
        target = { endpoint, loop in Self.connect(endpoint, loop, timeout: timeout) }
        lane = { endpoint, loop in try await Self.connect(endpoint, loop, timeout: timeout).get() }
    }

    private static func connect(
        _ endpoint: Endpoint, _ loop: any EventLoop, timeout: TimeAmount
    ) -> EventLoopFuture<NIOLoopBound<any ByteTransport>> {
        let bootstrap = ClientBootstrap(group: loop).connectTimeout(timeout)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelOption(.allowRemoteHalfClosure, value: true)
        let channel =
            switch endpoint.address {
            case .tcp(let host, let port): bootstrap.connect(host: host, port: port)
            case .unix(let path): bootstrap.connect(unixDomainSocketPath: path)
            }
        return channel.flatMapThrowing { channel in
            NIOLoopBound(try SocketTransport.install(on: channel), eventLoop: loop)
        }
    }
}
