/// A peer that is silently dead is noticed within 15 seconds, on either side, whenever in the rhythm of pings it dies.
import KiteHTTP
import KiteTunnel
import NIOCore
import NIOEmbedded
import Testing

@Suite struct TunnelLivenessTests {
    /// What is wrong with the line.
    enum Fault: CaseIterable {
        /// Packets vanish both ways.
        case dropsAll
        case dropsTowardsGateway, dropsTowardsAgent
        /// The other process is stopped: its kernel takes bytes until its buffers are full.
        case agentIsFrozen, gatewayIsFrozen

        var noticedByGateway: Bool { self != .dropsTowardsAgent && self != .gatewayIsFrozen }
        var noticedByAgent: Bool { self != .dropsTowardsGateway && self != .agentIsFrozen }
    }

    @Test(.timeLimit(.minutes(1)), arguments: Fault.allCases, [0, 1, 4, 9, 10, 14, 19])
    func aDeadPeerIsNoticedInTime(_ fault: Fault, quarter: Int) throws {
        let pair = LanePair()
        let (near, nearSees, far, farSees) = try pair.stream()
        near.write(ByteBuffer(string: "before "))
        pair.settle()
        // A quiet line for a while, then some moment of a ping's interval.
        for _ in 0..<(40 + quarter) {
            pair.loop.advanceTime(by: .milliseconds(250))
            pair.settle()
        }
        switch fault {
        case .dropsAll: (pair.gatewayEnd.drops, pair.agentEnd.drops) = (true, true)
        case .dropsTowardsGateway: pair.agentEnd.drops = true
        case .dropsTowardsAgent: pair.gatewayEnd.drops = true
        case .agentIsFrozen: pair.agentEnd.isFrozen = true
        case .gatewayIsFrozen: pair.gatewayEnd.isFrozen = true
        }
        // A writer fills the buffers: what can't be written must not keep the silence from being noticed.
        near.write(ByteBuffer(repeating: 1, count: 1 << 20))
        far?.write(ByteBuffer(repeating: 2, count: 1 << 20))
        let began = pair.loop.now
        var noticed: [TunnelLane.Role: TimeAmount] = [:]
        while pair.loop.now - began < .seconds(15) {
            pair.loop.advanceTime(by: .milliseconds(200))
            pair.loop.run()
            // The line itself is quick.
            while pair.gatewayEnd.pump(.max) || pair.agentEnd.pump(.max) { pair.loop.run() }
            if !pair.gateway.isConnected, noticed[.gateway] == nil { noticed[.gateway] = pair.loop.now - began }
            if !pair.agent.isConnected, noticed[.agent] == nil { noticed[.agent] = pair.loop.now - began }
        }
        // Never before the second ping can have been answered, and with something to spare for timers that are late.
        let expected = TimeAmount.seconds(5)...TimeAmount.milliseconds(14_400)
        if fault.noticedByGateway { #expect(expected.contains(try #require(noticed[.gateway]))) }
        if fault.noticedByAgent { #expect(expected.contains(try #require(noticed[.agent]))) }
        if fault.noticedByGateway {
            #expect(pair.gatewayDelegate.suspensions.first?.code == .idleTimeout)
            #expect(nearSees.closed.isEmpty, "the streams wait")
        }
        if fault.noticedByAgent {
            #expect(pair.agentDelegate.suspensions.first?.code == .idleTimeout)
            #expect(farSees.closed.isEmpty, "the streams wait")
        }
        // Whoever has noticed nothing hears of the new connection: the old one is dropped for it.
        pair.gateway.disconnect(TransportError(.cancelled, "a new connection"))
        pair.agent.disconnect(TransportError(.cancelled, "a new connection"))
        try pair.reconnect()
        pair.settle()
        #expect(farSees.received.readableBytes == 7 + 1 << 20)
        #expect(nearSees.received.readableBytes == 1 << 20)
    }

    @Test func aPeerThatAnswersLateIsNotDead() throws {
        let pair = LanePair()
        for _ in 0..<20 {
            // Four seconds each way: every ping is answered before the next but one.
            pair.loop.advanceTime(by: .seconds(4))
            pair.settle()
        }
        #expect(pair.gatewayDelegate.suspensions.isEmpty)
        #expect(pair.agentDelegate.suspensions.isEmpty)
    }
}
