/// Carries visitors' sessions to kites that cannot be reached: the kite is asked over its own connection to dial back for each session
/// (`kite.tunnel`), and from then on messages pass one by one, both ways.
///
/// The gateway holds the visitor's SockJS session, whatever its transport, and is the SockJS server of the kite that dials back.
import KiteCore
import KiteHTTP
import KiteSockJS
import KiteSupport
import Logging
import NIOCore
import ServiceLifecycle
import Synchronization

/// The sessions of visitors with kites that dial back. Safe to use from everywhere.
final class KiteTunnels: Service {
    let options: GatewayOptions.KiteTunnels
    let book: KiteTunnelBook
    let pending: PendingTunnels
    let logger: Logger
    private let authenticator: any KiteAuthenticator
    private let parkingTime: TimeAmount
    private let sessions: TaskPool
    private let visitors: SockJSService
    private let kites: SockJSService
    private let publicURL = Mutex("")

    /// - Parameters:
    ///   - names: knows which kites visitors may call by their names.
    ///   - authenticator: judges what visitors show.
    init(
        options: GatewayOptions.KiteTunnels, parkingTime: TimeAmount, names: KiteTunnelBook.Naming = .none,
        authenticator: any KiteAuthenticator, logger: Logger
    ) {
        self.options = options
        book = KiteTunnelBook(naming: names)
        self.parkingTime = parkingTime
        self.authenticator = authenticator
        self.logger = logger
        pending = PendingTunnels(limit: options.pendingSessions)
        sessions = TaskPool(limit: options.sessions)
        var sockJS = SockJSOptions()
        sockJS.maxMessageBytes = options.messageBytes
        sockJS.maxSessions = options.sessions
        // As Go's proxy, whose clients expect to hear something every 15 s.
        sockJS.heartbeat = .seconds(10)
        sockJS.disconnectDelay = .seconds(10)
        let arrivals = Arrivals()
        visitors = SockJSService(prefix: "/proxy", options: sockJS) { arrivals.tunnels?.visitorCame($0) }
        kites = SockJSService(prefix: "/tunnel", options: sockJS) { arrivals.tunnels?.kiteCame($0) }
        arrivals.tunnels = self
    }

    /// Lets the services call the object that is made after them.
    private final class Arrivals: Sendable {
        private let reference = Mutex(Weak())
        private struct Weak: Sendable { weak var tunnels: KiteTunnels? }
        var tunnels: KiteTunnels? {
            get { reference.withLock { $0.tunnels } }
            set { reference.withLock { $0.tunnels = newValue } }
        }
    }

    /// Runs the sessions until the gateway shuts down; then they are closed, and visitors come back elsewhere.
    func run() async throws { try await sessions.run() }

    /// Must be called once, before kites can register.
    func start(publicURL url: String) { publicURL.withLock { $0 = url } }

    /// Where visitors reach a kite.
    func url(of key: RouteKey) -> String { publicURL.withLock { $0 } + "/proxy?kiteID=\(key)" }

    var sessionCount: Int { sessions.count }

    // MARK: Exchanges

    /// Answers a visitor.
    func serveVisitor(_ exchange: any Exchange, _ target: KiteSessionTarget, worker: Worker) {
        guard !worker.isDraining else {
            return worker.refuse(exchange, .shuttingDown, Refusal(503, "The gateway is shutting down.", retryAfter: 1))
        }
        guard book.presence(of: target.kite) != .unknown else {
            return worker.refuse(
                exchange, .unknownKite,
                Refusal(404, "No kite with this id is connected here. Ask Kontrol where it is, or its owner."),
                route: target.kite)
        }
        visitors.serve(exchange, path: target.path[...])
    }

    /// Answers a kite that dials back.
    /// - Parameter path: the path below `/tunnel`.
    func serveKite(_ exchange: any Exchange, path: Substring, worker: Worker) {
        let target = String(buffer: exchange.request.target)
        let refusal: Refusal? =
            switch pending.verdict(on: KiteSessionTarget.parameter("token", in: target) ?? "") {
            // A session over several requests could not be tied to one token.
            case .good where path.hasSuffix("/websocket") && exchange.request.wantsUpgrade: nil
            case .good: Refusal(400, "Kites dial back with a WebSocket.")
            case .malformed: Refusal(401, "This is where kites dial back, with the token that kite.tunnel gave them.")
            case .otherInstance: Refusal(403, "The token is of another gateway, or of the time before its restart.")
            case .spent: Refusal(403, "The token was used already, or its session is over.")
            }
        if let refusal { return worker.refuse(exchange, .badTunnel, refusal, detail: "a kite dialled back") }
        kites.serve(exchange, path: path)
    }

