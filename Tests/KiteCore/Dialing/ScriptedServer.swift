/// A server that follows a script.
import NIOCore
import NIOPosix
import Synchronization

/// Answers what it receives as its script says.
final class ScriptedServer: Sendable {
    struct Reply: Sendable {
        var bytes: [UInt8]
        var closes = false
        init(_ bytes: [UInt8], closes: Bool = false) {
            self.bytes = bytes
            self.closes = closes
        }
        init(_ text: String, closes: Bool = false) {
            self.init(Array(text.utf8), closes: closes)
        }
    }
    enum Event: Sendable, Equatable { case received([UInt8]), closed }
    /// Given what has come since the last reply, and how many replies the connection and the server have given.
    typealias Script = @Sendable (_ received: [UInt8], _ reply: Int, _ connection: Int) -> Reply?

    let port: Int
    let events: AsyncStream<Event>
    private let channel: any Channel

    private init(_ channel: any Channel, _ events: AsyncStream<Event>, _ count: Counter, _ latest: Latest) {
        self.channel = channel
        self.latest = latest
        self.events = events
        port = channel.localAddress?.port ?? 0
        counter = count
    }
    private let counter: Counter
    var connectionCount: Int { counter.value.load(ordering: .relaxed) }

    final class Counter: Sendable { let value = Atomic<Int>(0) }
    /// The connection accepted last.
    private final class Latest: Sendable { let channel = Mutex<(any Channel)?>(nil) }
    private let latest: Latest

    /// Sends on the connection accepted last, unasked.
    func push(_ reply: Reply) async throws {
        guard let channel = latest.channel.withLock({ $0 }) else { return }
        try await channel.writeAndFlush(ByteBuffer(bytes: reply.bytes))
        if reply.closes { try await channel.close() }
    }

    static func start(_ script: @escaping Script) async throws -> ScriptedServer {
        let (events, continuation) = AsyncStream.makeStream(of: Event.self)
        let counter = Counter()
        let latest = Latest()
        let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let number = counter.value.add(1, ordering: .relaxed).oldValue
                    latest.channel.withLock { $0 = channel }
                    let pipeline = channel.pipeline.syncOperations
                    try pipeline.addHandler(ScriptHandler(script, number, continuation))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        return ScriptedServer(channel, events, counter, latest)
    }

    func stop() async throws { try await channel.close() }

    func waitForClose() async {
        for await event in events where event == .closed { return }
    }
}

private final class ScriptHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer
    private let script: ScriptedServer.Script
    private let number: Int
    private let events: AsyncStream<ScriptedServer.Event>.Continuation
    private var received: [UInt8] = []
    private var replies = 0

    init(
        _ script: @escaping ScriptedServer.Script, _ number: Int,
        _ events: AsyncStream<ScriptedServer.Event>.Continuation
    ) {
        self.script = script
        self.number = number
        self.events = events
    }
    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        received += Array(unwrapInboundIn(data).readableBytesView)
        guard let reply = script(received, replies, number) else { return }
        events.yield(.received(received))
        received = []
        replies += 1
        let closes = reply.closes
        let written = context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: reply.bytes)))
        if closes {
            let channel = context.channel
            written.whenComplete { _ in channel.close(promise: nil) }
        }
    }
    func channelInactive(context: ChannelHandlerContext) { events.yield(.closed) }
    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
