import KiteCore
import Testing

struct VersionConstraintTests {
    @Test func ordersAsSemanticVersioningSays() throws {
        let ascending = [
            "0.0.1", "0.1", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2",
            "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.2", "1.10.0", "2", "10.0.0", "10.0.0.1",
        ].compactMap(SemanticVersion.init)
        #expect(ascending.count == 16)
        for (left, first) in ascending.enumerated() {
            for (right, second) in ascending.enumerated() {
                #expect((first < second) == (left < right), "\(first) \(second)")
                #expect((first == second) == (left == right), "\(first) \(second)")
            }
        }
    }

    @Test(arguments: [("1", "1.0.0"), ("v1.2", "1.2.0"), ("1.0.0+build", "1.0.0"), ("1.2.3.0", "1.2.3")])
    func takesSpellingsForTheSame(left: String, right: String) throws {
        let (left, right) = (try #require(SemanticVersion(left)), try #require(SemanticVersion(right)))
        #expect(left == right)
        #expect(left.hashValue == right.hashValue)
    }

    @Test(arguments: [
        "", "x", "1.", ".1", "1..2", "1.x", "-1", "1.2.3-", "1.2.3-a..b", "1 .2", "99999999999999999999999.0",
        "1.2.3.4.5.6.7.8.9", ">=1", "1.2.3-ä", String(repeating: "1", count: 129),
    ])
    func refusesWhatIsNoVersion(text: String) {
        #expect(SemanticVersion(text) == nil)
    }

    @Test(arguments: [
        (">= 1.0, < 2.0", ["1.0.0", "1.9.9"], ["0.9", "2.0.0"]),
        (">=1.0,<2.0", ["1.0.0"], ["2.0.0"]),
        ("~> 1.2", ["1.2", "1.2.9", "1.9"], ["1.1.9", "2.0", "0.2"]),
        ("~> 1.2.3", ["1.2.3", "1.2.10"], ["1.2.2", "1.3.0", "2.2.3"]),
        ("~> 1", ["1", "1.5", "2.0"], ["0.9"]),
        ("= 1.0", ["1.0.0"], ["1.0.1"]), ("1.0", ["1", "1.0.0"], ["1.0.1"]),
        ("!= 1.0", ["1.0.1"], ["1.0.0"]), ("> 1.0", ["1.0.1"], ["1.0.0"]), ("<= 1.0", ["1.0.0", "0.1"], ["1.0.1"]),
        ("> 2, < 1", [], ["1.5", "0", "3"]),
    ])
    func allowsWhatItSays(text: String, good: [String], bad: [String]) throws {
        let constraint = try #require(VersionConstraint(text))
        for version in good { #expect(constraint.allows(try #require(SemanticVersion(version))), "\(version)") }
        for version in bad { #expect(!constraint.allows(try #require(SemanticVersion(version))), "\(version)") }
    }

    @Test(arguments: [
        "", ",", ">= 1.0,", "=> 1.0", "> ", "~1.0", "1.0 || 2.0", String(repeating: "1.0,", count: 16) + "1.0",
        String(repeating: "1", count: 257),
    ])
    func refusesWhatIsNoConstraint(text: String) {
        #expect(VersionConstraint(text) == nil)
    }
}
