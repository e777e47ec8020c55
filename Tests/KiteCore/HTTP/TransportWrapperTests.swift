/// Transports over transports: what comes before the base's bytes, and a base on another loop.
import NIOCore
import NIOEmbedded
import Testing

@testable import KiteHTTP

/// Holds its transport, as consumers do, and writes down what it is told.
private final class Consumer: ByteTransportDelegate {
    let transport: any ByteTransport
    var received = ""
    var inputClosed = false
    var closed = false
    var error: TransportError?
    var writability: [Bool] = []

    init(_ transport: any ByteTransport) { self.transport = transport }
    func transportReceived(_ bytes: ByteBuffer) { received += String(buffer: bytes) }
    func transportInputClosed() { inputClosed = true }
    func transportClosed(_ error: TransportError?) {
        closed = true
        self.error = error
    }
    func transportWritabilityChanged(_ isWritable: Bool) { writability.append(isWritable) }
}

@Suite struct PrefixedTransportTests {
    private let base = ScriptedTransport()

    private func join(_ prefix: String = "first ") -> Consumer {
        let consumer = Consumer(PrefixedTransport(base, prefix: ByteBuffer(string: prefix)))
        consumer.transport.delegate = consumer
        return consumer
    }

    @Test func deliversThePrefixFirstAndThenWhatCame() {
        let consumer = join()
        #expect(!base.isReading)
        base.deliver("second ")
        #expect(consumer.received.isEmpty)
        base.loop.run()
        base.deliver("third")
        #expect(consumer.received == "first second third")
        #expect(base.isReading)
        base.endInput()
        #expect(consumer.inputClosed)
        base.end()
        #expect(consumer.closed)
        #expect(consumer.error == nil)
    }

    @Test func tellsOfWritabilityAndEndWhileThePrefixWaits() {
        let consumer = join()
        consumer.transport.setReading(false)
        base.setWritable(false)
        base.setWritable(true)
        #expect(consumer.writability == [false, true])
        base.endInput()
        base.end()
        base.loop.run()
        #expect(consumer.received.isEmpty)
        #expect(!consumer.inputClosed && !consumer.closed)
        consumer.transport.setReading(true)
        base.loop.run()
        #expect(consumer.received == "first ")
        #expect(consumer.inputClosed && consumer.closed)
    }

    @Test func tellsOfABreakAtOnceAfterWhatCameBefore() {
        let consumer = join()
        consumer.transport.setReading(false)
        base.end(TransportError(.reset, "gone"))
        base.loop.run()
        #expect(consumer.received == "first ")
        #expect(consumer.error?.code == .reset)
    }

    @Test func waitsForADelegate() {
        let transport = PrefixedTransport(base, prefix: ByteBuffer(string: "first "))
        base.deliver("second")
        base.endInput()
        base.end()
        base.loop.run()
        let consumer = Consumer(transport)
        transport.delegate = consumer
        base.loop.run()
        #expect(consumer.received == "first second")
        #expect(consumer.inputClosed && consumer.closed)
    }

    @Test func holdsBackWhatComesBetweenTwoDelegates() {
        let consumer = join()
        base.loop.run()
        let transport = consumer.transport
        transport.delegate = nil
        base.deliver("second")
        #expect(!base.isReading)
        let next = Consumer(transport)
        transport.delegate = next
        base.loop.run()
        #expect(next.received == "second")
        #expect(base.isReading)
    }

    @Test func dropsThePrefixWhenItIsClosed() {
        let consumer = join()
        consumer.transport.close()
        #expect(base.isClosed)
        base.deliver("more")
        base.end()
        base.loop.run()
        #expect(consumer.received.isEmpty)
        #expect(consumer.closed)
    }

    @Test(arguments: [false, true]) func leavesNothingBehind(broken: Bool) {
        weak var transport: PrefixedTransport?
        weak var consumer: Consumer?
        do {
            let joined = join()
            consumer = joined
            transport = joined.transport as? PrefixedTransport
            base.loop.run()
            base.end(broken ? TransportError(.reset, "gone") : nil)
            base.loop.run()
            #expect(joined.closed)
        }
        #expect(transport == nil)
        #expect(consumer == nil)
    }
}

@Suite struct CrossLoopTransportTests {
    private let base = ScriptedTransport()
    private let loop = EmbeddedEventLoop()

    private func run() {
        for _ in 0..<10 {
            loop.run()
            base.loop.run()
        }
    }

    private func join() throws -> Consumer {
        let box = NIOLoopBoundBox<CrossLoopTransport?>(nil, eventLoop: loop)
        CrossLoopTransport.bridge(base, to: loop) { box.value = $0 }
        run()
        let consumer = Consumer(try #require(box.value))
        consumer.transport.delegate = consumer
        return consumer
    }

    @Test func leavesNothingBehind() throws {
        weak var transport: CrossLoopTransport?
        weak var consumer: Consumer?
        do {
            let joined = try join()
            consumer = joined
            transport = joined.transport as? CrossLoopTransport
            base.deliver("x")
            base.end()
            run()
            #expect(joined.received == "x")
            #expect(joined.closed)
        }
        #expect(transport == nil)
        #expect(consumer == nil)
    }

    @Test func tellsEachChangeOfWritabilityOnce() throws {
        let consumer = try join()
        base.isWritable = false
        for _ in 0..<4 { consumer.transport.write(ByteBuffer(repeating: 1, count: CrossLoopTransport.highWater / 2)) }
        #expect(!consumer.transport.isWritable)
        #expect(consumer.writability.isEmpty)
        run()
        #expect(consumer.writability == [false])
        base.setWritable(true)
        run()
        #expect(consumer.transport.isWritable)
        #expect(consumer.writability == [false, true])
    }

    @Test func passesOnThatTheInputWasCut() throws {
        let consumer = try join()
        #expect(!consumer.transport.isInputTruncated)
        base.isInputTruncated = true
        base.endInput()
        run()
        #expect(consumer.inputClosed)
        #expect(consumer.transport.isInputTruncated)
    }

    @Test func deliversWhatCameBeforeABreak() throws {
        let consumer = try join()
        consumer.transport.setReading(false)
        base.deliver("hello")
        base.end(TransportError(.reset, "gone"))
        run()
        #expect(consumer.received == "hello")
        #expect(consumer.error?.code == .reset)
    }
}
