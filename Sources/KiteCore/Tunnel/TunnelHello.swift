/// The first frame each side sends on every connection, as JSON: who the agent is and what it wants, and what the gateway
/// gives. Control plane, once per connection.
import Foundation
import KiteSupport
package import NIOCore

/// What an agent says first. JSON of a HELLO frame, at most 16 KiB.
package struct AgentHello: Sendable, Hashable {
    /// What the connection is for.
    package enum Purpose: Sendable, Hashable {
        /// A new session with these tunnels; this connection is its first lane.
        case open([TunnelRequest])
        /// A further lane of a session.
        case join(session: String, secret: SessionSecret)
        /// Goes on with a lane whose connection was lost. `received`: how many sequenced frames the agent has had.
        case resume(session: String, secret: SessionSecret, lane: Int, received: UInt64)
    }
    /// The wire's version: ``TunnelWire/version``.
    package var version: Int
    /// Random, the same for the life of the agent's process; 8 to 64 characters of `[A-Za-z0-9_-]`.
    package var agent: String
    /// Grows with each session of the agent: a session with a higher epoch supersedes one with a lower.
    package var epoch: UInt64
    /// Name and version of the agent's software, at most 128 bytes. For the operator.
    package var software: String
    /// What the connection is for.
    package var purpose: Purpose
    /// Whether NOTE frames are wanted.
    package var wantsNotes: Bool

    package init(
        version: Int = TunnelWire.version, agent: String, epoch: UInt64, software: String, purpose: Purpose,
        wantsNotes: Bool = false
    ) {
        self.version = version
        self.agent = agent
        self.epoch = epoch
        self.software = software
        self.purpose = purpose
        self.wantsNotes = wantsNotes
    }
}

/// What a tunnel leads to.
public enum TunnelKind: String, Sendable, Hashable, Codable, CaseIterable {
    /// An HTTP service.
    case http
    /// A TCP service; it gets a port of its own at the gateway.
    case tcp
    /// A kite.
    case kite
}

/// A tunnel that an agent wants.
public struct TunnelRequest: Sendable, Hashable, Codable {
    /// The name it is to be reachable by; nil: the gateway gives one. A DNS label: 1 to 63 of `[a-z0-9-]`.
    public var name: String?
    /// What is behind it.
    public var kind: TunnelKind
    /// Of a kite: its id, a UUID.
    public var kiteID: String?
    /// Of a kite: its name.
    public var kiteName: String?
    /// Of a kite: its version.
    public var kiteVersion: String?
    /// Of a kite: the path it is served at, such as `/kite`.
    public var path: String?
    /// Whether it may be reached without signing in. Nil: the gateway's policy.
    public var isPublic: Bool?

    public init(
        name: String? = nil, kind: TunnelKind, kiteID: String? = nil, kiteName: String? = nil,
        kiteVersion: String? = nil, path: String? = nil, isPublic: Bool? = nil
    ) {
        self.name = name
        self.kind = kind
        self.kiteID = kiteID
        self.kiteName = kiteName
        self.kiteVersion = kiteVersion
        self.path = path
        self.isPublic = isPublic
    }

    private enum CodingKeys: String, CodingKey {
        case name, kind, kiteID = "kite", kiteName, kiteVersion, path, isPublic = "public"
    }
}

/// What the gateway answers. JSON of a WELCOME frame.
package enum GatewayAnswer: Sendable, Hashable {
    case welcome(GatewayWelcome)
    /// The connection is closed after it.
    case refused(TunnelRefusal)
}

/// An accepted connection.
package struct GatewayWelcome: Sendable, Hashable, Codable {
    package var version: Int = TunnelWire.version
    /// The session's id.
    package var session: String
    /// Proves the right to join and to resume. Belongs in no log.
    package var secret: SessionSecret
    /// The lane's number within the session.
    package var lane: Int
    /// How many lanes the gateway wants of a session: one per event loop.
    package var lanes: Int
    /// Which of the gateway's loops the connection is on, from 0.
    package var loop: Int
    /// The loop has a lane of this session already: the agent closes this one and may try again.
    package var isSurplus: Bool
    /// One per tunnel asked for, in that order; empty when joining or resuming.
    package var tunnels: [TunnelGrant]
    /// The most streams open at a time.
    package var maximumStreams: Int
    /// Milliseconds between pings of the gateway.
    package var pingInterval: Int
    /// How long the gateway keeps a lane without connection, in milliseconds; 0: lanes are not resumed.
    package var resumeWindow: Int
    /// When resuming: how many sequenced frames the gateway has had of the lane.
    package var received: UInt64?

    package init(
        session: String, secret: SessionSecret, lane: Int, lanes: Int, loop: Int, isSurplus: Bool = false,
        tunnels: [TunnelGrant] = [], maximumStreams: Int = 16_384, pingInterval: Int = 5_000,
        resumeWindow: Int = 30_000, received: UInt64? = nil
    ) {
        self.session = session
        self.secret = secret
        self.lane = lane
        self.lanes = lanes
        self.loop = loop
        self.isSurplus = isSurplus
        self.tunnels = tunnels
        self.maximumStreams = maximumStreams
        self.pingInterval = pingInterval
        self.resumeWindow = resumeWindow
        self.received = received
    }

    private enum CodingKeys: String, CodingKey {
        case version, session, secret, lane, lanes, loop, isSurplus = "surplus", tunnels, maximumStreams = "streams"
        case pingInterval = "ping", resumeWindow = "resume", received
    }
}

