import Foundation
import Synchronization
import Testing

@testable import KiteCore

@Suite(.timeLimit(.minutes(1)))
struct TokenVerifierTests {
    static let lab = KiteIdentity(
        name: "lab", username: "kontrol", id: "1", environment: "dev", region: "lo", version: "1.0.0", hostname: "vm")

    func verifier(_ now: Int64 = testTime) async throws -> TokenVerifier {
        TokenVerifier(trusting: [TrustedIssuer(name: "kontrol", keys: [try await Keys.trusted.publicKey])]) { now }
    }

    func refusal(_ authentication: Authentication?, by verifier: TokenVerifier) async -> String? {
        do throws(KiteError) {
            _ = try await verifier.authenticate(authentication, for: Self.lab)
            return nil
        } catch {
            return error.type == .authentication ? error.message : "\(error)"
        }
    }

    /// Builds the credential that a line of the fixture is about.
    func credential(_ name: String) async throws -> Authentication? {
        let (pair, other) = (try await Keys.trusted, try await Keys.other)
        func token(_ change: (inout KiteClaims) -> Void = { _ in }) async throws -> Authentication {
            .token(try await pair.sign(tokenClaims(change)))
        }
        func kiteKey(_ change: (inout KiteClaims) -> Void = { _ in }) async throws -> Authentication {
            .kiteKey(try await pair.sign(kiteKeyClaims(pair, change)))
        }
        switch name {
        case "token good": return try await token()
        case "token sub=bob": return try await token { $0.subject = "bob" }
        case "token aud user only /kontrol": return try await token { $0.audience = "/kontrol" }
        case "token aud /kontrol/dev": return try await token { $0.audience = "/kontrol/dev" }
        case "token aud full path of other id":
            return try await token { $0.audience = "/kontrol/dev/lab/1.0.0/lo/vm/another" }
        case "token aud /": return try await token { $0.audience = "/" }
        case "token aud other user": return try await token { $0.audience = "/bob/dev/lab" }
        case "token aud other env": return try await token { $0.audience = "/kontrol/prod/lab" }
        case "token aud other name": return try await token { $0.audience = "/kontrol/dev/math" }
        case "token no aud": return try await token { $0.audience = nil }
        case "token no sub": return try await token { $0.subject = nil }
        case "token aud not a path": return try await token { $0.audience = "foo" }
        case "token expired": return try await token { $0.expiresAt = testTime - 11 }
        case "token no exp": return try await token { $0.expiresAt = nil }
        case "token nbf future": return try await token { $0.notBefore = testTime + 60 }
        case "token wrong issuer": return try await token { $0.issuer = "evil" }
        case "token wrong key": return .token(try await other.sign(tokenClaims()))
        case "token HS256": return .token(withHeader(#"{"alg":"HS256","typ":"JWT"}"#, try await token().key))
        case "token alg none":
            let forged = withHeader(#"{"alg":"none","typ":"JWT"}"#, try await token().key)
            return .token(forged.split(separator: ".").prefix(2).joined(separator: ".") + ".")
        case "kiteKey good, sub=bob", "kiteKey aud/exp absent ok": return try await kiteKey()
        case "kiteKey self-signed w/ own kontrolKey": return .kiteKey(try await other.sign(kiteKeyClaims(other)))
        case "kiteKey kontrolKey ok, signature by other": return .kiteKey(try await other.sign(kiteKeyClaims(pair)))
        case "kiteKey no kontrolKey": return try await kiteKey { $0.kontrolKey = nil }
        case "kiteKey expired": return try await kiteKey { $0.expiresAt = testTime - 7 }
        case "kiteKey issuer other": return try await kiteKey { $0.issuer = "zzz" }
        case "kiteKey no sub": return try await kiteKey { $0.subject = nil }
        default: return nil
        }
    }

    @Test func answersAsGoKitesDo() async throws {
        let lines = try fixture("authentication.tsv")
        #expect(lines.count == 27)
        for line in lines {
            let credential = try #require(try await credential(line[0]), "\(line[0])")
            let expected = line[1] == "-" ? nil : line[1]
            #expect(await refusal(credential, by: try await verifier()) == expected, "\(line[0])")
        }
    }

    @Test func namesTheUser() async throws {
        let verifier = try await verifier()
        let pair = try await Keys.trusted
        let token = try await pair.sign(tokenClaims { $0.subject = "ann" })
        #expect(try await verifier.authenticate(.token(token), for: Self.lab) == "ann")
        let key = try await pair.sign(kiteKeyClaims(pair))
        #expect(try await verifier.authenticate(.kiteKey(key), for: Self.lab) == "bob")
    }

    @Test func refusesEveryHeaderButRS256() async throws {
        let token = try await Keys.trusted.sign(tokenClaims())
        for header in [
            #"{"alg":"RS384"}"#, #"{"alg":"PS256"}"#, #"{"alg":"ES256"}"#, #"{"alg":"rs256"}"#, #"{"alg":"None"}"#,
            #"{"alg":""}"#, #"{"alg":null}"#, #"{"alg":["RS256"]}"#, #"{"typ":"JWT"}"#, #"{}"#,
            #"{"alg":"RS256","crit":["exp"]}"#,
        ] {
            let refusal = await refusal(.token(withHeader(header, token)), by: try await verifier())
            #expect(refusal == "token: invalid signing method", "\(header)")
        }
        #expect(
            await refusal(.token(withHeader("[]", token)), by: try await verifier()) == "token: token is malformed")
    }

    @Test func refusesMalformedText() async throws {
        let verifier = try await verifier()
        let good = try await Keys.trusted.sign(tokenClaims())
        let parts = good.split(separator: ".").map(String.init)
        let segments = "token contains an invalid number of segments"
        let cases: [(String, String)] = [
            ("", segments), ("x", segments), ("..", "token is malformed"), ("a.b", segments), ("a.b.c.d", segments),
            (good + ".", segments), ("\(parts[0]).\(parts[1])", segments),
            ("a*.b.c", "illegal base64 data at input byte 1"), ("a.b.c", "illegal base64 data at input byte 0"),
            ("\(parts[0])=.\(parts[1]).\(parts[2])", "illegal base64 data at input byte \(parts[0].count)"),
            (" " + good, "illegal base64 data at input byte 0"),
            ("\(base64URL("nothing")).\(parts[1]).\(parts[2])", "token is malformed"),
            ("\(parts[0]).\(base64URL("[1]")).\(parts[2])", "token is malformed"),
            ("\(parts[0]).\(base64URL(#"{"exp":"soon"}"#)).\(parts[2])", "token is malformed"),
            ("\(parts[0]).\(base64URL(#"{"exp":1e300}"#)).\(parts[2])", "token is malformed"),
            ("\(parts[0]).\(base64URL(#"{"iss":"kontrol"}"#)).\(parts[2])", "token is expired"),
            ("\(parts[0]).\(parts[1]).", "token is expired"), ("\(parts[0]).\(parts[1]).AAAA", "token is expired"),
            (String(repeating: "a", count: 8193), "token is too long"),
            (String(repeating: "[", count: 8192), segments),
        ]
        for (text, message) in cases {
            #expect(await refusal(.token(text), by: verifier) == "token: \(message)", "\(text.prefix(40))")
        }
    }

    @Test func survivesEveryChangedByte() async throws {
        let verifier = try await verifier()
        let good = Array(try await Keys.trusted.sign(tokenClaims()).utf8)
        var random = SystemRandomNumberGenerator()
        for position in good.indices where good[position] != UInt8(ascii: ".") {
            var bytes = good
            repeat {
                bytes[position] = UInt8.random(in: 0x20...0x7E, using: &random)
            } while bytes[position] == good[position]
            // The last character of a segment has bits that mean nothing.
            if position + 1 == good.count || good[position + 1] == UInt8(ascii: ".") { continue }
            #expect(await refusal(.token(String(decoding: bytes, as: UTF8.self)), by: verifier) != nil, "\(position)")
        }
    }

    @Test func refusesUnknownAndMissingTypes() async throws {
        let verifier = try await verifier()
        #expect(await refusal(nil, by: verifier) == "No authentication information is provided")
        #expect(
            await refusal(Authentication(type: "", key: ""), by: verifier)
                == "No authentication information is provided")
        #expect(
            await refusal(Authentication(type: "sessionID", key: "x"), by: verifier)
                == "Unknown authentication type: sessionID")
    }

