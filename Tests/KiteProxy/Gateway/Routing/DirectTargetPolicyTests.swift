import KiteHTTP
import NIOCore
import Testing

@testable import KiteGateway

@Suite struct DirectTargetPolicyTests {
    @Test(arguments: [
        ("203.0.113.9", true), ("10.0.0.1", true), ("192.168.1.1", true), ("127.0.0.1", false), ("127.8.9.1", false),
        ("::1", false),
        ("169.254.169.254", false), ("0.0.0.0", false), ("::", false), ("::ffff:169.254.169.254", false),
        ("::ffff:127.0.0.1", false), ("fe80::1", false), ("255.255.255.255", false), ("224.0.0.1", false),
        ("::7f00:1", false),
        ("64:ff9b::7f00:1", false), ("2002:7f00:1::", false), ("fd00:ec2::254", false), ("2606:4700::1111", true),
    ])
    func targetsOnAPublicGateway(address: String, expected: Bool) throws {
        let policy = DirectTargetPolicy.derived.resolved(listeningOn: [
            try SocketAddress(ipAddress: "0.0.0.0", port: 80)
        ])
        #expect(policy.allows(try SocketAddress(ipAddress: address, port: 80)) == expected)
    }

    @Test func loopbackIsATargetWhereTheGatewayListensThereOnly() throws {
        let loopback = try SocketAddress(ipAddress: "127.0.0.1", port: 1)
        let outside = try SocketAddress(ipAddress: "203.0.113.1", port: 1)
        #expect(DirectTargetPolicy.derived.resolved(listeningOn: [loopback]).allows(loopback))
        #expect(!DirectTargetPolicy.derived.resolved(listeningOn: [loopback, outside]).allows(loopback))
        #expect(!DirectTargetPolicy.derived.resolved(listeningOn: []).allows(loopback))
        #expect(!DirectTargetPolicy.refusingLoopback.resolved(listeningOn: [loopback]).allows(loopback))
        var policy = DirectTargetPolicy.refusingLoopback
        policy.allowed = [try #require(AddressRange("127.0.0.1"))]
        #expect(policy.allows(loopback))
        policy.allowed = []
        policy.denied = [try #require(AddressRange("203.0.113.0/24"))]
        #expect(!policy.allows(outside))
        #expect(!policy.allows(try SocketAddress(unixDomainSocketPath: "/tmp/x")))
    }
}