    private func kiteCame(_ channel: any MessageChannel) {
        let token = KiteSessionTarget.parameter("token", in: channel.peer.target) ?? ""
        // Two may have come at the same time.
        if !pending.redeem(token, with: channel) { channel.close(code: 3000, reason: "Go away!") }
    }

    private func visitorCame(_ channel: any MessageChannel) {
        guard let target = KiteSessionTarget(opening: channel.peer.target) else {
            return channel.close(code: 3000, reason: "Go away!")
        }
        // Several kites may have the name; a session is with one of them.
        let key = book.id(of: target.kite) ?? target.kite
        guard book.reserveSession(key, limit: options.sessionsPerKite) else {
            logger.notice("visitor refused: the kite has too many sessions", metadata: ["kite": "\(key)"])
            return channel.close(code: 3000, reason: Self.tooManySessions)
        }
        let isAccepted = sessions.spawn { [self] in
            await serve(channel, kite: key)
            book.releaseSession(key)
        }
        if !isAccepted {
            book.releaseSession(key)
            channel.close(code: 3000, reason: "The gateway takes no more sessions")
        }
    }

    private static let tooManySessions = "The kite has too many sessions; try again later"

    // MARK: A session

    private func serve(_ visitor: any MessageChannel, kite key: RouteKey) async {
        do {
            let kite = try await present(key)
            // Where a name has been waited for, its kite is known only now.
            let id = RouteKey(kite.identity.id)
            if id != key, !book.reserveSession(id, limit: options.sessionsPerKite) {
                throw SessionEnd(reason: Self.tooManySessions)
            }
            defer { if id != key { book.releaseSession(id) } }
            let first = try await admit(visitor, to: kite)
            let (tunnel, held) = try await connect(visitor, to: kite, holding: first)
            await KiteRelay(visitor: visitor, kite: tunnel, messageBytes: options.messageBytes).run(holding: held)
        } catch let end as SessionEnd {
            logger.notice(
                "visitor turned away",
                metadata: ["kite": "\(key)", "visitor": "\(visitor.peer.address)", "cause": "\(end.reason)"])
            visitor.close(code: 3000, reason: end.reason)
        } catch {
            // The visitor has gone, or the gateway goes.
            visitor.close(code: 3000, reason: "Go away!")
        }
    }

    /// The kite, which may be on its way back.
    private func present(_ key: RouteKey) async throws -> TunnelledKite {
        if let kite = book.find(key) { return kite }
        let kite = try await within(parkingTime, orEnd: "The kite is away") { [book] in await book.await(key) }
        guard let kite else { throw CancellationError() }
        return kite
    }

    /// Waits until the visitor has shown that it may reach the kite.
    /// - Returns: what it sent with that, which is for the kite.
    private func admit(_ visitor: any MessageChannel, to kite: TunnelledKite) async throws -> [ByteBuffer] {
        if kite.isPublic { return [] }
        if let credential = Self.credential(of: visitor.peer) {
            do throws(KiteError) {
                try await judge(credential, for: kite.identity)
            } catch {
                throw SessionEnd(reason: error.message)
            }
            return []
        }
        return try await within(
            options.admissionTime, orEnd: "No call that says who calls has come in time"
        ) { [self] in
            var machine = VisitorAdmissionStateMachine()
            while let message = try await visitor.receive() {
                guard message.readableBytes <= options.messageBytes else { break }
                var action = machine.receive(message)
                if case .judge(let authentication, let call) = action {
                    do throws(KiteError) {
                        _ = try await authenticator.authenticate(authentication, for: kite.identity)
                        return [message]
                    } catch {
                        logger.debug(
                            "a visitor's call was refused",
                            metadata: ["kite": "\(kite.identity.id)", "cause": "\(error)"])
                        action = machine.refuse(call, error)
                    }
                }
                switch action {
                case .answer(let answer): try await visitor.send(answer)
                case .ignore, .judge: break
                case .close(let reason): throw SessionEnd(reason: reason)
                }
            }
            throw CancellationError()
        }
    }

    /// A credential without its type: `Authorization: Bearer`, or `token=` in the query, of the request that opened the session.
    private static func credential(of peer: MessagePeer) -> String? {
        if let words = peer.authorization?.split(separator: " ", maxSplits: 1), words.count == 2,
            words[0].lowercased() == "bearer"
        {
            return String(words[1])
        }
        return KiteSessionTarget.parameter("token", in: peer.target)
    }

