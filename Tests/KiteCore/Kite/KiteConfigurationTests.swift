import Testing

/// Settings from the environment, and the token bucket.
@testable import KiteCore

@Suite struct KiteConfigurationTests {
    @Test func environmentVariablesOfGoAreRead() throws {
        let configuration = try KiteConfiguration.fromEnvironment([
            "KITE_USERNAME": "alice", "KITE_ENVIRONMENT": "prod", "KITE_REGION": "eu", "KITE_IP": "0.0.0.0",
            "KITE_PORT": "6667", "KITE_KONTROL_URL": "http://k/kite", "KITE_TRANSPORT": "XHRPolling",
            "KITE_TIMEOUT": "4s", "KITE_HANDSHAKE_TIMEOUT": "500ms", "KITE_PROXY_URL": "http://p/kite",
            "KITE_HOME": "/nonexistent",
        ])
        #expect(configuration.username == "alice" && configuration.environment == "prod")
        #expect(configuration.region == "eu" && configuration.host == "0.0.0.0" && configuration.port == 6667)
        #expect(configuration.kontrolURL == "http://k/kite" && configuration.proxyURL == "http://p/kite")
        #expect(configuration.transport == .xhrPolling)
        #expect(configuration.timeout == .seconds(4) && configuration.handshakeTimeout == .milliseconds(500))
    }

    @Test(arguments: [
        ("KITE_PORT", "x"), ("KITE_PORT", "65536"), ("KITE_PORT", "-1"), ("KITE_TRANSPORT", "carrier pigeon"),
        ("KITE_TIMEOUT", "4"), ("KITE_TIMEOUT", "-4s"), ("KITE_TIMEOUT", "1e9h"), ("KITE_TIMEOUT", "nans"),
        ("KITE_VERIFY_TTL", "-"), ("KITE_VERIFY_TTL", "--1s"),
        ("KITE_TIMEOUT", "1m30"), ("KITE_TIMEOUT", "m30s"), ("KITE_TIMEOUT", "1m 30s"), ("KITE_TIMEOUT", "0s"),
        ("KITE_TIMEOUT", "23h61m"), ("KITE_TIMEOUT", "1.2.3s"), ("KITE_TIMEOUT", "1d"), ("KITE_TIMEOUT", "."),
    ])
    func nonsenseIsNamed(_ name: String, _ value: String) {
        #expect { try KiteConfiguration.fromEnvironment([name: value, "KITE_HOME": "/nonexistent"]) } throws: {
            ($0 as? KiteConfiguration.InvalidSetting)?.name == name
        }
    }

    @Test(arguments: [
        ("1m30s", Duration.seconds(90)), ("1h0m0.5s", .milliseconds(3_600_500)), ("1.5h", .seconds(5400)),
        ("24h", .seconds(86400)), ("250us", .microseconds(250)), ("3\u{B5}s", .microseconds(3)),
        (".5s", .milliseconds(500)),
    ])
    func timesAreReadAsGoWritesThem(_ text: String, _ duration: Duration) throws {
        let configuration = try KiteConfiguration.fromEnvironment([
            "KITE_TIMEOUT": text, "KITE_HOME": "/nonexistent",
        ])
        #expect(abs((configuration.timeout - duration) / .nanoseconds(1)) < 10, "\(text)")
    }

    @Test(arguments: KiteConfiguration.Transport.allCases)
    func everyTransportCanBeChosen(_ transport: KiteConfiguration.Transport) throws {
        let configuration = try KiteConfiguration.fromEnvironment([
            "KITE_TRANSPORT": transport.rawValue, "KITE_HOME": "/nonexistent",
        ])
        #expect(configuration.transport == transport)
    }

    @Test(
        arguments: [("5m", .seconds(300)), ("0", .seconds(3600)), ("0s", .seconds(3600)), ("-1s", .zero)]
            as [(String, Duration)])
    func timeToRememberCallersIsRead(_ text: String, _ expected: Duration) throws {
        let configuration = try KiteConfiguration.fromEnvironment([
            "KITE_VERIFY_TTL": text, "KITE_HOME": "/nonexistent",
        ])
        #expect(configuration.verifyTTL == expected)
    }

    @Test func idsAreRandomUUIDs() {
        let ids = (0..<100).map { _ in KiteConfiguration.randomUUID() }
        #expect(Set(ids).count == 100)
        for id in ids {
            let parts = id.split(separator: "-")
            #expect(parts.map(\.count) == [8, 4, 4, 4, 12])
            #expect(parts[2].first == "4" && "89ab".contains(parts[3].first ?? "x"))
        }
    }

    @Test func bucketFillsWithTime() {
        let start = ContinuousClock.now
        var bucket = TokenBucket(MethodOptions.RateLimit(burst: 2, interval: .seconds(1)))
        let times = [0.0, 0.1, 0.2, 1.05, 1.1, 2.0, 2.5, 9, 9, 9]
        let taken = times.map { bucket.take(now: start + .seconds($0)) }
        #expect(taken == [true, true, false, true, false, true, false, true, true, false])
    }

    @Test(arguments: [
        ("http://h/kite", "http://h/kite"), ("http://u:p@h/kite?x=y#z", "http://h/kite"), ("memory", "memory"),
        ("http://h/a@b", "http://h/a@b"),
    ])
    func loggedURLsHoldNoSecrets(_ url: String, _ expected: String) { #expect(loggable(url) == expected) }
}
