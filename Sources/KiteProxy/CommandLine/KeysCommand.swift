/// `kiteproxy keys`: makes, issues, shows and imports the keys of the embedded Kontrol.
import ArgumentParser
import EmbeddedKontrol
import Foundation
import KiteCommand
import KiteCore

struct KeysCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "keys", abstract: "Make, issue and show the keys of the embedded Kontrol.",
        subcommands: [
            KeysInitCommand.self, KeysIssueCommand.self, KeysInviteCommand.self, KeysShowCommand.self,
            KeysImportCommand.self, KeysRotateCommand.self, KeysPasswordCommand.self,
        ])
}

/// Where the keys are, as for `serve`.
struct KeysFlags: ParsableArguments {
    @Option(help: ArgumentHelp("YAML configuration file of the gateway.", valueName: "FILE"))
    var config: String?
    @Option(help: ArgumentHelp("Data directory of the gateway. (default: ~/.kiteproxy)", valueName: "DIR"))
    var dataDir: String?
    @Option(
        help: ArgumentHelp(
            "The operator's kite key. (default: $KITE_HOME/kite.key, else ~/.kite/kite.key)", valueName: "FILE"))
    var kiteKey: String?

    func load(username: String? = nil, more: [String: [String]] = [:]) throws -> GatewayConfiguration {
        func one(_ value: String?) -> [String] { value.map { [$0] } ?? [] }
        let environment = ProcessInfo.processInfo.environment
        let path = config ?? environment["KITEPROXY_CONFIG"].flatMap { $0.isEmpty ? nil : $0 }
        return try GatewayConfiguration(
            path: path,
            flags: ["data-dir": one(dataDir), "kite-key": one(kiteKey), "username": one(username)]
                .merging(more) { $1 },
            environment: environment)
    }

    /// Opens the data directory, which must be there already.
    func open() async throws -> KontrolKeys {
        let configuration = try load()
        guard FileManager.default.fileExists(atPath: configuration.dataDirectory) else {
            throw CommandFailure(
                .failed,
                "\(configuration.dataDirectory) does not exist: `kiteproxy keys init` makes it, and so does the first `kiteproxy serve`"
            )
        }
        return try await failing { () async throws(KeyError) in
            try await KontrolKeys(dataDirectory: configuration.dataDirectory)
        }
    }
}

/// Checks the URL of a Kontrol given on the command line.
func checkKontrolURL(_ text: String?) throws {
    if let text, SettingURL(text, schemes: ["http", "https", "ws", "wss"]) == nil {
        throw ValidationError("`\(text)` is no URL of a Kontrol: write one such as `http://kontrol.example:4000/kite`")
    }
}

/// Checks the name of a user given on the command line.
private func requireUserName(_ user: String) throws {
    guard (try? ValueType<String>.label("").parse(user)) != nil else {
        throw CommandFailure(.usage, "`\(user)` is no user name: use 1 to 63 letters, digits, `-`, `_` and `.`")
    }
}

/// Runs work on keys and turns its error into the end of the command.
private func failing<Value>(_ body: () async throws(KeyError) -> Value) async throws -> Value {
    do throws(KeyError) {
        return try await body()
    } catch {
        throw CommandFailure(.failed, error.message)
    }
}

struct KeysInitCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "init", abstract: "Make the key pair and the operator's kite key where they are missing.",
        discussion: "Overwrites nothing. The first `kiteproxy serve` with the embedded Kontrol does the same.")

    @OptionGroup var place: KeysFlags
    @Option(help: ArgumentHelp("Kontrol's user, who is the operator. (default: kontrol)", valueName: "NAME"))
    var username: String?
    @Option(help: ArgumentHelp("Where kites find Kontrol. (default: from kontrol-listen)", valueName: "URL"))
    var kontrolURL: String?

    func validate() throws { try checkKontrolURL(kontrolURL) }

    func run() async throws {
        let configuration = try place.load(username: username)
        let outcome = try await failing { () async throws(KeyError) in
            try await KontrolKeys.initialise(
                dataDirectory: configuration.dataDirectory,
                username: configuration.settings[GatewaySettings.username] ?? "kontrol",
                kontrolURL: kontrolURL ?? configuration.ownKontrolURL, kiteKeyPath: configuration.kiteKeyPath)
        }
        print(
            "\(outcome.madeKeyPair ? "Made" : "There is") key pair \(outcome.keyPairID) in \(configuration.dataDirectory)"
        )
        let verb = outcome.madeKiteKey ? "Made" : outcome.renewedKiteKey ? "Signed anew" : "There is"
        print("\(verb) the kite key \(outcome.kiteKeyPath) of \(outcome.username)")
        if !outcome.kiteKeyIsTrusted {
            throw CommandFailure(
                .failed,
                "the kite key \(outcome.kiteKeyPath) was issued by another Kontrol and is left alone: name another file with --kite-key, or set KITE_HOME"
            )
        }
    }
}

