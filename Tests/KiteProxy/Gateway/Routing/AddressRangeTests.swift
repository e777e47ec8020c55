import NIOCore
import Testing

@testable import KiteGateway

@Suite struct AddressRangeTests {
    @Test(arguments: [
        ("10.0.0.0/8", "10.255.1.2", true), ("10.0.0.0/8", "11.0.0.1", false), ("10.1.2.3", "10.1.2.3", true),
        ("10.1.2.3", "10.1.2.4", false), ("0.0.0.0/0", "203.0.113.9", true), ("0.0.0.0/0", "2001:db8::1", false),
        ("2001:db8::/32", "2001:db8:ffff::1", true), ("2001:db8::/32", "2001:db9::1", false), ("::1", "::1", true),
        ("fe80::/10", "febf::1", true), ("fe80::/10", "fec0::1", false), ("127.0.0.0/8", "::ffff:127.0.0.1", true),
        ("::ffff:10.0.0.0/104", "10.9.9.9", true), ("::ffff:10.0.0.0/104", "11.0.0.1", false),
        ("::ffff:10.1.2.3", "10.1.2.3", true), ("::ffff:10.1.2.3/128", "10.1.2.4", false),
        ("2001:db8::8000:0:0:0/65", "2001:db8::8000:0:0:1", true),
        ("2001:db8::8000:0:0:0/65", "2001:db8::7fff:0:0:1", false),
    ])
    func contains(range: String, address: String, expected: Bool) throws {
        let range = try #require(AddressRange(range))
        #expect(range.contains(try SocketAddress(ipAddress: address, port: 80)) == expected)
    }

    @Test(arguments: [
        "", "/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0/8", "example.com", "::/129", "10.0.0.0/8/9", "10.0.0.0/x",
        "10.0.0.0/+8", "::ffff:10.0.0.0/8", "::ffff:10.0.0.0/129",
        "[::1]",
    ])
    func malformedIsRefused(text: String) { #expect(AddressRange(text) == nil) }

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
