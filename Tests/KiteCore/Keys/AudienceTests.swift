import KiteCore
import Testing

struct AudienceTests {
    @Test(arguments: [
        ("/", nil), ("/kontrol", nil), ("/kontrol/dev", nil), ("/kontrol/dev/lab", nil),
        ("/kontrol/dev/lab/9.9/x/y/z", nil), ("/kontrol//lab", nil), ("/kontrol//", nil), ("/kontrol/dev/", nil),
        ("/bob", "audience: username \"bob\" not allowed (/bob)"),
        ("//dev/lab", "audience: username \"\" not allowed (//dev/lab)"),
        ("/Kontrol", "audience: username \"Kontrol\" not allowed (/Kontrol)"),
        ("/kontrol/prod", "audience: environment \"prod\" not allowed (/kontrol/prod)"),
        ("/kontrol/dev/math", "audience: kite \"math\" not allowed (/kontrol/dev/math)"),
        ("/kontrol//math", "audience: kite \"math\" not allowed (/kontrol//math)"),
        ("/a\"b", "audience: username \"a\\\"b\" not allowed (/a\"b)"),
    ])
    func comparesUserEnvironmentAndName(text: String, refusal: String?) throws {
        let audience = try Audience(parsing: text)
        var found: String?
        do throws(TokenError) {
            try audience.check(username: "kontrol", environment: "dev", name: "lab")
        } catch {
            found = error.message
        }
        #expect(found == refusal)
        #expect(audience.description == text)
    }

    @Test(arguments: ["", "foo", "kontrol/dev", " /kontrol"])
    func refusesWhatIsNoPath(text: String) {
        #expect(throws: TokenError.invalidAudience(text)) { try Audience(parsing: text) }
    }

    @Test func isWrittenUpToTheLastField() {
        #expect(Audience(username: "a").description == "/a")
        #expect(Audience(username: "a", environment: "b").description == "/a/b")
        #expect(Audience(username: "a", environment: "b", name: "c").description == "/a/b/c")
        #expect(Audience(username: "a", environment: "", name: "c").description == "/a")
    }
}
