/// The numbers of the tunnel wire: frame types, flags, sizes. docs/tunnel-wire.md is the specification.
package import KiteHTTP
package import NIOCore

/// What the tunnel wire fixes for version 1.
package enum TunnelWire {
    /// The version sent in HELLO and WELCOME.
    package static let version = 1
    /// The token of the `Upgrade` field (RFC 9110 section 7.8).
    package static let upgradeToken = "kite-tunnel/1"
    /// Where a gateway accepts lanes.
    package static let path = "/-/tunnel"
    /// Bytes of a frame's header.
    package static let headerLength = 8
    /// The largest payload of a frame, in bytes.
    package static let maximumPayload = 16_384
    /// The credit both sides hold for a new stream, in bytes.
    package static let initialWindow = 65_536
    /// The largest credit a stream may hold, in bytes.
    package static let maximumWindow = 1 << 30
    /// The largest reason text of RESET and GOAWAY, in bytes of UTF-8.
    package static let maximumReason = 256
    /// The most slots a side can open streams in; what a lane allows is less, see ``LaneConfiguration/maximumStreams``.
    package static let slots = 65_536
}

/// The types of frames. Below `0x10`: not counted, not replayed. From `0x10` to `0x7F`: counted and replayed after
/// a lane is resumed. From `0x80`: extensions, not counted, ignored by who does not know them.
package enum TunnelFrameType: UInt8, Sendable, CaseIterable {
    case hello = 0x01
    case welcome = 0x02
    case ping = 0x03
    case pong = 0x04
    case ack = 0x05
    case note = 0x06
    case open = 0x10
    case data = 0x11
    case credit = 0x12
    case reset = 0x13
    case goAway = 0x14

    /// Whether the frame has a number in the lane's sequence.
    package var isSequenced: Bool { rawValue >= 0x10 }
}

/// Names a stream within a lane. Bit 31 says who opened it (1: the agent), bits 30 to 16 are a generation, the low 16 bits
/// are a slot: both sides find the stream by an array index, and a frame that crossed the end of a slot's previous
/// stream is told from one for the next.
package struct TunnelStreamID: Hashable, Sendable, CustomStringConvertible {
    package let rawValue: UInt32

    package init(rawValue: UInt32) { self.rawValue = rawValue }

    package init(openedByAgent: Bool, generation: UInt16, slot: UInt16) {
        rawValue = (openedByAgent ? 0x8000_0000 : 0) | UInt32(generation & 0x7FFF) << 16 | UInt32(slot)
    }

    /// Who opened the stream.
    package var isOpenedByAgent: Bool { rawValue & 0x8000_0000 != 0 }
    /// Counts the streams of a slot, from 0, wrapping after 32,767.
    package var generation: UInt16 { UInt16(truncatingIfNeeded: rawValue >> 16) & 0x7FFF }
    /// Index of the stream in the opener's table.
    package var slot: UInt16 { UInt16(truncatingIfNeeded: rawValue) }
    package var description: String { "\(isOpenedByAgent ? "a" : "g")\(slot).\(generation)" }
}

/// What a stream carries.
package enum StreamKind: UInt8, Sendable, CaseIterable {
    /// One HTTP/1.1 connection: any number of requests, one after the other.
    case http = 1
    /// Bytes of a TCP connection.
    case tcp = 2
    /// One HTTP/1.1 request that asks for an upgrade, and what follows it; the stream ends with it.
    case upgrade = 3
}

/// The header a stream is opened with.
package struct StreamOpening: Sendable, Hashable {
    package var kind: StreamKind
    /// Index of the tunnel in the WELCOME's list.
    package var tunnel: UInt16
    /// Who is at the other end; nil where unknown or not an IP address.
    package var clientAddress: SocketAddress?
    /// The host the visitor asked for, as bytes of the authority, at most 255; empty where there is none.
    package var host: ByteBuffer
    /// Whether the visitor's connection is encrypted.
    package var isSecure: Bool

    package init(
        kind: StreamKind, tunnel: UInt16 = 0, clientAddress: SocketAddress? = nil, host: ByteBuffer = ByteBuffer(),
        isSecure: Bool = false
    ) {
        self.kind = kind
        self.tunnel = tunnel
        self.clientAddress = clientAddress
        self.host = host
        self.isSecure = isSecure
    }
}

/// A request as the gateway saw it pass, for the agent's display. Lossy: dropped when the lane is busy.
public struct TunnelNote: Sendable, Hashable {
    /// Index of the tunnel in the list that was asked for.
    public var tunnel: Int
    /// The request's method, at most 32 bytes.
    public var method: String
    /// The request's path without its query, cut after 1,024 bytes.
    public var path: String
    /// The response's status.
    public var status: UInt16
    /// From the request's head to the response's end, in microseconds.
    public var microseconds: UInt32

    public init(tunnel: Int, method: String, path: String, status: UInt16, microseconds: UInt32) {
        self.tunnel = tunnel
        self.method = method
        self.path = path
        self.status = status
        self.microseconds = microseconds
    }
}

/// One frame, decoded.
package enum TunnelFrame: Sendable, Hashable {
    /// JSON of an ``AgentHello``.
    case hello(ByteBuffer)
    /// JSON of a ``GatewayAnswer``.
    case welcome(ByteBuffer)
    case ping(UInt64)
    case pong(UInt64)
    /// The number of sequenced frames received since the lane began.
    case ack(UInt64)
    case note(TunnelNote)
    case open(TunnelStreamID, StreamOpening)
    case data(TunnelStreamID, ByteBuffer, isEnd: Bool)
    /// So many bytes more may be sent; never 0.
    case credit(TunnelStreamID, UInt32)
    case reset(TunnelStreamID, TransportError.Code, reason: ByteBuffer)
    case goAway(TunnelGoAway)
    /// An unknown type from the extension range; ignored.
    case unknown(UInt8)
}

/// The sender will accept no more streams on this lane; those that run may end.
package struct TunnelGoAway: Sendable, Hashable {
    package var code: TransportError.Code
    /// A sentence for the operator, at most 256 bytes.
    package var reason: String
    /// The URL of a gateway to go to instead; empty: the same URL again.
    package var next: String

    package init(code: TransportError.Code = .goingAway, reason: String, next: String = "") {
        self.code = code
        self.reason = reason
        self.next = next
    }
}
