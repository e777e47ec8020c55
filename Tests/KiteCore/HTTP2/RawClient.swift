/// A client that sends HTTP/2 frames just as a test says, right or wrong.
import NIOCore
import NIOHPACK
import NIOPosix

/// One frame (RFC 9113 section 4.1).
struct RawFrame: Sendable, CustomStringConvertible {
    enum Kind: UInt8 {
        case data, headers, priority, reset, settings, pushPromise, ping, goAway, windowUpdate, continuation
    }

    var kind: UInt8
    var flags: UInt8
    var stream: Int
    var payload: ByteBuffer
    /// Of a HEADERS frame that was received.
    var fields: HPACKHeaders?

    init(_ kind: Kind, flags: UInt8 = 0, stream: Int = 0, _ payload: ByteBuffer = ByteBuffer()) {
        self.init(kind: kind.rawValue, flags: flags, stream: stream, payload: payload)
    }

    init(kind: UInt8, flags: UInt8, stream: Int, payload: ByteBuffer) {
        self.kind = kind
        self.flags = flags
        self.stream = stream
        self.payload = payload
    }

    /// END_STREAM, and ACK.
    static let end: UInt8 = 1
    static let endHeaders: UInt8 = 4

    func write(into buffer: inout ByteBuffer) {
        let length = payload.readableBytes
        buffer.writeInteger(UInt8(length >> 16 & 0xFF))
        buffer.writeInteger(UInt16(length & 0xFFFF))
        buffer.writeInteger(kind)
        buffer.writeInteger(flags)
        buffer.writeInteger(UInt32(stream))
        buffer.writeImmutableBuffer(payload)
    }

    static func take(from buffer: inout ByteBuffer) -> RawFrame? {
        guard let high: UInt8 = buffer.getInteger(at: buffer.readerIndex),
            let low: UInt16 = buffer.getInteger(at: buffer.readerIndex + 1),
            let kind: UInt8 = buffer.getInteger(at: buffer.readerIndex + 3),
            let flags: UInt8 = buffer.getInteger(at: buffer.readerIndex + 4),
            let stream: UInt32 = buffer.getInteger(at: buffer.readerIndex + 5)
        else { return nil }
        let length = Int(high) << 16 | Int(low)
        guard let payload = buffer.getSlice(at: buffer.readerIndex + 9, length: length) else { return nil }
        buffer.moveReaderIndex(forwardBy: 9 + length)
        return RawFrame(kind: kind, flags: flags, stream: Int(stream & 0x7FFF_FFFF), payload: payload)
    }

    var isEnd: Bool { flags & Self.end != 0 }
    /// The error code of RST_STREAM and GOAWAY.
    var errorCode: UInt32? {
        switch Kind(rawValue: kind) {
        case .reset: payload.getInteger(at: payload.readerIndex)
        case .goAway: payload.getInteger(at: payload.readerIndex + 4)
        default: nil
        }
    }
    var description: String {
        let name = Kind(rawValue: kind).map { "\($0)" } ?? "\(kind)"
        return
            "\(name) \(stream) \(isEnd ? "end " : "")\(payload.readableBytes)\(errorCode.map { " error \($0)" } ?? "")"
    }
}

private final class FrameReader: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let frames: AsyncStream<RawFrame>.Continuation
    private var received = ByteBuffer()

    init(_ frames: AsyncStream<RawFrame>.Continuation) { self.frames = frames }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        received.writeImmutableBuffer(unwrapInboundIn(data))
        while let frame = RawFrame.take(from: &received) { frames.yield(frame) }
    }
    func channelInactive(context: ChannelHandlerContext) { frames.finish() }
    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}

/// Not for use by several tasks.
final class RawClient {
    let channel: any Channel
    private var frames: AsyncStream<RawFrame>.AsyncIterator
    private var encoder = HPACKEncoder(allocator: ByteBufferAllocator())
    private var decoder = HPACKDecoder(allocator: ByteBufferAllocator())
    private(set) var isClosed = false

