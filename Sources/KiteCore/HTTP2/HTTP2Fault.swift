/// What a visitor did wrong on an HTTP/2 connection, for metrics and logs.
import NIOCore
import NIOHTTP2

/// A breach of HTTP/2. The first two cost a stream, the others the connection.
package enum HTTP2Fault: String, Sendable, CaseIterable {
    /// A request that cannot be passed on as HTTP (RFC 9113 section 8.1.1).
    case malformedRequest = "malformed_request"
    /// More streams than are allowed.
    case tooManyStreams = "too_many_streams"
    /// Frames that the protocol does not allow (RFC 9113 section 5.4.1).
    case protocolError = "protocol_error"
    case headerList = "header_list"
    case continuationFlood = "continuation_flood"
    /// Streams opened only to be reset (CVE-2023-44487).
    case resetFlood = "reset_flood"
    /// PING, SETTINGS or PRIORITY frames.
    case controlFlood = "control_flood"
    case windowUpdateFlood = "window_update_flood"
    case emptyDataFlood = "empty_data_flood"
    case malformedFlood = "malformed_flood"
    /// Answers that the visitor made us give and does not take.
    case unreadAnswers = "unread_answers"

    /// What NIOHTTP2 complains of when it ends a connection.
    init(_ error: any Error) {
        self =
            switch error {
            case is NIOHTTP2Errors.ExcessivelyLargeHeaderBlock: .headerList
            case is NIOHTTP2Errors.ExcessiveContinuationFrames: .continuationFlood
            case is NIOHTTP2Errors.ExcessiveRSTFrames: .resetFlood
            case is NIOHTTP2Errors.ExcessiveControlFrames: .controlFlood
            case is NIOHTTP2Errors.ExcessiveEmptyDataFrames: .emptyDataFlood
            case is NIOHTTP2Errors.ExcessiveStreamErrors, is NIOHTTP2Errors.ExcessiveNumberOfGlitches: .malformedFlood
            case is NIOHTTP2Errors.ExcessiveOutboundFrameBuffering: .unreadAnswers
            case is NIOHTTP2Errors.MaxStreamsViolation: .tooManyStreams
            default: .protocolError
            }
    }
}

/// Counts what NIOHTTP2 does not: malformed requests and WINDOW_UPDATE frames.
struct FrameBudget {
    private let limits: HTTP2Limits
    private var windowEnd = Int64.min
    private var malformed = 0
    private var windowUpdates = 0
    private var dataFrames = 0

    init(_ limits: HTTP2Limits) { self.limits = limits }

    /// A DATA frame was sent, which a visitor may answer with window updates.
    mutating func sentData() { dataFrames &+= 1 }

    /// - Parameter now: in nanoseconds, not decreasing.
    /// - Returns: what to end the connection for.
    mutating func receivedWindowUpdate(now: Int64) -> HTTP2Fault? {
        turn(now)
        windowUpdates += 1
        return windowUpdates > limits.windowUpdates + 8 * dataFrames ? .windowUpdateFlood : nil
    }

    /// - Parameter now: in nanoseconds, not decreasing.
    /// - Returns: what to end the connection for.
    mutating func receivedMalformedRequest(now: Int64) -> HTTP2Fault? {
        turn(now)
        malformed += 1
        return malformed > limits.malformedRequests ? .malformedFlood : nil
    }

    private mutating func turn(_ now: Int64) {
        guard now >= windowEnd else { return }
        windowEnd = now &+ limits.floodTime.nanoseconds
        malformed = 0
        windowUpdates = 0
        dataFrames = 0
    }
}