/// What became of a tunnel that was asked for: a URL, or why not.
public struct TunnelGrant: Sendable, Hashable, Codable {
    /// The name it has.
    public var name: String
    /// Where it is reached from outside; nil when it was refused.
    public var url: String?
    /// Of a tcp tunnel: the gateway's port.
    public var port: Int?
    /// Why this tunnel is not served.
    public var refusal: TunnelRefusal?

    public init(name: String, url: String? = nil, port: Int? = nil, refusal: TunnelRefusal? = nil) {
        self.name = name
        self.url = url
        self.port = port
        self.refusal = refusal
    }

    private enum CodingKeys: String, CodingKey { case name, url, port, refusal = "error" }
}

/// Why a gateway does not serve an agent or one of its tunnels.
public struct TunnelRefusal: Error, Sendable, Hashable, Codable, CustomStringConvertible {
    /// 400 the wire was broken, 401 not authenticated, 403 not allowed, 404 no such session, 409 the name belongs to another user, 421
    /// another loop or gateway, 429 too many, 503 going away.
    public var status: Int
    /// A sentence that tells the agent's user what to do.
    public var reason: String
    /// Seconds to wait before trying again, where the gateway has an opinion.
    public var retryAfter: Int?

    public init(status: Int, reason: String, retryAfter: Int? = nil) {
        self.status = status
        self.reason = reason
        self.retryAfter = retryAfter
    }

    /// Trying again with the same key and names leads nowhere.
    public var isFinal: Bool { [400, 401, 403, 409].contains(status) }
    public var description: String { "\(reason) (\(status))" }
}

/// The secret of a session: 32 random bytes as hex. Compares in constant time and prints as nothing.
package struct SessionSecret: Sendable, Hashable, Codable, CustomStringConvertible, CustomDebugStringConvertible {
    /// As it stands on the wire.
    package let text: String

    package init(text: String) { self.text = text }

    /// A new secret from the system's random source.
    package static func random() -> SessionSecret {
        var generator = SystemRandomNumberGenerator()
        return SessionSecret(text: (0..<4).map { _ in hex(generator.next()) }.joined())
    }

    package init(from decoder: any Decoder) throws { text = try decoder.singleValueContainer().decode(String.self) }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(text)
    }

    package static func == (left: SessionSecret, right: SessionSecret) -> Bool {
        SecureCompare.equal(left.text, right.text)
    }

    package var description: String { "(secret)" }
    package var debugDescription: String { "(secret)" }
}

/// 16 digits.
func hex(_ value: UInt64) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 16 - digits.utf8.count) + digits
}

// MARK: JSON

extension AgentHello: Codable {
    private enum CodingKeys: String, CodingKey {
        case version, agent, epoch, software, tunnels, join, resume, wantsNotes = "notes"
    }
    private struct Join: Codable {
        var session: String
        var secret: SessionSecret
    }
    private struct Resume: Codable {
        var session: String
        var secret: SessionSecret
        var lane: Int
        var received: UInt64
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        version = try container.decode(Int.self, forKey: .version)
        agent = try container.decode(String.self, forKey: .agent)
        epoch = try container.decode(UInt64.self, forKey: .epoch)
        software = try container.decodeIfPresent(String.self, forKey: .software) ?? ""
        wantsNotes = try container.decodeIfPresent(Bool.self, forKey: .wantsNotes) ?? false
        let tunnels = try container.decodeIfPresent([TunnelRequest].self, forKey: .tunnels)
        let join = try container.decodeIfPresent(Join.self, forKey: .join)
        let resume = try container.decodeIfPresent(Resume.self, forKey: .resume)
        switch (tunnels, join, resume) {
        case (let tunnels?, nil, nil): purpose = .open(tunnels)
        case (nil, let join?, nil): purpose = .join(session: join.session, secret: join.secret)
        case (nil, nil, let resume?):
            purpose = .resume(
                session: resume.session, secret: resume.secret, lane: resume.lane, received: resume.received)
        default:
            throw DecodingError.dataCorrupted(
                .init(codingPath: [], debugDescription: "exactly one of tunnels, join, resume is needed"))
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(version, forKey: .version)
        try container.encode(agent, forKey: .agent)
        try container.encode(epoch, forKey: .epoch)
        try container.encode(software, forKey: .software)
        if wantsNotes { try container.encode(true, forKey: .wantsNotes) }
        switch purpose {
        case .open(let tunnels): try container.encode(tunnels, forKey: .tunnels)
        case .join(let session, let secret):
            try container.encode(Join(session: session, secret: secret), forKey: .join)
        case .resume(let session, let secret, let lane, let received):
            try container.encode(
                Resume(session: session, secret: secret, lane: lane, received: received), forKey: .resume)
        }
    }
}

extension GatewayAnswer: Codable {
    private enum CodingKeys: String, CodingKey { case refusal = "error" }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        if let refusal = try container.decodeIfPresent(TunnelRefusal.self, forKey: .refusal) {
            self = .refused(refusal)
        } else {
            self = .welcome(try GatewayWelcome(from: decoder))
        }
    }

