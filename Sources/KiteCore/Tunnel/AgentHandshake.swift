/// The agent's half of a lane's beginning: upgrade, HELLO, WELCOME.
import KiteHTTP
import KiteSupport
import KiteWebSocket
import NIOCore

/// What a successful handshake leaves.
struct EstablishedConnection {
    let transport: any ByteTransport
    let welcome: GatewayWelcome
    /// What came after WELCOME.
    let rest: ByteBuffer
}

/// Why a connection did not become a lane's.
enum AgentHandshakeError: Error, CustomStringConvertible {
    /// The gateway has said no.
    case refused(TunnelRefusal)
    /// Something between agent and gateway does not let the upgrade pass: the other kind of upgrade may. `status`: what it answered.
    case notUpgraded(String, status: Int?)
    /// The connection broke after it was upgraded, or nobody answered.
    case broken(TransportError)

    var description: String {
        switch self {
        case .refused(let refusal): refusal.description
        case .notUpgraded(let what, _): what
        case .broken(let error): error.description
        }
    }

    /// Whether it speaks against the kind of upgrade; nil where it says nothing about it.
    var isTelling: Bool? {
        switch self {
        case .refused: nil
        // Said by proxies whose gateway is away.
        case .notUpgraded(_, let status): status != 502 && status != 504
        // A proxy may swallow what it does not know, or pass the 101 and nothing after it.
        case .broken(let error): error.code == .cancelled ? nil : true
        }
    }
}

/// Turns a fresh connection into one that a lane can use. Event-loop bound; kept alive by the connection.
final class AgentHandshake {
    struct Request: Sendable {
        var address: GatewayAddress
        var credential: String
        var hello: AgentHello
        var usesWebSocket: Bool
        var timeout: TimeAmount
        var software: String
    }

    private let request: Request
    private let wheel: TimerWheel
    private let client: HTTPClientConnection
    private let webSocketKey = WebSocketHandshake.makeKey()
    private var timer: WheelTimer?
    private var transport: (any ByteTransport)?
    private var reader = HandshakeReader()
    private var refusalStatus = 0
    private var refusalText = ByteBuffer()
    private var retryAfter: Int?
    private var completion: ((Result<EstablishedConnection, AgentHandshakeError>) -> Void)?

    /// - Parameter completion: Called once; on failure the connection is closed already.
    init(
        transport: any ByteTransport, wheel: TimerWheel, request: Request,
        completion: @escaping (Result<EstablishedConnection, AgentHandshakeError>) -> Void
    ) {
        self.request = request
        self.wheel = wheel
        self.completion = completion
        client = HTTPClientConnection(transport: transport, wheel: wheel)
        let timer = WheelTimer(wheel: wheel) { [weak self] in
            self?.fail(.broken(TransportError(.idleTimeout, "the gateway did not answer in time")))
        }
        self.timer = timer
        timer.start(after: request.timeout)
        var head = ByteBuffer()
        MessageWriter.writeRequest(requestHead(), into: &head)
        client.send(head: head, method: .get, bodyLength: .none, wantsUpgrade: true, handler: self)
    }

    func cancel() { fail(.broken(TransportError(.cancelled, "cancelled"))) }

    private func requestHead() -> RequestHead {
        var fields = HeaderBlock(["Authorization": "Bearer \(request.credential)", "User-Agent": request.software])
        if request.usesWebSocket {
            return WebSocketHandshake.request(
                target: request.address.target, authority: request.address.authority, fields: fields, key: webSocketKey)
        }
        fields.append("Connection", "Upgrade")
        fields.append("Upgrade", TunnelWire.upgradeToken)
        var head = RequestHead(
            method: .get, target: request.address.target, authority: request.address.authority, fields: fields)
        head.wantsUpgrade = true
        return head
    }

