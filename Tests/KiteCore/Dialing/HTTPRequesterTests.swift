import KiteHTTP
import NIOCore
import Testing

@testable import KiteDialing

@Suite("Control plane requests", .timeLimit(.minutes(1)))
struct HTTPRequesterTests {
    private func endpoint(_ server: ScriptedServer) -> Endpoint { Endpoint(.tcp(host: "127.0.0.1", port: server.port)) }
    private func failure(_ answer: ScriptedServer.Reply?, timeout: Duration = .seconds(20)) async throws
        -> TransportError
    {
        let server = try await ScriptedServer.start { _, _, _ in answer }
        let requester = HTTPRequester(dialer: try Dialer())
        let error = await #expect(throws: TransportError.self) {
            try await requester.send(
                RequestHead(method: .post, target: "/", authority: "a"), body: ByteBuffer(string: "x"),
                to: endpoint(server),
                timeout: timeout, maxResponseBytes: 5)
        }
        await server.waitForClose()
        try await server.stop()
        return try #require(error)
    }

    @Test("Responses of every framing arrive, and the connection is used again")
    func reuse() async throws {
        let answers = [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 201 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            "HTTP/1.1 204 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nhello",
        ]
        let server = try await ScriptedServer.start { received, reply, _ in
            guard String(decoding: received, as: UTF8.self).hasSuffix("\r\n\r\nbody") else { return nil }
            return .init(answers[reply], closes: reply == 3)
        }
        let requester = HTTPRequester(dialer: try Dialer())
        for (status, body) in [(200, "hello"), (201, "hello"), (204, ""), (200, "hello")] {
            let response = try await requester.send(
                RequestHead(method: .post, target: "/p?q", authority: "a"), body: ByteBuffer(string: "body"),
                to: endpoint(server), maxResponseBytes: 5)
            #expect(response.head.status == status)
            #expect(String(buffer: response.body) == body)
        }
        #expect(server.connectionCount == 1)
        var events = server.events.makeAsyncIterator()
        let request = "POST /p?q HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
        #expect(await events.next() == .received(Array(request.utf8)))
        try await server.stop()
    }

    @Test("A kept connection that the server closed is replaced")
    func closedWhileIdle() async throws {
        let server = try await ScriptedServer.start { _, reply, connection in
            connection == 0 && reply == 1
                ? .init([], closes: true) : .init("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n\(connection)")
        }
        let requester = HTTPRequester(dialer: try Dialer())
        for expected in ["0", "1"] {
            let head = RequestHead(method: .get, target: "/", authority: "a")
            let response = try await requester.send(head, to: endpoint(server))
            #expect(String(buffer: response.body) == expected)
        }
        try await server.stop()
    }

    @Test("A response that is too large, broken or cut short is an error, and closes the connection")
    func failures() async throws {
        for (answer, code) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", TransportError.Code.limitExceeded),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\nabc\r\n", .limitExceeded),
            ("HTTP/1.1 200 OK\r\n\r\nabcdef", .limitExceeded), ("nonsense", .protocolViolation),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", .protocolViolation),
        ] {
            #expect(try await failure(.init(answer)).code == code, "\(answer)")
        }
        #expect(try await failure(.init([], closes: true)).code == .reset)
        _ = try await failure(.init("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", closes: true))
        #expect(try await failure(.init("HTTP/1.1 200 OK\r\n"), timeout: .milliseconds(200)).code == .idleTimeout)
    }

    @Test("Cancelling closes the connection and ends the wait")
    func cancelling() async throws {
        // Half an answer: the client is in the middle of it when it is cancelled.
        let server = try await ScriptedServer.start { _, _, _ in .init("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
        }
        let requester = HTTPRequester(dialer: try Dialer())
        await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask {
                _ = try await requester.send(
                    RequestHead(method: .get, target: "/", authority: "a"), to: endpoint(server))
            }
            for await event in server.events { if case .received = event { break } }
            tasks.cancelAll()
            await #expect(throws: CancellationError.self) { try await tasks.next() }
        }
        await server.waitForClose()
        try await server.stop()
    }

    @Test("A cancelled task sends nothing")
    func cancelledBefore() async throws {
        let server = try await ScriptedServer.start { _, _, _ in nil }
        let requester = HTTPRequester(dialer: try Dialer())
        await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.cancelAll()
            tasks.addTask {
                _ = try await requester.send(
                    RequestHead(method: .get, target: "/", authority: "a"), to: endpoint(server))
            }
            await #expect(throws: CancellationError.self) { try await tasks.next() }
        }
        try await server.stop()
    }

    @Test("A request cannot be split", arguments: ["/a b", "/\r\nX: y", "/\0"])
    func splitting(_ target: String) async throws {
        let requester = HTTPRequester(dialer: try Dialer())
        let error = await #expect(throws: TransportError.self) {
            try await requester.send(
                RequestHead(method: .get, target: target, authority: "a"),
                to: Endpoint(.tcp(host: "127.0.0.1", port: 1)))
        }
        #expect(error?.code == .refused)
    }

    @Test("A request cannot be split by its method", arguments: ["", "GET /\r\nX:", "A B"])
    func splittingByMethod(_ method: String) async throws {
        let requester = HTTPRequester(dialer: try Dialer())
        let error = await #expect(throws: TransportError.self) {
            try await requester.send(
                RequestHead(method: .other(method), target: "/", authority: "a"),
                to: Endpoint(.tcp(host: "127.0.0.1", port: 1)))
        }
        #expect(error?.code == .refused)
    }
}
