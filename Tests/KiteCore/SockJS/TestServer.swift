// A SockJS service behind real HTTP connections over memory, with several event loops; and a small HTTP client to ask it by hand.
import KiteDialing
import KiteHTTP
import KiteSupport
import NIOCore
import NIOPosix
import Synchronization

@testable import KiteSockJS

/// Serves a service at `/kite`; every dialled connection is accepted by the next loop in turn.
final class TestServer: SockJSConnector, Sendable {
    let group: MultiThreadedEventLoopGroup
    let clientLoop: any EventLoop
    let service: SockJSService
    /// Who the next connections come from.
    let peer = Mutex(ExchangePeer())
    /// How the clients' connections ended.
    let clientEnds: AsyncStream<TransportError.Code?>
    private let clientEnd: AsyncStream<TransportError.Code?>.Continuation
    private let resources = Mutex<[ObjectIdentifier: NIOLoopBound<HTTPLoopResources>]>([:])

    final class Acceptor: ExchangeAcceptor {
        let service: SockJSService
        init(_ service: SockJSService) { self.service = service }
        func accept(_ exchange: any Exchange) {
            let path = exchange.request.path
            guard path.hasPrefix("/kite") else { return exchange.abort(TransportError(.refused, "no such path")) }
            service.serve(exchange, path: path.dropFirst(5))
        }
    }

    init(loops: Int = 2, options: SockJSOptions, onSession: @escaping @Sendable (any MessageChannel) -> Void) {
        group = MultiThreadedEventLoopGroup(numberOfThreads: loops + 1)
        clientLoop = group.next()
        (clientEnds, clientEnd) = AsyncStream.makeStream()
        service = SockJSService(prefix: "/kite", options: options, onSession: onSession)
    }

    func connect(
        to endpoint: Endpoint, on eventLoop: any EventLoop,
        completion: @escaping @Sendable (Result<NIOLoopBound<any ByteTransport>, TransportError>) -> Void
    ) {
        var serverLoop = group.next()
        if serverLoop === clientLoop { serverLoop = group.next() }
        let accepting = serverLoop
        let service = service
        let peer = peer.withLock { $0 }
        let clientEnd = clientEnd
        Task {
            let (near, far) = try await MemoryEnd.pair(eventLoop, accepting)
            try await accepting.submit {
                let wheel = TimerWheel(eventLoop: accepting, resolution: .milliseconds(5))
                HTTPServerConnection(
                    transport: far.value, acceptor: Acceptor(service), peer: peer,
                    resources: HTTPLoopResources(wheel: wheel))
            }.get()
            eventLoop.execute {
                near.value.onOver = { clientEnd.yield($0?.code) }
                completion(.success(NIOLoopBound(near.value as any ByteTransport, eventLoop: eventLoop)))
            }
        }
    }

    func shutDown() async throws { try await group.shutdownGracefully() }

    // MARK: Asking by hand

    struct Answer: Sendable {
        var status: UInt16
        var head: ResponseHead
        var body: String
        func field(_ name: String) -> String? { head.fields.text(name) }
    }

    /// Opens a connection of its own, asks, and waits for the whole answer.
    func ask(
        _ method: RequestMethod, _ target: String, fields: HeaderBlock = HeaderBlock(), body: String? = nil
    ) async throws -> Answer {
        let pending = try await begin(method, target, fields: fields, body: body)
        return try await pending.whole()
    }

    /// Asks and hands back what reads the answer as it comes.
    /// - Parameter missingBytes: of the body, which never come.
    func begin(
        _ method: RequestMethod, _ target: String, fields: HeaderBlock = HeaderBlock(), body: String? = nil,
        missingBytes: Int = 0
    ) async throws -> PendingAnswer {
        let loop = clientLoop
        let bound: NIOLoopBound<any ByteTransport> = try await withCheckedThrowingContinuation { continuation in
            connect(to: Endpoint(.tcp(host: "h", port: 1)), on: loop) { continuation.resume(with: $0) }
        }
        let pending = PendingAnswer(loop)
        try await loop.submit {
            let connection = HTTPClientConnection(transport: bound.value, wheel: TimerWheel(eventLoop: loop))
            pending.connection.value = connection
            let payload = body.map { ByteBuffer(string: $0) }
            var head = ByteBuffer()
            let request = RequestHead(
                method: method, target: "/kite" + target, authority: "h", fields: fields,
                bodyLength: payload.map { .known(Int64($0.readableBytes + missingBytes)) } ?? .none)
            MessageWriter.writeRequest(request, into: &head)
            connection.send(
                head: head, method: method, bodyLength: request.bodyLength,
                wantsUpgrade: fields.occurrences(.upgrade) > 0, handler: PendingAnswer.Handler(pending))
            if let payload {
                connection.write(payload)
                if missingBytes == 0 { connection.finish(trailers: nil) }
            }
        }.get()
        return pending
    }
}

/// An answer on its way.
final class PendingAnswer: Sendable {
    enum Part: Sendable {
        case head(ResponseHead)
        case body(String)
    }
    let connection: NIOLoopBoundBox<HTTPClientConnection?>
    private let loop: any EventLoop
    private let parts: AsyncThrowingStream<Part, any Error>
    private let continuation: AsyncThrowingStream<Part, any Error>.Continuation
    private let read = Mutex("")
    private let head = Mutex<ResponseHead?>(nil)

    init(_ loop: any EventLoop) {
        self.loop = loop
        connection = NIOLoopBoundBox.makeEmptyBox(valueType: HTTPClientConnection.self, eventLoop: loop)
        (parts, continuation) = AsyncThrowingStream.makeStream()
    }

    /// Waits until the body has this in it.
    func until(_ text: String) async throws -> String {
        for try await part in parts {
            if case .head(let received) = part { head.withLock { $0 = received } }
            if case .body(let more) = part {
                let all = read.withLock { read in
                    read += more
                    return read
                }
                if all.contains(text) { return all }
            }
        }
        throw TransportError(.reset, "the answer ended without \(text): \(read.withLock { $0 })")
    }

    func whole() async throws -> TestServer.Answer {
        for try await part in parts {
            switch part {
            case .head(let received): head.withLock { $0 = received }
            case .body(let more): read.withLock { $0 += more }
            }
        }
        guard let head = head.withLock({ $0 }) else { throw TransportError(.reset, "no answer") }
        return TestServer.Answer(status: head.status, head: head, body: read.withLock { $0 })
    }

    /// The client goes away.
    func abort() async throws {
        try await loop.submit { self.connection.value?.abort(TransportError(.cancelled, "test")) }.get()
    }

    final class Handler: HTTPClientHandler {
        private let answer: PendingAnswer
        init(_ answer: PendingAnswer) { self.answer = answer }
        func clientInformational(_ head: ResponseHead) {}
        func clientResponded(_ head: ResponseHead) { answer.continuation.yield(.head(head)) }
        func clientReceived(_ body: ByteBuffer) { answer.continuation.yield(.body(String(buffer: body))) }
        func clientEnded(trailers: HeaderBlock?) { answer.continuation.finish() }
        func clientUpgraded(_ head: ResponseHead, transport: any ByteTransport) {
            answer.continuation.yield(.head(head))
            answer.continuation.finish()
            transport.close()
        }
        func clientFailed(_ failure: HTTPClientFailure) { answer.continuation.finish(throwing: failure.cause) }
        func clientWritabilityChanged(_ isWritable: Bool) {}
    }
}

/// Sends back what comes, until the channel ends.
func echo(_ channel: any MessageChannel) {
    Task {
        while let message = try await channel.receive() { try await channel.send(message) }
    }
}
