/// Puts the fragments of messages together (RFC 6455 section 5.4). Control frames, which may stand between fragments, never come here.
package import NIOCore

/// What a message's last frame completes.
package enum WebSocketAssembled: Sendable, Hashable {
    case message(WebSocketMessage)
    /// A message as it was compressed; neither its length nor its text has been checked.
    case compressed(ByteBuffer, isText: Bool)
}

/// Data frames in, messages out; bounded in bytes and in number of fragments.
package struct WebSocketMessageAssembler: Sendable {
    private let maxBytes: Int
    private let maxFragments: Int
    private var isText = false
    private var isCompressed = false
    private var isInMessage = false
    private var fragments = 0
    private var partial = ByteBuffer()
    private var validator = UTF8Validator()
    /// How much of the frame that is arriving has been validated.
    private var previewed = 0

    package init(maxBytes: Int, maxFragments: Int) {
        self.maxBytes = maxBytes
        self.maxFragments = max(maxFragments, 1)
    }

    /// How long the next data frame may be.
    package var room: Int { maxBytes - partial.readableBytes }

    /// How many bytes of an unfinished message are held.
    package var heldBytes: Int { partial.readableBytes }

    /// Drops an unfinished message.
    package mutating func clear() { partial = ByteBuffer() }

    /// Looks at the payload of a data frame that has arrived in part, always from its beginning, so that text which is not UTF-8 is refused
    /// at once.
    /// - Returns: false when it is not.
    package mutating func preview(
        _ opcode: WebSocketOpcode, isCompressed: Bool, _ payload: UnsafeRawBufferPointer
    ) -> Bool {
        let isPlainText =
            opcode == .continuation ? isInMessage && isText && !self.isCompressed : opcode == .text && !isCompressed
        guard isPlainText, payload.count > previewed else { return true }
        if opcode == .text && previewed == 0 {
            // Out of place when a message is going on; that is told when the frame is complete.
            guard !isInMessage else { return true }
            validator = UTF8Validator()
        }
        defer { previewed = payload.count }
        return validator.validate(UnsafeRawBufferPointer(rebasing: payload[previewed...]))
    }

    /// - Returns: the message that the frame completes.
    /// - Throws: what is wrong with the frame in its place.
    package mutating func receive(_ frame: WebSocketFrame) throws(WebSocketError) -> WebSocketAssembled? {
        if frame.opcode == .continuation {
            guard isInMessage else { throw WebSocketError(.protocolError, "A continuation continues nothing.") }
        } else {
            guard !isInMessage else {
                throw WebSocketError(.protocolError, "A message begins before the one before it has ended.")
            }
            isInMessage = true
            isText = frame.opcode == .text
            isCompressed = frame.isCompressed
            fragments = 0
            if previewed == 0 { validator = UTF8Validator() }
        }
        fragments += 1
        guard fragments <= maxFragments else {
            throw WebSocketError(.policyViolation, "A message has more than \(maxFragments) fragments.")
        }
        guard frame.payload.readableBytes <= room else {
            throw WebSocketError(.tooBig, "A message is longer than \(maxBytes) bytes.")
        }
        if isText && !isCompressed {
            let isValid = frame.payload.withUnsafeReadableBytes { payload in
                validator.validate(UnsafeRawBufferPointer(rebasing: payload[min(previewed, payload.count)...]))
            }
            guard isValid, !frame.isFinal || validator.isComplete else { throw .notUTF8 }
        }
        previewed = 0
        if partial.readableBytes == 0 { partial = frame.payload } else { partial.writeImmutableBuffer(frame.payload) }
        guard frame.isFinal else { return nil }
        isInMessage = false
        let message = partial
        partial = ByteBuffer()
        if isCompressed { return .compressed(message, isText: isText) }
        return .message(isText ? .text(message) : .binary(message))
    }
}
