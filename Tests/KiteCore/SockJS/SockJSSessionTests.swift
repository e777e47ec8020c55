// A session by itself, on a loop whose clock the test moves.
import KiteHTTP
import KiteSupport
import KiteWebSocket
import NIOCore
import NIOEmbedded
import NIOPosix
import Testing

@testable import KiteSockJS

/// Takes frames, and says so only when told to.
private final class StubReceiver: SockJSReceiver {
    var frames: [SockJSFrame] = []
    var lateCloses = 0
    func send(_ frame: SockJSFrame) { frames.append(frame) }
    func refuse(_ frame: SockJSFrame) { frames.append(frame) }
    func setReading(_ wanted: Bool) {}
    func closeIsLate() { lateCloses += 1 }
}

/// A transport that goes nowhere.
private final class StubTransport: ByteTransport {
    let eventLoop: any EventLoop
    var delegate: (any ByteTransportDelegate)?
    var isWritable = true
    var queuedBytes = 0
    var aborted: TransportError?
    var remoteAddress: SocketAddress? { nil }
    init(_ eventLoop: any EventLoop) { self.eventLoop = eventLoop }
    func write(_ bytes: ByteBuffer) {}
    func closeOutput() {}
    func close() {}
    func abort(_ reason: TransportError) { aborted = reason }
    func setReading(_ wanted: Bool) {}
}

@Suite struct SockJSSessionTests {
    private let loop = EmbeddedEventLoop()
    private let wheel: TimerWheel

    init() { wheel = TimerWheel(eventLoop: loop) }

    private func session(
        endsWithReceiver: Bool = false, isSpaceShort: Bool = false, onEnd: @escaping () -> Void = {}
    ) -> SockJSSession {
        var options = SockJSOptions()
        options.disconnectDelay = .seconds(10)
        options.closeTimeout = .seconds(15)
        return SockJSSession(
            peer: MessagePeer(transport: "xhr", address: "", target: ""), endsWithReceiver: endsWithReceiver,
            options: options, eventLoop: loop, wheel: wheel, isSpaceShort: { isSpaceShort }, onOpen: { _ in },
            onEnd: onEnd)
    }

    private func attach(_ receiver: StubReceiver, to session: SockJSSession, id: UInt64 = 1) {
        session.attach(
            SockJSReceiverReference(id: id, receiver: LoopReference(receiver as any SockJSReceiver, on: loop)))
    }

    @Test(arguments: [(false, false, 10), (true, false, 2), (true, true, 10)])
    func sessionsInWhichNothingHappensGiveWay(isSpaceShort: Bool, hasSent: Bool, seconds: Int64) {
        var hasEnded = false
        let session = session(isSpaceShort: isSpaceShort) { hasEnded = true }
        attach(StubReceiver(), to: session)
        if hasSent { session.deliver([ByteBuffer(string: "x")]) { _ in } }
        session.finished(1)
        loop.advanceTime(by: .seconds(seconds) - .milliseconds(200))
        #expect(!hasEnded)
        loop.advanceTime(by: .milliseconds(400))
        #expect(hasEnded)
    }

    @Test func aReceiverThatIsStuckIsToldThatTheCloseIsLate() {
        let session = session(endsWithReceiver: true)
        let receiver = StubReceiver()
        attach(receiver, to: session)
        loop.advanceTime(by: .minutes(1))
        #expect(receiver.lateCloses == 0)
        // The first frame has not been taken, so this cannot be told.
        session.channel.close(code: 3000, reason: "Go away!")
        loop.run()
        loop.advanceTime(by: .seconds(14))
        #expect(receiver.lateCloses == 0)
        loop.advanceTime(by: .seconds(2))
        #expect(receiver.lateCloses == 1)
        loop.advanceTime(by: .seconds(16))
        #expect(receiver.lateCloses == 2)
        session.acknowledged(1)
        #expect(receiver.frames == [.open, .close(code: 3000, reason: "Go away!")])
        session.finished(1)
        #expect(wheel.count == 0)
    }

    @Test func aWebSocketThatTakesNothingIsCutOffAfterTheClose() {
        let transport = StubTransport(loop)
        let connection = WebSocketConnection(transport: transport, role: .server, wheel: wheel)
        var hasEnded = false
        let session = session(endsWithReceiver: true) { hasEnded = true }
        transport.isWritable = false
        transport.queuedBytes = 1 << 20
        SockJSWebSocketReceiver(connection, isRaw: false, options: SockJSOptions()).attach(to: session)
        session.channel.close(code: 3000, reason: "Go away!")
        loop.run()
        loop.advanceTime(by: .seconds(16))
        transport.queuedBytes = 1 << 19
        // Something was taken.
        loop.advanceTime(by: .seconds(15))
        #expect(transport.aborted == nil)
        loop.advanceTime(by: .seconds(16))
        #expect(transport.aborted?.code == .idleTimeout)
        #expect(hasEnded)
        #expect(wheel.count == 0)
    }

    @Test func theLoserOfTwoFirstRequestsLeavesNothingBehind() throws {
        let service = SockJSService(prefix: "/kite") { _ in }
        weak var loser: SockJSSession?
        weak var channel: QueuedMessageChannel?
        let winner = session()
        _ = service.enter(winner, id: "s", place: try #require(service.registry.reserve(for: nil)))
        do {
            let second = session()
            loser = second
            channel = second.channel
            let known = service.enter(second, id: "s", place: try #require(service.registry.reserve(for: nil)))
            let expected = ObjectIdentifier(winner)
            known.run { #expect(ObjectIdentifier($0) == expected) }
        }
        #expect(loser == nil)
        #expect(channel == nil)
        #expect(service.sessionCount == 1)
        winner.channel.finish(nil)
    }

    @Test func whatIsPutTogetherIsBounded() async throws {
        let channel = QueuedMessageChannel(
            peer: MessagePeer(transport: "xhr", address: "", target: ""),
            eventLoop: MultiThreadedEventLoopGroup.singleton.next(), limits: QueuedMessageChannel.Limits())
        for length in [60, 60, 60] + [Int](repeating: 0, count: 1500) + [200, 1] {
            try await channel.send(ByteBuffer(repeating: 0x61, count: length))
        }
        let batches = (0..<6).map { _ in channel.takeOutbound(maxBytes: 130).count }
        // One that is too long for the rest goes with the next, and one that is too long for any goes alone.
        #expect(batches == [2, 1000, 501, 1, 1, 0])
    }
}
