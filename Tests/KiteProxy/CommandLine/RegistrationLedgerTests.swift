import Testing

/// Addresses of kites end with the connection that registered them.
@testable import KiteProxy

@Suite struct RegistrationLedgerTests {
    private func entry(_ kiteID: String, _ registration: UInt64, dialsBack: Bool = false) -> RegistrationLedger.Entry {
        RegistrationLedger.Entry(
            route: RegistrationLedger.Route(kiteID: kiteID, dialsBack: dialsBack), registration: registration)
    }

    @Test func eachKiteOfAConnectionIsTakenBackOnce() {
        var ledger = RegistrationLedger()
        // Again and again: the latest registration counts, whichever answer came first.
        let isFirst = [entry("a", 1), entry("a", 2), entry("a", 4), entry("a", 3), entry("a", 1, dialsBack: true)].map {
            ledger.add($0, of: 7)
        }
        #expect(isFirst == [true, false, false, false, false])
        let isFirstOfOther = ledger.add(entry("a", 6), of: 8)
        #expect(isFirstOfOther)
        let ended = (0..<2).map { _ in Set(ledger.end(of: 7)) }
        #expect(ended == [[entry("a", 4), entry("a", 1, dialsBack: true)], []])
        // One that comes after the end is the first again, and ends at once.
        let isFirstAgain = ledger.add(entry("a", 9), of: 7)
        #expect(isFirstAgain)
        let others = [ledger.end(of: 7), ledger.end(of: 8)]
        #expect(others == [[entry("a", 9)], [entry("a", 6)]])
    }
}
