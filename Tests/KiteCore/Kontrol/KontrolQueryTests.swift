import Foundation
import KiteCore
import Testing

struct KontrolQueryTests {
    static let math = KiteIdentity(
        name: "math", username: "kontrol", id: "4695c4bd", environment: "dev", region: "lo", version: "1.2.0",
        hostname: "vm")

    func refusal(_ query: KontrolQuery) -> String? {
        do throws(KontrolError) {
            try query.validate()
            return nil
        } catch {
            return error.code == .invalidQuery ? error.message : "\(error.code)"
        }
    }

    @Test(arguments: [
        (KontrolQuery(), "Empty username field"), (KontrolQuery(name: "x"), "Empty username field"),
        (KontrolQuery(username: "kontrol"), nil), (KontrolQuery(id: "1"), nil),
        (KontrolQuery(username: "kontrol", name: "x"), "Invalid query. Query option is not set: environment"),
        (KontrolQuery(username: "kontrol", version: "1"), "Invalid query. Query option is not set: name"),
        (KontrolQuery(username: "kontrol", id: "1"), "Invalid query. Query option is not set: hostname"),
        (
            KontrolQuery(username: "kontrol", environment: "dev", name: "math", version: ">= x"),
            "Malformed constraint: >= x"
        ),
        (KontrolQuery(username: "kontrol", environment: "dev", name: "math", version: "unknown"), nil),
        (KontrolQuery(username: String(repeating: "k", count: 257)), "Field \"username\" is too long"),
    ])
    func isCheckedAsGoDoes(query: KontrolQuery, message: String?) {
        #expect(refusal(query) == message)
    }

    @Test(arguments: [
        ("/kontrol", true), ("/kontrol/dev", true), ("/kontrol/dev/math", true), ("/kontrol/dev/math/1.2.0", true),
        ("/kontrol/dev/math/1.2", true), ("/kontrol/dev/math/1.3", false), ("/kontrol/dev/math/>= 1.0, < 2.0", true),
        ("/kontrol/dev/math/>= 2.0", false), ("/kontrol/dev/math/1.2.0/lo", true),
        ("/kontrol/dev/math/1.2.0/eu", false),
        ("/kontrol/dev/math/~> 1.1/lo/vm/4695c4bd", true), ("/kontrol/dev/math/1.2.0/lo/vm/1", false),
        ("/kontrol/prod", false), ("/bob", false), ("/kontrol/dev/mat", false), ("/kontrol/dev/math/x", false),
    ])
    func matchesFieldByField(text: String, isMatch: Bool) throws {
        let query = try KontrolQuery(parsing: text)
        #expect(query.matches(Self.math) == isMatch)
        #expect(query.description == text)
    }

    @Test func matchesByIDAlone() {
        #expect(KontrolQuery(id: "4695c4bd").matches(Self.math))
        #expect(!KontrolQuery(id: "4695c4b").matches(Self.math))
        #expect(KontrolQuery(id: "4695c4bd").isByIDOnly)
        #expect(!KontrolQuery(username: "kontrol", id: "4695c4bd").isByIDOnly)
    }

    @Test func aVersionThatIsNoneMatchesOnlyItself() {
        var odd = Self.math
        odd.version = "unknown"
        #expect(KontrolQuery(username: "kontrol", environment: "dev", name: "math", version: "unknown").matches(odd))
        #expect(!KontrolQuery(username: "kontrol", environment: "dev", name: "math", version: ">= 0").matches(odd))
        #expect(KontrolQuery(username: "kontrol", environment: "dev", name: "math").matches(odd))
    }

    @Test(arguments: ["", "kontrol", "/", "//dev", "/kontrol//math", "/a/b/c/1/e/f/g/h"])
    func refusesTextThatIsNoQuery(text: String) {
        #expect(throws: KontrolError.self) { try KontrolQuery(parsing: text) }
    }

    @Test func decodesWhatPeersSend() throws {
        let decoder = JSONDecoder()
        let go =
            #"{"username":"kontrol","environment":"dev","name":"math","version":"","region":"","hostname":"","id":""}"#
        let expected = KontrolQuery(username: "kontrol", environment: "dev", name: "math")
        #expect(try decoder.decode(KontrolQuery.self, from: Data(go.utf8)) == expected)
        let kitejs = #"{"username":"kontrol","environment":"dev","name":"math","version":null}"#
        #expect(try decoder.decode(KontrolQuery.self, from: Data(kitejs.utf8)) == expected)
        #expect(try decoder.decode(KontrolQuery.self, from: Data("{}".utf8)) == KontrolQuery())
        #expect(throws: DecodingError.self) {
            try decoder.decode(KontrolQuery.self, from: Data(#"{"username":1}"#.utf8))
        }
    }

    @Test func kitesAreCodedAsKontrolSendsThem() throws {
        let text = #"""
            {"kite":{"name":"math","username":"kontrol","id":"4695c4bd","environment":"dev","region":"lo","version":"1.2.0","hostname":"vm"},"url":"http://localhost:6667/kite","keyId":"74a4","token":"t"}
            """#
        let kite = try JSONDecoder().decode(KontrolKite.self, from: Data(text.utf8))
        #expect(kite == KontrolKite(identity: Self.math, url: "http://localhost:6667/kite", keyID: "74a4", token: "t"))
        #expect(try JSONDecoder().decode(KontrolKite.self, from: JSONEncoder().encode(kite)) == kite)
    }
}
