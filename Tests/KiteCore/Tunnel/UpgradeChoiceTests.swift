/// Which kind of upgrade is asked for after which history.
import KiteTunnel
import Testing

@Suite struct UpgradeChoiceTests {
    /// A connection and what became of it.
    enum Outcome: Sendable { case welcomed, silent, gatewayAway }

    /// What is asked for in turn when the connections end like that.
    private func kinds(_ outcomes: [Outcome]) -> String {
        var choice = UpgradeChoice()
        var kinds = ""
        for outcome in outcomes {
            let kind = choice.next
            kinds += kind == .plain ? "p" : "w"
            switch outcome {
            case .welcomed: choice.succeeded(kind)
            case .silent: choice.failed(kind, isTelling: true)
            case .gatewayAway: choice.failed(kind, isTelling: false)
            }
        }
        return kinds + (choice.next == .plain ? "p" : "w")
    }

    @Test(
        arguments: [
            ([], "p"),
            ([.welcomed, .welcomed], "ppp"),
            // Nothing has worked yet: by turns.
            ([.silent, .silent, .silent], "pwpw"),
            ([.silent, .welcomed, .welcomed], "pwww"),
            // The plain upgrade is known to pass: the gateway must be away, but the network may be another.
            ([.welcomed, .silent, .silent, .silent, .silent, .silent], "ppppwpp"),
            ([.welcomed, .gatewayAway, .gatewayAway, .gatewayAway, .gatewayAway, .welcomed], "ppppwpp"),
            // 502 says little about the upgrade.
            ([.gatewayAway, .gatewayAway, .gatewayAway, .gatewayAway], "pppwp"),
            // A WebSocket that has worked comes first, and the plain upgrade has its chance when it fails.
            ([.silent, .welcomed, .gatewayAway, .welcomed, .gatewayAway], "pwwppp"),
            ([.silent, .welcomed, .gatewayAway, .gatewayAway, .gatewayAway], "pwwpwp"),
        ] as [([Outcome], String)])
    func sequence(outcomes: [Outcome], expected: String) {
        #expect(kinds(outcomes) == expected)
    }

    @Test func failuresOfSeveralLanesAtOnceCountAsTheyCome() {
        var choice = UpgradeChoice()
        choice.failed(.plain, isTelling: true)
        choice.failed(.plain, isTelling: true)
        #expect(choice.next == .webSocket)
        choice.failed(.webSocket, isTelling: true)
        choice.failed(.webSocket, isTelling: true)
        #expect(choice.next == .plain)
    }
}