    /// Connects, and exchanges settings.
    /// - Parameter settings: by number.
    init(_ port: Int, settings: [(UInt16, UInt32)] = []) async throws {
        let (stream, continuation) = AsyncStream<RawFrame>.makeStream()
        channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(FrameReader(continuation))
                }
            }
            .connect(host: "127.0.0.1", port: port).get()
        frames = stream.makeAsyncIterator()
        var payload = ByteBuffer()
        for (number, value) in settings {
            payload.writeInteger(number)
            payload.writeInteger(value)
        }
        var buffer = ByteBuffer(string: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        RawFrame(.settings, payload).write(into: &buffer)
        RawFrame(.settings, flags: 1).write(into: &buffer)
        // The server may have gone already.
        try? await channel.writeAndFlush(buffer)
    }

    func send(_ frames: RawFrame...) async throws { try await send(frames) }

    func send(_ frames: [RawFrame]) async throws {
        var buffer = ByteBuffer()
        for frame in frames { frame.write(into: &buffer) }
        try await channel.writeAndFlush(buffer)
    }

    func headers(_ stream: Int, _ fields: [(String, String)], end: Bool = true) throws -> RawFrame {
        var block = ByteBuffer()
        try encoder.encode(headers: HPACKHeaders(fields), to: &block)
        return RawFrame(.headers, flags: RawFrame.endHeaders | (end ? RawFrame.end : 0), stream: stream, block)
    }

    /// A GET's fields.
    func request(_ stream: Int, _ path: String, _ further: [(String, String)] = []) throws -> RawFrame {
        try request(stream, "GET", path, further)
    }

    /// A request's fields.
    func request(
        _ stream: Int, _ method: String, _ path: String, _ further: [(String, String)] = [], end: Bool = true
    ) throws -> RawFrame {
        try headers(
            stream,
            [(":method", method), (":scheme", "https"), (":authority", "kite.test"), (":path", path)] + further,
            end: end)
    }

    func data(_ stream: Int, _ text: String, end: Bool = false) -> RawFrame {
        RawFrame(.data, flags: end ? RawFrame.end : 0, stream: stream, ByteBuffer(string: text))
    }

    func windowUpdate(_ stream: Int, _ increment: Int) -> RawFrame {
        RawFrame(.windowUpdate, stream: stream, ByteBuffer(integer: UInt32(increment)))
    }

    /// The next frame; nil at the end of the connection.
    func next() async -> RawFrame? {
        guard var frame = await frames.next(isolation: #isolation) else {
            isClosed = true
            return nil
        }
        if frame.kind == RawFrame.Kind.headers.rawValue {
            var payload = frame.payload
            frame.fields = try? decoder.decodeHeaders(from: &payload)
        }
        return frame
    }

    /// The next frame of a kind, skipping others.
    func next(_ kind: RawFrame.Kind, stream: Int? = nil) async -> RawFrame? {
        while let frame = await next() {
            if frame.kind == kind.rawValue, stream == nil || frame.stream == stream { return frame }
        }
        return nil
    }

    func decode(_ frame: RawFrame) throws -> HPACKHeaders {
        guard let fields = frame.fields else { throw ChannelError.inappropriateOperationForState }
        return fields
    }

    /// What came on one stream until its end: the fields of each HEADERS frame, the data, and how it ended.
    struct Answer {
        var heads: [HPACKHeaders] = []
        var body = ""
        /// The code of RST_STREAM; nil for END_STREAM.
        var reset: UInt32?
        var status: String? {
            heads.first { $0.first(name: ":status")?.hasPrefix("1") == false }?.first(name: ":status")
        }
    }

    /// Opens its windows as the data comes. Nil when the connection ended first.
    func answer(_ stream: Int) async throws -> Answer? {
        var answer = Answer()
        while let frame = await next() {
            if frame.kind == RawFrame.Kind.headers.rawValue {
                let fields = try decode(frame)
                guard frame.stream == stream else { continue }
                answer.heads.append(fields)
                if frame.isEnd { return answer }
                continue
            }
            guard frame.stream == stream else { continue }
            switch RawFrame.Kind(rawValue: frame.kind) {
            case .data:
                answer.body += String(buffer: frame.payload)
                if frame.isEnd { return answer }
                let count = frame.payload.readableBytes
                if count > 0 { try await send(windowUpdate(0, count), windowUpdate(stream, count)) }
            case .reset:
                answer.reset = frame.errorCode
                return answer
            default: break
            }
        }
        return nil
    }

    /// The error code of the GOAWAY frame that ends the connection; nil when it ends without.
    func end() async -> UInt32? {
        let code = await next(.goAway)?.errorCode
        while await next() != nil {}
        return code
    }

    func close() async { try? await channel.close() }
}
