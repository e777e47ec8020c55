/// The SockJS server: every URL below a prefix, over any exchange.
public import KiteHTTP
import KiteSupport
import KiteWebSocket
import NIOCore
import Synchronization

/// Serves SockJS sessions and hands each one, as a ``MessageChannel``, to its user. Safe to share between event loops: a session lives on the
/// loop of the request that opened it, and requests of other loops reach it there.
public final class SockJSService: Sendable {
    /// Where the service lies, without a slash at the end.
    public let prefix: String
    let options: SockJSOptions
    private let onSession: @Sendable (any MessageChannel) -> Void
    let registry: SockJSSessionRegistry
    let unfinished: UnfinishedMessages
    private let receiverIDs = Atomic<UInt64>(1)

    /// - Parameters:
    ///   - prefix: the path in front of what ``serve(_:path:)`` is given, for the record.
    ///   - onSession: called for each new session on its event loop; must not block. The channel ends when the client goes; who takes it
    ///     should close it when done.
    public init(
        prefix: String, options: SockJSOptions = SockJSOptions(),
        onSession: @escaping @Sendable (any MessageChannel) -> Void
    ) {
        self.prefix = prefix
        self.options = options
        self.onSession = onSession
        registry = SockJSSessionRegistry(
            maxSessions: options.maxSessions, maxSessionsPerAddress: options.sessionsPerAddress)
        unfinished = UnfinishedMessages(capacity: options.unfinishedBytes)
    }

    /// How many sessions live, on all loops.
    public var sessionCount: Int { registry.count }

    /// Answers an exchange. Called on its event loop, before the call that delivered it returns.
    /// - Parameter path: the request's path below the prefix: empty, `/info`, `/123/abc/xhr`… A query in it is not looked at.
    public func serve(_ exchange: any Exchange, path: Substring) {
        let path = path.prefix { $0 != "?" }
        if path.isEmpty || path == "/" { return serveRoot(exchange) }
        var parts = path.split(separator: "/", omittingEmptySubsequences: false)
        // The path begins with a slash and may end with one.
        if let first = parts.first, first.isEmpty { parts.removeFirst() }
        if parts.count > 1, let last = parts.last, last.isEmpty { parts.removeLast() }
        switch parts.count {
        case 1: servePage(exchange, parts[0])
        case 3 where Self.isSessionPart(parts[0]) && Self.isSessionPart(parts[1]):
            serveTransport(exchange, session: String(parts[1]), transport: parts[2])
        default: refuse(exchange, SockJSResponse.notFound)
        }
    }

    private static func isSessionPart(_ part: Substring) -> Bool {
        !part.isEmpty && part.utf8.count <= 256 && !part.utf8.contains(UInt8(ascii: "."))
    }

    private func serveRoot(_ exchange: any Exchange) {
        let isWebSocket = exchange.request.wantsUpgrade && options.allowsWebSocket
        if isWebSocket && exchange.request.fields.contains(.upgrade, token: "websocket") {
            serveWebSocket(exchange, isRaw: true)
        } else {
            serve(exchange, ["GET": serveGreeting, "HEAD": serveGreeting])
        }
    }

    private func servePage(_ exchange: any Exchange, _ name: Substring) {
        switch name {
        case "info":
            serve(
                exchange,
                [
                    "OPTIONS": { [options] in
                        $0.respond(
                            SockJSResponse.options(
                                "OPTIONS, GET", for: $0.request, setsCookie: options.setsCookie))
                        $0.finish(trailers: nil)
                    }, "GET": serveInfo, "HEAD": serveInfo,
                ])
        case "websocket" where options.allowsWebSocket:
            serve(exchange, ["GET": { self.serveWebSocket($0, isRaw: true) }])
        case _ where name.hasPrefix("iframe") && name.hasSuffix(".html") && Self.isIframeName(name):
            serve(exchange, ["GET": serveIframe, "HEAD": serveIframe])
        default: refuse(exchange, SockJSResponse.notFound)
        }
    }

