/// How a relay passes on that one side was cut.
import KiteHTTP
import NIOCore
import NIOEmbedded
import Testing

@Suite("A relay's ends")
struct TransportRelayTests {
    private let loop = EmbeddedEventLoop()

    @Test func aCutUnderneathTLSIsNoEnd() {
        let stream = BreakableTransport(loop: loop)
        let target = ScriptedTransport(loop: loop)
        TransportRelay(stream, target)
        target.deliver("until the end")
        target.isInputTruncated = true
        target.endInput()
        #expect(stream.broken?.code == .truncated)
        #expect(!stream.base.outputClosed)
        target.end()
        #expect(stream.base.takeWritten() == "until the end")
        #expect(stream.base.aborted == nil)
    }

    @Test func anOrderlyEndIsOne() {
        let stream = BreakableTransport(loop: loop)
        let target = ScriptedTransport(loop: loop)
        TransportRelay(stream, target)
        target.endInput()
        #expect(stream.broken == nil)
        #expect(stream.base.outputClosed)
    }

    @Test func whatCameBeforeACutIsKept() {
        let visitor = ScriptedTransport(loop: loop)
        let stream = ScriptedTransport(loop: loop)
        TransportRelay(visitor, stream)
        stream.deliver("last words")
        stream.end(TransportError(.truncated, "cut"))
        #expect(visitor.takeWritten() == "last words")
        #expect(visitor.aborted == nil)
        #expect(visitor.isClosed)
    }

    @Test func aBreakIsABreak() {
        let visitor = ScriptedTransport(loop: loop)
        let stream = ScriptedTransport(loop: loop)
        TransportRelay(visitor, stream)
        stream.end(TransportError(.reset, "gone"))
        #expect(visitor.aborted?.code == .reset)
    }
}

/// Notes that its output broke, as a tunnel's stream does.
private final class BreakableTransport: ByteTransport {
    let base: ScriptedTransport
    private(set) var broken: TransportError?
    init(loop: EmbeddedEventLoop) { base = ScriptedTransport(loop: loop) }
    var eventLoop: any EventLoop { base.eventLoop }
    var delegate: (any ByteTransportDelegate)? {
        get { base.delegate }
        set { base.delegate = newValue }
    }
    var isWritable: Bool { base.isWritable }
    var remoteAddress: SocketAddress? { nil }
    func write(_ bytes: ByteBuffer) { base.write(bytes) }
    func closeOutput() { base.closeOutput() }
    func breakOutput(_ reason: TransportError) { broken = reason }
    func close() { base.close() }
    func abort(_ reason: TransportError) { base.abort(reason) }
    func setReading(_ wanted: Bool) { base.setReading(wanted) }
}