    @Test func aTokenIsNoKiteKeyAndTheOtherWayRound() async throws {
        let verifier = try await verifier()
        let pair = try await Keys.trusted
        let token = try await pair.sign(tokenClaims())
        let key = try await pair.sign(kiteKeyClaims(pair))
        #expect(try await verifier.authenticate(.token(token), for: Self.lab) == "kontrol")
        #expect(try await verifier.authenticate(.kiteKey(key), for: Self.lab) == "bob")
        #expect(await refusal(.kiteKey(token), by: verifier) == "kiteKey: no kontrol key found")
        #expect(await refusal(.token(key), by: verifier) == "token: token has no audience")
    }

    @Test func saysForHowLongATokenHasExpired() async throws {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (61, "1m1s"), (3600, "1h0m0s"), (90061, "25h1m1s")] {
            let token = try await Keys.trusted.sign(tokenClaims { $0.expiresAt = testTime - Int64(seconds) })
            #expect(
                await refusal(.token(token), by: try await verifier()) == "token: token is expired by \(text)")
        }
    }

    @Test func takesTimesWithFractions() async throws {
        let decoder = JSONDecoder()
        #expect(try decoder.decode(KiteClaims.self, from: Data(#"{"exp":12.9}"#.utf8)).expiresAt == 12)
        #expect(try decoder.decode(KiteClaims.self, from: Data(#"{"exp":null}"#.utf8)).expiresAt == nil)
    }

    @Test func rememberedTokensExpireAndLoseTrust() async throws {
        let pair = try await Keys.trusted
        let time = Mutex<Int64>(testTime)
        let verifier = TokenVerifier(trusting: [TrustedIssuer(name: "kontrol", keys: [pair.publicKey])]) {
            time.withLock { $0 }
        }
        let token = try await pair.sign(tokenClaims())
        #expect(await refusal(.token(token), by: verifier) == nil)
        time.withLock { $0 = testTime + 3599 }
        #expect(await refusal(.token(token), by: verifier) == nil)
        time.withLock { $0 = testTime + 3600 }
        #expect(await refusal(.token(token), by: verifier) == "token: token is expired by 0s")
        time.withLock { $0 = testTime }
        #expect(await refusal(.token(token), by: verifier) == nil)
        verifier.trust([TrustedIssuer(name: "kontrol", keys: [try await Keys.other.publicKey])])
        #expect(await refusal(.token(token), by: verifier) == "token: token is expired")
        verifier.trust([TrustedIssuer(name: "kontrol", keys: [try await Keys.other.publicKey, pair.publicKey])])
        #expect(await refusal(.token(token), by: verifier) == nil)
    }

    @Test func learnsABoundedNumberOfKeysAndKeepsTheOldOnes() async throws {
        let (old, new) = (try await Keys.trusted, try await Keys.other)
        let verifier = try await verifier()
        let token = try await old.sign(tokenClaims())
        #expect(await refusal(.token(token), by: verifier) == nil)
        verifier.learn(new.publicKey, of: "kontrol")
        for pair in [old, new] {
            let token = try await pair.sign(tokenClaims())
            #expect(await refusal(.token(token), by: verifier) == nil)
        }
        for number in 0..<10 {
            verifier.learn(old.publicKey, of: "kontrol")
            verifier.learn(new.publicKey, of: number.isMultiple(of: 2) ? "kontrol" : "issuer \(number)")
        }
        #expect(verifier.trustedIssuers.count == 4)
        #expect(verifier.trustedIssuers.first { $0.name == "kontrol" }?.keys == [old.publicKey, new.publicKey])
        var other: [KontrolKeyPair] = []
        for _ in 0..<3 { other.append(try await KontrolKeyPair.generate()) }
        for pair in other { verifier.learn(pair.publicKey, of: "kontrol") }
        let keys = verifier.trustedIssuers.first { $0.name == "kontrol" }?.keys
        #expect(keys == other.reversed().map(\.publicKey) + [old.publicKey])
        let forgotten = try await new.sign(tokenClaims())
        #expect(await refusal(.token(forgotten), by: verifier) == "token: token is expired")
    }

    @Test func aRememberedTokenIsStillCheckedAgainstTheKite() async throws {
        let verifier = try await verifier()
        let token = try await Keys.trusted.sign(tokenClaims())
        #expect(await refusal(.token(token), by: verifier) == nil)
        var math = Self.lab
        math.name = "math"
        await #expect(throws: KiteError.self) { try await verifier.authenticate(.token(token), for: math) }
    }

    @Test func remembersABoundedNumber() async throws {
        var cache = VerificationCache(capacity: 3)
        let key = try await Keys.trusted.publicKey
        func credential(_ number: Int) -> VerifiedCredential {
            VerifiedCredential(
                username: "\(number)", issuer: "", audience: nil, expiresAt: testTime + 10, id: "", key: key,
                issuedAt: nil)
        }
        for number in 0..<10 {
            cache.insert(credential(number), for: .init(kind: .token, text: "\(number)"), now: testTime)
        }
        #expect(cache.count == 3)
        for number in 0..<10 {
            let found = cache[.init(kind: .token, text: "\(number)"), testTime]
            #expect(found?.username == (number < 7 ? nil : "\(number)"))
            #expect(cache[.init(kind: .kiteKey, text: "\(number)"), testTime] == nil)
            #expect(cache[.init(kind: .token, text: "\(number)"), testTime + 10] == nil)
        }
        for (lifetime, isKnown) in [(Duration.zero, false), (.seconds(-5), false), (.seconds(5), true)] {
            var cache = VerificationCache(capacity: 3, lifetime: lifetime)
            cache.insert(credential(1), for: .init(kind: .token, text: "1"), now: testTime)
            #expect((cache[.init(kind: .token, text: "1"), testTime + 4] != nil) == isKnown)
            #expect(cache[.init(kind: .token, text: "1"), testTime + 5] == nil)
        }
    }
}
