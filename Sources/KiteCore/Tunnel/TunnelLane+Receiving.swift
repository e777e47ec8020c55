/// How a lane reads: frames to streams, and the connection's end.
package import KiteHTTP
import KiteSupport
package import NIOCore

extension TunnelLane: ByteTransportDelegate {
    package func transportReceived(_ bytes: ByteBuffer) {
        guard phase == .connected else { return }
        counters.bytesReceived += UInt64(bytes.readableBytes)
        machine.receive(bytes)
        do {
            while phase == .connected, let frame = try machine.next(now: eventLoop.now) { try handle(frame) }
        } catch {
            return violated(error)
        }
        if phase == .connected, firstReady != nil || machine.wantsToSend || sentGoAway { awaitTurnEnd() }
    }

    package func transportInputClosed() {
        guard let transport else { return }
        transport.delegate = nil
        transport.close()
        connectionLost(TransportError(.reset, "the peer closed the connection"))
    }

    package func transportClosed(_ error: TransportError?) {
        connectionLost(error ?? TransportError(.reset, "the connection was closed"))
    }

    package func transportWritabilityChanged(_ isWritable: Bool) {
        if isWritable, phase == .connected { flush() }
    }

    // MARK: frames

    private func handle(_ frame: TunnelFrame) throws(TransportError) {
        switch frame {
        case .data(let id, let bytes, let isEnd):
            guard let stream = try find(id) else { return }
            guard stream.credit.receiveData(bytes.readableBytes) else {
                throw TransportError(.protocolViolation, "tunnel: DATA beyond the credit of stream \(id)")
            }
            switch stream.machine.receiveData(isEnd: isEnd) {
            case .deliver: stream.receive(bytes, isEnd: isEnd)
            case .ignore: break
            case .violation: throw TransportError(.protocolViolation, "tunnel: DATA after END of stream \(id)")
            }
            if stream.machine.isClosed { release(stream) }
        case .credit(let id, let increment):
            guard let stream = try find(id) else { return }
            guard stream.credit.receiveCredit(increment) else {
                throw TransportError(.protocolViolation, "tunnel: too much credit for stream \(id)")
            }
            markReady(stream)
        case .open(let id, let opening): try accept(id, opening)
        case .reset(let id, let code, let reason):
            guard let stream = try find(id) else { return }
            switch stream.machine.receiveReset() {
            case .failAndAnswer:
                sendReset(id, TransportError(.cancelled, ""))
                let text = reason.readableBytes == 0 ? "reset by the peer" : String(buffer: reason)
                let mayBeServed = code == .goingAway && text == Self.closing
                stream.fail(TransportError(mayBeServed ? .laneLost : code, text))
            case .ignore: break
            }
            release(stream)
        case .goAway(let message):
            receivedGoAway = true
            if message.code == .protocolViolation {
                throw TransportError(.protocolViolation, "the peer found a violation: \(message.reason)")
            }
            delegate?.laneReceived(self, goAway: message)
        case .note(let note): delegate?.laneReceived(self, note: note)
        case .hello, .welcome, .ping, .pong, .ack, .unknown: break
        }
    }

    private func find(_ id: TunnelStreamID) throws(TransportError) -> TunnelStream? {
        switch id.isOpenedByAgent == (role == .agent) ? ours.find(id) : theirs.find(id) {
        case .stream(let stream): return stream
        case .ended: return nil
        case .unknown: throw TransportError(.protocolViolation, "tunnel: no stream \(id)")
        }
    }

    private func accept(_ id: TunnelStreamID, _ opening: StreamOpening) throws(TransportError) {
        guard id.isOpenedByAgent == (role == .gateway), theirs.mayOpen(id, limit: configuration.maximumStreams) else {
            throw TransportError(.protocolViolation, "tunnel: stream \(id) can't be opened")
        }
        let stream = TunnelStream(lane: self, id: id, remoteAddress: opening.clientAddress)
        _ = theirs.accept(stream, limit: configuration.maximumStreams)
        counters.openedStreams += 1
        if sentGoAway {
            stream.abort(TransportError(.goingAway, "the lane takes no more streams"))
        } else {
            delegate?.laneAccepted(self, stream: stream, opening: opening)
        }
    }

    /// The peer has broken the rules: the lane ends.
    func violated(_ error: TransportError) {
        guard phase == .connected else { return }
        var last = ByteBuffer()
        last.writeTunnelFrame(.goAway(TunnelGoAway(code: .protocolViolation, reason: error.message)))
        transport?.write(last)
        finish(error)
    }

    // MARK: credit and memory

    /// A stream's consumer has taken half of its window.
    func returnCredit(_ stream: TunnelStream) {
        guard phase != .closed else { return }
        let spare = configuration.receiveBudget / 2 - windowGrowth
        let (increment, growth) = stream.credit.grant(
            now: eventLoop.now, roundTripTime: machine.shortestRoundTrip ?? .milliseconds(10),
            limit: configuration.maximumStreamWindow, spare: max(spare, 0))
        windowGrowth += growth
        if increment > 0 { sendControl(.credit(stream.id, increment)) }
    }

    /// A stream holds bytes that nobody takes.
    func buffer(_ bytes: Int, of stream: TunnelStream) {
        bufferedBytes += bytes
        let shared = configuration.sharedBudget
        shared?.add(bytes)
        while bufferedBytes > configuration.receiveBudget
            || bufferedBytes > Self.sparedBytes && shared?.isExceeded == true
        {
            ended.removeAll { $0.bufferedBytes == 0 }
            let holders = ours.all + theirs.all + ended
            guard let largest = holders.max(by: { $0.bufferedBytes < $1.bufferedBytes }), largest.bufferedBytes > 0
            else { return }
            largest.overflow(TransportError(.limitExceeded, "too much waits to be read on the lane"))
        }
    }

    /// They have been taken, or dropped.
    func unbuffer(_ bytes: Int) {
        bufferedBytes -= bytes
        configuration.sharedBudget?.add(-bytes)
    }

    /// A lane that holds no more than this does not pay for what the others hold.
    private static let sparedBytes = 1 << 20
}
