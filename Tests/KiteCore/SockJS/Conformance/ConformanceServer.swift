// What all conformance tests share: the standard services on a socket, and the checks that many of sockjs-protocol's cases repeat.
import KiteSockJS
import NIOCore
import SockJSTestServer
import Synchronization
import Testing

/// The services of sockjs-protocol's tests, asked over new connections.
final class ConformanceServer: Sendable {
    let services: SockJSTestServices
    private init(_ services: SockJSTestServices) { self.services = services }

    static func run(_ body: (ConformanceServer) async throws -> Void) async throws {
        // Long enough for a machine that does much else between two requests.
        let server = ConformanceServer(
            try await SockJSTestServices(port: 0) { $0.disconnectDelay = .minutes(1) })
        do {
            try await body(server)
        } catch {
            try await server.services.close()
            throw error
        }
        try await server.services.close()
    }

    private static let serial = Atomic<Int>(0)
    /// A path of a session that nobody used.
    static func session(_ service: String = "/echo", server: String = "000") -> String {
        "\(service)/\(server)/s\(serial.wrappingAdd(1, ordering: .relaxed).newValue)"
    }

    func connect() async throws -> RawConnection { try await RawConnection(to: services.address) }

    func ask(
        _ method: String, _ target: String, _ fields: [(String, String)] = [], body: String? = nil
    ) async throws -> RawResponse {
        let connection = try await connect()
        let head = try await connection.request(method, target, fields: fields, body: body)
        let body = try await connection.body(head)
        try? await connection.close()
        return RawResponse(head: head, body: body)
    }
    func get(_ target: String, _ fields: [(String, String)] = []) async throws -> RawResponse {
        try await ask("GET", target, fields)
    }
    func post(_ target: String, _ body: String? = nil, _ fields: [(String, String)] = []) async throws -> RawResponse {
        try await ask("POST", target, fields, body: body)
    }

    /// Opens a stream: the answer is not waited for beyond its head.
    func stream(
        _ method: String, _ target: String, _ fields: [(String, String)] = []
    ) async throws -> (RawConnection, RawHead) {
        let connection = try await connect()
        return (connection, try await connection.request(method, target, fields: fields))
    }

    /// Opens a WebSocket.
    func webSocket(_ path: String) async throws -> RawConnection {
        let (connection, head) = try await stream("GET", path, RawConnection.upgrade)
        #expect(head.status == 101)
        return connection
    }

    /// Opens a session by polling.
    func open(_ session: String, sourceLocation: SourceLocation = #_sourceLocation) async throws {
        let answer = try await post(session + "/xhr")
        #expect(answer.status == 200, sourceLocation: sourceLocation)
        #expect(answer.body == "o\n", sourceLocation: sourceLocation)
    }

    /// Polls twice at the same time: one of them waits and the other is answered. Which of them comes first is open.
    func twoPolls(
        _ session: String, _ method: String, _ path: String
    ) async throws -> (answered: RawConnection, waiting: RawConnection) {
        let (first, second) = (try await connect(), try await connect())
        try await first.ask(method, session + path)
        try await second.ask(method, session + path)
        return try await RawConnection.race(first, second)
    }

    /// Sends messages by `xhr_send`.
    func send(_ session: String, _ body: String, sourceLocation: SourceLocation = #_sourceLocation) async throws {
        let answer = try await post(session + "/xhr_send", body)
        #expect(answer.status == 204, sourceLocation: sourceLocation)
        #expect(answer.body.isEmpty, sourceLocation: sourceLocation)
    }
}

/// Private data must not be kept by anybody on the way.
func expectNotCached(_ head: RawHead, sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(
        head["Cache-Control"] == "no-store, no-cache, no-transform, must-revalidate, max-age=0",
        sourceLocation: sourceLocation)
    #expect(!head.has("Expires"), sourceLocation: sourceLocation)
    #expect(!head.has("Last-Modified"), sourceLocation: sourceLocation)
}

/// What does not change is kept for a year.
func expectCached(_ head: RawHead, sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(head["Cache-Control"] == "public, max-age=31536000", sourceLocation: sourceLocation)
    #expect(head["Expires"]?.hasSuffix(" GMT") == true, sourceLocation: sourceLocation)
    #expect(!head.has("Last-Modified"), sourceLocation: sourceLocation)
}

/// Other origins may read the answer; with an origin also when they send cookies.
func expectCrossOrigin(_ head: RawHead, _ origin: String?, sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(head["Access-Control-Allow-Origin"] == origin ?? "*", sourceLocation: sourceLocation)
    #expect(
        head["Access-Control-Allow-Credentials"] == (origin == nil ? nil : "true"), sourceLocation: sourceLocation)
}

func expectContentType(_ head: RawHead, _ type: String, sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(head["Content-Type"]?.filter { $0 != " " } == type, sourceLocation: sourceLocation)
}

let scriptType = "application/javascript;charset=UTF-8"
let plainType = "text/plain;charset=UTF-8"
let pageType = "text/html;charset=UTF-8"
let formType = ("Content-Type", "application/x-www-form-urlencoded")
