import KiteSockJS
import NIOCore
import Testing

@testable import KiteGateway

@Suite("Relay between visitor and kite", .timeLimit(.minutes(1)))
struct KiteRelayTests {
    private let visitor = ScriptedChannel()
    private let kite = ScriptedChannel()

    private func relay(limit: Int = 100) -> KiteRelay { KiteRelay(visitor: visitor, kite: kite, messageBytes: limit) }

    @Test func messagesPassBothWaysInOrderHeldOnesFirst() async throws {
        for n in 3...5 { visitor.say("v\(n)") }
        for n in 1...3 { kite.say("k\(n)") }
        visitor.leave()
        kite.leave()
        await relay().run(holding: [ByteBuffer(string: "v1"), ByteBuffer(string: "v2")])
        #expect(kite.sent == ["v1", "v2", "v3", "v4", "v5"])
        #expect(visitor.sent == ["k1", "k2", "k3"])
    }

    @Test(arguments: [1000, 1001, 1011, 3000, 4123, 4999] as [UInt16])
    func aCloseCodeIsCarriedOver(code: UInt16) async {
        kite.leave(MessageClosing(code: code, reason: "as asked"))
        await relay().run(holding: [])
        #expect(visitor.closings.first == MessageClosing(code: code, reason: "as asked"))
        let (other, page) = (ScriptedChannel(), ScriptedChannel())
        page.leave(MessageClosing(code: code, reason: "bye"))
        await KiteRelay(visitor: page, kite: other, messageBytes: 100).run(holding: [])
        #expect(other.closings.first == MessageClosing(code: code, reason: "bye"))
    }

    @Test(arguments: [nil, 1004, 1005, 1006, 1015, 0, 999, 2999, 5000] as [UInt16?])
    func whatIsNoCodeForTheWireBecomesWhatGoSays(code: UInt16?) async {
        kite.leave(code.map { MessageClosing(code: $0, reason: "x") })
        await relay().run(holding: [])
        #expect(visitor.closings.first == MessageClosing(code: 3000, reason: "Go away!"))
    }

    @Test func aMessageThatIsTooLongEndsTheSession() async {
        visitor.say(String(repeating: "x", count: 100))
        visitor.say(String(repeating: "x", count: 101))
        await relay().run(holding: [])
        #expect(kite.sent.count == 1)
        #expect(visitor.closings.first?.code == 1009)
        #expect(!kite.closings.isEmpty)
    }

    @Test func aSlowReaderHoldsItsWriterBack() async throws {
        let slow = ScriptedChannel(room: 2)
        for n in 1...50 { visitor.say("\(n)") }
        let relay = KiteRelay(visitor: visitor, kite: slow, messageBytes: 100)
        async let run: Void = relay.run(holding: [])
        try await eventually { slow.sent.count == 3 }
        for _ in 0..<20 { await Task.yield() }
        #expect(slow.sent.count == 3)
        // The other direction is not held up by that.
        slow.say("event")
        try await eventually { visitor.sent == ["event"] }
        slow.makeRoom()
        try await eventually { slow.sent.count == 50 }
        visitor.leave()
        await run
    }

    @Test func aReaderThatNeverReadsDoesNotOutliveItsConnection() async throws {
        let slow = ScriptedChannel(room: 0)
        visitor.say("1")
        let relay = KiteRelay(visitor: visitor, kite: slow, messageBytes: 100)
        async let run: Void = relay.run(holding: [])
        try await eventually { slow.sent.count == 1 }
        slow.close(code: 3000, reason: "broken")
        await run
        #expect(visitor.closings.first?.code == 3000)
    }

    @Test func cancellingEndsBothSides() async throws {
        let task = Task { await relay().run(holding: []) }
        task.cancel()
        await task.value
        #expect(visitor.closings.first?.code == 3000)
        #expect(kite.closings.first?.code == 3000)
    }
}
