/// A kite behind a tunnel; the way through a gateway is tested end to end.
import KiteCore
import KiteDialing
import Testing

@Suite struct ExposedKiteTests {
    @Test func withoutAKeyTheReasonIsTold() async {
        await #expect { try await Kite.test().expose(through: "http://127.0.0.1:1") } throws: { error in
            "\(error)".contains("kiteKey")
        }
        await #expect(throws: ExposedKite.NoGateway.self) { try await Kite.test().expose() }
        #expect(throws: Never.self) {
            try ExposedKite(
                .test { $0.proxyURL = "http://127.0.0.1:1/kite" }, dialer: Dialer(), credential: { "token" })
        }
        #expect(throws: Never.self) {
            try ExposedKite(.test(), gateway: "http://127.0.0.1:1", dialer: Dialer(), credential: { "token" })
        }
    }
}
