/// What a visitor may do with one HTTP/2 connection, besides what ``HTTPLimits`` says of each request.
package import NIOCore

/// Limits of one HTTP/2 connection. What breaks one of the counts is answered with GOAWAY (ENHANCE_YOUR_CALM) and a closed connection.
package struct HTTP2Limits: Sendable, Hashable {
    /// Streams that may be open at a time (SETTINGS_MAX_CONCURRENT_STREAMS). Beyond: the stream is refused, and the connection closed when
    /// the visitor had acknowledged the limit.
    package var concurrentStreams = 128
    /// Bytes of a request's body that may be sent before anybody takes them.
    package var initialStreamWindow = 256 << 10
    /// The same once its receiver has shown that it takes them.
    package var streamWindow = 1 << 20
    /// Bytes of all bodies of the connection that wait for their receivers.
    package var connectionWindow = 4 << 20
    /// Bytes of one response that may wait before its source is stopped; less while there are many streams.
    package var streamOutput = 64 << 10
    /// The same over all responses.
    package var connectionOutput = 1 << 20
    /// Streams that the visitor may reset in ``floodTime``.
    package var resets = 500
    /// Malformed requests in ``floodTime``.
    package var malformedRequests = 100
    /// PING, SETTINGS and PRIORITY frames in ``floodTime``.
    package var controlFrames = 1000
    /// WINDOW_UPDATE frames in ``floodTime``, besides eight for each DATA frame that was sent.
    package var windowUpdates = 1000
    /// DATA frames without data, one after the other.
    package var emptyDataFrames = 32
    /// CONTINUATION frames of one header block.
    package var continuationFrames = 8
    /// Answers to PING and SETTINGS that the visitor has not taken.
    package var bufferedControlFrames = 2000
    /// What counts of frames are for.
    package var floodTime = TimeAmount.seconds(30)

    /// The defaults, as documented with each limit.
    package init() {}
}
