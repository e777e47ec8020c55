/// Replaces `Host` in the requests that come over a stream, for targets that only answer to a name of their own. Everything else passes
/// byte for byte.
import KiteHTTP
import NIOCore

/// A stream whose requests say another host. Bound to the stream's event loop.
final class HostRewritingTransport: ByteTransport, ByteTransportDelegate {
    private enum State {
        case head
        case body(BodyDecoder)
        /// After a request that asks for an upgrade, and after a broken one: bytes are no longer looked at.
        case opaque
    }
    private let stream: any ByteTransport
    private let host: ByteBuffer
    private var scanner: RequestScanner
    private var state = State.head
    private var buffer = ByteBuffer()
    var delegate: (any ByteTransportDelegate)? {
        // The stream delivers nothing before somebody wants it.
        didSet { stream.delegate = delegate == nil ? nil : self }
    }

    private static let limits: HTTPLimits = {
        // The gateway has checked its own limits and added fields of its own since.
        var limits = HTTPLimits()
        limits.headBytes = 1 << 20
        limits.targetBytes = 1 << 19
        limits.fieldCount = 1024
        return limits
    }()

    init(_ stream: any ByteTransport, host: String) {
        self.stream = stream
        self.host = ByteBuffer(string: host)
        scanner = RequestScanner(limits: Self.limits)
    }

    var eventLoop: any EventLoop { stream.eventLoop }
    var isWritable: Bool { stream.isWritable }
    var remoteAddress: SocketAddress? { stream.remoteAddress }
    func write(_ bytes: ByteBuffer) { stream.write(bytes) }
    func closeOutput() { stream.closeOutput() }
    func close() { stream.close() }
    func abort(_ reason: TransportError) { stream.abort(reason) }
    func setReading(_ wanted: Bool) { stream.setReading(wanted) }

    // MARK: What the visitor sends

    func transportReceived(_ bytes: ByteBuffer) {
        if case .opaque = state { return deliver(bytes) }
        buffer.writeImmutableBuffer(bytes)
        do throws(HTTPError) {
            try process()
        } catch {
            state = .opaque
            buffer = ByteBuffer()
            stream.abort(TransportError(.protocolViolation, "The request is not HTTP/1.1: \(error)"))
        }
    }

    private func process() throws(HTTPError) {
        while true {
            switch state {
            case .head:
                guard let head = try scanner.feed(&buffer) else { return }
                deliver(rewritten(head))
                state = head.wantsUpgrade ? .opaque : .body(BodyDecoder(request: head, limits: Self.limits))
            case .body(var decoder):
                var before = buffer
                let part = try decoder.next(from: &buffer)
                let consumed = before.readableBytes - buffer.readableBytes
                if consumed > 0, let raw = before.readSlice(length: consumed) { deliver(raw) }
                state = decoder.isComplete ? .head : .body(decoder)
                if part == nil, !decoder.isComplete { return }
            case .opaque:
                guard buffer.readableBytes > 0 else { return }
                let rest = buffer
                buffer = ByteBuffer()
                deliver(rest)
            }
        }
    }

    private func rewritten(_ head: RequestHead) -> ByteBuffer {
        var bytes = ByteBuffer()
        bytes.writeString(head.method.name)
        bytes.writeStaticString(" ")
        bytes.writeImmutableBuffer(head.target)
        bytes.writeStaticString(" HTTP/1.1\r\nHost: ")
        bytes.writeImmutableBuffer(host)
        bytes.writeStaticString("\r\n")
        for position in 0..<head.fields.count where head.fields.field(at: position) != .host {
            bytes.writeBytes(head.fields.name(at: position))
            bytes.writeStaticString(": ")
            bytes.writeBytes(head.fields.value(at: position))
            bytes.writeStaticString("\r\n")
        }
        bytes.writeStaticString("\r\n")
        return bytes
    }

    private func deliver(_ bytes: ByteBuffer) {
        if bytes.readableBytes > 0 { delegate?.transportReceived(bytes) }
    }

    func transportInputClosed() { delegate?.transportInputClosed() }
    func transportClosed(_ error: TransportError?) {
        buffer = ByteBuffer()
        delegate?.transportClosed(error)
        delegate = nil
    }
    func transportWritabilityChanged(_ isWritable: Bool) { delegate?.transportWritabilityChanged(isWritable) }
}
