/// What a ``SocketTransport`` is told by its channel, and what of it the consumer hears.
import KiteSupport
import NIOCore

extension SocketTransport {
    // MARK: To the consumer

    private var isDeliverable: Bool { flags.contains(.reading) && delegate != nil }

    func resume() {
        if flags.contains(.paused) || !held.isEmpty || flags.contains(.inputClosed) || flags.contains(.ended) {
            enlist()
        }
    }

    /// Hands over what was held back, then what happened after it. Once the connection broke nobody is slowed down any more by
    /// holding back what had arrived before, so it is delivered even to a consumer that paused: it must hear of the end.
    func deliver() {
        while let delegate, !held.isEmpty, flags.contains(.reading) || failure != nil {
            delegate.transportReceived(held.removeFirst())
        }
        if held.isEmpty && isDeliverable && flags.contains(.paused) { setPaused(false) }
        tellEnd()
    }

    private func tellEnd() {
        guard held.isEmpty, !flags.contains(.toldClosed), delegate != nil else { return }
        if flags.contains(.inputClosed) && !flags.contains(.toldInputClosed) && !flags.contains(.closing)
            && failure == nil
        {
            flags.insert(.toldInputClosed)
            delegate?.transportInputClosed()
        }
        if flags.contains(.ended) && !flags.contains(.toldClosed) {
            flags.insert(.toldClosed)
            let last = delegate
            delegate = nil
            last?.transportClosed(failure)
        }
    }

    func setPaused(_ paused: Bool) {
        guard paused != flags.contains(.paused) else { return }
        if paused { flags.insert(.paused) } else { flags.remove(.paused) }
        try? channel.syncOptions?.setOption(.autoRead, value: !paused)
    }

    // MARK: What the channel reports

    func received(_ bytes: ByteBuffer) {
        guard flags.isDisjoint(with: [.closing, .ended]) else { return }
        guard flags.contains(.readsOnce) else { return beginReading(bytes) }
        take(bytes)
    }

    private func take(_ bytes: ByteBuffer) {
        if isDeliverable && held.isEmpty {
            delegate?.transportReceived(bytes)
        } else {
            held.append(bytes)
            setPaused(true)
        }
    }

    /// The first read fills a tiny buffer, since the channel keeps that for good; what the second one brings is put to it, and at the
    /// end of the turn it goes without. From then on the channel reads once at a time: it would keep as many buffers as it reads.
    private func beginReading(_ bytes: ByteBuffer) {
        guard flags.contains(.begun) else {
            flags.insert(.begun)
            guard bytes.writableBytes == 0, isDeliverable, held.isEmpty else { return take(bytes) }
            held.append(bytes)
            return enlist()
        }
        flags.insert(.readsOnce)
        try? channel.syncOptions?.setOption(.maxMessagesPerRead, value: 1)
        guard !flags.contains(.paused), held.count == 1 else { return take(bytes) }
        var whole = held.removeLast()
        whole.writeImmutableBuffer(bytes)
        take(whole)
    }

    func inputEnded() {
        guard !flags.contains(.inputClosed) else { return }
        flags.insert(.inputClosed)
        if flags.contains(.ended) { return channel.close(promise: nil) }
        enlist()
        if flags.contains(.outputClosed) { channel.close(promise: nil) }
    }

    func writabilityChanged() {
        if channel.isWritable { tellLater() } else { flags.insert(.owesWritability) }
    }

    private func tellLater() {
        flags.insert(.owesWritability)
        enlist()
    }

    /// The connection under TLS ends in an orderly way while `report` runs, so what TLS complains of then is a farewell that it missed
    /// (RFC 8446 section 6.1). What came before is genuine, and whether it is complete is decided by those who know where it should end
    /// (RFC 9112 section 9.8).
    func bottomEnded(_ report: () -> Void) {
        flags.insert(.bottomEnding)
        report()
        flags.remove(.bottomEnding)
    }

    func bottomBecameInactive(_ report: () -> Void) {
        // The channel closes without reporting the peer's end of stream once ours has been sent.
        if flags.contains(.outputClosed) { bottomEnded(report) } else { report() }
    }

    func failed(_ error: any Error) {
        if flags.contains(.bottomEnding) { return _ = flags.insert(.truncated) }
        broke(error)
    }

    func broke(_ error: any Error) {
        let isOver = flags.isSuperset(of: [.inputClosed, .outputClosed])
        end(isOver ? nil : error as? TransportError ?? TransportError(.reset, "The connection broke: \(error)"))
        channel.close(promise: nil)
    }

    func becameInactive() {
        deadline?.cancel()
        deadline = nil
        // Once our side has been closed, the channel closes for good at the peer's end of stream without reporting that. Without our end
        // having been sent the channel closed because it broke, whatever the peer had ended before.
        let isOrderly = flags.contains(.outputEndSent)
        if isOrderly { flags.insert(.inputClosed) }
        end(isOrderly ? nil : TransportError(.reset, "The connection was closed by the peer"))
    }
}
