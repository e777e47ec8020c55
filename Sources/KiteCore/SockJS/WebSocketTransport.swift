/// `websocket` with SockJS framing, and the raw WebSocket, whose text messages are the session's messages themselves.
import KiteHTTP
import KiteWebSocket
import NIOCore

/// Both directions of a session over one WebSocket. The session ends with it and lives on the same loop.
final class SockJSWebSocketReceiver: SockJSReceiver, WebSocketConnectionDelegate {
    private let connection: WebSocketConnection
    private let isRaw: Bool
    private let options: SockJSOptions
    /// Let go of when the WebSocket is closed.
    private var session: SockJSSession?
    private var owesAcknowledgement = false
    private var sentFrames = 0
    /// What there was when the session said last that its close is late.
    private var progress: WebSocketProgress?
    private static let id: SockJSSessionStateMachine.ReceiverID = 1

    init(_ connection: WebSocketConnection, isRaw: Bool, options: SockJSOptions) {
        self.connection = connection
        self.isRaw = isRaw
        self.options = options
    }

    func attach(to session: SockJSSession) {
        self.session = session
        session.attach(
            SockJSReceiverReference(
                id: Self.id, receiver: LoopReference(self as any SockJSReceiver, on: connection.eventLoop)))
        // After the session is open: what the client sent without waiting is delivered from within here.
        connection.delegate = self
    }

    func send(_ frame: SockJSFrame) {
        sentFrames &+= 1
        if isRaw {
            if case .messages(let messages) = frame { for message in messages { connection.sendText(message) } }
        } else {
            var text = ByteBuffer()
            frame.write(into: &text)
            connection.sendText(text)
        }
        if case .close(let code, let reason) = frame {
            connection.close(WebSocketCloseCode(rawValue: code), reason: reason)
            // Whether and when the client answers is the connection's business; the session is over.
            end { $0.finished(Self.id) }
        } else if connection.isWritable {
            session?.acknowledged(Self.id)
        } else {
            owesAcknowledgement = true
        }
    }

    func refuse(_ frame: SockJSFrame) { send(frame) }

    func setReading(_ wanted: Bool) { connection.setReading(wanted) }

    func closeIsLate() {
        let now = WebSocketProgress(sentFrames: sentFrames, queuedBytes: connection.queuedBytes)
        if progress == now {
            connection.abort(TransportError(.idleTimeout, "The client did not take the rest of the messages."))
        }
        progress = now
    }

    private func end(_ tell: (SockJSSession) -> Void) {
        let session = session
        self.session = nil
        if let session { tell(session) }
    }

    func webSocket(_ connection: WebSocketConnection, receivedText message: ByteBuffer) {
        guard let session else { return }
        if isRaw { return session.deliver([message]) }
        // Empty messages mean nothing; Go sends one before it goes.
        guard message.readableBytes > 0 else { return }
        do throws(SockJSFormatError) {
            let messages = try SockJSText.messages(
                in: message, shape: .arrayOrString, maxMessages: options.maxMessagesPerPayload)
            guard messages.allSatisfy({ $0.readableBytes <= options.maxMessageBytes }) else {
                return breakOff(
                    WebSocketCloseCode.tooBig.rawValue, "A message is longer than \(options.maxMessageBytes) bytes.")
            }
            session.deliver(messages)
        } catch {
            breakOff(3000, "Broken framing.")
        }
    }

    func webSocket(_ connection: WebSocketConnection, receivedBinary message: ByteBuffer) {
        breakOff(WebSocketCloseCode.unacceptableData.rawValue, "Only text is understood.")
    }

    private func breakOff(_ code: UInt16, _ reason: String) {
        connection.close(WebSocketCloseCode(rawValue: code), reason: reason)
        end { session in
            session.peerClosed(TransportError(.protocolViolation, reason))
            session.lost(Self.id)
        }
    }

    func webSocket(_ connection: WebSocketConnection, writabilityChanged isWritable: Bool) {
        guard isWritable, owesAcknowledgement else { return }
        owesAcknowledgement = false
        session?.acknowledged(Self.id)
    }

    func webSocket(_ connection: WebSocketConnection, closed closure: WebSocketClosure) {
        end { session in
            session.peerClosed(
                closure.isClean
                    ? nil : TransportError(closure.code == .abnormal ? .reset : .protocolViolation, closure.reason),
                closure.isClean ? MessageClosing(code: closure.code.rawValue, reason: closure.reason) : nil)
            session.lost(Self.id)
        }
    }
}

/// How far a WebSocket has got with what is to be sent; compared with that of a moment before.
struct WebSocketProgress: Hashable {
    var sentFrames: Int
    var queuedBytes: Int
}
