/// The keys of the embedded Kontrol, from the command line to a gateway that uses them.
import ArgumentParser
import Foundation
import KiteCommand
import KiteCore
import Logging
import Testing

@testable import EmbeddedKontrol
@testable import KiteProxy

@Suite("Keys", .timeLimit(.minutes(1)))
struct KeysTests {
    private func withDirectory(_ body: (_ path: String, _ place: [String]) async throws -> Void) async throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("keys-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        try await body(path, ["--data-dir", path + "/data", "--kite-key", path + "/home/kite.key"])
    }

    private func open(_ place: [String], _ more: [String] = []) async throws -> KontrolListener {
        let flags = try GatewayConfigurationFlags.parse(place + ["--kontrol-listen", "127.0.0.1:0"] + more)
        return try await KontrolListener.open(
            flags.load(environment: [:]), logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
    }

    @Test("After a rotation and the removal of the old pair the operator's kite key is still good")
    func rotation() async throws {
        try await withDirectory { path, place in
            let file = path + "/home/kite.key"
            try await KeysInitCommand.parse(place).run()
            let first = try KiteKey.read(from: file)
            try await KeysRotateCommand.parse(place).run()
            let second = try KiteKey.read(from: file)
            #expect(second.kontrolKey != first.kontrolKey && second.username == first.username)

            // An older copy is signed anew too before its pair goes.
            try first.write(to: file, replacing: true)
            let old = try first.kontrolPublicKey().id
            try await KeysRotateCommand.parse(place + ["--remove", old]).run()
            #expect(try KiteKey.read(from: file).kontrolKey == second.kontrolKey)
            try await KeysInitCommand.parse(place).run()
            await #expect(throws: CommandFailure.self) {
                try await KeysRotateCommand.parse(place + ["--remove", old]).run()
            }
        }
    }

    @Test("A kite key that Kontrol has renewed is kept")
    func keeping() async throws {
        try await withDirectory { path, _ in
            let pair = try await KontrolKeyPair.generate()
            let issuer = TokenIssuer(issuer: "kontrol", keyPair: pair)
            let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            let keep = GatewayServices.keeping(path + "/home/kite.key", logger: logger)
            for user in ["a", "b"] {
                let key = try await issuer.kiteKey(for: user, kontrolURL: "http://k/kite", now: 0)
                keep(key)
                #expect(try KiteKey.read(from: path + "/home/kite.key") == key)
            }
            let attributes = try FileManager.default.attributesOfItem(atPath: path + "/home/kite.key")
            #expect((attributes[.posixPermissions] as? NSNumber)?.intValue == 0o400)
        }
    }

    @Test("Kontrol lists itself where kites find it")
    func lists() async throws {
        try await withDirectory { _, place in
            try await KeysInitCommand.parse(place).run()
            let kontrol = try await open(place)
            let found = try await kontrol.service.kites(matching: KontrolQuery(username: "kontrol"))
            #expect(found.map(\.url) == ["http://127.0.0.1:\(kontrol.port)/kite"])
            await kontrol.service.close()
        }
    }

    @Test("Machines get kite keys as `register-machine` says")
    func machines() async throws {
        try await withDirectory { path, place in
            try await KeysInitCommand.parse(place).run()
            let denying = try await open(place)
            await #expect(throws: KontrolError.self) {
                try await denying.service.registerMachine(username: "ann", secret: nil)
            }
            await denying.service.close()

            let asking = try await open(place, ["--register-machine", "secret"])
            let keys = try await KontrolKeys(dataDirectory: path + "/data")
            let secret = try await keys.invite(user: "ann")
            keys.close()
            await #expect(throws: KontrolError.self) {
                try await asking.service.registerMachine(username: "ann", secret: nil)
            }
            let key = try await asking.service.registerMachine(username: "eve", secret: secret)
            #expect(key.username == "ann")
            await asking.service.close()

            let open = try await open(place, ["--register-machine", "open"])
            let new = try await open.service.registerMachine(username: "bob", secret: nil)
            #expect(new.username == "bob")
            await open.service.close()
        }
        #expect(throws: (any Error).self) {
            try GatewayConfigurationFlags.parse(["--register-machine", "everybody"]).load(environment: [:])
        }
    }

    @Test("`keys invite` wants a user name and a sensible time")
    func invitations() async throws {
        try await withDirectory { _, place in
            try await KeysInitCommand.parse(place).run()
            try await KeysInviteCommand.parse(["ann", "--hours", "1"] + place).run()
            await #expect(throws: CommandFailure.self) { try await KeysInviteCommand.parse(["a/b"] + place).run() }
            for hours in ["0", "721", "x", "-1"] {
                #expect(throws: (any Error).self) { try KeysInviteCommand.parse(["ann", "--hours", hours] + place) }
            }
        }
    }
}
