/// A TCP, TLS or UNIX socket as a ``ByteTransport``: the bottom of every connection that the gateway or an agent has.
import KiteSupport
public import NIOCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// Adapts a NIO channel. The last handler of the pipeline; TLS may be below it.
///
/// Nothing is kept while the connection is at rest: no buffers, no timers, no closures.
public final class SocketTransport: ByteTransport, LoopFlushable {
    /// How long a closed socket goes on discarding input, so that the peer can read the last bytes we sent: a socket that is closed
    /// with unread input sends a reset, which destroys them (RFC 9112 section 9.6).
    static let lingerTime: TimeAmount = .seconds(2)
    /// How long a peer may take nothing of what was queued when ``close()`` was called. Looked at once in this time, so that a peer that
    /// stops is cut off after at most twice as long.
    var closeTime: TimeAmount = .seconds(30)
    /// Up to how many bytes pieces are put together; copying more costs more than it saves.
    private static let gatheredBytes = 4 * 1024

    /// The channel underneath.
    public let channel: any Channel
    public let eventLoop: any EventLoop
    private let flusher: LoopFlusher
    private let highWater: Int
    var flags: Flags = [.reading, .toldWritable]
    private var unflushedBytes = 0
    /// Small pieces written during this turn, put together: the head of a response and its short body leave as one buffer, in one
    /// TLS record and without a gathering write.
    private var gathered = ByteBuffer()
    /// What arrived while nobody wanted it: one read of the socket, and when the peer ends its output all that was under way, at most
    /// what the system's receive buffer holds.
    var held: [ByteBuffer] = []
    var failure: TransportError?
    /// Armed only between ``close()`` and the end.
    var deadline: WheelTimer?
    /// What the channel had queued when the deadline was armed.
    private var queuedAtDeadline = 0
    /// Where the bottom of a TLS connection's pipeline is found.
    private static let bottom = "kite.bottom"

    public var delegate: (any ByteTransportDelegate)? {
        didSet { if delegate != nil { resume() } }
    }

    /// What ALPN chose, for a TLS connection.
    public internal(set) var negotiatedProtocol: String?

    /// Whether TLS is underneath.
    public var isSecure: Bool { flags.contains(.secure) }
    /// What is known about the client besides; nil where the host that it asked for has no rule for client certificates.
    package internal(set) var security: ConnectionSecurity?
    /// Who is at the other end; behind a load balancer that speaks the PROXY protocol whoever is at the other end of that one.
    public let remoteAddress: SocketAddress?
    /// The address of this side.
    public var localAddress: SocketAddress? { channel.localAddress }

    public var isInputTruncated: Bool { flags.contains(.truncated) }

    public var isWritable: Bool {
        unflushedBytes <= highWater && channel.isWritable && flags.isDisjoint(with: [.outputEnding, .ended])
    }

    private init(channel: any Channel, marks: WaterMarks, isSecure: Bool, peerAddress: SocketAddress?) {
        self.channel = channel
        remoteAddress = peerAddress ?? channel.remoteAddress
        eventLoop = channel.eventLoop
        flusher = LoopFlusher.on(channel.eventLoop)
        highWater = marks.high
        if isSecure { flags.insert([.secure, .readsOnce]) }
    }

    /// Makes an active channel a transport. Must be called on the channel's loop, before input can arrive.
    /// - Parameters:
    ///   - isSecure: whether a TLS handler is in the pipeline already, put there before.
    ///   - peerAddress: nil: the channel's.
    public static func install(
        on channel: any Channel, marks: WaterMarks = WaterMarks(), isSecure: Bool = false,
        peerAddress: SocketAddress? = nil
    ) throws -> SocketTransport {
        let transport = SocketTransport(channel: channel, marks: marks, isSecure: isSecure, peerAddress: peerAddress)
        if let options = channel.syncOptions {
            try options.setOption(.allowRemoteHalfClosure, value: true)
            try options.setOption(.writeBufferWaterMark, value: .init(low: marks.low, high: marks.high))
            // Of a plain socket a second time at first: see ``ReceiveAllocator``.
            try options.setOption(.maxMessagesPerRead, value: UInt(isSecure ? 1 : 2))
            if !isSecure { try options.setOption(.recvAllocator, value: ReceiveAllocator()) }
        }
        if isSecure {
            try channel.pipeline.syncOperations.addHandler(BottomHandler(transport), name: bottom, position: .first)
        }
        try channel.pipeline.syncOperations.addHandler(SocketTransportHandler(transport))
        return transport
    }