    private static func isIframeName(_ name: Substring) -> Bool {
        guard name.utf8.count >= 11 else { return false }
        return name.utf8.dropFirst(6).dropLast(5).allSatisfy { byte in
            switch byte {
            case 0x30...0x39, 0x61...0x7A, UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"): true
            default: false
            }
        }
    }

    private func serveTransport(_ exchange: any Exchange, session id: String, transport: Substring) {
        let request = exchange.request
        let options = options
        let preflight: (any Exchange) -> Void = {
            $0.respond(SockJSResponse.options("OPTIONS, POST", for: $0.request, setsCookie: options.setsCookie))
            $0.finish(trailers: nil)
        }
        switch transport {
        case "websocket" where options.allowsWebSocket:
            serve(exchange, ["GET": { self.serveWebSocket($0, isRaw: false) }])
        case "xhr":
            serve(
                exchange,
                [
                    "OPTIONS": preflight,
                    "POST": {
                        self.receive(
                            $0, id, "xhr", .xhrPolling(for: request, setsCookie: options.setsCookie))
                    },
                ])
        case "xhr_streaming":
            serve(
                exchange,
                [
                    "OPTIONS": preflight,
                    "POST": { self.receive($0, id, "xhr_streaming", .xhrStreaming(for: request, options: options)) },
                ])
        case "eventsource":
            serve(
                exchange, ["GET": { self.receive($0, id, "eventsource", .eventSource(for: request, options: options)) }]
            )
        case "htmlfile":
            serve(
                exchange,
                [
                    "GET": {
                        self.receiveCallback($0, id, "htmlfile") { .htmlFile($0, for: request, options: options) }
                    }
                ])
        case "jsonp":
            serve(
                exchange,
                ["GET": { self.receiveCallback($0, id, "jsonp") { .jsonp($0, for: request, options: options) } }])
        case "xhr_send":
            serve(exchange, ["OPTIONS": preflight, "POST": { self.send($0, id, .xhr) }])
        case "jsonp_send": serve(exchange, ["POST": { self.send($0, id, .jsonp) }])
        default: refuse(exchange, SockJSResponse.notFound)
        }
    }

    /// Calls what serves the request's method, or says which methods there are.
    private func serve(_ exchange: any Exchange, _ methods: KeyValuePairs<String, (any Exchange) -> Void>) {
        let name = exchange.request.method.name
        for (method, answer) in methods
        where method == name {
            exchange.handler = IgnoringExchangeHandler()
            return answer(exchange)
        }
        refuse(exchange) { SockJSResponse.methodNotAllowed($0, allowed: methods.map(\.key).joined(separator: ", ")) }
    }

    private func refuse(_ exchange: any Exchange, _ answer: (any Exchange) -> Void) {
        exchange.handler = IgnoringExchangeHandler()
        answer(exchange)
    }

    // MARK: Sessions

    private func serveWebSocket(_ exchange: any Exchange, isRaw: Bool) {
        guard let place = registry.reserve(for: nil) else { return refuseSession(exchange) }
        let wheel = LoopFlusher.on(exchange.eventLoop).wheel
        let limits = WebSocketLimits(
            messageBytes: isRaw ? options.maxMessageBytes : options.maxFrameBytes,
            pingInterval: options.heartbeat + .seconds(5))
        let peer = Self.peer(exchange, transport: isRaw ? "rawwebsocket" : "websocket")
        let compression = options.compressionThreshold.map { threshold in
            let standard = WebSocketCompression().messageBytes
            return WebSocketCompression(messageBytes: max(threshold, 0)...max(threshold, standard.upperBound))
        }
        guard
            let connection = WebSocketHandshake.accept(
                exchange, limits: limits, acceptsDrafts: true, compression: compression, unfinished: unfinished,
                wheel: wheel)
        else {
            return registry.release(place, id: nil)
        }
        let session = SockJSSession(
            peer: peer, endsWithReceiver: true, options: options, eventLoop: exchange.eventLoop, wheel: wheel,
            onOpen: onSession, onEnd: { [registry] in registry.release(place, id: nil) })
        SockJSWebSocketReceiver(connection, isRaw: isRaw, options: options).attach(to: session)
    }

