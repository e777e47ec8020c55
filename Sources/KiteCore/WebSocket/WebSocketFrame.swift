/// The words of RFC 6455 that all parts of the WebSocket code share: opcodes, roles, limits, close codes, errors.
package import NIOCore

/// Which end of the connection this is: a client masks what it sends, a server does not (RFC 6455 section 5.1).
package enum WebSocketRole: Sendable {
    case client, server
}

/// What a frame is (RFC 6455 section 5.2). Other values are reserved and refused.
package enum WebSocketOpcode: UInt8, Sendable, CaseIterable {
    case continuation = 0x0
    case text = 0x1
    case binary = 0x2
    case close = 0x8
    case ping = 0x9
    case pong = 0xA

    /// Control frames are short and never fragmented (RFC 6455 section 5.5).
    package var isControl: Bool { rawValue & 0x8 != 0 }
}

/// One frame, unmasked.
package struct WebSocketFrame: Sendable, Hashable {
    package var isFinal: Bool
    package var opcode: WebSocketOpcode
    package var payload: ByteBuffer
    /// The first reserved bit: with this frame begins a compressed message (RFC 7692 section 6).
    package var isCompressed: Bool

    package init(
        isFinal: Bool = true, opcode: WebSocketOpcode, payload: ByteBuffer = ByteBuffer(), isCompressed: Bool = false
    ) {
        self.isFinal = isFinal
        self.isCompressed = isCompressed
        self.opcode = opcode
        self.payload = payload
    }
}

/// One complete message.
package enum WebSocketMessage: Sendable, Hashable {
    /// Valid UTF-8.
    case text(ByteBuffer)
    case binary(ByteBuffer)
}

/// What one peer may make us hold.
package struct WebSocketLimits: Sendable {
    /// The longest message, and so the longest frame, in bytes; more is answered with close code 1009.
    package var messageBytes: Int
    /// The most frames of one message; more is answered with close code 1008.
    package var fragments: Int
    /// How long the peer has to answer our close frame, or to close the connection after it.
    package var closeTimeout: TimeAmount
    /// Ping the peer when it has been silent for this long, and give it up after another such time; nil for never.
    package var pingInterval: TimeAmount?

    package init(
        messageBytes: Int = 16 << 20, fragments: Int = 1 << 19, closeTimeout: TimeAmount = .seconds(5),
        pingInterval: TimeAmount? = nil
    ) {
        self.messageBytes = messageBytes
        self.fragments = fragments
        self.closeTimeout = closeTimeout
        self.pingInterval = pingInterval
    }
}

/// Which messages a server compresses for clients that offer permessage-deflate (RFC 7692). Nothing is kept from one message for the
/// next, on either side, and the memory to compress with is shared by all WebSockets of an event loop.
package struct WebSocketCompression: Sendable, Hashable {
    /// Sizes of messages in bytes. Shorter ones hardly gain; longer ones would keep the event loop busy for too long.
    package var messageBytes: ClosedRange<Int>

    package init(messageBytes: ClosedRange<Int> = 1024...1 << 20) { self.messageBytes = messageBytes }
}

/// The peer broke the protocol or a limit; ``code`` goes into the close frame.
package struct WebSocketError: Error, Sendable, Hashable, CustomStringConvertible {
    package let code: WebSocketCloseCode
    package let message: String

    package init(_ code: WebSocketCloseCode, _ message: String) {
        self.code = code
        self.message = message
    }
    package var description: String { "\(message) (\(code.rawValue))" }
}

/// Why a WebSocket is closed (RFC 6455 section 7.4).
package struct WebSocketCloseCode: RawRepresentable, Sendable, Hashable {
    package var rawValue: UInt16
    package init(rawValue: UInt16) { self.rawValue = rawValue }

    package static let normal = Self(rawValue: 1000)
    package static let goingAway = Self(rawValue: 1001)
    package static let protocolError = Self(rawValue: 1002)
    package static let unacceptableData = Self(rawValue: 1003)
    /// Stands for a close frame without a code; never on the wire.
    package static let none = Self(rawValue: 1005)
    /// Stands for a connection that ended without a close frame; never on the wire.
    package static let abnormal = Self(rawValue: 1006)
    package static let invalidPayload = Self(rawValue: 1007)
    package static let policyViolation = Self(rawValue: 1008)
    package static let tooBig = Self(rawValue: 1009)
    package static let internalError = Self(rawValue: 1011)
    package static let tryAgainLater = Self(rawValue: 1013)

    /// Whether the code may stand in a close frame.
    package var mayBeSent: Bool {
        switch rawValue {
        case 1000...1003, 1007...1014, 3000...4999: true
        default: false
        }
    }
}
