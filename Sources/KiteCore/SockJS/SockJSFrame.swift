/// The frames that a SockJS server sends, one per WebSocket message, line or event.
package import NIOCore

/// One frame from server to client.
package enum SockJSFrame: Sendable, Hashable {
    /// `o`: the session is open.
    case open
    /// `h`: the server is alive.
    case heartbeat
    /// `a["…"]`: messages, each UTF-8 text.
    case messages([ByteBuffer])
    /// `c[3000,"Go away!"]`: the session is over.
    case close(code: UInt16, reason: String)

    /// As it stands on the wire, without what the transport puts around it.
    package func write(into output: inout ByteBuffer) {
        switch self {
        case .open: output.writeInteger(UInt8(ascii: "o"))
        case .heartbeat: output.writeInteger(UInt8(ascii: "h"))
        case .messages(let messages):
            output.writeStaticString("a[")
            for (position, message) in messages.enumerated() {
                if position > 0 { output.writeInteger(UInt8(ascii: ",")) }
                SockJSText.writeString(message, into: &output)
            }
            output.writeInteger(UInt8(ascii: "]"))
        case .close(let code, let reason):
            output.writeString("c[\(code),")
            SockJSText.writeString(ByteBuffer(string: reason), into: &output)
            output.writeInteger(UInt8(ascii: "]"))
        }
    }

    /// Reads a frame as a client. `m"…"`, one message, is understood though no server sends it any more.
    /// - Parameter text: strict UTF-8, which the caller has checked.
    package init(_ text: ByteBuffer, maxMessages: Int) throws(SockJSFormatError) {
        var text = text
        switch text.readInteger(as: UInt8.self) {
        case UInt8(ascii: "o"): self = .open
        case UInt8(ascii: "h"): self = .heartbeat
        case UInt8(ascii: "a"):
            self = .messages(try SockJSText.messages(in: text, shape: .array, maxMessages: maxMessages))
        case UInt8(ascii: "m"):
            self = .messages(try SockJSText.messages(in: text, shape: .arrayOrString, maxMessages: maxMessages))
        case UInt8(ascii: "c"):
            let (code, reason) = try SockJSText.closeFrame(in: text)
            self = .close(code: code, reason: reason)
        default: throw .brokenJSON
        }
    }

    /// How many bytes of messages are put together into one frame or body, and how many messages, however short. A longer message goes alone.
    static let batchBytes = 128 << 10
    static let batchMessages = 1000

    /// How long a frame may be whose messages are no longer than that: escaping makes a message longer, rarely by more than a half, and
    /// several messages may come together.
    static func maxBytes(messageBytes: Int) -> Int { 2 * min(max(messageBytes, 0), 1 << 40) + 2 * batchBytes }

    /// What a client sends: `["…","…"]`.
    package static func writeClientMessages(_ messages: [ByteBuffer], into output: inout ByteBuffer) {
        output.writeInteger(UInt8(ascii: "["))
        for (position, message) in messages.enumerated() {
            if position > 0 { output.writeInteger(UInt8(ascii: ",")) }
            SockJSText.writeString(message, escaping: .plain, into: &output)
        }
        output.writeInteger(UInt8(ascii: "]"))
    }
}
