/// The values that every call carries.
import KiteCore
import Testing

@Suite struct KiteIdentityTests {
    @Test func pathNamesTheFieldsInKontrolsOrder() {
        let kite = KiteIdentity(
            name: "math", username: "kontrol", id: "4695", environment: "dev", region: "lo", version: "1.0.0",
            hostname: "vm")
        #expect("\(kite)" == "/kontrol/dev/math/1.0.0/lo/vm/4695")
    }

    @Test func authenticationNeverPrintsItsKey() {
        let authentication = Authentication.token("secret")
        var dumped = ""
        dump(authentication, to: &dumped)
        for text in ["\(authentication)", String(reflecting: authentication), dumped] {
            #expect(!text.contains("secret"))
            #expect(text.contains("token"))
        }
    }

    @Test func expiredTokenIsRecognisedByTypeAndMessage() {
        #expect(KiteError(.authentication, "token: token is expired by 11s").isExpiredToken)
        #expect(!KiteError(.authentication, "token: issuer is not trusted: x").isExpiredToken)
        #expect(!KiteError(.generic, "token is expired").isExpiredToken)
    }
}