    private func receiveCallback(
        _ exchange: any Exchange, _ id: String, _ transport: String, _ format: (SockJSCallback) -> SockJSResponseFormat
    ) {
        do throws(SockJSCallback.Failure) {
            receive(exchange, id, transport, format(try SockJSCallback(query: exchange.request.query)))
        } catch {
            exchange.respond(
                SockJSResponse.head(
                    500, contentType: SockJSResponse.plainText, caching: .never, for: exchange.request),
                body: ByteBuffer(string: error.message))
        }
    }

    private func receive(
        _ exchange: any Exchange, _ id: String, _ transport: String, _ format: SockJSResponseFormat
    ) {
        guard let session = session(id, for: exchange, transport: transport) else { return refuseSession(exchange) }
        let receiverID = receiverIDs.wrappingAdd(1, ordering: .relaxed).newValue
        SockJSResponseReceiver(exchange, format: format, id: receiverID).attach(to: session)
    }

    private func send(_ exchange: any Exchange, _ id: String, _ kind: SockJSSendHandler.Kind) {
        // Before the body comes: it is held only for a session that is there.
        guard registry.find(id) != nil else { return SockJSResponse.notFound(exchange) }
        _ = SockJSSendHandler(exchange, kind: kind, options: options, unfinished: unfinished) { [registry] in
            registry.find(id)
        }
    }

    private func refuseSession(_ exchange: any Exchange) {
        var head = SockJSResponse.head(
            503, contentType: SockJSResponse.plainText, crossOrigin: .echo, for: exchange.request)
        head.fields.append("Retry-After", "5")
        exchange.respond(head, body: ByteBuffer(string: "There are too many sessions; try again later.\n"))
    }

    /// The session with an id, opened if there is none; nil when there are too many.
    private func session(
        _ id: String, for exchange: any Exchange, transport: String
    ) -> SockJSSessionRegistry.Reference? {
        if let known = registry.find(id) { return known }
        guard let place = registry.reserve(for: exchange.peer.visitorKey(of: exchange.request)) else { return nil }
        let session = SockJSSession(
            peer: Self.peer(exchange, transport: transport), endsWithReceiver: false, options: options,
            eventLoop: exchange.eventLoop, wheel: LoopFlusher.on(exchange.eventLoop).wheel,
            isSpaceShort: { [registry] in registry.isNearlyFull }, onOpen: onSession,
            onEnd: { [registry] in registry.release(place, id: id) })
        return enter(session, id: id, place: place)
    }

    /// Makes a session known, unless another loop was faster with one of the same id. Called on the session's loop.
    /// - Returns: the session with that id.
    func enter(
        _ session: SockJSSession, id: String, place: SockJSSessionRegistry.Place
    ) -> SockJSSessionRegistry.Reference {
        let (reference, isNew) = registry.enter(
            LoopReference(session, on: session.eventLoop), id: id, place: place)
        if !isNew {
            registry.release(place, id: nil)
            // The session and its channel hold each other until then.
            session.channel.finish(nil)
        }
        return reference
    }

    private static func peer(_ exchange: any Exchange, transport: String) -> MessagePeer {
        MessagePeer(
            transport: transport, address: exchange.peer.address.map { $0.description } ?? "",
            target: String(buffer: exchange.request.target),
            authorization: exchange.request.fields.text(.authorization),
            origin: exchange.request.fields.text(.origin))
    }
}

/// Stands in where an exchange is answered without looking at its body.
private final class IgnoringExchangeHandler: ExchangeHandler {
    func exchangeReceived(_ exchange: any Exchange, body: ByteBuffer) {}
    func exchangeRequestEnded(_ exchange: any Exchange, trailers: HeaderBlock?) {}
    func exchangeWritabilityChanged(_ exchange: any Exchange, isWritable: Bool) {}
    func exchangeEnded(_ exchange: any Exchange, error: TransportError?) {}
}
