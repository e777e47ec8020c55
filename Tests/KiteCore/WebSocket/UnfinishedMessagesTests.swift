// What many connections may hold together of messages that have not arrived whole.
import KiteHTTP
import NIOCore
import NIOEmbedded
import Testing

@testable import KiteWebSocket

@Suite struct UnfinishedMessagesTests {
    static let free = UnfinishedMessages.freeBytes

    @Test func countsWhatIsAboveTheFreePart() {
        let messages = UnfinishedMessages(capacity: 1000)
        #expect(messages.change(from: 0, to: Self.free))
        #expect(messages.countedBytes == 0)
        #expect(messages.change(from: Self.free, to: Self.free + 600))
        #expect(messages.change(from: 0, to: Self.free + 400))
        #expect(messages.countedBytes == 1000)
        #expect(!messages.change(from: 0, to: Self.free + 1))
        #expect(messages.change(from: 0, to: Self.free))
        #expect(messages.countedBytes == 1000)
        #expect(messages.change(from: Self.free + 600, to: Self.free + 599))
        #expect(messages.change(from: 0, to: Self.free + 1))
        #expect(messages.change(from: Self.free + 599, to: 0))
        #expect(messages.change(from: Self.free + 400, to: 0))
        #expect(messages.change(from: Self.free + 1, to: 0))
        #expect(messages.countedBytes == 0)
    }

    /// A WebSocket over memory that shares the bound.
    final class Socket {
        let transport: MemoryTransport
        let delegate = RecordingDelegate()
        let connection: WebSocketConnection
        init(_ loop: EmbeddedEventLoop, _ messages: UnfinishedMessages) {
            transport = MemoryTransport(loop)
            connection = WebSocketConnection(
                transport: transport, role: .server, limits: WebSocketLimits(messageBytes: 1 << 20), compression: nil,
                unfinished: messages, wheel: nil)
            connection.delegate = delegate
        }
        func receive(_ first: UInt8, _ count: Int) {
            transport.receive(WebSocketStateMachineTests.frame(first, [UInt8](repeating: 0x61, count: count)))
        }
    }

    @Test func connectionsShareOneBound() {
        let loop = EmbeddedEventLoop()
        let messages = UnfinishedMessages(capacity: 100_000)
        let sockets = (0..<3).map { _ in Socket(loop, messages) }
        // Fragments, and a frame of which the end is missing.
        sockets[0].receive(0x02, 60_000)
        let frame = WebSocketStateMachineTests.frame(0x82, [UInt8](repeating: 0x61, count: 70_000))
        sockets[1].transport.receive(Array(frame[..<60_000]))
        #expect(messages.countedBytes == 120_000 - 2 * Self.free)
        // Whole messages are not counted, however long.
        sockets[2].receive(0x82, 500_000)
        #expect(sockets[2].delegate.binaries.count == 1)
        // The third that wants to wait is refused, and takes nothing from the others.
        sockets[2].receive(0x02, 60_000)
        #expect(sockets[2].delegate.closures.map(\.code) == [.tryAgainLater])
        #expect(sockets[2].transport.take().prefix(4).suffix(2) == [0x03, 0xF5])
        #expect(sockets[2].transport.closed)
        #expect(messages.countedBytes == 120_000 - 2 * Self.free)
        // One completes its message, the other breaks off.
        sockets[0].receive(0x80, 1)
        #expect(sockets[0].delegate.binaries.map(\.count) == [60_001])
        #expect(messages.countedBytes == 60_000 - Self.free)
        sockets[1].transport.delegate?.transportClosed(nil)
        #expect(messages.countedBytes == 0)
    }
}
