/// A transport without a socket: a test plays the peer.
import KiteHTTP
import NIOCore
import NIOEmbedded

final class ScriptedTransport: ByteTransport {
    let loop: EmbeddedEventLoop
    var eventLoop: any EventLoop { loop }
    var delegate: (any ByteTransportDelegate)?
    var isWritable = true
    var remoteAddress: SocketAddress? { nil }

    /// What ``ByteTransport/isInputTruncated`` says.
    var isInputTruncated = false

    private(set) var written = ByteBuffer()
    private(set) var outputClosed = false
    private(set) var isClosed = false
    private(set) var aborted: TransportError?
    private(set) var isReading = true

    init(loop: EmbeddedEventLoop = EmbeddedEventLoop()) { self.loop = loop }

    func write(_ bytes: ByteBuffer) { written.writeImmutableBuffer(bytes) }
    func closeOutput() { outputClosed = true }
    func close() { isClosed = true }
    func abort(_ reason: TransportError) { aborted = reason }
    func setReading(_ wanted: Bool) { isReading = wanted }

    /// What was written since the last call, as text.
    func takeWritten() -> String {
        defer { written = ByteBuffer() }
        return String(buffer: written)
    }

    func deliver(_ text: String) { delegate?.transportReceived(ByteBuffer(string: text)) }
    func endInput() { delegate?.transportInputClosed() }
    func setWritable(_ value: Bool) {
        isWritable = value
        delegate?.transportWritabilityChanged(value)
    }
    func end(_ error: TransportError? = nil) {
        let last = delegate
        delegate = nil
        last?.transportClosed(error)
    }
}
