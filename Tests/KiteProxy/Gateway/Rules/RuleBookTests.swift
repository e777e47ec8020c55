/// Which rules are for a request, and whose address it comes from.
import KiteHTTP
import NIOCore
import Testing

@testable import KiteGateway

@Suite("Finding rules")
struct RuleBookTests {
    private func rules(_ realm: String?, port: Int? = nil) -> RuleSet {
        var rules = RuleSet()
        rules.realm = realm
        rules.httpsPort = port
        return rules
    }

    @Test("The section that says most counts, key by key; case, port and a full stop at the end make no difference")
    func precedence() throws {
        let book = try #require(
            RuleBook(
                hosts: [
                    (.any, rules("any", port: 1)), (.below("example.com"), rules("below")),
                    (.below("a.example.com"), rules("deeper", port: 2)),
                    (.exact("shop.example.com"), rules("shop")), (.exact("[::1]"), rules("six")),
                ], routes: [("math", rules("math")), ("quiet", rules(nil, port: 9))]))
        let table = RuleTable(book)
        func realm(_ authority: String, _ route: String? = nil) -> String? {
            guard
                let sections = book.sections(
                    authority: ByteBuffer(string: authority),
                    route: route.map { RouteKey(asWritten: ByteBuffer(string: $0)) })
            else { return nil }
            let set = book.rules(sections)
            return "\(set.realm ?? "-") \(set.httpsPort ?? 0)"
        }
        #expect(realm("other.org") == "any 1")
        #expect(realm("x.example.com") == "below 1")
        #expect(realm("example.com") == "any 1")
        #expect(realm("x.a.example.com:443") == "deeper 2")
        #expect(realm("SHOP.example.com.:8080") == "shop 1")
        #expect(realm("shop.example.com.evil.org") == "any 1")
        #expect(realm("[::1]:80") == "six 1")
        #expect(realm("") == "any 1")
        #expect(realm("shop.example.com", "math") == "math 1")
        #expect(realm("shop.example.com", "MATH") == "math 1")
        #expect(realm("shop.example.com", "quiet") == "shop 9")
        #expect(table.find(authority: ByteBuffer(string: "a"), route: nil)?.challenge.contains("any") == true)
        #expect(RuleBook(hosts: [], routes: []) == nil)
        let one = try #require(RuleBook(hosts: [(.exact("a.b"), RuleSet())], routes: []))
        #expect(one.sections(authority: ByteBuffer(string: "c.b"), route: RouteKey("x")) == nil)
    }

    @Test("A route that is reached by its path keeps the rules of its own host, those of the host asked for come after")
    func ownHosts() throws {
        let book = try #require(
            RuleBook(
                hosts: [
                    (.any, rules("any", port: 1)), (.exact("example.com"), rules("asked", port: 2)),
                    (.below("example.com"), rules(nil, port: 3)), (.exact("staging.example.com"), rules("staging")),
                ], routes: [("math", rules("math"))]))
        let directory = Directory(domain: "Example.com")
        func found(_ authority: String, _ target: String, _ directory: Directory = directory) -> String? {
            let authority = ByteBuffer(string: authority)
            let destination = directory.destination(authority: authority, target: ByteBuffer(string: target))
            let own = directory.ownHost(of: destination)
            return book.sections(authority: authority, ownHost: own, route: destination.route).map {
                let set = book.rules($0)
                return "\(set.realm ?? "-") \(set.httpsPort ?? 0)"
            }
        }
        #expect(found("example.com", "/proxy/staging/") == "staging 3")
        #expect(found("other.org", "/proxy/STAGING?x") == "staging 3")
        #expect(found("staging.example.com", "/") == "staging 3")
        #expect(found("example.com", "/proxy/shop/") == "asked 3", "what is said of all hosts comes last")
        #expect(found("other.org", "/proxy/math/") == "math 3")
        #expect(found("example.com", "/") == "asked 2")
        #expect(found("example.com", "/proxy/staging/", Directory(domain: nil)) == "asked 2")
    }

    @Test("Lists of addresses: who is denied stays out, and who is unknown is on no list")
    func lists() throws {
        var set = RuleSet()
        set.allowed = [try #require(AddressRange("10.0.0.0/8"))]
        set.denied = [try #require(AddressRange("10.1.0.0/16"))]
        let rules = Rules(set)
        #expect(rules.admits(AddressBytes("10.2.0.1")))
        #expect(rules.admits(AddressBytes("::ffff:10.2.0.1")))
        #expect(!rules.admits(AddressBytes("10.1.0.1")))
        #expect(!rules.admits(AddressBytes("11.0.0.1")))
        #expect(!rules.admits(nil))
        set.allowed = []
        #expect(Rules(set).admits(AddressBytes("11.0.0.1")))
        #expect(!Rules(set).admits(nil))
        set.denied = []
        #expect(Rules(set).admits(nil))
    }

    @Test("Where redirects lead")
    func locations() {
        var set = RuleSet()
        set.redirect = RedirectTarget("https://www.example.com/")
        set.httpsPort = 8443
        let rules = Rules(set)
        func request(_ target: String, _ authority: String) -> RequestHead {
            RequestHead(method: .get, target: target, authority: authority)
        }
        func text(_ buffer: ByteBuffer?) -> String? { buffer.map { String(buffer: $0) } }
        #expect(text(rules.location(request("/a?b", "x"), isSecure: true)) == "https://www.example.com/a?b")
        #expect(text(rules.location(request("//evil.org", "x"), isSecure: true)) == "https://www.example.com//evil.org")
        #expect(text(rules.location(request("*", "x"), isSecure: true)) == "https://www.example.com/")
        #expect(rules.location(request("/", "WWW.example.com"), isSecure: true) == nil, "it is there already")
        #expect(text(rules.location(request("/", "www.example.com"), isSecure: false)) == "https://www.example.com/")
        #expect(text(rules.secureLocation(request("/a", "A.example:80"))) == "https://a.example:8443/a")
        #expect(rules.secureLocation(request("/a", "")) == nil)
        set.redirectKeepsPath = false
        #expect(text(Rules(set).location(request("/a", "x"), isSecure: true)) == "https://www.example.com/")
    }
}