    /// Takes the transport out of its channel, before anything was sent or received through it: the channel speaks something else from
    /// now on.
    package func leaveChannel() -> any Channel {
        delegate = nil
        flags.insert([.ended, .toldClosed])
        let pipeline = channel.pipeline.syncOperations
        if let context = try? pipeline.context(handlerType: SocketTransportHandler.self) {
            pipeline.removeHandler(context: context, promise: nil)
        }
        if let context = try? pipeline.context(name: Self.bottom) {
            pipeline.removeHandler(context: context, promise: nil)
        }
        try? channel.syncOptions?.setOption(.allowRemoteHalfClosure, value: false)
        return channel
    }

    // MARK: What the consumer calls

    public func write(_ bytes: ByteBuffer) {
        eventLoop.assertInEventLoop()
        let count = bytes.readableBytes
        guard count > 0, flags.isDisjoint(with: [.outputEnding, .ended]) else { return }
        unflushedBytes += count
        flags.insert(.unflushed)
        if count > Self.gatheredBytes - gathered.readableBytes { passGathered() }
        if count > Self.gatheredBytes {
            channel.pipeline.syncOperations.write(NIOAny(bytes), promise: nil)
        } else if gathered.readableBytes == 0 {
            gathered = bytes
        } else {
            gathered.writeImmutableBuffer(bytes)
        }
        if flags.contains(.toldWritable) && !isWritable {
            // The writer may look at isWritable now and stop, so it is owed a word when there is room again.
            flags.remove(.toldWritable)
            flags.insert(.owesWritability)
        }
        enlist()
    }

    private func passGathered() {
        guard gathered.readableBytes > 0 else { return }
        channel.pipeline.syncOperations.write(NIOAny(gathered), promise: nil)
        gathered = ByteBuffer()
    }

    public func closeOutput() {
        guard flags.isDisjoint(with: [.outputEnding, .ended]) else { return }
        flags.insert(.outputEnding)
        enlist()
    }

    public func close() {
        guard flags.isDisjoint(with: [.closing, .ended]) else { return }
        flags.insert([.closing, .outputEnding])
        held = []
        if flags.contains(.outputClosed) {
            end(nil)
            leave()
        } else {
            enlist()
        }
    }

    public func abort(_ reason: TransportError) {
        guard !flags.contains(.ended) else { return }
        held = []
        end(reason)
        // SO_LINGER with no time makes close() send a reset. UNIX sockets have no such thing; there the peer reads end of stream.
        if isInternet {
            (channel as? any SocketOptionProvider)?.setSoLinger(linger(l_onoff: 1, l_linger: 0)).whenComplete { _ in }
        }
        if let context = try? channel.pipeline.syncOperations.context(name: Self.bottom) {
            // Underneath TLS: a farewell of TLS would make what is broken off look complete.
            context.close(promise: nil)
        } else {
            channel.close(promise: nil)
        }
    }

    public func setReading(_ wanted: Bool) {
        guard wanted != flags.contains(.reading) else { return }
        if wanted {
            flags.insert(.reading)
            resume()
        } else {
            // The channel is paused when the next bytes arrive, not now: most pauses end before that, and then cost nothing.
            flags.remove(.reading)
        }
    }

    // MARK: End of turn

    func enlist() {
        guard !flags.contains(.listed) else { return }
        flags.insert(.listed)
        flusher.add(self)
    }

