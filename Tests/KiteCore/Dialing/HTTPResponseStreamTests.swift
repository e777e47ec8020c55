/// Responses taken piece by piece, over real sockets.
import KiteHTTP
import NIOCore
import NIOEmbedded
import NIOPosix
import Testing

@testable import KiteDialing

@Suite(.timeLimit(.minutes(1))) struct HTTPResponseStreamTests {
    private static let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    private let loop = MultiThreadedEventLoopGroup.singleton.next()

    private func requester() throws -> HTTPRequester { HTTPRequester(dialer: try Dialer(), eventLoop: loop) }
    private func endpoint(_ server: ScriptedServer) -> Endpoint { Endpoint(.tcp(host: "127.0.0.1", port: server.port)) }
    private func get() -> RequestHead { RequestHead(method: .get, target: "/", authority: "a") }
    private func text(_ part: ByteBuffer?) -> String? { part.map { String(buffer: $0) } }

    @Test func partsArriveAsTheyAreSentAndTheConnectionIsUsedAgain() async throws {
        let server = try await ScriptedServer.start { _, reply, _ in
            .init(reply == 0 ? Self.chunked + "3\r\nabc\r\n" : "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
        }
        let requester = try requester()
        let stream = try await requester.open(get(), to: endpoint(server))
        #expect(stream.head.status == 200)
        #expect(try await text(stream.next()) == "abc")
        try await server.push(.init("2\r\nde\r\n"))
        #expect(try await text(stream.next()) == "de")
        try await server.push(.init("0\r\n\r\n"))
        #expect(try await stream.next() == nil)
        #expect(try await stream.next() == nil)
        // A stream that was read to its end has no hold on the connection.
        stream.close()
        #expect(try await text(requester.send(get(), to: endpoint(server)).body) == "x")
        #expect(server.connectionCount == 1)
        try await server.stop()
    }

    @Test(arguments: ["HTTP/1.1 204 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
    func aResponseWithoutABodyEndsAtOnce(answer: String) async throws {
        let server = try await ScriptedServer.start { _, _, _ in .init(answer) }
        let stream = try await requester().open(get(), to: endpoint(server))
        #expect(try await stream.next() == nil)
        try await server.stop()
    }

    @Test(arguments: [chunked + "3\r\nabc\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"])
    func whatArrivedBeforeABodyWasCutShortIsNotLost(answer: String) async throws {
        let server = try await ScriptedServer.start { _, _, _ in .init(answer, closes: true) }
        let stream = try await requester().open(get(), to: endpoint(server))
        var received = ""
        await #expect(throws: TransportError.self) {
            while let part = try await stream.next() { received += String(buffer: part) }
        }
        #expect(received == "abc")
        try await server.stop()
    }

    @Test func aBodyThatLastsUntilTheServerClosesIsComplete() async throws {
        let server = try await ScriptedServer.start { _, _, _ in .init("HTTP/1.1 200 OK\r\n\r\nabc", closes: true) }
        let stream = try await requester().open(get(), to: endpoint(server))
        var received = ""
        while let part = try await stream.next() { received += String(buffer: part) }
        #expect(received == "abc")
        try await server.stop()
    }

    @Test func cancellingTheTaskThatWaitsClosesTheConnection() async throws {
        let server = try await ScriptedServer.start { _, _, _ in .init(Self.chunked) }
        let stream = try await requester().open(get(), to: endpoint(server))
        await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { _ = try await stream.next() }
            tasks.cancelAll()
            await #expect(throws: CancellationError.self) { try await tasks.next() }
        }
        await server.waitForClose()
        await #expect(throws: CancellationError.self) { try await stream.next() }
        try await server.stop()
    }

    @Test func closingFailsWhoeverWaitsAndClosesTheConnection() async throws {
        let server = try await ScriptedServer.start { _, _, _ in .init(Self.chunked) }
        let stream = try await requester().open(get(), to: endpoint(server))
        await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { _ = try await stream.next() }
            stream.close()
            let error = await #expect(throws: TransportError.self) { try await tasks.next() }
            #expect(error?.code == .cancelled)
        }
        await server.waitForClose()
        try await server.stop()
    }

    @Test func aStreamThatIsLetGoClosesItsConnection() async throws {
        let server = try await ScriptedServer.start { _, _, _ in .init(Self.chunked) }
        let requester = try requester()
        _ = try await requester.open(get(), to: endpoint(server))
        await server.waitForClose()
        try await server.stop()
    }

    @Test func onlyOneTaskMayWait() async throws {
        let server = try await ScriptedServer.start { _, _, _ in .init(Self.chunked) }
        let stream = try await requester().open(get(), to: endpoint(server))
        try await withThrowingTaskGroup(of: Result<ByteBuffer?, any Error>.self) { tasks in
            for _ in 0..<2 {
                tasks.addTask {
                    do { return .success(try await stream.next()) } catch { return .failure(error) }
                }
            }
            // The other one can end only once the server has sent something.
            let refused = await #expect(throws: TransportError.self) { try await tasks.next()?.get() }
            #expect(refused?.code == .refused)
            try await server.push(.init("3\r\nabc\r\n"))
            #expect(try await text(tasks.next()?.get()) == "abc")
        }
        try await server.stop()
    }

    /// A request on a connection that is there already, on a loop whose clock the test moves.
    private func call(
        on loop: EmbeddedEventLoop, over transport: any ByteTransport
    ) throws -> HTTPRequesterCall {
        let shared = HTTPRequesterConnections(loop: loop)
        let endpoint = Endpoint(.tcp(host: "a", port: 1))
        let pool = shared.pool(for: endpoint)
        pool.giveBack(pool.adopt(transport))
        return HTTPRequesterCall(
            get(), body: nil, endpoint: endpoint, limit: nil, dialer: try Dialer(), shared: shared)
    }

    @Test func theTimeoutIsForTheHeadOnly() throws {
        let loop = EmbeddedEventLoop()
        let transport = StillTransport(loop)
        var parts: [String] = []
        var failures = 0
        let call = try call(on: loop, over: transport)
        call.start(timeout: .seconds(1), isTimeoutForAll: false) { event in
            switch event {
            case .body(let bytes): parts.append(String(buffer: bytes))
            case .failed: failures += 1
            case .head, .end: break
            }
        }
        loop.advanceTime(by: .milliseconds(900))
        transport.delegate?.transportReceived(ByteBuffer(string: Self.chunked))
        loop.advanceTime(by: .minutes(10))
        transport.delegate?.transportReceived(ByteBuffer(string: "3\r\nabc\r\n"))
        #expect(parts == ["abc"])
        #expect(failures == 0)
        #expect(transport.aborted == nil)
    }

    @Test func aHeadThatDoesNotEndInTimeIsGivenUp() throws {
        let loop = EmbeddedEventLoop()
        let transport = StillTransport(loop)
        var failures: [TransportError.Code?] = []
        let call = try call(on: loop, over: transport)
        call.start(timeout: .seconds(1), isTimeoutForAll: false) { event in
            if case .failed(let error) = event { failures.append((error as? TransportError)?.code) }
        }
        transport.delegate?.transportReceived(ByteBuffer(string: "HTTP/1.1 200 OK\r\n"))
        loop.advanceTime(by: .milliseconds(900))
        #expect(failures.isEmpty)
        loop.advanceTime(by: .milliseconds(200))
        #expect(failures == [.idleTimeout])
        #expect(transport.aborted != nil)
    }

    @Test func aServerThatSendsFasterThanIsReadIsSlowedDown() async throws {
        let size = 16 << 20
        let head = Array("HTTP/1.1 200 OK\r\nContent-Length: \(size)\r\n\r\n".utf8)
        let server = try await ScriptedServer.start { _, _, _ in
            .init(head + [UInt8](repeating: 0x61, count: size))
        }
        let other = try await ScriptedServer.start { _, _, _ in .init("HTTP/1.1 204 OK\r\n\r\n") }
        let requester = try requester()
        let stream = try await requester.open(get(), to: endpoint(server))
        // Turns of the same loop in which the body would come in, if it were let.
        for _ in 0..<200 { _ = try await requester.send(get(), to: endpoint(other)) }
        var received = 0
        while let part = try await stream.next() {
            // What was there when the reading was stopped, and one read of the socket on top.
            #expect(part.readableBytes <= HTTPResponseBody.highWater + 256 * 1024)
            received += part.readableBytes
        }
        #expect(received == size)
        try await server.stop()
        try await other.stop()
    }
}

/// A connection to nobody.
private final class StillTransport: ByteTransport {
    let eventLoop: any EventLoop
    var delegate: (any ByteTransportDelegate)?
    var isWritable: Bool { true }
    var remoteAddress: SocketAddress? { nil }
    private(set) var aborted: TransportError?
    init(_ eventLoop: any EventLoop) { self.eventLoop = eventLoop }
    func write(_ bytes: ByteBuffer) {}
    func closeOutput() {}
    func close() {}
    func abort(_ reason: TransportError) { aborted = reason }
    func setReading(_ wanted: Bool) {}
}
