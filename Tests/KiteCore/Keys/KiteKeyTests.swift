import Foundation
import Testing

@testable import KiteCore

@Suite(.timeLimit(.minutes(1)))
struct KiteKeyTests {
    @Test func issuedKeysSayWhoTheyBelongTo() async throws {
        let pair = try await Keys.trusted
        let key = try await TokenIssuer(issuer: "kontrol", keyPair: pair)
            .kiteKey(for: "ann", kontrolURL: "http://127.0.0.1:4000/kite", now: testTime)
        #expect(key.username == "ann")
        #expect(key.kontrolUsername == "kontrol")
        #expect(key.kontrolURL == "http://127.0.0.1:4000/kite")
        #expect(key.issuedAt == testTime)
        #expect(try key.kontrolPublicKey() == pair.publicKey)
        #expect(UUID(uuidString: key.id) != nil)
        let verifier = TokenVerifier(trusting: [TrustedIssuer(name: "kontrol", keys: [pair.publicKey])]) { testTime }
        #expect(try verifier.verify(kiteKey: key.text).username == "ann")
        let claims = try SignedToken(parsing: key.text).claims
        #expect(claims.expiresAt == nil && claims.audience == nil && claims.notBefore == nil)
    }

    @Test func refusesUsersThatCannotBe() async throws {
        let issuer = TokenIssuer(issuer: "kontrol", keyPair: try await Keys.trusted)
        for name in ["", "a/b"] {
            await #expect(throws: KeyError.self) { try await issuer.kiteKey(for: name, kontrolURL: "", now: 0) }
        }
    }

    @Test func tokensCarryGoClaims() async throws {
        let issuer = TokenIssuer(issuer: "kontrol", keyPair: try await Keys.trusted)
        let token = try await issuer.token(
            for: "ann", audience: Audience(username: "bob", environment: "dev", name: "math"), now: testTime)
        let claims = try SignedToken(parsing: token).claims
        #expect(claims.issuer == "kontrol" && claims.subject == "ann" && claims.audience == "/bob/dev/math")
        #expect(claims.expiresAt == testTime + 48 * 3600 + 300)
        #expect(claims.issuedAt == testTime - 300 && claims.notBefore == testTime - 300)
        #expect(claims.id?.isEmpty == false && claims.kontrolKey == nil)
        // Go reads whole numbers only, and the header as RS256.
        let parts = token.split(separator: ".")
        let payload = String(decoding: try #require(SignedTokenText.decode(parts[1])), as: UTF8.self)
        #expect(payload.contains(#""exp":\#(testTime + 48 * 3600 + 300)"#))
        let header = try JSONDecoder().decode(
            [String: String].self, from: try #require(SignedTokenText.decode(parts[0])))
        #expect(header == ["alg": "RS256", "typ": "JWT"])
    }

    @Test func neverIssuesForEverything() async throws {
        let issuer = TokenIssuer(issuer: "kontrol", keyPair: try await Keys.trusted)
        let everything = try Audience(parsing: "/")
        await #expect(throws: KeyError.self) { try await issuer.token(for: "ann", audience: everything, now: 0) }
        await #expect(throws: KeyError.self) {
            try await issuer.token(for: "", audience: Audience(username: "bob"), now: 0)
        }
    }

    @Test func filesHaveTheirModesAndAreNotOverwritten() async throws {
        let issuer = TokenIssuer(issuer: "kontrol", keyPair: try await Keys.trusted)
        let first = try await issuer.kiteKey(for: "ann", kontrolURL: "http://a/kite", now: testTime)
        let second = try await issuer.kiteKey(for: "bob", kontrolURL: "http://a/kite", now: testTime)
        try await withTemporaryDirectory { directory in
            let path = "\(directory)/a/b/kite.key"
            try first.write(to: path)
            #expect(try mode(of: path) == 0o400)
            #expect(try mode(of: "\(directory)/a") == 0o700)
            #expect(try mode(of: "\(directory)/a/b") == 0o700)
            #expect(try KiteKey.read(from: path) == first)
            #expect(throws: KeyError(.exists, "\(path) exists already and is not overwritten")) {
                try second.write(to: path)
            }
            #expect(try KiteKey.read(from: path) == first)
            try second.write(to: path, replacing: true)
            #expect(try KiteKey.read(from: path) == second)
            #expect(try FileManager.default.contentsOfDirectory(atPath: "\(directory)/a/b") == ["kite.key"])
        }
    }

