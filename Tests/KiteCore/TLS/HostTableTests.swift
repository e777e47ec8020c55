import KiteTLS
import Testing

struct HostTableTests {
    @Test(
        arguments: [
            ("a.example", "exact"), ("b.example", "below"), ("c.b.example", "below"), ("d.deep.example", "deep"),
            ("deep.example", "below"), ("example", "any"), ("other", "any"), ("", "any"), ("xexample", "any"),
            (nil, "any"),
        ] as [(String?, String)])
    func theMostSpecificCounts(host: String?, value: String) {
        var table = HostTable<String>()
        #expect(table.value(for: host) == nil && table.isEmpty)
        table["a.example"] = "exact"
        table["*.example"] = "below"
        table["*.deep.example"] = "deep"
        table["*"] = "any"
        #expect(table.value(for: host) == value)
        #expect(table["*.deep.example"] == "deep" && table["*"] == "any" && !table.isEmpty)
    }

    @Test func requestsMustFitTheirHandshake() {
        let must = ClientRuleName(pattern: "*.a", isRequired: true)
        let may = ClientRuleName(pattern: "*.a", isRequired: false)
        typealias Row = (ClientRuleName?, String?, Bool, Bool)
        // With a certificate where there was a handshake.
        let rows: [Row] = [
            (nil, nil, true, true), (nil, nil, false, true), (nil, "*.a", true, false), (must, "*.a", true, true),
            (must, nil, true, false), (must, "*.b", true, false), (must, nil, false, false), (may, "*.a", true, true),
            (may, nil, true, false), (may, "*.b", true, false), (may, nil, false, true),
        ]
        for (rule, handshake, isSecure, isAllowed) in rows {
            #expect(
                ClientRuleName.allows(rule, handshake: handshake, hasCertificate: handshake != nil, isSecure: isSecure)
                    == isAllowed,
                "\(String(describing: rule)) \(handshake ?? "-") \(isSecure)")
        }
        // A connection from before the rule demanded one.
        #expect(!ClientRuleName.allows(must, handshake: "*.a", hasCertificate: false, isSecure: true))
        #expect(ClientRuleName.allows(may, handshake: "*.a", hasCertificate: false, isSecure: true))
    }
}
