// A socket and just enough of HTTP/1 and WebSocket to look at what a server puts on the wire, piece by piece. Nothing here uses the
// code under test.
import NIOCore
import NIOPosix
import Testing

/// The other end did not send what was waited for.
struct RawConnectionError: Error, CustomStringConvertible {
    let description: String
}

/// The head of a response as it stands on the wire.
struct RawHead {
    var version: String
    var status: Int
    var fields: [(name: String, value: String)]

    /// The value of a field; nil where it is missing or there twice.
    subscript(_ name: String) -> String? {
        let values = fields.filter { $0.name == name.lowercased() }.map(\.value)
        return values.count == 1 ? values[0] : nil
    }
    func has(_ name: String) -> Bool { fields.contains { $0.name == name.lowercased() } }
}

/// A response with all of its body.
struct RawResponse {
    var head: RawHead
    var body: String
    var status: Int { head.status }
    subscript(_ name: String) -> String? { head[name] }
}

/// One TCP connection, used by one task at a time.
final class RawConnection {
    private let channel: any Channel
    private let firstInput: EventLoopFuture<Void>
    private var incoming: AsyncThrowingStream<ByteBuffer, any Error>.AsyncIterator
    private var buffer = ByteBuffer()
    private var isAtEnd = false

    private final class Feed: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        let continuation: AsyncThrowingStream<ByteBuffer, any Error>.Continuation
        let firstInput: EventLoopPromise<Void>
        init(
            _ continuation: AsyncThrowingStream<ByteBuffer, any Error>.Continuation,
            _ firstInput: EventLoopPromise<Void>
        ) {
            self.continuation = continuation
            self.firstInput = firstInput
        }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            continuation.yield(unwrapInboundIn(data))
            firstInput.succeed()
        }
        func channelInactive(context: ChannelHandlerContext) {
            continuation.finish()
            firstInput.succeed()
        }
        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            continuation.finish(throwing: error)
            context.close(promise: nil)
        }
    }

    init(to address: SocketAddress) async throws {
        let (stream, continuation) = AsyncThrowingStream<ByteBuffer, any Error>.makeStream()
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let firstInput = loop.makePromise(of: Void.self)
        self.firstInput = firstInput.futureResult
        channel = try await ClientBootstrap(group: loop)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Feed(continuation, firstInput))
                }
            }
            .connect(to: address).get()
        incoming = stream.makeAsyncIterator()
    }

    // MARK: Bytes

    func send(_ bytes: ByteBuffer) async throws { try await channel.writeAndFlush(bytes) }
    func send(_ text: String) async throws { try await send(ByteBuffer(string: text)) }
    func close() async throws { try await channel.close().get() }

    /// Of two connections that nothing has come from yet, the one that something comes from, and the other.
    static func race(
        _ first: RawConnection, _ second: RawConnection
    ) async throws -> (answered: RawConnection, waiting: RawConnection) {
        let isFirst = first.channel.eventLoop.makePromise(of: Bool.self)
        first.firstInput.whenComplete { _ in isFirst.succeed(true) }
        second.firstInput.whenComplete { _ in isFirst.succeed(false) }
        return try await isFirst.futureResult.get() ? (first, second) : (second, first)
    }

    private func more() async throws -> Bool {
        guard !isAtEnd else { return false }
        guard let bytes = try await incoming.next(isolation: #isolation) else {
            isAtEnd = true
            return false
        }
        buffer.writeImmutableBuffer(bytes)
        return true
    }

    func bytes(_ count: Int) async throws -> [UInt8] {
        while buffer.readableBytes < count {
            guard try await more() else {
                throw RawConnectionError(description: "the end came after \(String(buffer: buffer))")
            }
        }
        return buffer.readBytes(length: count) ?? []
    }

    func text(_ count: Int) async throws -> String { String(decoding: try await bytes(count), as: UTF8.self) }

    func line() async throws -> String {
        while true {
            if let end = buffer.readableBytesView.firstIndex(of: UInt8(ascii: "\n")) {
                var line = try await text(end - buffer.readerIndex + 1)
                // Carriage return and line feed are one Character.
                if line.hasSuffix("\r\n") || line.hasSuffix("\n") { line.removeLast() }
                return line
            }
            guard try await more() else { throw RawConnectionError(description: "the end came instead of a line") }
        }
    }

    func rest() async throws -> String {
        while try await more() {}
        return buffer.readString(length: buffer.readableBytes) ?? ""
    }

    /// Waits for the end; whether there was nothing before it.
    func isClosed() async throws -> Bool { try await rest().isEmpty }

    // MARK: HTTP

    /// Sends a request and reads the head of the answer.
    func request(
        _ method: String, _ target: String, version: String = "1.1", fields: [(String, String)] = [],
        body: String? = nil
    ) async throws -> RawHead {
        try await ask(method, target, version: version, fields: fields, body: body)
        return try await head()
    }

    /// Sends a request.
    func ask(
        _ method: String, _ target: String, version: String = "1.1", fields: [(String, String)] = [],
        body: String? = nil
    ) async throws {
        var text = "\(method) \(target) HTTP/\(version)\r\nHost: \(channel.remoteAddress?.port ?? 0).test\r\n"
        for (name, value) in fields { text += "\(name): \(value)\r\n" }
        if method == "POST" { text += "Content-Length: \(body?.utf8.count ?? 0)\r\n" }
        try await send(text + "\r\n" + (body ?? ""))
    }

    func head() async throws -> RawHead {
        let start = try await line().split(separator: " ", maxSplits: 2)
        guard start.count >= 2, let status = Int(start[1]) else {
            throw RawConnectionError(description: "no status line: \(start)")
        }
        var head = RawHead(version: String(start[0].dropFirst(5)), status: status, fields: [])
        while true {
            let line = try await line()
            guard !line.isEmpty else { return head }
            let parts = line.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            head.fields.append((parts[0].lowercased(), String(parts.last?.drop { $0 == " " } ?? "")))
        }
    }

    /// One chunk of a chunked body; the last one is empty.
    func chunk() async throws -> String {
        guard let count = Int(try await line(), radix: 16) else {
            throw RawConnectionError(description: "no length of a chunk")
        }
        let chunk = try await text(count)
        guard try await line().isEmpty else { throw RawConnectionError(description: "a chunk is longer than it says") }
        return chunk
    }

    /// The whole body that belongs to a head.
    func body(_ head: RawHead) async throws -> String {
        if [101, 204, 304].contains(head.status) { return "" }
        if let length = head["Content-Length"] { return try await text(Int(length) ?? 0) }
        guard head["Transfer-Encoding"] == "chunked" else { return try await rest() }
        var body = ""
        while case let chunk = try await chunk(), !chunk.isEmpty { body += chunk }
        return body
    }

    // MARK: WebSocket

    /// A frame as it came.
    struct Frame: Equatable {
        var first: UInt8
        var payload: [UInt8]
        var text: String { String(decoding: payload, as: UTF8.self) }
        var isClose: Bool { first == 0x88 }
        /// Of a close frame.
        var code: Int { payload.count >= 2 ? Int(payload[0]) << 8 | Int(payload[1]) : 1005 }
        var reason: String { String(decoding: payload.dropFirst(2), as: UTF8.self) }
    }

    static let upgrade = [
        ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "x3JJHMbDL1EzLkh9GBhXDw=="),
    ]

    func sendText(_ text: String) async throws { try await sendFrame(Array(text.utf8), first: 0x81) }

    /// Sends a masked frame.
    func sendFrame(_ payload: [UInt8], first: UInt8) async throws {
        let key: [UInt8] = [0x12, 0xA4, 0x07, 0xF9]
        var frame = ByteBuffer(bytes: [first])
        if payload.count < 126 {
            frame.writeInteger(0x80 | UInt8(payload.count))
        } else {
            frame.writeInteger(0xFE as UInt8)
            frame.writeInteger(UInt16(payload.count))
        }
        frame.writeBytes(key)
        frame.writeBytes(payload.enumerated().map { $1 ^ key[$0 % 4] })
        try await send(frame)
    }

    func frame() async throws -> Frame {
        let start = try await bytes(2)
        guard start[1] & 0x80 == 0 else { throw RawConnectionError(description: "the server masked a frame") }
        var count = Int(start[1])
        if count == 126 { count = try await bytes(2).reduce(0) { $0 << 8 | Int($1) } }
        if count == 127 { count = try await bytes(8).reduce(0) { $0 << 8 | Int($1) } }
        return Frame(first: start[0], payload: try await bytes(count))
    }

    /// The text of the next frame, which must be a whole text message.
    func message() async throws -> String {
        let frame = try await frame()
        guard frame.first == 0x81 else { throw RawConnectionError(description: "no text: \(frame)") }
        return frame.text
    }

    /// The next frame must close, and the connection end after it once that is answered.
    func closing() async throws -> Frame {
        let frame = try await frame()
        guard frame.isClose else { throw RawConnectionError(description: "no close frame: \(frame)") }
        try? await sendFrame(frame.payload, first: 0x88)
        #expect(try await isClosed())
        return frame
    }
}
