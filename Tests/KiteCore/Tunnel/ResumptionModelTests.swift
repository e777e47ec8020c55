/// The resumption of a lane as a model: two ends that send, connections that are lost on one side or both, attempts that arrive late, twice or
/// in another order. Whatever happens, what is delivered is what was sent, in order and once.
import Foundation
import KiteHTTP
import NIOCore
import Testing

@testable import KiteTunnel

@Suite struct ResumptionModelTests {
    /// `KITE_SEED` repeats a run.
    private static let seed: UInt64 =
        ProcessInfo.processInfo.environment["KITE_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: 1...(.max >> 1))

    /// A million steps in all.
    @Test(.timeLimit(.minutes(1)), arguments: 0..<4 as Range<UInt64>)
    func whatIsDeliveredIsWhatWasSent(_ part: UInt64) async throws {
        let seed = Self.seed &+ part
        print("resumption model: seed \(seed), part \(part) of KITE_SEED=\(Self.seed)")
        let world = World(seed: seed)
        for step in 0..<250_000 {
            // Others want their turn, too.
            if step % 500 == 0 { await Task.yield() }
            do { try world.step() } catch {
                Issue.record("seed \(seed), step \(step): \(error)")
                return
            }
        }
        try world.settle()
        let counts = world.counts
        #expect(counts.resumed > 1_000 && counts.stale > 100 && counts.refused > 10, "seed \(seed): \(counts)")
        #expect(world.agent.next == world.gateway.sent && world.gateway.next == world.agent.sent, "seed \(seed)")
        #expect(world.agent.sent > 20_000 && world.gateway.sent > 20_000)
        #expect(world.agent.machine.log.isEmpty && world.gateway.machine.log.isEmpty, "seed \(seed)")
        #expect(world.agent.machine.log.bytes == 0 && world.gateway.machine.log.bytes == 0)
    }

    struct Wrong: Error, CustomStringConvertible { var description: String }

    /// One end of the lane. Frames are numbered by their stream ids.
    final class End {
        var machine = LaneStateMachine()
        /// Frames sent for the first time.
        var sent: UInt32 = 0
        /// Frames that wait for a connection.
        var waiting: UInt32 = 0
        /// The number of the frame that is to arrive next.
        var next: UInt32 = 0
        /// The connection in use.
        var connection: Connection?

        func receive(_ bytes: ByteBuffer, _ now: NIODeadline) throws {
            machine.receive(bytes)
            while let frame = try machine.next(now: now) {
                switch frame {
                case .credit(let id, let value):
                    guard id.rawValue == next, value == next % 7 + 1 else {
                        throw Wrong(description: "frame \(id.rawValue) instead of \(next)")
                    }
                case .data(let id, let bytes, _):
                    guard id.rawValue == next, bytes.readableBytes == Int(next % 5) * 700 + 1 else {
                        throw Wrong(description: "frame \(id.rawValue) instead of \(next)")
                    }
                default: throw Wrong(description: "\(frame) was never sent")
                }
                next += 1
            }
        }

        /// Writes as a lane does: what is not counted, then counted frames; a large payload apart.
        func flush(_ wire: inout ByteBuffer) {
            var gathered = ByteBuffer()
            machine.takeSignals(into: &gathered)
            var start = gathered.writerIndex
            wire.writeImmutableBuffer(gathered)
            var frames = 0
            func take(_ end: Int) -> ByteBuffer {
                let piece = gathered.getSlice(at: start, length: end - start) ?? ByteBuffer()
                start = end
                return piece
            }
            while waiting > 0 {
                waiting -= 1
                let id = TunnelStreamID(rawValue: sent)
                if sent % 16 == 3 {
                    let payload = ByteBuffer(repeating: 7, count: Int(sent % 5) * 700 + 1)
                    gathered.writeTunnelHeader(.data, length: payload.readableBytes, stream: sent)
                    let head = take(gathered.writerIndex)
                    machine.log.append(head, tail: payload, frames: frames + 1)
                    wire.writeImmutableBuffer(head)
                    wire.writeImmutableBuffer(payload)
                    frames = 0
                } else {
                    gathered.writeTunnelFrame(.credit(id, sent % 7 + 1))
                    frames += 1
                }
                sent += 1
            }
            let rest = take(gathered.writerIndex)
            machine.log.append(rest, tail: nil, frames: frames)
            wire.writeImmutableBuffer(rest)
        }

        func disconnect() {
            connection = nil
            machine.disconnect()
        }
    }

    final class Connection {
        /// The count in its HELLO, until that has arrived; a proxy may deliver it twice.
        var hellos: [UInt64]
        /// The count in its WELCOME, until that has arrived.
        var welcome: UInt64?
        var toGateway = ByteBuffer()
        var toAgent = ByteBuffer()
        var isClosedByGateway = false
        let name: Int

        init(_ name: Int, hellos: [UInt64]) {
            self.name = name
            self.hellos = hellos
        }
    }

    struct Counts { var resumed = 0, stale = 0, refused = 0 }

    final class World {
        let agent = End()
        let gateway = End()
        var connections: [Connection] = []
        /// The agent waits for WELCOME on this one.
        var attempt: Connection?
        var counts = Counts()
        private var names = 0
        private var random: SeededGenerator
        private var now = NIODeadline.uptimeNanoseconds(1)

        init(seed: UInt64) {
            random = SeededGenerator(seed: seed)
            let first = Connection(0, hellos: [])
            connections = [first]
            agent.connection = first
            gateway.connection = first
        }

        private func below(_ limit: UInt64) -> Int { Int(random.next() % limit) }

        func step() throws {
            now = now + .microseconds(50)
            switch below(64) {
            case 0..<12: send(agent)
            case 12..<24: send(gateway)
            case 24..<40: try deliverToGateway(below(8) == 0 ? .max : 1 + below(60))
            case 40..<56: try deliverToAgent(below(8) == 0 ? .max : 1 + below(60))
            case 56: _ = agent.machine.tick(now: now, misses: .max)
            case 57: _ = gateway.machine.tick(now: now, misses: .max)
            case 58, 62: try answerHello()
            case 59, 63: try takeWelcome()
            case 60: if agent.connection == nil, attempt == nil { connect() } else { lose() }
            default: if agent.connection == nil, attempt == nil { connect() }
            }
        }

        private func send(_ end: End) {
            // The bound of the log is the lane's business; this one keeps the test quick.
            if end.machine.log.bytes < 20_000, end.waiting < 50 { end.waiting += 1 }
            flush(end)
        }

        private func flush(_ end: End) {
            guard let connection = end.connection else { return }
            if end === agent { end.flush(&connection.toGateway) } else { end.flush(&connection.toAgent) }
        }

        private func deliverToGateway(_ limit: Int) throws {
            guard let connection = gateway.connection, let bytes = take(&connection.toGateway, limit) else { return }
            try gateway.receive(bytes, now)
        }

        private func deliverToAgent(_ limit: Int) throws {
            guard let connection = agent.connection else { return }
            if let bytes = take(&connection.toAgent, limit) {
                try agent.receive(bytes, now)
            } else if connection.isClosedByGateway {
                agent.disconnect()
            }
        }

        private func take(_ wire: inout ByteBuffer, _ limit: Int) -> ByteBuffer? {
            let length = min(limit, wire.readableBytes)
            guard length > 0 else { return nil }
            // A copy, so that the wire's own memory can be used again.
            let bytes = ByteBuffer(bytes: wire.readableBytesView.prefix(length))
            wire.moveReaderIndex(forwardBy: length)
            wire.discardReadBytes()
            return bytes
        }

        // MARK: connections

        /// A connection breaks. The side that does not notice goes on writing into it.
        private func lose() {
            switch below(4) {
            case 0:
                gateway.connection?.toAgent.clear()
                gateway.disconnect()
            case 1:
                agent.connection?.toGateway.clear()
                agent.disconnect()
            case 2:
                // What is under way may still arrive.
                agent.disconnect()
            default:
                agent.disconnect()
                gateway.disconnect()
            }
            // An attempt may be given up, too; its HELLO is on its way all the same.
            if below(2) == 0 { attempt = nil }
        }

        private func connect() {
            names += 1
            let count = agent.machine.received
            let connection = Connection(names, hellos: below(6) == 0 ? [count, count] : [count])
            connections.append(connection)
            attempt = below(5) == 0 ? nil : connection
            // Old ones that nobody uses are forgotten, HELLO and all.
            while connections.count > 6,
                let oldest = connections.firstIndex(where: {
                    $0 !== attempt && $0 !== agent.connection && $0 !== gateway.connection
                })
            {
                connections.remove(at: oldest)
            }
        }

        /// Some HELLO that is under way arrives, not always the oldest.
        private func answerHello() throws {
            let waiting = connections.filter { !$0.hellos.isEmpty }
            guard !waiting.isEmpty else { return }
            let connection = waiting[below(UInt64(waiting.count))]
            guard let count = connection.hellos.popLast() else { return }
            if connection !== attempt { counts.stale += 1 }
            let (acknowledged, sent) = (gateway.machine.log.acknowledged, gateway.machine.log.sent)
            guard count >= acknowledged, count <= sent else {
                guard connection !== attempt else {
                    throw Wrong(description: "the agent's count \(count) is refused")
                }
                counts.refused += 1
                connection.isClosedByGateway = true
                return
            }
            gateway.connection?.isClosedByGateway = true
            gateway.disconnect()
            // A HELLO that comes again does so over a connection of its own: the agent's is gone.
            if agent.connection === connection { agent.disconnect() }
            connection.toGateway.clear()
            connection.toAgent.clear()
            connection.isClosedByGateway = false
            connection.welcome = gateway.machine.received
            for buffer in try gateway.machine.reconnect(peerReceived: count) {
                connection.toAgent.writeImmutableBuffer(buffer)
            }
            gateway.connection = connection
        }

        private func takeWelcome() throws {
            guard let connection = attempt, let count = connection.welcome else { return }
            connection.welcome = nil
            attempt = nil
            counts.resumed += 1
            for buffer in try agent.machine.reconnect(peerReceived: count) {
                connection.toGateway.writeImmutableBuffer(buffer)
            }
            agent.connection = connection
        }

        /// No more trouble: all that was sent arrives.
        func settle() throws {
            agent.disconnect()
            gateway.disconnect()
            let last = Connection(-1, hellos: [agent.machine.received])
            connections = [last]
            attempt = last
            try answerHello()
            try takeWelcome()
            for _ in 0..<8 {
                _ = agent.machine.tick(now: now, misses: .max)
                _ = gateway.machine.tick(now: now, misses: .max)
                flush(agent)
                flush(gateway)
                try deliverToGateway(.max)
                try deliverToAgent(.max)
            }
        }
    }
}
