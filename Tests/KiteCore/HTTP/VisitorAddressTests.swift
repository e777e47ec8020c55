/// Who a request is from, for whatever goes by that.
import NIOCore
import Testing

@testable import KiteHTTP

@Suite("The visitor's address")
struct VisitorAddressTests {
    @Test("Behind trusted proxies the visitor is the last address that is none of theirs")
    func addresses() throws {
        let trusted = [try #require(AddressRange("10.0.0.0/8"))]
        func address(_ fields: KeyValuePairs<String, String>, trusts: Bool = true) -> String? {
            var peer = ExchangePeer(
                address: try? SocketAddress(ipAddress: "10.0.0.1", port: 1), isTrustedProxy: trusts)
            peer.trustedProxies = trusted
            let request = RequestHead(method: .get, target: "/", authority: "a", fields: HeaderBlock(fields))
            let address = peer.visitorAddress(of: request)
            #expect(peer.visitorKey(of: request) == address.map(AddressKey.init))
            return address?.description
        }
        #expect(address(["X-Forwarded-For": "1.1.1.1"], trusts: false) == "10.0.0.1")
        #expect(address(["X-Forwarded-For": "9.9.9.9, 1.1.1.1"]) == "1.1.1.1")
        #expect(address(["X-Forwarded-For": "9.9.9.9, 1.1.1.1, 10.2.3.4"]) == "1.1.1.1")
        #expect(address(["X-Forwarded-For": "9.9.9.9", "x-forwarded-for": "1.1.1.1, 10.2.3.4"]) == "1.1.1.1")
        #expect(
            address(["X-Forwarded-For": "1.1.1.1", "X-Real-IP": "10.9.9.9"]) == "1.1.1.1", "this one anybody can write")
        #expect(address(["X-Real-IP": "1.1.1.1"]) == "1.1.1.1")
        #expect(address(["X-Forwarded-For": "10.1.1.1, 10.2.3.4"]) == "10.1.1.1")
        #expect(address(["X-Forwarded-For": "9.9.9.9, 1.1.1.1:443, [::ffff:10.2.3.4]:80"]) == "1.1.1.1")
        #expect(address(["X-Forwarded-For": "[2001:db8::1]"]) == address(["X-Forwarded-For": "2001:db8::1"]))
        #expect(address(["X-Forwarded-For": "[2001:db8::1]:443"]) != nil)
        #expect(address(["X-Real-IP": "1.1.1.1:5"]) == "1.1.1.1")
        for bad in ["1.1.1.1, unknown", "1.1.1.1:x", "[::1", "[::1]x", "[]", "[", ":", "1.1.1.1:1:1"] {
            #expect(address(["X-Forwarded-For": bad]) == nil, "\(bad)")
        }
        #expect(address(["X-Forwarded-For": ""]) == nil)
        #expect(address(["X-Forwarded-For": " , ,"]) == nil)
        #expect(address(["X-Forwarded-For": "", "X-Real-IP": "1.1.1.1"]) == nil)
        #expect(address(["X-Forwarded-For": "1.1.1.1, , 10.2.3.4 ,\t"]) == "1.1.1.1")
        #expect(address(["X-Forwarded-For": "1.1.1.1", "x-forwarded-for": ","]) == "1.1.1.1")
        #expect(address(["X-Forwarded-For": "1.1.1.1:123456"]) == nil)
        #expect(address([:]) == "10.0.0.1")
    }

    @Test("What services are told is the same address, without brackets and port")
    func realAddress() throws {
        func told(_ fields: KeyValuePairs<String, String>, isGateway: Bool = false) throws -> String? {
            var peer = ExchangePeer(address: try SocketAddress(ipAddress: "10.0.0.1", port: 1), isTrustedProxy: true)
            peer.trustedProxies = [try #require(AddressRange("10.0.0.0/8"))]
            peer.isGateway = isGateway
            let request = RequestHead(method: .get, target: "/", authority: "a", fields: HeaderBlock(fields))
            var written = ByteBuffer()
            MessageWriter.writeForwardedRequest(
                request, origin: ForwardedOrigin(peer: peer, gateway: "g"), isUpgrade: false, into: &written)
            let lines = String(buffer: written).split(separator: "\r\n").filter { $0.hasPrefix("X-Real-IP: ") }
            #expect(lines.count <= 1)
            let address = lines.first.map { String($0.dropFirst(11)) }
            #expect(address.flatMap(AddressBytes.init) == peer.visitorAddress(of: request))
            return address
        }
        #expect(try told(["X-Forwarded-For": "1.1.1.1", "X-Real-IP": "9.9.9.9"]) == "1.1.1.1")
        #expect(try told(["X-Forwarded-For": "9.9.9.9, 1.1.1.1, 10.2.3.4"]) == "1.1.1.1")
        #expect(try told(["X-Forwarded-For": "[2001:db8::1]:443, 10.2.3.4"]) == "2001:db8::1")
        #expect(try told(["X-Real-IP": "[2001:DB8::1]:443"]) == "2001:DB8::1")
        #expect(try told(["X-Forwarded-For": "unknown", "X-Real-IP": "1.1.1.1"]) == nil)
        #expect(try told([:]) == "10.0.0.1")
        // A gateway says itself who the visitor is; before it may be proxies that only it knows.
        #expect(
            try told(["X-Forwarded-For": "1.1.1.1, 192.0.2.1", "X-Real-IP": "1.1.1.1"], isGateway: true) == "1.1.1.1")
        #expect(try told(["X-Forwarded-For": "1.1.1.1, 192.0.2.1"], isGateway: true) == "192.0.2.1")
    }

    @Test("Visitors are counted by IPv4 address or IPv6 network, however a proxy writes them")
    func keys() throws {
        func key(_ said: String) throws -> AddressKey? {
            let peer = ExchangePeer(address: try SocketAddress(ipAddress: "10.0.0.1", port: 1), isTrustedProxy: true)
            let fields = HeaderBlock(["X-Forwarded-For": said, "X-Real-IP": "9.9.9.\(said.count)"])
            return peer.visitorKey(of: RequestHead(method: .get, target: "/", authority: "a", fields: fields))
        }
        #expect(try key("1.1.1.1") == AddressKey(SocketAddress(ipAddress: "1.1.1.1", port: 1)))
        #expect(try key("1.1.1.1:5") == key("[::ffff:1.1.1.1]:80"))
        #expect(try key("[2001:db8::1]:1") == key("2001:db8::2"))
        #expect(try key("2001:db8::1") != key("2001:db8:0:1::1"))
        #expect(try key("::1") != key("0.0.0.1"))
    }
}
