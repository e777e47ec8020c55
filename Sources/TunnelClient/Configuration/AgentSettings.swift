/// The settings of `tunnelclient`, and the tunnels of its configuration file.
import KiteCommand
import KiteTunnel
import NIOCore

/// Every setting of the agent, in the order of the documentation.
enum AgentSettings {
    static let gateway = Setting<SettingURL>.single(
        "gateway", .url(), default: SettingURL(scheme: "http", host: "127.0.0.1", port: 3999),
        meaning: "The gateway to open tunnels to; `https` encrypts them")
    static let kiteKey = Setting<String?>.optional(
        "kite-key", .text("FILE"), shown: "`$KITE_HOME/kite.key`, else `~/.kite/kite.key`",
        meaning: "The kite key that says who you are")
    static let certificateAuthorities = Setting<String?>.optional(
        "ca-file", .text("FILE"), shown: "the system's",
        meaning:
            "Certificate authorities (PEM) trusted for the gateway and for `https` targets in place of the system's")
    static let threads = Setting<Int>.single(
        "threads", .integer(1...64), default: 1, meaning: "Event loops; lanes are spread over them")
    static let connectTimeout = Setting<TimeAmount>.single(
        "connect-timeout", .time(.milliseconds(100) ... .minutes(5)), default: .seconds(10),
        meaning: "Until a target has accepted a connection", atLimit: "the visitor gets 502")
    static let json = Setting<Bool>.single(
        "json", .flag, default: false, meaning: "One JSON object per event on standard output")
    static let logLevel = Setting<LogLevel>.single(
        "log-level", .choice, default: .info, meaning: "The least important lines that are written to standard error")
    static let logFormat = Setting<LogFormat>.single(
        "log-format", .choice, default: .human, meaning: "Text for people, or one JSON object a line")

    static let schema = SettingSchema(
        environmentPrefix: "TUNNELCLIENT", environmentNames: ["gateway": "KITE_PROXY_URL"],
        groups: [
            .init(
                "Agent",
                [
                    AnySetting(gateway), AnySetting(kiteKey), AnySetting(certificateAuthorities), AnySetting(threads),
                    AnySetting(connectTimeout), AnySetting(json), AnySetting(logLevel), AnySetting(logFormat),
                ])
        ])
}

/// One tunnel as it was asked for.
struct TunnelDefinition: Sendable, Hashable {
    /// The name it is to be reachable by: a DNS label.
    var name: String
    var target: TunnelTarget
    /// What `Host` says to the target; the visitor's own where nil.
    var hostHeader: String?
    /// Of a kite: its id, where known.
    var kiteID: String?

    /// The tunnel as it is asked for at the gateway.
    var request: TunnelRequest {
        TunnelRequest(
            name: name, kind: target.kind, kiteID: kiteID, path: target.kind == .kite ? target.path : nil)
    }

    /// Whether a text can be a tunnel's name.
    static func isName(_ text: String) -> Bool {
        (1...63).contains(text.utf8.count) && text.first != "-" && text.last != "-"
            && text.utf8.allSatisfy {
                (0x30...0x39).contains($0) || (0x61...0x7A).contains($0) || $0 == 0x2D
            }
    }

    /// A name made of a host's: its first label, in lower case, without what a DNS label cannot have.
    static func name(fromHost host: String) -> String {
        let label = host.prefix { $0 != "." }.lowercased()
        var name = ""
        for byte in label.utf8 {
            switch byte {
            case 0x30...0x39, 0x61...0x7A: name.unicodeScalars.append(Unicode.Scalar(byte))
            default: if !name.hasSuffix("-"), !name.isEmpty { name += "-" }
            }
        }
        name = String(name.prefix(63))
        while name.hasSuffix("-") { name.removeLast() }
        return name.isEmpty ? "agent" : name
    }
}

extension TunnelDefinition {
    /// What stands under `tunnels` in a configuration file: a name each, with exactly one of `http`, `kite` and `tcp`.
    /// - Throws: ``SettingProblems`` with everything that is wrong.
    static func tunnels(in file: SettingsFile) throws(SettingProblems) -> [TunnelDefinition] {
        var problems: [String] = []
        var names: [String] = []
        var parts: [String: [SettingsFile.Entry]] = [:]
        for entry in file.entries where entry.path.first == "tunnels" {
            guard entry.path.count == 3 else {
                problems.append(
                    "\(file.path):\(entry.line): write `tunnels:` as `name:` lines with `http: TARGET`, `kite: URL` or `tcp: HOST:PORT` under each"
                )
                continue
            }
            let name = entry.path[1]
            if parts[name] == nil { names.append(name) }
            parts[name, default: []].append(entry)
        }
        var tunnels: [TunnelDefinition] = []
        for name in names {
            let entries = parts[name] ?? []
            let place = "\(file.path):\(entries.first?.line ?? 0)"
            guard isName(name) else {
                problems.append("\(place): `\(name)` is no name: 1 to 63 of a-z, 0-9 and `-`")
                continue
            }
            var target: TunnelTarget?
            var hostHeader: String?
            var kiteID: String?
            for entry in entries {
                let place = "\(file.path):\(entry.line)"
                guard !entry.isList, let value = entry.values.first else {
                    problems.append("\(place): `\(entry.key)` takes one value, not a list")
                    continue
                }
                switch entry.path[2] {
                case "host-header": hostHeader = value
                case "kite-id": kiteID = value
                case let word:
                    guard let kind = TunnelKind(rawValue: word) else {
                        let known = TunnelKind.allCases.map(\.rawValue) + ["host-header", "kite-id"]
                        let hint = nearestWord(to: word, in: known).map { "; did you mean `\($0)`?" } ?? ""
                        problems.append("\(place): unknown key `\(entry.key)`\(hint)")
                        continue
                    }
                    guard target == nil else {
                        problems.append("\(place): tunnel `\(name)` has two targets; give each its own name")
                        continue
                    }
                    do throws(InvalidTarget) {
                        target = try TunnelTarget(value, kind: kind)
                    } catch {
                        problems.append("\(place): \(error)")
                    }
                }
            }
            if let target {
                tunnels.append(
                    TunnelDefinition(name: name, target: target, hostHeader: hostHeader, kiteID: kiteID))
            } else if problems.isEmpty {
                problems.append("\(place): tunnel `\(name)` needs `http: TARGET`, `kite: URL` or `tcp: HOST:PORT`")
            }
        }
        if tunnels.count > 64 { problems.append("\(file.path): one agent serves at most 64 tunnels") }
        guard problems.isEmpty else { throw SettingProblems(problems) }
        return tunnels
    }
}
