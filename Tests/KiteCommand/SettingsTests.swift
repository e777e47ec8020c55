/// How settings are read, laid over each other and judged.
import KiteCommand
import NIOCore
import Testing

private enum Sample {
    static let listen = Setting<[ListenAddress]>.list(
        "listen", .listenAddress, default: [ListenAddress(host: "127.0.0.1", port: 1)], meaning: "Listener")
    static let threads = Setting<Int>.single("threads", .integer(1...8), default: 2, meaning: "Loops")
    static let maxHead = Setting<Int>.single(
        "max-head", .bytes(1024...65536), default: 4096, meaning: "Head", atLimit: "431")
    static let logs = Setting<Bool>.single("access-log", .flag, default: false, meaning: "Lines")
    static let domain = Setting<String?>.optional("domain", .domain, shown: "none", meaning: "Domain")
    static let schema = SettingSchema(
        environmentPrefix: "SAMPLE",
        groups: [
            .init(
                "All",
                [
                    AnySetting(listen), AnySetting(threads), AnySetting(maxHead), AnySetting(logs), AnySetting(domain),
                ])
        ])
}

@Suite("Settings")
struct SettingsTests {
    private func resolve(
        flags: [String: [String]] = [:], environment: [String: String] = [:], yaml: String? = nil
    ) throws -> Settings {
        try Settings(
            schema: Sample.schema, flags: flags, environment: environment,
            file: yaml.map { yaml throws(SettingProblems) in try SettingsFile(yaml: yaml, path: "f.yaml") })
    }

    @Test(
        "A flag wins over the environment, the environment over the file, the file over the default",
        arguments: [
            (nil, nil, nil, 2, "default"), (nil, nil, "3", 3, "f.yaml:2"),
            (nil, "4", "3", 4, "environment SAMPLE_THREADS"),
            ("5", "4", "3", 5, "flag"), ("5", nil, nil, 5, "flag"), (nil, "", "3", 3, "f.yaml:2"),
        ] as [(String?, String?, String?, Int, String)])
    func precedence(flag: String?, variable: String?, file: String?, expected: Int, source: String) throws {
        let settings = try resolve(
            flags: ["threads": flag.map { [$0] } ?? []], environment: variable.map { ["SAMPLE_THREADS": $0] } ?? [:],
            yaml: file.map { "# comment\nthreads: \($0)\n" })
        #expect(settings[Sample.threads] == expected)
        #expect(settings.source("threads").description == source)
    }

    @Test("A repeatable setting is a repeated flag, a list with commas, or a list or a single value in the file")
    func lists() throws {
        let two = [ListenAddress(host: "127.0.0.1", port: 80), ListenAddress(host: "::1", port: 0)]
        #expect(try resolve(flags: ["listen": ["127.0.0.1:80", "[::1]:0"]])[Sample.listen] == two)
        #expect(try resolve(environment: ["SAMPLE_LISTEN": "127.0.0.1:80, [::1]:0"])[Sample.listen] == two)
        #expect(try resolve(yaml: "listen:\n  - 127.0.0.1:80\n  - '[::1]:0'\n")[Sample.listen] == two)
        #expect(try resolve(yaml: "listen: 127.0.0.1:80")[Sample.listen] == [two[0]])
        #expect(try resolve(yaml: "listen: []")[Sample.listen] == [])
    }

    @Test("A layer replaces the lists of those below it")
    func listPrecedence() throws {
        let settings = try resolve(
            flags: ["listen": ["a:1"]], environment: ["SAMPLE_LISTEN": "b:2,c:3"], yaml: "listen: [d:4]")
        #expect(settings[Sample.listen] == [ListenAddress(host: "a", port: 1)])
    }

    @Test(
        "What is wrong in a file is told with its line and the cure",
        arguments: [
            ("threads: 3\nlisen: a:1\n", "f.yaml:2: unknown key `lisen`; did you mean `listen`?"),
            ("thread: 3", "f.yaml:1: unknown key `thread`; did you mean `threads`?"),
            ("entirely-different: 3", "f.yaml:1: unknown key `entirely-different`"),
            ("listen:\n  host: a\n", "f.yaml:2: unknown key `listen.host`"),
            ("threads: [1, 2]", "f.yaml:1: `threads` takes one value, not a list"),
            ("threads: many", "f.yaml:1: `threads`: `many` is not valid: it must be a whole number, 1 to 8"),
            ("threads: 9", "f.yaml:1: `threads`: `9` is not valid: it must be a whole number, 1 to 8"),
            (
                "max-head: 1MiB",
                "f.yaml:1: `max-head`: `1MiB` is not valid: it must be a size such as `64KiB`, 1KiB to 64KiB"
            ),
            ("access-log: maybe", "f.yaml:1: `access-log`: `maybe` is not valid: it must be `true` or `false`"),
            ("listen:\n  - {a: 1}\n", "f.yaml:1: `listen` must be a list of plain values"),
            ("- a\n- b\n", "f.yaml: it must be a list of `key: value` lines"),
            ("threads: 1\nthreads: 2\n", "f.yaml: a key stands there twice: threads"),
        ])
    func fileProblems(yaml: String, expected: String) throws {
        let problems = #expect(throws: SettingProblems.self) { try resolve(yaml: yaml) }
        #expect(problems?.problems.first?.hasPrefix(expected) == true, "\(String(describing: problems))")
    }

    @Test("What is no YAML is told with its line")
    func brokenYAML() {
        let problems = #expect(throws: SettingProblems.self) { try resolve(yaml: "threads: 1\nlisten: [a\n") }
        #expect(problems?.description.hasPrefix("f.yaml: line ") == true, "\(String(describing: problems))")
    }

