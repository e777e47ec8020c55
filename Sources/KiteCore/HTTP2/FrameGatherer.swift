/// Puts small frames together before they reach TLS, which would make a record of each.
import NIOCore

/// Frames leave NIOHTTP2 in pieces, the nine bytes before a body apart from it. Up to a TLS record's worth is copied into one buffer until
/// the flush.
final class FrameGatherer: ChannelOutboundHandler {
    typealias OutboundIn = IOData
    typealias OutboundOut = ByteBuffer

    private static let recordBytes = 16 * 1024
    /// STREAM_CLOSED, and where in a RST_STREAM frame the error stands.
    private static let streamClosed: UInt32 = 5
    private static let errorPosition = 9
    /// The next frame is a reset for a frame on a stream whose sender had ended it. NIOHTTP2 calls that a protocol error, where the RFC
    /// has an error of its own (RFC 9113 section 5.1).
    var correctsReset = false
    private var gathered = ByteBuffer()

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        guard case .byteBuffer(var bytes) = unwrapOutboundIn(data) else {
            promise?.fail(ChannelError.operationUnsupported)
            return
        }
        if correctsReset {
            correctsReset = false
            bytes.setInteger(Self.streamClosed, at: bytes.readerIndex + Self.errorPosition)
        }
        if gathered.readableBytes + bytes.readableBytes > Self.recordBytes { pass(context) }
        if gathered.readableBytes == 0, promise != nil || bytes.readableBytes >= Self.recordBytes {
            return context.write(wrapOutboundOut(bytes), promise: promise)
        }
        gathered.writeImmutableBuffer(bytes)
        if promise != nil { pass(context, promise) }
    }

    func flush(context: ChannelHandlerContext) {
        pass(context)
        context.flush()
    }

    func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        pass(context)
        context.flush()
        context.close(mode: mode, promise: promise)
    }

    private func pass(_ context: ChannelHandlerContext, _ promise: EventLoopPromise<Void>? = nil) {
        guard gathered.readableBytes > 0 else { return }
        let bytes = gathered
        gathered = ByteBuffer()
        context.write(wrapOutboundOut(bytes), promise: promise)
    }
}