    private func fail(_ error: AgentHandshakeError) {
        guard let completion = finish() else { return }
        if let transport {
            transport.delegate = nil
            transport.abort(TransportError(.cancelled, "no lane"))
        } else {
            client.abort(TransportError(.cancelled, "no lane"))
        }
        completion(.failure(error))
    }

    private func finish() -> ((Result<EstablishedConnection, AgentHandshakeError>) -> Void)? {
        timer?.cancel()
        timer = nil
        defer { completion = nil }
        return completion
    }
}

extension AgentHandshake: HTTPClientHandler {
    func clientInformational(_ head: ResponseHead) {}

    func clientResponded(_ head: ResponseHead) {
        refusalStatus = Int(head.status)
        retryAfter = head.fields.text("Retry-After").flatMap { Int($0) }.map { min(max($0, 0), 3_600) }
        // These are the gateway's own words, whoever stands in between.
        if ![401, 403, 409, 429, 503].contains(refusalStatus) {
            fail(
                .notUpgraded(
                    "the gateway's address answered \(refusalStatus) instead of opening a lane", status: refusalStatus))
        }
    }

    func clientReceived(_ body: ByteBuffer) {
        if refusalText.readableBytes < 1_024 { refusalText.writeImmutableBuffer(body) }
    }

    func clientEnded(trailers: HeaderBlock?) {
        let text = cut(String(buffer: refusalText), to: 300).split(whereSeparator: \.isNewline).first.map(String.init)
        fail(
            .refused(
                TunnelRefusal(
                    status: refusalStatus, reason: text ?? "the gateway refuses this agent", retryAfter: retryAfter)))
    }

    func clientUpgraded(_ head: ResponseHead, transport: any ByteTransport) {
        guard completion != nil else { return transport.abort(TransportError(.cancelled, "no lane")) }
        self.transport = transport
        if request.usesWebSocket {
            do { try WebSocketHandshake.verify(head, key: webSocketKey) } catch {
                return fail(.notUpgraded(error.message, status: nil))
            }
            // The lane pings itself.
            let webSocket = WebSocketConnection(transport: transport, role: .client, wheel: wheel)
            self.transport = WebSocketByteTransport(webSocket)
        } else if !head.fields.contains(.upgrade, token: TunnelWire.upgradeToken) {
            return fail(.notUpgraded("the gateway's address switched to another protocol", status: nil))
        }
        var bytes = ByteBuffer()
        bytes.writeTunnelFrame(.hello(request.hello.json()))
        self.transport?.delegate = self
        self.transport?.write(bytes)
    }

    func clientFailed(_ failure: HTTPClientFailure) {
        fail(.notUpgraded("the connection ended before it was upgraded: \(failure.cause.message)", status: nil))
    }

    func clientWritabilityChanged(_ isWritable: Bool) {}
}

extension AgentHandshake: ByteTransportDelegate {
    func transportReceived(_ bytes: ByteBuffer) {
        do {
            guard let frame = try reader.receive(bytes) else { return }
            guard case .welcome(let json) = frame else {
                throw TransportError(.protocolViolation, "the gateway's first frame was no WELCOME")
            }
            switch try GatewayAnswer(json: json) {
            case .refused(let refusal): fail(.refused(refusal))
            case .welcome(let welcome):
                guard let transport, let completion = finish() else { return }
                transport.delegate = nil
                completion(
                    .success(EstablishedConnection(transport: transport, welcome: welcome, rest: reader.rest)))
            }
        } catch let refusal as TunnelRefusal {
            fail(.broken(TransportError(.protocolViolation, refusal.reason)))
        } catch {
            fail(.broken(error as? TransportError ?? TransportError(.protocolViolation, "\(error)")))
        }
    }

    func transportInputClosed() {
        fail(.broken(TransportError(.reset, "the gateway closed the connection instead of a WELCOME")))
    }

    func transportClosed(_ error: TransportError?) {
        fail(.broken(error ?? TransportError(.reset, "the connection was closed before a WELCOME")))
    }

    func transportWritabilityChanged(_ isWritable: Bool) {}
}