    private func judge(_ credential: String, for kite: KiteIdentity) async throws(KiteError) {
        let asToken: KiteError
        do throws(KiteError) {
            _ = try await authenticator.authenticate(.token(credential), for: kite)
            return
        } catch {
            asToken = error
        }
        do throws(KiteError) {
            _ = try await authenticator.authenticate(.kiteKey(credential), for: kite)
        } catch {
            throw asToken
        }
    }

    // MARK: The kite's side

    private enum Step: Sendable {
        case connected(any MessageChannel)
        case received(ByteBuffer?)
    }

    /// How many bytes of a visitor's messages are taken before its kite has dialled back.
    private static let heldBytes = 64 << 10

    /// Has the kite dial back, and notices when the visitor leaves meanwhile.
    /// - Returns: the kite's channel, and what the visitor has sent until then.
    private func connect(
        _ visitor: any MessageChannel, to kite: TunnelledKite, holding first: [ByteBuffer]
    ) async throws -> (any MessageChannel, [ByteBuffer]) {
        try await withThrowingTaskGroup(of: Step.self) { group in
            group.addTask { .connected(try await self.dialBack(kite)) }
            group.addTask { .received(try await visitor.receive()) }
            var held = first
            var tunnel: (any MessageChannel)?
            do {
                while tunnel == nil, let step = try await group.next() {
                    switch step {
                    case .connected(let channel): tunnel = channel
                    case .received(nil): throw CancellationError()
                    case .received(let message?):
                        held.append(message)
                        if held.reduce(0, { $0 + $1.readableBytes }) < Self.heldBytes {
                            group.addTask { .received(try await visitor.receive()) }
                        }
                    }
                }
                group.cancelAll()
                // A message that came just now must not be lost; an error comes again when the visitor is read from next.
                while let result = await group.nextResult() {
                    if case .success(.received(let message?)) = result { held.append(message) }
                }
            } catch {
                group.cancelAll()
                while let result = await group.nextResult() {
                    if case .success(.connected(let channel)) = result { channel.close(code: 3000, reason: "Go away!") }
                }
                throw error
            }
            guard let tunnel else { throw CancellationError() }
            return (tunnel, held)
        }
    }

    /// Asks the kite to dial back and waits for it.
    private func dialBack(_ kite: TunnelledKite) async throws -> any MessageChannel {
        guard let token = pending.issue() else {
            throw SessionEnd(reason: "Too many sessions are being opened; try again later")
        }
        defer { pending.withdraw(token) }
        let url = tunnelURL(token)
        let time = Duration.nanoseconds(options.dialBackTime.nanoseconds)
        return try await within(options.dialBackTime, orEnd: "The kite did not open a tunnel in time") { [pending] in
            try await withThrowingTaskGroup(of: (any MessageChannel)?.self) { group in
                group.addTask {
                    do {
                        try await kite.caller.tell("kite.tunnel", ["url": url], timeout: time)
                    } catch let error as KiteError {
                        throw SessionEnd(reason: "The kite could not open a tunnel: \(error.message.prefix(256))")
                    }
                    return nil
                }
                group.addTask { try await pending.channel(for: token) }
                defer { group.cancelAll() }
                while let arrived = try await group.next() {
                    if let arrived { return arrived }
                }
                throw CancellationError()
            }
        }
    }

    /// As Go's proxy gives it: the path of a SockJS session, which no kite looks at.
    private func tunnelURL(_ token: TunnelToken) -> String {
        let url = publicURL.withLock { $0 }
        let scheme = url.hasPrefix("https:") ? "wss" : "ws"
        let authority = url.firstRange(of: "://").map { url[$0.upperBound...] } ?? url[...]
        let server = String(1000 + token.session % 1000).dropFirst()
        return "\(scheme)://\(authority)/tunnel/\(server)/\(TunnelToken.randomText())/websocket?token=\(token.text)"
    }
}

/// Why a session ends that has not begun; told to the visitor.
struct SessionEnd: Error, Sendable, Hashable {
    let reason: String
}

/// Runs `body` for at most `time`.
private func within<Outcome: Sendable>(
    _ time: TimeAmount, orEnd reason: String, _ body: @escaping @Sendable () async throws -> Outcome
) async throws -> Outcome {
    try await withThrowingTaskGroup(of: Outcome.self) { group in
        group.addTask { try await body() }
        group.addTask {
            try await Task.sleep(for: .nanoseconds(time.nanoseconds))
            throw SessionEnd(reason: reason)
        }
        defer { group.cancelAll() }
        guard let outcome = try await group.next() else { throw CancellationError() }
        return outcome
    }
}
