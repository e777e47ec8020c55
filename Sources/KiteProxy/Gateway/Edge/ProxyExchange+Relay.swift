/// Steps 4 and 5 of a proxied request: the request to the upstream, and the response back.
import KiteHTTP
import NIOCore

extension ProxyExchange {
    // MARK: 4. The request

    func send(on connection: HTTPClientConnection) {
        guard let exchange, let origin, let route, let upstream else { return }
        stage = .exchanging
        self.connection = connection
        let head = exchange.request
        var buffer = ByteBuffer()
        var rewrite = route.rewrite(for: upstream, droppedPathBytes: droppedPathBytes, byHost: byHost)
        if worker.rules != nil, let host = (exchange as? RuledExchange)?.rules.hostField { rewrite.host = host }
        MessageWriter.writeForwardedRequest(
            head, rewrite: rewrite, origin: origin,
            isUpgrade: head.wantsUpgrade, into: &buffer)
        connection.send(
            head: buffer, method: head.method, bodyLength: head.bodyLength, wantsUpgrade: head.wantsUpgrade,
            timeout: worker.settings.options.timeouts.response, handler: self)
        guard stage == .exchanging, self.connection === connection, head.bodyLength != .none else { return }
        for bytes in heldBody { forward(bytes, on: connection) }
        heldBody = []
        if requestEnded {
            finishRequest(on: connection, trailers: heldTrailers)
        } else if connection.isWritable {
            exchange.setReading(true)
        }
    }

    func exchangeReceived(_ exchange: any Exchange, body: ByteBuffer) {
        worker.metrics.bytesIn &+= UInt64(body.readableBytes)
        guard let connection else {
            if stage != .exchanging { heldBody.append(body) }
            return
        }
        forward(body, on: connection)
        if !connection.isWritable { exchange.setReading(false) }
    }

    func forward(_ body: ByteBuffer, on connection: HTTPClientConnection) {
        bodyConsumed = true
        connection.write(body)
    }

    func finishRequest(on connection: HTTPClientConnection, trailers: HeaderBlock?) {
        bodyConsumed = true
        connection.finish(trailers: trailers)
    }

    func exchangeRequestEnded(_ exchange: any Exchange, trailers: HeaderBlock?) {
        requestEnded = true
        guard exchange.hasRequestBody else { return }
        guard let connection else { return heldTrailers = trailers }
        finishRequest(on: connection, trailers: trailers)
    }

    func clientWritabilityChanged(_ isWritable: Bool) {
        if stage == .exchanging, !requestEnded { exchange?.setReading(isWritable) }
    }

    // MARK: 5. The response

    func clientInformational(_ head: ResponseHead) {
        // The edge answers 100-continue itself.
        if head.status != 100 { exchange?.sendInformational(head) }
    }

    func clientResponded(_ head: ResponseHead) {
        upstream?.succeeded()
        hasResponded = true
        status = head.status
        exchange?.respond(head)
    }

    func clientReceived(_ body: ByteBuffer) {
        worker.metrics.bytesOut &+= UInt64(body.readableBytes)
        guard let exchange else { return }
        exchange.write(body)
        if !exchange.isWritable { connection?.setReading(false) }
    }

    func exchangeWritabilityChanged(_ exchange: any Exchange, isWritable: Bool) {
        if stage == .exchanging { connection?.setReading(isWritable) }
    }

    func clientEnded(trailers: HeaderBlock?) {
        connection = nil
        record()
        exchange?.finish(trailers: trailers)
    }

    func clientUpgraded(_ head: ResponseHead, transport: any ByteTransport) {
        connection = nil
        upstream?.succeeded()
        guard let exchange else { return transport.abort(TransportError(.cancelled, "The visitor went away")) }
        status = 101
        upstream?.note(exchange.request, status: status, duration: worker.eventLoop.now - began)
        worker.metrics.responses[1] &+= 1
        logAccess(exchange)
        let visitor = exchange.upgrade(head)
        // It has this to do until the relay ends.
        let upstream = upstream
        if visitor != nil {
            upstream?.forget(self)
            self.upstream = nil
        }
        finish()
        guard let visitor else { return transport.abort(TransportError(.cancelled, "The visitor went away")) }
        let worker = worker
        let box = RelayEnd()
        let relay = TransportRelay(visitor, transport) { outcome in
            upstream?.outstanding -= 1
            if let relay = box.relay { worker.untrack(relay, outcome) }
            box.relay = nil
        }
        box.relay = relay
        worker.track(relay)
    }

    func clientFailed(_ failure: HTTPClientFailure) {
        connection = nil
        failed(failure)
    }
}
