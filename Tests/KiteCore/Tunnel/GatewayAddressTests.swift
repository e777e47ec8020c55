import KiteDialing
import Testing

@testable import KiteTunnel

@Suite("The URL of a gateway")
struct GatewayAddressTests {
    @Test(arguments: [
        ("http://127.0.0.1:3999", "tcp:127.0.0.1:3999", "127.0.0.1:3999", "/-/tunnel"),
        ("http://gw.example", "tcp:gw.example:80", "gw.example", "/-/tunnel"),
        ("HTTPS://GW.example/", "tls:gw.example:443", "gw.example", "/-/tunnel"),
        ("https://gw.example:8443/a/b//", "tls:gw.example:8443", "gw.example:8443", "/a/b/-/tunnel"),
        ("http://[::1]:3999", "tcp:[::1]:3999", "[::1]:3999", "/-/tunnel"),
    ])
    func accepted(url: String, endpoint: String, authority: String, target: String) throws {
        let address = try GatewayAddress(url: url)
        #expect(address.endpoint.description == endpoint)
        #expect(address.authority == authority)
        #expect(address.target == target)
        #expect(address.url == url)
    }

    @Test(arguments: [
        "", "gw.example", "ws://gw.example", "wss://gw.example", "ftp://gw.example", "http://",
        "http://user@gw.example",
        "http://gw.example?x=1", "http://gw.example/#x", "http://gw.example:0", "http://gw.example:65536",
        "http://gw.example:x", "http://gw example", "http://[::1", "http://gw.example/\r\nX: y",
    ])
    func refused(url: String) {
        #expect(throws: TunnelRefusal.self) { try GatewayAddress(url: url) }
    }
}
