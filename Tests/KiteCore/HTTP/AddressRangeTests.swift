import NIOCore
import Testing

@testable import KiteHTTP

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

    /// What stands in fields is read as `inet_pton` reads it.
    @Test(arguments: [
        "1.2.3.4", "0.0.0.0", "255.255.255.255", "256.1.1.1", "01.2.3.4", "1.2.3.00", "1.2.3", "1.2.3.", ".1.2.3.4",
        "1..2.3", "1.2.3.4.5", "1.2.3.4 ", " 1.2.3.4", "1.2.3.-4", "1.2.3.4a", "", "1", "4294967295", "0x1.2.3.4",
        "::1", "::", ":", ":::", "2001:db8::1", "2001:DB8::1", "::ffff:10.1.2.3", "fe80::1%lo", "[::1]", "12345::",
        "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7", "abcd:abcd:abcd:abcd:abcd:abcd:255.255.255.255", "::1\u{0}", "ä::",
    ])
    func literalsInFields(text: String) {
        #expect(AddressBytes(literal: ByteBuffer(string: text).readableBytesView) == AddressBytes(text), "\(text)")
    }
}