    package func encode(to encoder: any Encoder) throws {
        switch self {
        case .welcome(let welcome): try welcome.encode(to: encoder)
        case .refused(let refusal):
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(refusal, forKey: .refusal)
        }
    }
}

extension AgentHello {
    /// Reads the payload of a HELLO frame.
    /// - Throws: ``TunnelRefusal`` (400) with what is wrong.
    package init(json: ByteBuffer) throws(TunnelRefusal) {
        self = try decodeJSON(json, as: AgentHello.self, what: "HELLO")
        try check()
    }

    /// The payload of a HELLO frame.
    package func json() -> ByteBuffer { encodeJSON(self) }

    private func check() throws(TunnelRefusal) {
        func refuse(_ what: String) -> TunnelRefusal { TunnelRefusal(status: 400, reason: "HELLO: \(what)") }
        guard version == TunnelWire.version else {
            throw refuse("wire version \(version) is not spoken here, \(TunnelWire.version) is")
        }
        guard Self.isIdentifier(agent) else { throw refuse("agent must be 8 to 64 of A-Z a-z 0-9 _ -") }
        guard software.utf8.count <= 128 else { throw refuse("software is longer than 128 bytes") }
        switch purpose {
        case .open(let tunnels):
            guard (1...Self.mostTunnels).contains(tunnels.count) else {
                throw refuse("1 to \(Self.mostTunnels) tunnels can be asked for")
            }
            for tunnel in tunnels { try tunnel.check() }
        case .join(let session, let secret):
            guard Self.isIdentifier(session), secret.text.utf8.count <= 128 else { throw refuse("malformed join") }
        case .resume(let session, let secret, let lane, _):
            guard Self.isIdentifier(session), secret.text.utf8.count <= 128, lane >= 0 else {
                throw refuse("malformed resume")
            }
        }
    }

    /// The most tunnels of a session.
    static let mostTunnels = 64

    private static func isIdentifier(_ text: String) -> Bool {
        (8...64).contains(text.utf8.count)
            && text.utf8.allSatisfy {
                (0x30...0x39).contains($0) || (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0) || $0 == 0x2D
                    || $0 == 0x5F
            }
    }
}

extension TunnelRequest {
    /// - Throws: ``TunnelRefusal`` (400) with what a HELLO can't say.
    func check() throws(TunnelRefusal) {
        if let name, !(1...63).contains(name.utf8.count) {
            throw TunnelRefusal(status: 400, reason: "'\(cut(name, to: 80))': a tunnel's name has 1 to 63 characters")
        }
        let texts = [kiteID, kiteName, kiteVersion, path]
        guard texts.allSatisfy({ ($0?.utf8.count ?? 0) <= 1_024 }) else {
            throw TunnelRefusal(
                status: 400, reason: "'\(name ?? kind.rawValue)': a text of the tunnel is longer than 1,024 bytes")
        }
    }
}

extension GatewayAnswer {
    /// Reads the payload of a WELCOME frame.
    /// - Throws: ``TunnelRefusal`` (400) with what is wrong.
    package init(json: ByteBuffer) throws(TunnelRefusal) {
        self = try decodeJSON(json, as: GatewayAnswer.self, what: "WELCOME")
        if case .welcome(let welcome) = self {
            guard welcome.version == TunnelWire.version, (1...4_096).contains(welcome.lanes), welcome.lane >= 0,
                (1...TunnelWire.slots).contains(welcome.maximumStreams), welcome.pingInterval >= 100
            else { throw TunnelRefusal(status: 400, reason: "WELCOME: a value is out of range") }
        }
    }

    /// The payload of a WELCOME frame.
    package func json() -> ByteBuffer { encodeJSON(self) }
}

private func decodeJSON<Value: Decodable>(
    _ json: ByteBuffer, as type: Value.Type, what: String
) throws(TunnelRefusal) -> Value {
    guard json.readableBytes <= TunnelWire.maximumPayload else {
        throw TunnelRefusal(status: 400, reason: "\(what) is longer than \(TunnelWire.maximumPayload) bytes")
    }
    do { return try JSONDecoder().decode(type, from: Data(json.readableBytesView)) } catch {
        throw TunnelRefusal(status: 400, reason: "\(what) is not the JSON it should be")
    }
}

private func encodeJSON(_ value: some Encodable) -> ByteBuffer {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    guard let data = try? encoder.encode(value) else { return ByteBuffer() }
    return ByteBuffer(bytes: data)
}
