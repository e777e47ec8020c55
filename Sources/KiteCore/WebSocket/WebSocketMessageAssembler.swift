/// Puts the fragments of messages together (RFC 6455 section 5.4). Control frames, which may stand between fragments, never come here.
import NIOCore

/// Data frames in, messages out; bounded in bytes and in number of fragments.
package struct WebSocketMessageAssembler: Sendable {
    private let maxBytes: Int
    private let maxFragments: Int
    private var isText = false
    private var isInMessage = false
    private var fragments = 0
    private var partial = ByteBuffer()
    private var validator = UTF8Validator()

    package init(maxBytes: Int, maxFragments: Int) {
        self.maxBytes = maxBytes
        self.maxFragments = max(maxFragments, 1)
    }

    /// - Returns: the message that the frame completes.
    /// - Throws: what is wrong with the frame in its place.
    package mutating func receive(_ frame: WebSocketFrame) throws(WebSocketError) -> WebSocketMessage? {
        if frame.opcode == .continuation {
            guard isInMessage else { throw WebSocketError(.protocolError, "A continuation continues nothing.") }
        } else {
            guard !isInMessage else {
                throw WebSocketError(.protocolError, "A message begins before the one before it has ended.")
            }
            isInMessage = true
            isText = frame.opcode == .text
            fragments = 0
            validator = UTF8Validator()
        }
        fragments += 1
        guard fragments <= maxFragments else {
            throw WebSocketError(.policyViolation, "A message has more than \(maxFragments) fragments.")
        }
        guard frame.payload.readableBytes <= maxBytes - partial.readableBytes else {
            throw WebSocketError(.tooBig, "A message is longer than \(maxBytes) bytes.")
        }
        if isText {
            guard frame.payload.withUnsafeReadableBytes({ validator.validate($0) }),
                !frame.isFinal || validator.isComplete
            else { throw WebSocketError(.invalidPayload, "A text message is not valid UTF-8.") }
        }
        if partial.readableBytes == 0 { partial = frame.payload } else { partial.writeImmutableBuffer(frame.payload) }
        guard frame.isFinal else { return nil }
        isInMessage = false
        let message = partial
        partial = ByteBuffer()
        return isText ? .text(message) : .binary(message)
    }
}