    public func turnEnded() {
        flags.remove(.listed)
        if flags.contains(.unflushed) {
            flags.remove(.unflushed)
            unflushedBytes = 0
            passGathered()
            channel.pipeline.syncOperations.flush()
        }
        if flags.contains(.outputEnding) && flags.isDisjoint(with: [.outputEndSent, .ended]) { sendEndOfOutput() }
        if flags.contains(.closing) && flags.isDisjoint(with: [.outputClosed, .ended]) && deadline == nil {
            awaitProgress()
        }
        tellWritability()
        deliver()
    }

    /// Breaks off when the peer takes nothing for a while; how long it takes for all is its business.
    private func awaitProgress() {
        queuedAtDeadline = queuedBytes
        arm(closeTime) { transport in
            if transport.queuedBytes < transport.queuedAtDeadline { return transport.awaitProgress() }
            transport.abort(TransportError(.idleTimeout, "The peer did not take the rest of the output"))
        }
    }

    /// What has been written and has not left for the peer. Under TLS without what waits for its encryption.
    public var queuedBytes: Int {
        gathered.readableBytes + ((try? channel.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0)
    }

    private func sendEndOfOutput() {
        flags.insert(.outputEndSent)
        let promise = eventLoop.makePromise(of: Void.self)
        promise.futureResult.assumeIsolated().whenComplete { result in
            switch result {
            case .success: self.outputWasClosed()
            case .failure: self.broke(TransportError(.reset, "The connection broke before all output had been sent"))
            }
        }
        guard flags.contains(.inputClosed) else {
            return channel.pipeline.syncOperations.close(mode: .output, promise: promise)
        }
        // Closing the second direction of a channel drops what it has queued, so wait until that has left.
        guard let context = try? channel.pipeline.syncOperations.context(name: Self.bottom) else {
            return channel.pipeline.syncOperations.writeAndFlush(NIOAny(ByteBuffer()), promise: promise)
        }
        let drained = eventLoop.makePromise(of: Void.self)
        drained.futureResult.assumeIsolated().whenComplete { _ in
            self.channel.pipeline.syncOperations.close(mode: .output, promise: promise)
        }
        context.writeAndFlush(NIOAny(ByteBuffer()), promise: drained)
    }

    private func outputWasClosed() {
        flags.insert(.outputClosed)
        guard !flags.contains(.ended) else { return }
        if flags.contains(.closing) {
            end(nil)
            leave()
        } else if flags.contains(.inputClosed) {
            channel.close(promise: nil)
        }
    }

    /// After an orderly close: waits for the peer's end of stream, discarding what comes before it.
    private func leave() {
        guard channel.isActive, !flags.contains(.secure), !flags.contains(.inputClosed) else {
            return channel.close(promise: nil)
        }
        setPaused(false)
        arm(Self.lingerTime) { $0.channel.close(promise: nil) }
    }

    private func arm(_ time: TimeAmount, _ action: @escaping (SocketTransport) -> Void) {
        deadline?.cancel()
        let timer = WheelTimer(wheel: flusher.wheel) { [weak self] in self.map(action) }
        timer.start(after: time)
        deadline = timer
    }

    private func tellWritability() {
        let isWritable = isWritable
        guard flags.contains(.owesWritability) || isWritable != flags.contains(.toldWritable) else { return }
        flags.remove(.owesWritability)
        if isWritable { flags.insert(.toldWritable) } else { flags.remove(.toldWritable) }
        guard flags.isDisjoint(with: [.outputEnding, .ended]) else { return }
        delegate?.transportWritabilityChanged(isWritable)
    }

    func end(_ error: TransportError?) {
        guard !flags.contains(.ended) else { return }
        flags.insert(.ended)
        gathered = ByteBuffer()
        failure = error
        enlist()
    }

    private var isInternet: Bool {
        switch channel.localAddress ?? channel.remoteAddress {
        case .v4, .v6: true
        case .unixDomainSocket, nil: false
        }
    }
}
