/// Registering over HTTP: `POST /register` and `GET /heartbeat`.
import KiteCore
public import KiteHTTP
public import KiteSupport
import Logging
import NIOCore

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Answers the two paths and hands everything else on. One per event loop.
public final class KontrolExchangeAcceptor: ExchangeAcceptor {
    private let service: KontrolService
    private let tasks: TaskPool
    private let next: any ExchangeAcceptor

    /// - Parameters:
    ///   - tasks: runs what asks the service.
    ///   - next: answers everything else, such as `/kite`.
    public init(service: KontrolService, tasks: TaskPool, next: any ExchangeAcceptor) {
        self.service = service
        self.tasks = tasks
        self.next = next
    }

    public func accept(_ exchange: any Exchange) {
        let endpoint: KontrolEndpoint
        switch exchange.request.path {
        case "/register": endpoint = .register
        case "/heartbeat": endpoint = .heartbeat
        default: return next.accept(exchange)
        }
        guard exchange.request.method == endpoint.method else {
            var head = ResponseHead(status: 405)
            head.fields.append("Allow", endpoint.method.name)
            head.fields.append("Content-Type", "text/plain; charset=utf-8")
            return exchange.respond(head, body: ByteBuffer(string: "Use \(endpoint.method.name) here\n"))
        }
        exchange.handler = KontrolExchangeHandler(endpoint, service: service, tasks: tasks)
    }
}

/// The paths of Kontrol over HTTP.
enum KontrolEndpoint {
    case register, heartbeat

    var method: RequestMethod { self == .register ? .post : .get }

    /// Asks the service.
    func answer(_ body: ByteBuffer, query: String?, of service: KontrolService) async -> KontrolReply {
        switch self {
        case .register: await Self.register(body, with: service)
        case .heartbeat: await Self.heartbeat(query ?? "", with: service)
        }
    }

    private static func heartbeat(_ query: String, with service: KontrolService) async -> KontrolReply {
        var id = ""
        for pair in query.split(separator: "&") where pair.hasPrefix("id=") {
            id = decoded(pair.dropFirst(3))
            break
        }
        guard !id.isEmpty else { return KontrolReply(400, text: "query id is empty\n") }
        return KontrolReply(200, text: await service.heartbeat(id: id) ? "pong" : "registeragain")
    }

    /// Undoes percent-encoding; what is no such encoding stays as it is.
    private static func decoded(_ text: Substring) -> String {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            let digits = String(rest.prefix(2)) ?? ""
            if byte == UInt8(ascii: "%"), digits.utf8.count == 2, let value = UInt8(digits, radix: 16) {
                bytes.append(value)
                rest = rest.dropFirst(2)
            } else {
                bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    private static func register(_ body: ByteBuffer, with service: KontrolService) async -> KontrolReply {
        let request: RegisterRequest
        do {
            request = try JSONDecoder().decode(RegisterRequest.self, from: Data(body.readableBytesView))
        } catch {
            return .refusal(400, "wrong register input: 'a JSON object with url, kite and auth is expected'")
        }
        guard let auth = request.auth, auth.type == "kiteKey" else {
            return .refusal(400, "unexpected authentication type: \((request.auth?.type ?? "").prefix(64))")
        }
        guard let url = request.url, !url.isEmpty else { return .refusal(400, "empty URL") }
        let credential: VerifiedCredential
        do throws(TokenError) {
            credential = try service.verifier.verify(kiteKey: auth.key)
        } catch {
            return .refusal(401, error.message)
        }
        do throws(KontrolError) {
            let registered = try await service.register(
                request.kite ?? KiteIdentity(), url: url, credential: credential, kiteKey: auth.key, source: .http)
            return KontrolReply(
                200,
                json: RegisterResponse(
                    url: url, heartbeatInterval: Int(clamping: service.options.limits.heartbeatInterval),
                    publicKey: registered.publicKey?.pem, kiteKey: registered.kiteKey?.text))
        } catch {
            switch error.code {
            case .forbidden: return .refusal(403, error.message)
            case .unavailable:
                service.logger.error("A kite could not be registered", metadata: ["error": "\(error)"])
                return .refusal(500, "internal error - register")
            default: return .refusal(400, error.message)
            }
        }
    }
}

/// What is answered.
struct KontrolReply: Sendable {
    let status: UInt16
    let contentType: String
    let body: ByteBuffer

    init(_ status: UInt16, text: String) {
        self.status = status
        contentType = "text/plain; charset=utf-8"
        body = ByteBuffer(string: text)
    }

    init(_ status: UInt16, json: some Encodable) {
        self.status = status
        contentType = "application/json"
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.withoutEscapingSlashes]
        // Strings and numbers: encoding them cannot fail.
        let bytes = (try? encoder.encode(json)) ?? Data("{}".utf8)
        body = ByteBuffer(bytes: bytes + [UInt8(ascii: "\n")])
    }

    static func refusal(_ status: UInt16, _ message: String) -> KontrolReply {
        KontrolReply(status, json: RegisterRefusal(err: message))
    }
}

/// Collects the body, asks the service in a task, and answers back on the event loop.
private final class KontrolExchangeHandler: ExchangeHandler {
    /// Bytes; a registration is below 3 KiB.
    private static let maximumBody = 65536

    private let endpoint: KontrolEndpoint
    private let service: KontrolService
    private let tasks: TaskPool
    private var body = ByteBuffer()
    private var isRefused = false

    init(_ endpoint: KontrolEndpoint, service: KontrolService, tasks: TaskPool) {
        self.endpoint = endpoint
        self.service = service
        self.tasks = tasks
    }

    func exchangeReceived(_ exchange: any Exchange, body part: ByteBuffer) {
        guard !isRefused else { return }
        guard body.readableBytes + part.readableBytes <= Self.maximumBody else {
            isRefused = true
            return respond(exchange, .refusal(413, "The request is larger than \(Self.maximumBody) bytes"))
        }
        var part = part
        body.writeBuffer(&part)
    }

    func exchangeRequestEnded(_ exchange: any Exchange, trailers: HeaderBlock?) {
        guard !isRefused else { return }
        let loop = exchange.eventLoop
        let exchanges = NIOLoopBound((self, exchange), eventLoop: loop)
        let isStarted = tasks.spawn { [endpoint, body, service, query = exchange.request.query] in
            let reply = await endpoint.answer(body, query: query, of: service)
            loop.execute {
                let (handler, exchange) = exchanges.value
                handler.respond(exchange, reply)
            }
        }
        if !isStarted { respond(exchange, .refusal(503, "Kontrol is busy; try again")) }
    }

    func exchangeWritabilityChanged(_ exchange: any Exchange, isWritable: Bool) {}
    func exchangeEnded(_ exchange: any Exchange, error: TransportError?) {}

    private func respond(_ exchange: any Exchange, _ reply: KontrolReply) {
        guard !exchange.isEnded else { return }
        var head = ResponseHead(status: reply.status)
        head.fields.append("Content-Type", reply.contentType)
        head.fields.append("Cache-Control", "no-store")
        if reply.status == 503 { head.fields.append("Retry-After", "1") }
        exchange.respond(head, body: reply.body)
    }
}