    @Test("All problems are told at once, flags and variables by their own names")
    func allProblems() throws {
        let problems = #expect(throws: SettingProblems.self) {
            try resolve(
                flags: ["threads": ["0"]], environment: ["SAMPLE_DOMAIN": "http://x"],
                yaml: "acces-log: true\nmax-head: 1")
        }
        #expect(
            problems?.problems == [
                "f.yaml:1: unknown key `acces-log`; did you mean `access-log`?",
                "--threads: `0` is not valid: it must be a whole number, 1 to 8",
                "f.yaml:2: `max-head`: `1` is not valid: it must be a size such as `64KiB`, 1KiB to 64KiB",
                "SAMPLE_DOMAIN: `http://x` is not valid: it must be a DNS name such as `kites.example.org`, without scheme, port or `*`",
            ])
    }

    @Test(
        "An empty file, comments alone and keys without values mean nothing",
        arguments: ["", "# x\n", "threads:\n", "--- \n"])
    func emptyFiles(yaml: String) throws {
        #expect(try resolve(yaml: yaml).given.isEmpty)
    }

    @Test("A file that cannot be read is named")
    func missingFile() {
        let problems = #expect(throws: SettingProblems.self) { try SettingsFile(contentsOf: "/nonexistent/x.yaml") }
        #expect(problems?.description.contains("/nonexistent/x.yaml") == true)
    }

    @Test("The table has every setting with its three names")
    func table() {
        let table = Sample.schema.markdown
        #expect(table.contains("| `--listen HOST:PORT` (repeatable) | `listen` | `SAMPLE_LISTEN` | `127.0.0.1:1` |"))
        #expect(
            table.contains(
                "| `--max-head SIZE` | `max-head` | `SAMPLE_MAX_HEAD` | `4KiB` | 1KiB to 64KiB | Head | 431 |"))
        #expect(table.contains("| `--[no-]access-log` |"))
    }
}

@Suite("Types of settings")
struct ValueTypeTests {
    @Test(
        "Times",
        arguments: [
            ("10s", TimeAmount.seconds(10)), ("10", .seconds(10)), ("500ms", .milliseconds(500)), ("2m", .minutes(2)),
            ("1h", .hours(1)), ("0", .seconds(0)),
        ])
    func times(text: String, expected: TimeAmount) throws {
        #expect(try ValueType<TimeAmount>.time(.seconds(0) ... .hours(1)).parse(text) == expected)
    }

    @Test(
        "What is no time",
        arguments: ["", "s", "-1s", "1.5s", "1d", "61m", "99999999999999999999s", "9223372036854775807h", "1 s"])
    func noTimes(text: String) {
        #expect(throws: InvalidValue.self) { try ValueType<TimeAmount>.time(.seconds(0) ... .hours(1)).parse(text) }
    }

    @Test("Sizes", arguments: [("1024", 1024), ("64KiB", 65536), ("1 MiB", 1 << 20), ("2g", 2 << 30)])
    func sizes(text: String, expected: Int) throws {
        #expect(try ValueType<Int>.bytes(0...(1 << 40)).parse(text) == expected)
    }

    @Test("What is no size", arguments: ["", "KiB", "-1", "1.5MiB", "1TiB", "9223372036854775807GiB", "12abc"])
    func noSizes(text: String) {
        #expect(throws: InvalidValue.self) { try ValueType<Int>.bytes(0...(1 << 40)).parse(text) }
    }

    @Test(
        "Addresses to listen on",
        arguments: [
            ("127.0.0.1:3999", "127.0.0.1", 3999), ("localhost:0", "localhost", 0), ("[::1]:65535", "::1", 65535),
            ("0.0.0.0:80", "0.0.0.0", 80),
        ])
    func addresses(text: String, host: String, port: Int) {
        #expect(ListenAddress(text) == ListenAddress(host: host, port: port))
        #expect(ListenAddress(text)?.description == text)
    }

    @Test(
        "What is no address",
        arguments: [
            "", "nowhere", "3999", ":80", "a:", "a:b", "a:65536", "a:-1", "::1:80", "[::1]", "[]:1", "[a]:1", "a b:1",
            "a/b:1", "a:+1",
        ])
    func noAddresses(text: String) {
        #expect(ListenAddress(text) == nil)
    }

    @Test(
        "URLs",
        arguments: [
            ("http://a", "http", "a", nil, ""), ("HTTPS://a.b:8443/x/y", "https", "a.b", 8443, "/x/y"),
            ("http://[::1]:80/", "http", "::1", 80, "/"), ("http://[::1]", "http", "::1", nil, ""),
        ] as [(String, String, String, Int?, String)])
    func urls(text: String, scheme: String, host: String, port: Int?, path: String) throws {
        let url = try #require(SettingURL(text))
        #expect(url.scheme == scheme)
        #expect(url.host == host)
        #expect(url.port == port)
        #expect(url.path == path)
    }

    @Test(
        "What is no URL for a setting",
        arguments: [
            "", "a", "ftp://a", "http://", "http:///x", "http://u:p@a", "http://a?x", "http://a#x", "http://a:0",
            "http://a:b", "http://a b", "http://a/?q",
        ])
    func noURLs(text: String) {
        #expect(SettingURL(text) == nil)
    }

    @Test("Domain names", arguments: ["*.example.org", "example.org.", "a..b", "-a.b", "a:1", "http://a", "", "a_b"])
    func noDomains(text: String) {
        #expect(throws: InvalidValue.self) { try ValueType<String>.domain.parse(text) }
    }
}
