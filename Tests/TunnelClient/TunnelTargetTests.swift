/// How targets are read from what a person types.
import KiteDialing
import KiteTunnel
import Testing

@testable import TunnelClient

@Suite("Targets")
struct TunnelTargetTests {
    @Test(
        "The forms of a target",
        arguments: [
            ("8080", .http, ["tcp:127.0.0.1:8080", "tcp:[::1]:8080"], ""),
            ("localhost:8080", .http, ["tcp:localhost:8080"], ""),
            ("127.0.0.1:27900", .http, ["tcp:127.0.0.1:27900"], ""),
            ("[::1]:80", .http, ["tcp:[::1]:80"], ""), ("http://intranet", .http, ["tcp:intranet:80"], ""),
            ("http://intranet/", .http, ["tcp:intranet:80"], ""), ("https://intranet", .http, ["tls:intranet:443"], ""),
            ("HTTPS://intranet:8443", .http, ["tls:intranet:8443"], ""),
            ("unix:/run/app.sock", .http, ["unix:/run/app.sock"], ""),
            ("http://localhost:3636/kite", .kite, ["tcp:localhost:3636"], "/kite"),
            ("http://localhost:3636", .kite, ["tcp:localhost:3636"], "/kite"),
            ("ws://localhost:3636/a/b/", .kite, ["tcp:localhost:3636"], "/a/b"),
            ("3636", .kite, ["tcp:127.0.0.1:3636", "tcp:[::1]:3636"], "/kite"),
            ("5432", .tcp, ["tcp:127.0.0.1:5432", "tcp:[::1]:5432"], ""),
            ("db.local:5432", .tcp, ["tcp:db.local:5432"], ""), ("tcp://db:1", .tcp, ["tcp:db:1"], ""),
        ] as [(String, TunnelKind, [String], String)])
    func forms(text: String, kind: TunnelKind, endpoints: [String], path: String) throws {
        let target = try TunnelTarget(text, kind: kind)
        #expect(target.endpoints.map(\.description) == endpoints)
        #expect(target.path == path)
    }

    @Test(
        "What is no target is refused with what would be one",
        arguments: [
            ("", .http), ("0", .http), ("65536", .http), ("99999", .tcp), ("-1", .http), ("host", .http),
            ("host:", .http), ("host:x", .http), (":80", .http), ("::1:80", .http), ("[::1]", .tcp),
            ("[::1]x:80", .http), ("[]:80", .http), ("ftp://host", .http), ("ws://host:1", .http), ("http://", .http),
            ("http://:80", .http), ("http://u@host", .http), ("http://host/path", .http), ("http://host?x", .http),
            ("http://host:1/kite?x=1", .kite), ("http://host:1", .tcp), ("tcp://host", .tcp), ("unix:relative", .http),
            ("unix:", .http), ("a b:80", .http), ("a\n:80", .http),
            ("unix:/" + String(repeating: "x", count: 107), .http),
            (String(repeating: "x", count: 2000) + ":80", .http),
        ] as [(String, TunnelKind)])
    func refused(text: String, kind: TunnelKind) {
        let error = #expect(throws: InvalidTarget.self) { try TunnelTarget(text, kind: kind) }
        #expect(error?.description.isEmpty == false)
    }

    @Test(
        "A name is made of the host's",
        arguments: [
            ("Laptop.local", "laptop"), ("web_01", "web-01"), ("--x--", "x"), ("", "agent"), ("日本", "agent"),
            (String(repeating: "a", count: 80), String(repeating: "a", count: 63)),
        ])
    func names(host: String, name: String) {
        #expect(TunnelDefinition.name(fromHost: host) == name)
        #expect(TunnelDefinition.isName(name))
    }
}
