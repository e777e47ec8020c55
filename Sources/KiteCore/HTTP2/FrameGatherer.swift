/// Puts small frames together before they reach TLS, which would make a record of each.
import NIOCore

/// Frames leave NIOHTTP2 in pieces, the nine bytes before a body apart from it. Up to a TLS record's worth is copied into one buffer until
/// the flush.
final class FrameGatherer: ChannelOutboundHandler {
    typealias OutboundIn = IOData
    typealias OutboundOut = ByteBuffer

    private static let recordBytes = 16 * 1024
    private var gathered = ByteBuffer()

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        guard case .byteBuffer(let bytes) = unwrapOutboundIn(data) else {
            promise?.fail(ChannelError.operationUnsupported)
            return
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
