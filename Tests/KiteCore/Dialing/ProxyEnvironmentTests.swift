import Testing

/// Which proxy the environment chooses, and for what.
@testable import KiteDialing

@Suite struct ProxyEnvironmentTests {
    private func endpoint(_ host: String, _ port: Int = 443, secure: Bool = true) -> Endpoint {
        Endpoint(.tcp(host: host, port: port), isSecure: secure)
    }

    @Test func anEmptyEnvironmentNamesNone() throws {
        let environment = try ProxyEnvironment(environment: ["HTTPS_PROXY": "", "PATH": "/bin"])
        #expect(environment.proxy(for: endpoint("kite.test")) == nil)
        #expect(environment == ProxyEnvironment())
    }

    @Test func choosesByTLSAndPrefersLowerCase() throws {
        let environment = try ProxyEnvironment(environment: [
            "HTTPS_PROXY": "http://upper:1", "https_proxy": "http://lower:2", "HTTP_PROXY": "plain:3",
        ])
        #expect(environment.proxy(for: endpoint("kite.test"))?.host == "lower")
        #expect(environment.proxy(for: endpoint("kite.test", 80, secure: false))?.port == 3)
        #expect(environment.proxy(for: Endpoint(.unix(path: "/tmp/x"), isSecure: true)) == nil)
    }

    @Test func allProxyStandsInForWhatIsNotGiven() throws {
        let environment = try ProxyEnvironment(environment: [
            "ALL_PROXY": "socks5://all", "HTTPS_PROXY": "http://secure",
        ])
        #expect(environment.secure == ProxyServer(kind: .http, host: "secure", port: 80))
        #expect(environment.plain == ProxyServer(kind: .socks5, host: "all", port: 1080))
    }

    @Test func ignoresWhatAVisitorCouldHaveSet() throws {
        let environment = try ProxyEnvironment(environment: ["HTTP_PROXY": "http://evil", "REQUEST_METHOD": "GET"])
        #expect(environment.plain == nil)
    }

    @Test(arguments: [
        ("http://proxy", ProxyServer.Kind.http, "proxy", 80), ("HTTP://Proxy:8080/", .http, "proxy", 8080),
        ("proxy:3128", .http, "proxy", 3128), ("proxy:80", .http, "proxy", 80),
        ("socks5://10.0.0.1", .socks5, "10.0.0.1", 1080), ("socks5h://[::1]:9050", .socks5, "::1", 9050),
        ("socks5://[fe80::1]", .socks5, "fe80::1", 1080), ("socks5://proxy:80", .socks5, "proxy", 80),
    ])
    func readsURLs(text: String, kind: ProxyServer.Kind, host: String, port: Int) throws {
        let environment = try ProxyEnvironment(environment: ["ALL_PROXY": text])
        #expect(environment.secure == ProxyServer(kind: kind, host: host, port: port))
    }

    @Test func readsCredentialsAndNeverShowsThem() throws {
        let environment = try ProxyEnvironment(environment: ["ALL_PROXY": "http://us%3Aer:p%40ss:word@proxy:1"])
        let expected = ProxyServer.Credentials(user: "us:er", password: "p@ss:word")
        #expect(environment.secure?.credentials == expected)
        #expect(!"\(environment)".contains("word"))
        #expect(!String(reflecting: environment).contains("word"))
        #expect(!String(describing: environment.secure).contains("us:er"))
        var dumped = ""
        dump(environment, to: &dumped)
        #expect(!dumped.contains("word"))
    }

    @Test(arguments: [
        "https://proxy", "ftp://proxy", "http://", "http://proxy:0", "http://proxy:65536", "http://proxy:1x",
        "http://proxy/path", "http://proxy?x", "http://a b", "http://[::1", "http://us%zz@proxy", "http://pro\u{1}xy",
        "socks4://proxy", "http://%+1@proxy",
    ])
    func refusesWhatIsNoProxyAndSaysWhereItStands(text: String) {
        #expect(throws: ProxyEnvironment.Invalid(variable: "HTTPS_PROXY")) {
            try ProxyEnvironment(environment: ["HTTPS_PROXY": text])
        }
    }

    @Test(arguments: [
        ("kite.test", "kite.test", true), ("kite.test", "a.kite.test", true), ("kite.test", "xkite.test", false),
        (".kite.test", "kite.test", false), (".kite.test", "a.kite.test", true), ("KITE.test", "Kite.Test.", true),
        ("*.kite.test", "kite.test", false), ("*.kite.test", "a.b.kite.test", true),
        ("*.kite.test:443", "a.kite.test", true), ("*.kite.test:80", "a.kite.test", false),
        ("kite.test.", "kite.test", true), ("kite.test.", "a.kite.test", true), ("*.", "kite.test", false),
        ("kite.test:443", "kite.test", true), ("kite.test:80", "kite.test", false), ("*", "anything", true),
        (" one , kite.test ", "kite.test", true), ("10.0.0.0/8", "10.1.2.3", true), ("10.0.0.0/8", "11.1.2.3", false),
        ("10.1.2.3", "10.1.2.3", true), ("10.1.2.3:80", "10.1.2.3", false), ("10.1.2.3:443", "10.1.2.3", true),
        ("192.168.1.128/25", "192.168.1.127", false), ("192.168.1.128/25", "192.168.1.200", true),
        ("0.0.0.0/0", "8.8.8.8", true), ("fd00::/8", "fd12::1", true), ("fd00::/8", "fe80::1", false),
        ("10.0.0.0/33", "10.0.0.0", false), ("10.0.0.0/x", "10.0.0.0", false), (",,", "kite.test", false),
        (".", "kite.test", false), ("[fd00::1]:443", "fd00::1", true),
        // Never through a proxy, whatever is said.
        ("", "localhost", true), ("", "a.localhost", true), ("", "127.0.0.1", true), ("", "127.9.9.9", true),
        ("", "::1", true), ("", "128.0.0.1", false),
    ])
    func noProxyNamesExceptions(list: String, host: String, isDirect: Bool) throws {
        let environment = try ProxyEnvironment(environment: ["ALL_PROXY": "http://proxy", "NO_PROXY": list])
        #expect((environment.proxy(for: endpoint(host)) == nil) == isDirect)
    }
}