struct KeysIssueCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "issue", abstract: "Make a kite key for a user.",
        discussion:
            "Without --out the key is printed on standard output. Whoever has it is the user: treat it as a password.")

    @Argument(help: ArgumentHelp("The user.", valueName: "USER"))
    var user: String
    @OptionGroup var place: KeysFlags
    @Option(help: ArgumentHelp("Where the user's kites find Kontrol. (default: as in keys init)", valueName: "URL"))
    var kontrolURL: String?
    @Option(help: ArgumentHelp("Write the key here, with mode 0400. Nothing is overwritten.", valueName: "FILE"))
    var out: String?

    func validate() throws { try checkKontrolURL(kontrolURL) }

    func run() async throws {
        try requireUserName(user)
        if let out, FileManager.default.fileExists(atPath: out) {
            throw CommandFailure(.failed, "\(out) exists already and is not overwritten: name another file with --out")
        }
        let keys = try await place.open()
        defer { keys.close() }
        let overview = try await failing { () async throws(KeyError) in try await keys.show() }
        guard !overview.keyPairs.isEmpty else {
            throw CommandFailure(.failed, "there is no key pair yet: run `kiteproxy keys init` first")
        }
        let key = try await failing { () async throws(KeyError) in
            try await keys.issue(user: user, kontrolURL: kontrolURL)
        }
        guard let out else { return print(key.text) }
        try await failing { () async throws(KeyError) in try key.write(to: out) }
        print("Made \(out), the kite key of \(user)")
    }
}

struct KeysInviteCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "invite", abstract: "Make a secret with which a user's machine gets a kite key, once.",
        discussion:
            "The machine calls `registerMachine` with it, which Kontrol answers when it runs with `--register-machine secret`. The secret is printed on standard output: treat it as a password."
    )

    @Argument(help: ArgumentHelp("The user.", valueName: "USER"))
    var user: String
    @OptionGroup var place: KeysFlags
    @Option(help: ArgumentHelp("How long it is good, 1 to 720 hours.", valueName: "HOURS"))
    var hours = 24

    func validate() throws {
        guard (1...720).contains(hours) else { throw ValidationError("`--hours` must be from 1 to 720") }
    }

    func run() async throws {
        try requireUserName(user)
        let keys = try await place.open()
        defer { keys.close() }
        print(
            try await failing { () async throws(KeyError) in
                try await keys.invite(user: user, lifetime: Int64(hours) * 3600)
            })
    }
}

