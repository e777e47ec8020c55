/// Joins a visitor's stream with its private service: the agent's whole data plane, one object per stream until both are joined.
import KiteDialing
import KiteHTTP
import KiteTunnel
import NIOCore

/// Connects to an endpoint on the event loop it is called on.
typealias TargetDialer =
    @Sendable (Endpoint, any EventLoop, @escaping (Result<any ByteTransport, TransportError>) -> Void) -> Void

/// Holds a stream while its target is dialled, then lets a relay take over. Bound to the stream's event loop; keeps itself alive as the
/// stream's delegate.
final class TargetConnector: ByteTransportDelegate {
    private let visitor: any ByteTransport
    private let endpoints: [Endpoint]
    private let dial: TargetDialer
    private let onFailure: (TransportError) -> Void
    /// What the stream had already read when it was told to wait.
    private var received: ByteBuffer?
    private var isInputClosed = false
    private var isClosed = false

    /// Takes over a stream and starts dialling.
    /// - Parameters:
    ///   - endpoints: tried in this order.
    ///   - onFailure: none of them accepted; the stream is aborted already.
    @discardableResult
    init(
        _ visitor: any ByteTransport, endpoints: [Endpoint], dial: @escaping TargetDialer,
        onFailure: @escaping (TransportError) -> Void
    ) {
        self.visitor = visitor
        self.endpoints = endpoints
        self.dial = dial
        self.onFailure = onFailure
        visitor.delegate = self
        visitor.setReading(false)
        attempt(0, before: nil)
    }

    private func attempt(_ position: Int, before: TransportError?) {
        guard !isClosed else { return }
        guard position < endpoints.count else {
            return fail(before ?? TransportError(.connectFailed, "The tunnel has no target"))
        }
        dial(endpoints[position], visitor.eventLoop) { result in
            switch result {
            case .success(let target): self.connected(target)
            case .failure(let cause): self.attempt(position + 1, before: before ?? cause)
            }
        }
    }

    private func connected(_ target: any ByteTransport) {
        guard !isClosed else { return target.abort(TransportError(.cancelled, "The visitor has gone")) }
        TransportRelay(visitor, target)
        // The relay is the delegate now; it gets what came before it.
        if let received { visitor.delegate?.transportReceived(received) }
        if isInputClosed { visitor.delegate?.transportInputClosed() }
        if target.isWritable { visitor.setReading(true) }
    }

    private func fail(_ cause: TransportError) {
        guard !isClosed else { return }
        isClosed = true
        let code: TransportError.Code =
            cause.code == .connectTimeout || cause.code == .tlsFailed ? cause.code : .connectFailed
        visitor.abort(TransportError(code, cause.message))
        visitor.delegate = nil
        onFailure(cause)
    }

    func transportReceived(_ bytes: ByteBuffer) {
        if received == nil { received = bytes } else { received?.writeImmutableBuffer(bytes) }
    }
    func transportInputClosed() { isInputClosed = true }
    func transportClosed(_ error: TransportError?) {
        isClosed = true
        received = nil
    }
    func transportWritabilityChanged(_ isWritable: Bool) {}
}
