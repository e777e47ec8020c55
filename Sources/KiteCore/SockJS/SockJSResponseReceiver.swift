/// A receiver that is an HTTP response: one frame per response (polling) or one after another (streaming).
import KiteHTTP
import NIOCore

/// How a transport puts frames into a response. One file per transport makes one.
struct SockJSResponseFormat {
    var head: ResponseHead
    /// What comes before the first frame.
    var prelude: ByteBuffer
    /// After how many bytes the response ends: 1 for polling.
    var limit: Int
    /// Writes a frame in the transport's wrapping.
    var write: (_ frame: SockJSFrame, _ output: inout ByteBuffer) -> Void
}

/// Event-loop bound to its exchange.
final class SockJSResponseReceiver: SockJSReceiver, ExchangeHandler {
    /// How much of a body we are ready to throw away; these requests have none.
    private static let ignoredBodyBytes = 64 << 10

    private let exchange: any Exchange
    private let format: SockJSResponseFormat
    private let id: SockJSSessionStateMachine.ReceiverID
    /// Nil until attached, and for good when the session refused it.
    private var session: SockJSSessionRegistry.Reference?
    private var sentBytes = 0
    private var isOver = false
    private var owesAcknowledgement = false
    private var ignoredBytes = 0

    init(_ exchange: any Exchange, format: SockJSResponseFormat, id: SockJSSessionStateMachine.ReceiverID) {
        self.exchange = exchange
        self.format = format
        self.id = id
        exchange.handler = self
    }

    /// Begins the response of a stream (a poll's begins with its frame) and asks the session for frames.
    func attach(to session: SockJSSessionRegistry.Reference) {
        self.session = session
        if format.limit > 1 { begin() }
        let reference = SockJSReceiverReference(
            id: id, receiver: LoopReference(self as any SockJSReceiver, on: exchange.eventLoop))
        session.run { $0.attach(reference) }
    }

    private func begin() {
        var head = format.head
        head.bodyLength = .unknown
        exchange.respond(head)
        if format.prelude.readableBytes > 0 { exchange.write(format.prelude) }
    }

    func send(_ frame: SockJSFrame) {
        guard !isOver else { return }
        let endsSession = if case .close = frame { true } else { false }
        write(frame, ends: endsSession)
        guard let session else { return }
        if isOver {
            session.run { [id] in $0.finished(id) }
        } else if exchange.isWritable {
            session.run { [id] in $0.acknowledged(id) }
        } else {
            owesAcknowledgement = true
        }
    }

    func refuse(_ frame: SockJSFrame) {
        guard !isOver else { return }
        session = nil
        write(frame, ends: true)
    }

    func setReading(_ wanted: Bool) {}

    /// The HTTP connection gives up a client that takes nothing (``HTTPLimits/stalledWriteTimeout``).
    func closeIsLate() {}

    private func write(_ frame: SockJSFrame, ends: Bool) {
        var output = ByteBuffer()
        format.write(frame, &output)
        sentBytes += output.readableBytes
        if format.limit <= 1 {
            // Known length: the response of a poll leaves in one piece.
            isOver = true
            exchange.respond(format.head, body: output)
            return
        }
        exchange.write(output)
        if ends || sentBytes >= format.limit {
            isOver = true
            exchange.finish(trailers: nil)
        }
    }

    func exchangeReceived(_ exchange: any Exchange, body: ByteBuffer) {
        ignoredBytes += body.readableBytes
        if ignoredBytes > Self.ignoredBodyBytes {
            exchange.abort(TransportError(.limitExceeded, "A request for frames has a long body."))
        }
    }

    func exchangeRequestEnded(_ exchange: any Exchange, trailers: HeaderBlock?) {}

    func exchangeWritabilityChanged(_ exchange: any Exchange, isWritable: Bool) {
        guard isWritable, owesAcknowledgement, !isOver else { return }
        owesAcknowledgement = false
        session?.run { [id] in $0.acknowledged(id) }
    }

    /// Clients that give a request up just close the connection; none of them closes only its own side.
    func exchangeInputClosed(_ exchange: any Exchange) {
        guard !isOver else { return }
        exchange.abort(TransportError(.cancelled, "The client went away."))
    }

    func exchangeEnded(_ exchange: any Exchange, error: TransportError?) {
        guard !isOver else { return }
        isOver = true
        session?.run { [id] in $0.lost(id) }
    }
}
