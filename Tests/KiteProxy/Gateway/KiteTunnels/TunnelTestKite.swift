/// A kite that dials back as Go's kites do, in the tests' process, and visitors for it.
import KiteCore
import KiteDialing
import KiteDnode
import KiteHTTP
import KiteSockJS
import NIOCore
import NIOPosix
import Synchronization

@testable import KiteGateway

/// Knows one token and one kite key.
struct WordAuthenticator: KiteAuthenticator {
    func authenticate(_ authentication: Authentication?, for kite: KiteIdentity) async throws(KiteError) -> String {
        switch authentication {
        case .token("good-\(kite.name)"), .kiteKey("key"): return "visitor"
        case nil: throw KiteError(.authentication, "No authentication information is provided")
        default: throw KiteError(.authentication, "token: token is expired")
        }
    }
}

/// The kite: the gateway's word is its law, and whoever comes through its tunnel is believed. Says back what it hears, after `>`.
final class TunnelTestKite: KiteCaller {
    enum Behaviour: Sendable {
        case dialsBack
        /// Answers, and does not dial.
        case forgets
        /// Never answers.
        case isSilent
        case refuses
    }
    let identity: KiteIdentity
    let callTimeout = Duration.seconds(10)
    /// The URLs that it was given.
    let urls = Mutex<[String]>([])
    let channels = Mutex<[any MessageChannel]>([])
    private let behaviour: Behaviour
    private let serve: @Sendable (any MessageChannel) async throws -> Void

    init(
        id: String = "0e1d7b54-0000-4000-8000-00000000000f", user: String = "owner",
        _ behaviour: Behaviour = .dialsBack,
        serve: @escaping @Sendable (any MessageChannel) async throws -> Void = TunnelTestKite.echo
    ) {
        identity = KiteIdentity(name: "math", username: user, id: id, environment: "dev", version: "1.0.0")
        self.behaviour = behaviour
        self.serve = serve
    }

    static let echo: @Sendable (any MessageChannel) async throws -> Void = { channel in
        while let message = try await channel.receive() {
            try await channel.send(ByteBuffer(string: ">" + String(buffer: message)))
        }
    }

    func call(_ method: String, arguments: [DnodeValue], timeout: Duration?) async throws -> DnodeValue {
        guard method == "kite.tunnel", let url = arguments.first?["url"]?.string else {
            throw KiteError(.methodNotFound, "Method not found: \(method)")
        }
        urls.withLock { $0.append(url) }
        switch behaviour {
        case .forgets: return .null
        case .isSilent: try await Task.sleep(for: .seconds(60))
        case .refuses: throw KiteError(.generic, "no tunnels today")
        case .dialsBack:
            // As far away as a real kite: the gateway no longer waits for the answer once it has the connection.
            let serve = serve
            let channel = try await Task { try await dialTunnel(url) }.value
            channels.withLock { $0.append(channel) }
            Task { try? await serve(channel) }
        }
        return .null
    }
}

/// Dials a tunnel URL. The client chooses the SockJS session itself, which no gateway looks at.
func dialTunnel(_ url: String) async throws -> any MessageChannel {
    guard let tunnel = url.firstRange(of: "/tunnel/"), let query = url.firstIndex(of: "?") else {
        throw KiteError(.argument, "no tunnel URL: \(url)")
    }
    return try await SockJSClient.connect(
        url: String(url[..<tunnel.lowerBound]) + "/tunnel" + String(url[query...]), transport: .webSocket,
        on: testGroup.next(),
        dialer: try Dialer())
}

/// A visitor's side of a session.
func visit(
    _ url: String, _ transport: SockJSTransport = .webSocket, fields: HeaderBlock = HeaderBlock()
) async throws -> any MessageChannel {
    try await SockJSClient.connect(
        url: url, transport: transport, fields: fields, on: testGroup.next(), dialer: try Dialer())
}

/// A method call as a client sends it, with credentials or without.
func call(_ method: String = "square", id: Int = 0, _ type: String = "", _ key: String = "") -> String {
    let authentication = type.isEmpty ? "null" : #"{"type":"\#(type)","key":"\#(key)"}"#
    return
        #"{"method":"\#(method)","arguments":[{"kite":null,"authentication":\#(authentication),"responseCallback":"[Function]","withArgs":null}],"callbacks":{"\#(id)":[0,"responseCallback"]}}"#
}

extension MessageChannel {
    func send(_ text: String) async throws { try await send(ByteBuffer(string: text)) }
    /// The next message; nil at the end, whatever the end is.
    func next() async -> String? {
        guard let message = try? await receive() else { return nil }
        return String(buffer: message)
    }
}
