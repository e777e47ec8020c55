/// Settings and the gateway's options say the same.
import ArgumentParser
import KiteCommand
import KiteGateway
import NIOCore
import Testing

@testable import KiteProxy

@Suite("Gateway options from settings")
struct GatewayOptionsTests {
    private func options(_ flags: [String: [String]] = [:]) throws -> GatewayOptions {
        try GatewayConfiguration(Settings(schema: GatewaySettings.schema, flags: flags), environment: ["HOME": "/h"])
            .gatewayOptions
    }

    @Test("The documented defaults are those of the gateway")
    func defaults() throws {
        let options = try options()
        #expect(options.limits == GatewayOptions().limits)
        #expect(options.timeouts == GatewayOptions().timeouts)
        #expect(options.parking == GatewayOptions().parking)
        #expect(options.tunnels == GatewayOptions().tunnels)
        #expect(options.listeners == GatewayOptions().listeners)
        #expect(options.directTargets == .derived)
    }

    @Test("Each setting reaches its option")
    func mapping() throws {
        let options = try options([
            "listen": ["0.0.0.0:1"], "listen-tls": ["[::1]:2"], "tls-cert": ["c"], "tls-key": ["k"],
            "public-url": ["https://gw.example/"], "domain": ["Gw.Example"], "threads": ["3"],
            "trusted-proxy": ["10.0.0.0/8", "::1"], "direct-loopback": ["refuse"], "direct-allow": ["127.0.0.1"],
            "max-head": ["8KiB"], "max-body": ["1MiB"], "response-timeout": ["7s"], "park-time": ["0"],
            "tcp-ports": ["5-6"], "tunnels": ["false"], "access-log": ["true"],
            "max-memory": ["1GiB"], "max-buffered": ["2MiB"],
        ])
        #expect(
            options.listeners == [
                .init(host: "0.0.0.0", port: 1), .init(host: "::1", port: 2, isSecure: true),
            ])
        #expect(options.publicURL == "https://gw.example")
        #expect(options.domain == "gw.example")
        #expect(options.threads == 3)
        #expect(options.trustedProxies.count == 2)
        #expect(options.directTargets.allowed.count == 1)
        #expect(options.limits.headBytes == 8192)
        #expect(options.limits.bodyBytes == 1 << 20)
        #expect(options.limits.memoryBytes == 1 << 30)
        #expect(options.limits.laneBytes == 2 << 20)
        #expect(options.timeouts.response == .seconds(7))
        #expect(options.parking.time == .seconds(0))
        #expect(options.tunnels.tcpPorts == 5...6)
        #expect(!options.tunnels.isEnabled)
        #expect(options.isAccessLogged)
    }
}
