/// Replaces `Host` in the requests that come over a stream, for targets that only answer to a name of their own. Everything else passes
/// byte for byte.
import KiteHTTP
import NIOCore

/// A stream whose requests say another host. Bound to the stream's event loop.
final class HostRewritingTransport: ByteTransport, ByteTransportDelegate {
    private enum State {
        case head
        case body(BodyDecoder)
        /// After a request that asks for an upgrade, until the target has answered it: what follows waits, since only the answer says
        /// whether it is another request.
        case awaitingUpgrade
        /// After an upgrade, and after a broken request: bytes are no longer looked at.
        case opaque
    }
    private let stream: any ByteTransport
    private let host: ByteBuffer
    private var scanner: RequestScanner
    private var state = State.head
    private var buffer = ByteBuffer()
    private var responses = ResponseTracker(limits: HostRewritingTransport.limits)
    private var isReadingWanted = true
    private var isInputClosed = false
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
    func closeOutput() { stream.closeOutput() }
    func close() { stream.close() }
    func abort(_ reason: TransportError) { stream.abort(reason) }
    func breakOutput(_ reason: TransportError) { stream.breakOutput(reason) }
    func setReading(_ wanted: Bool) {
        isReadingWanted = wanted
        if case .awaitingUpgrade = state { return }
        stream.setReading(wanted)
    }

    // MARK: What the target answers

    func write(_ bytes: ByteBuffer) {
        if case .opaque = state { return stream.write(bytes) }
        let answer = responses.receive(bytes)
        stream.write(bytes)
        guard case .awaitingUpgrade = state, let answer else { return }
        state = answer == .upgraded ? .opaque : .head
        if isReadingWanted { stream.setReading(true) }
        resume(with: ByteBuffer())
        if isInputClosed { delegate?.transportInputClosed() }
    }

    // MARK: What the visitor sends

    func transportReceived(_ bytes: ByteBuffer) {
        if case .opaque = state, buffer.readableBytes == 0 { return deliver(bytes) }
        resume(with: bytes)
    }

    private func resume(with bytes: ByteBuffer) {
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
                guard responses.expect(head) else {
                    state = .opaque
                    buffer = ByteBuffer()
                    return stream.abort(
                        TransportError(.protocolViolation, "The target's answers do not belong to its requests"))
                }
                if head.wantsUpgrade {
                    state = .awaitingUpgrade
                    stream.setReading(false)
                } else {
                    state = .body(BodyDecoder(request: head, limits: Self.limits))
                }
                deliver(rewritten(head))
            case .body(var decoder):
                var before = buffer
                let part = try decoder.next(from: &buffer)
                let consumed = before.readableBytes - buffer.readableBytes
                if consumed > 0, let raw = before.readSlice(length: consumed) { deliver(raw) }
                state = decoder.isComplete ? .head : .body(decoder)
                if part == nil, !decoder.isComplete { return }
            case .awaitingUpgrade: return
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

    func transportInputClosed() {
        // What waits goes first.
        if case .awaitingUpgrade = state, buffer.readableBytes > 0 {
            isInputClosed = true
        } else {
            delegate?.transportInputClosed()
        }
    }
    func transportClosed(_ error: TransportError?) {
        buffer = ByteBuffer()
        delegate?.transportClosed(error)
        delegate = nil
    }
    func transportWritabilityChanged(_ isWritable: Bool) { delegate?.transportWritabilityChanged(isWritable) }
}

/// Follows a target's responses, to tell whether a request that asks for an upgrade was granted it.
private struct ResponseTracker {
    /// What became of the request that asks for an upgrade.
    enum Answer { case upgraded, refused }
    private enum State {
        case head
        case body(BodyDecoder)
        /// A response that belongs to no request, or is none.
        case lost
    }
    private struct Request {
        var method: RequestMethod
        var wantsUpgrade: Bool
    }
    /// A gateway sends one request at a time; nobody has so many under way.
    private static let mostRequests = 256

    private let limits: HTTPLimits
    private var scanner: ResponseScanner
    private var state = State.head
    private var buffer = ByteBuffer()
    private var requests = CircularBuffer<Request>()

    init(limits: HTTPLimits) {
        self.limits = limits
        scanner = ResponseScanner(limits: limits)
    }

    /// A request goes to the target.
    /// - Returns: false when its response could not be told from others.
    mutating func expect(_ head: RequestHead) -> Bool {
        guard case .lost = state else {
            guard requests.count < Self.mostRequests else { return false }
            requests.append(Request(method: head.method, wantsUpgrade: head.wantsUpgrade))
            return true
        }
        return false
    }

    /// The target has sent something.
    /// - Returns: the answer to a request that asks for an upgrade, once it is there.
    mutating func receive(_ bytes: ByteBuffer) -> Answer? {
        if case .lost = state { return nil }
        if buffer.readableBytes == 0 { buffer = bytes } else { buffer.writeImmutableBuffer(bytes) }
        var answer: Answer?
        do throws(HTTPError) {
            while buffer.readableBytes > 0 || isAtBodyEnd, try advance(&answer) {}
        } catch {
            lose()
        }
        return answer
    }

    /// Whether a body ends without further bytes.
    private var isAtBodyEnd: Bool { if case .body(let decoder) = state { decoder.remaining == 0 } else { false } }

    /// - Returns: whether there may be more.
    private mutating func advance(_ answer: inout Answer?) throws(HTTPError) -> Bool {
        switch state {
        case .head:
            guard let request = requests.first else {
                lose()
                return false
            }
            guard let head = try scanner.feed(&buffer, requestMethod: request.method) else { return false }
            if head.status == 101 {
                if request.wantsUpgrade { answer = .upgraded }
                // What follows is no HTTP any more.
                lose()
                return false
            }
            guard head.status >= 200 else { return true }
            requests.removeFirst()
            if request.wantsUpgrade { answer = .refused }
            state = .body(BodyDecoder(response: head, limits: limits))
            return true
        case .body(var decoder):
            state = .lost
            let part = try decoder.next(from: &buffer)
            state = decoder.isComplete ? .head : .body(decoder)
            return part != nil
        case .lost: return false
        }
    }

    private mutating func lose() {
        state = .lost
        buffer = ByteBuffer()
        requests.removeAll()
    }
}
