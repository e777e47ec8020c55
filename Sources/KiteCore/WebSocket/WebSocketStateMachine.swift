/// The life of an open WebSocket without its connection: what received bytes mean, and the closing handshake (RFC 6455 sections 5 to 7).
package import NIOCore

/// How a WebSocket ended.
package struct WebSocketClosure: Sendable, Hashable {
    /// ``WebSocketCloseCode/none`` when the peer gave no code, ``WebSocketCloseCode/abnormal`` when there was no close frame at all.
    package var code: WebSocketCloseCode
    package var reason: String
    /// The other side sent its close frame: both ends agree that the WebSocket is over.
    package var isClean: Bool

    package init(code: WebSocketCloseCode, reason: String, isClean: Bool) {
        self.code = code
        self.reason = reason
        self.isClean = isClean
    }

    /// The connection ended without a closing handshake.
    package static let lost = Self(
        code: .abnormal, reason: "The connection ended without a close frame.", isClean: false)
}

/// Polices one side of a WebSocket: open → (close sent) → closed. Frames to be sent are returned as bytes.
package struct WebSocketStateMachine: Sendable {
    /// What the owner has to do. It asks with ``next()`` until it gets ``none``.
    package enum Action: Sendable, Hashable {
        /// More bytes are needed, or all is over.
        case none
        case deliver(WebSocketMessage)
        /// Decompress a message and deliver it, or call ``WebSocketStateMachine/fail(_:)``.
        case inflate(ByteBuffer, isText: Bool)
        /// Send a pong with this payload; when several are due only the last need be sent (RFC 6455 section 5.5.3).
        case answerPing(ByteBuffer)
        case receivedPong
        /// The peer closes: send `frame`, then close the connection.
        case answerClose(WebSocketClosure, frame: ByteBuffer)
        /// The peer answered our close frame: the server closes the connection now, the client waits for that.
        case finish(WebSocketClosure)
        /// The peer broke the protocol: send `frame` (empty when a close frame was sent before), then close the connection.
        case fail(WebSocketError, frame: ByteBuffer)
    }

    private enum State: Sendable {
        case open, closeSent, closed
    }

    private var state = State.open
    private var decoder: WebSocketFrameDecoder
    private var assembler: WebSocketMessageAssembler
    private var encoder: WebSocketFrameEncoder

    /// - Parameter allowsCompression: permessage-deflate was agreed upon.
    package init(role: WebSocketRole, limits: WebSocketLimits, allowsCompression: Bool = false) {
        decoder = WebSocketFrameDecoder(
            role: role, maxFrameBytes: limits.messageBytes, allowsCompression: allowsCompression)
        assembler = WebSocketMessageAssembler(maxBytes: limits.messageBytes, maxFragments: limits.fragments)
        encoder = WebSocketFrameEncoder(role: role)
    }

    /// Whether messages may be sent.
    package var isOpen: Bool { state == .open }
    /// Whether nothing more is sent nor expected.
    package var isClosed: Bool { state == .closed }

    /// How many bytes of frames and messages are held that have not arrived whole.
    package var unfinishedBytes: Int { state == .closed ? 0 : decoder.bufferedBytes + assembler.heldBytes }

    // MARK: From the peer

    /// Takes received bytes; ``next()`` tells what they mean.
    package mutating func receive(_ bytes: ByteBuffer) {
        if state != .closed { decoder.append(bytes) }
    }

    /// The next thing to do.
    package mutating func next() -> Action {
        do throws(WebSocketError) {
            while state != .closed, let frame = try decoder.next(room: assembler.room) {
                switch frame.opcode {
                case .text, .binary, .continuation:
                    guard let assembled = try assembler.receive(frame), state == .open else { continue }
                    switch assembled {
                    case .message(let message): return .deliver(message)
                    case .compressed(let message, let isText): return .inflate(message, isText: isText)
                    }
                case .ping: if state == .open { return .answerPing(frame.payload) }
                case .pong: return .receivedPong
                case .close: return try receivedClose(frame.payload)
                }
            }
            if state == .open {
                var isValid = true
                decoder.withPartialFrame { opcode, isCompressed, payload in
                    isValid = assembler.preview(opcode, isCompressed: isCompressed, payload)
                }
                guard isValid else { throw .notUTF8 }
            }
            return .none
        } catch {
            return fail(error)
        }
    }

    /// The peer broke a rule.
    /// - Returns: what to do.
    package mutating func fail(_ error: WebSocketError) -> Action {
        var output = ByteBuffer()
        if state == .open { encoder.encodeClose(error.code, reason: error.message, into: &output) }
        end()
        return .fail(error, frame: output)
    }

    /// The peer sends no more bytes.
    /// - Returns: how the WebSocket ended; nil when it had ended before.
    package mutating func inputClosed() -> WebSocketClosure? {
        guard state != .closed else { return nil }
        end()
        return .lost
    }

    private mutating func receivedClose(_ payload: ByteBuffer) throws(WebSocketError) -> Action {
        var payload = payload
        var closure = WebSocketClosure(code: .none, reason: "", isClean: true)
        if payload.readableBytes == 1 { throw WebSocketError(.protocolError, "A close frame has half a code.") }
        if let code: UInt16 = payload.readInteger() {
            closure.code = WebSocketCloseCode(rawValue: code)
            guard closure.code.mayBeSent else {
                throw WebSocketError(.protocolError, "The close code \(code) may not be sent.")
            }
            var validator = UTF8Validator()
            guard payload.withUnsafeReadableBytes({ validator.validate($0) }), validator.isComplete else {
                throw WebSocketError(.invalidPayload, "The reason of a close frame is not valid UTF-8.")
            }
            closure.reason = String(buffer: payload)
        }
        let answers = state == .open
        end()
        guard answers else { return .finish(closure) }
        var output = ByteBuffer()
        encoder.encodeClose(closure.code, reason: "", into: &output)
        return .answerClose(closure, frame: output)
    }

    private mutating func end() {
        state = .closed
        decoder.clear()
        assembler.clear()
    }

    // MARK: To the peer

    /// Begins the closing handshake.
    /// - Returns: the close frame; nil when closing has begun before.
    package mutating func close(_ code: WebSocketCloseCode, reason: String) -> ByteBuffer? {
        guard state == .open else { return nil }
        state = .closeSent
        var output = ByteBuffer()
        encoder.encodeClose(code, reason: reason, into: &output)
        return output
    }

    /// Gives up: nothing more is sent nor expected.
    package mutating func abandon() { end() }

    /// Writes a frame of a message, or a ping or pong. Nothing is written unless the WebSocket is open.
    package mutating func encode(
        _ opcode: WebSocketOpcode, isCompressed: Bool = false, payload: ByteBuffer, into output: inout ByteBuffer
    ) {
        guard state == .open else { return }
        encoder.encode(opcode, isCompressed: isCompressed, payload: payload, into: &output)
    }

    /// Writes a frame's header alone; for a server, whose payloads need no masking.
    package mutating func encodeHeader(
        _ opcode: WebSocketOpcode, isCompressed: Bool = false, payloadLength: Int, into output: inout ByteBuffer
    ) {
        guard state == .open else { return }
        encoder.writeHeader(
            opcode, isFinal: true, isCompressed: isCompressed, payloadLength: payloadLength, into: &output)
    }
}