    @Test func saysWhatIsWrongWithAFile() async throws {
        try await withTemporaryDirectory { directory in
            func failure(_ contents: String?) throws -> KeyError.Code? {
                let path = "\(directory)/kite.key"
                try? FileManager.default.removeItem(atPath: path)
                if let contents { try contents.write(toFile: path, atomically: false, encoding: .utf8) }
                do throws(KeyError) {
                    _ = try KiteKey.read(from: path)
                    return nil
                } catch {
                    return error.code
                }
            }
            #expect(try failure(nil) == .notFound)
            #expect(try failure("") == .malformed)
            #expect(try failure("no key") == .malformed)
            #expect(try failure(String(repeating: "a", count: 100_000)) == .malformed)
            let nameless = try await Keys.trusted.sign(kiteKeyClaims(Keys.trusted) { $0.subject = nil })
            #expect(try failure(nameless) == .malformed)
            let good = try await Keys.trusted.sign(kiteKeyClaims(Keys.trusted))
            #expect(try failure("\n\(good)\n\n") == nil)
            #expect(throws: KeyError.self) { try KiteKey.read(from: directory) }
        }
    }

    @Test func liesWhereTheEnvironmentSays() {
        #expect(KiteKey.defaultPath(environment: ["KITE_HOME": "/k", "HOME": "/h"]) == "/k/kite.key")
        #expect(KiteKey.defaultPath(environment: ["HOME": "/h"]) == "/h/.kite/kite.key")
        #expect(KiteKey.defaultPath(environment: ["KITE_HOME": "", "HOME": "/h"]) == "/h/.kite/kite.key")
    }

    @Test func secretsDoNotShow() async throws {
        let pair = try await Keys.trusted
        let key = try await TokenIssuer(issuer: "kontrol", keyPair: pair)
            .kiteKey(for: "ann", kontrolURL: "http://a/kite", now: testTime)
        for text in ["\(key)", String(reflecting: key), "\(pair)", String(reflecting: pair)] {
            #expect(!text.contains("PRIVATE") && !text.contains("eyJ"), "\(text)")
        }
    }

    @Test func keyPairsSurviveTheirPEM() async throws {
        let pair = try await Keys.trusted
        let again = try await KontrolKeyPair(privatePEM: "\n" + pair.privatePEM + "\n")
        #expect(again.publicKey == pair.publicKey && again.id == pair.id)
        #expect(pair.publicKey.pem.hasPrefix("-----BEGIN PUBLIC KEY-----\n"))
        #expect(try KontrolPublicKey(pem: pair.publicKey.pem + "\n") == pair.publicKey)
        #expect(pair.publicKey.matches(pem: pair.publicKey.pem.replacingOccurrences(of: "\n", with: "\r\n") + "\n"))
        #expect(!pair.publicKey.matches(pem: try await Keys.other.publicKey.pem))
        for text in ["", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", pair.publicKey.pem] {
            await #expect(throws: KeyError.self) { try await KontrolKeyPair(privatePEM: text) }
        }
        for text in ["", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"] {
            #expect(throws: KeyError.self) { try KontrolPublicKey(pem: text) }
        }
    }
}

/// Decodes segments of a token.
enum SignedTokenText {
    static func decode(_ segment: Substring) -> Data? {
        var text = segment.replacingOccurrences(of: "-", with: "+").replacingOccurrences(of: "_", with: "/")
        while text.count % 4 != 0 { text.append("=") }
        return Data(base64Encoded: text)
    }
}
