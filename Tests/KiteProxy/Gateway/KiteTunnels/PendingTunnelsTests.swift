import KiteHTTP
import KiteSockJS
import NIOCore
import Testing

@testable import KiteGateway

@Suite("Tunnel tokens", .timeLimit(.minutes(1)))
struct PendingTunnelsTests {
    private let pending = PendingTunnels(limit: 3)
    private let channel = ScriptedChannel()

    @Test func aTokenOpensOneSessionOnce() async throws {
        let token = try #require(pending.issue())
        #expect(pending.verdict(on: token.text) == .good)
        #expect(pending.redeem(token.text, with: channel))
        #expect(pending.verdict(on: token.text) == .spent)
        #expect(!pending.redeem(token.text, with: ScriptedChannel()))
        #expect(try await pending.channel(for: token) === channel)
        #expect(pending.verdict(on: token.text) == .spent)
        #expect(!pending.redeem(token.text, with: ScriptedChannel()))
        #expect(pending.count == 0)
    }

    @Test func theSessionMayWaitBeforeTheKiteComes() async throws {
        let token = try #require(pending.issue())
        async let arrived = pending.channel(for: token)
        try await eventually { pending.verdict(on: token.text) == .good }
        #expect(pending.redeem(token.text, with: channel))
        #expect(try await arrived === channel)
    }

    @Test func sessionNumbersNeverComeAgain() throws {
        var seen: Set<UInt64> = []
        for _ in 0..<100 {
            let token = try #require(pending.issue())
            #expect(seen.insert(token.session).inserted)
            pending.withdraw(token)
        }
    }

    @Test func aTokenIsGoodForTheSessionItNamesAndNoOther() throws {
        let (one, other) = (try #require(pending.issue()), try #require(pending.issue()))
        let mixed = "\(one.instance).\(one.session).\(other.secret)"
        #expect(pending.verdict(on: mixed) == .spent)
        #expect(!pending.redeem(mixed, with: channel))
        #expect(pending.verdict(on: one.text) == .good)
    }

    @Test func anotherGatewaysTokenIsRefused() throws {
        let other = PendingTunnels(limit: 3)
        let token = try #require(other.issue())
        _ = pending.issue()
        #expect(pending.verdict(on: token.text) == .otherInstance)
        #expect(!pending.redeem(token.text, with: channel))
    }

    @Test(arguments: [
        "", ".", "..", "a.b.c", "a.1", "a..c", ".1.c", "a.1.", "a.1.c.d", "a.-1.c", "a.18446744073709551616.c",
        "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln", String(repeating: "a", count: 200) + ".1.c",
    ])
    func whatIsNoTokenIsRefused(text: String) {
        #expect(pending.verdict(on: text) != .good)
        #expect(!pending.redeem(text, with: channel))
    }

    @Test func soManyMayBePendingAndNoMore() throws {
        let tokens = (0..<3).compactMap { _ in pending.issue() }
        #expect(tokens.count == 3)
        #expect(pending.issue() == nil)
        pending.withdraw(tokens[0])
        #expect(pending.issue() != nil)
    }

    @Test func aWithdrawnTokenIsSpentAndItsKiteIsSentAway() async throws {
        let token = try #require(pending.issue())
        #expect(pending.redeem(token.text, with: channel))
        pending.withdraw(token)
        #expect(channel.closings.first?.code == 3000)
        #expect(pending.verdict(on: token.text) == .spent)
        await #expect(throws: CancellationError.self) { try await pending.channel(for: token) }
    }

    @Test func whoGivesUpWaitingLeavesNothingBehind() async throws {
        let token = try #require(pending.issue())
        let waiting = Task { try await pending.channel(for: token) }
        waiting.cancel()
        await #expect(throws: CancellationError.self) { try await waiting.value }
        #expect(pending.count == 0)
        #expect(pending.verdict(on: token.text) == .spent)
    }
}