struct KeysShowCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "Show key pairs and users; never a private key.")

    @OptionGroup var place: KeysFlags
    @Flag(help: "One JSON object.") var json = false
    @Flag(help: "Print the active public key (PEM) and nothing else.") var publicKey = false

    func run() async throws {
        let keys = try await place.open()
        defer { keys.close() }
        let overview = try await failing { () async throws(KeyError) in try await keys.show() }
        if publicKey {
            guard let active = overview.keyPairs.first(where: \.isActive) else {
                throw CommandFailure(.failed, "there is no key pair yet: run `kiteproxy keys init` first")
            }
            return print(active.publicPEM)
        }
        print(json ? Self.json(overview) : Self.text(overview))
    }

    static func json(_ overview: KontrolKeys.Overview) -> String {
        var json = JSONText()
        json.beginObject()
        json.member("username", overview.username)
        json.member("kontrolURL", overview.kontrolURL)
        json.name("keyPairs")
        json.beginArray()
        for pair in overview.keyPairs {
            json.beginObject()
            json.member("id", pair.id)
            json.member("active", pair.isActive)
            json.member("created", Timestamp.text(seconds: pair.createdAt, milliseconds: 0))
            json.member("publicKey", pair.publicPEM)
            json.endObject()
        }
        json.endArray()
        json.name("users")
        json.beginArray()
        for user in overview.users {
            json.beginObject()
            json.member("username", user.username)
            json.member("kiteKeys", user.kiteKeys)
            json.endObject()
        }
        json.endArray()
        json.endObject()
        return json.text
    }

    static func text(_ overview: KontrolKeys.Overview) -> String {
        var lines = ["Kontrol's user  \(overview.username)", "Kontrol's URL   \(overview.kontrolURL)", "", "Key pairs"]
        if overview.keyPairs.isEmpty { lines.append("  none: run `kiteproxy keys init`") }
        for pair in overview.keyPairs {
            let created = Timestamp.text(seconds: pair.createdAt, milliseconds: 0)
            lines.append("  \(pair.id)  \(created)  \(pair.isActive ? "active" : "retired")")
        }
        lines += ["", "Users"]
        for user in overview.users { lines.append("  \(user.username)  \(user.kiteKeys) kite keys") }
        return lines.joined(separator: "\n")
    }
}

struct KeysImportCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "import", abstract: "Take over the key pair of an existing Kontrol; it becomes the active one.",
        discussion: "Kite keys and tokens that Kontrol has signed stay good. RSA, at least 2048 bits, PEM.")

    @OptionGroup var place: KeysFlags
    @Option(name: .customLong("private"), help: ArgumentHelp("Private key file.", valueName: "FILE"))
    var privatePath: String
    @Option(
        name: .customLong("public"),
        help: ArgumentHelp("Public key file; checked to belong to the private one.", valueName: "FILE"))
    var publicPath: String?
    @Option(help: ArgumentHelp("Kontrol's user, the issuer of its keys. (default: kontrol)", valueName: "NAME"))
    var username: String?

    func run() async throws {
        let configuration = try place.load(username: username)
        let id = try await failing { () async throws(KeyError) in
            let keys = try await KontrolKeys(dataDirectory: configuration.dataDirectory)
            defer { keys.close() }
            return try await keys.importKeys(
                public: publicPath, private: privatePath,
                username: configuration.settings[GatewaySettings.username] ?? "kontrol")
        }
        print("Key pair \(id) is the active one")
    }
}

struct KeysRotateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rotate", abstract: "Make a new key pair the active one; what the old one signed stays good.",
        discussion:
            "The operator's kite key is signed anew. Kites that are connected to a running Kontrol are given theirs within a minute; give them that time before --remove."
    )

    @OptionGroup var place: KeysFlags
    @Option(help: ArgumentHelp("Instead: stop accepting what this retired key pair signed.", valueName: "ID"))
    var remove: String?

    func run() async throws {
        let path = try place.load().kiteKeyPath
        let keys = try await place.open()
        defer { keys.close() }
        if let remove {
            // First: without its kite key the gateway could not start any more.
            try await renewKiteKey(path, keys)
            guard try await failing({ () async throws(KeyError) in try await keys.remove(keyPair: remove) }) else {
                throw CommandFailure(
                    .failed, "there is no retired key pair `\(remove)`: `kiteproxy keys show` lists them")
            }
            return print("Key pair \(remove) is no longer accepted")
        }
        let id = try await failing { () async throws(KeyError) in try await keys.rotate() }
        print("Key pair \(id) is the active one; a running gateway takes it over within a minute")
        try await renewKiteKey(path, keys)
    }

    private func renewKiteKey(_ path: String, _ keys: KontrolKeys) async throws {
        do throws(KeyError) {
            if try await keys.renew(kiteKeyAt: path) { print("Signed the kite key \(path) anew") }
        } catch {
            throw CommandFailure(.failed, "the kite key could not be signed anew: \(error.message)")
        }
    }
}
