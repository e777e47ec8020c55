/// The settings for kites that dial back for each visitor, as Go's kites do.
import KiteCommand
import KiteCore
import NIOCore

extension GatewaySettings {
    static let kiteTunnels = Setting<Bool>.single(
        "kite-tunnels", .flag, default: true,
        meaning: "Whether kites may register that dial back for each visitor (`kite.tunnel`)")
    static let publicKites = Setting<[String]>.list(
        "public-kite", .kiteQuery, default: [],
        meaning:
            "Kites that dial back and that anybody may visit; others' visitors need a token or kite key, unless their owner says otherwise"
    )
    static let kiteSessions = Setting<Int>.single(
        "max-kite-sessions", .integer(1...1_000_000), default: 16_384,
        meaning: "Visitors' sessions with kites that dial back", atLimit: "further sessions are closed at once")
    static let sessionsPerKite = Setting<Int>.single(
        "max-sessions-per-kite", .integer(1...1_000_000), default: 2048,
        meaning: "Visitors' sessions with one kite that dials back", atLimit: "further sessions are closed at once")
    static let pendingKiteSessions = Setting<Int>.single(
        "max-pending-kite-sessions", .integer(1...1_000_000), default: 1024,
        meaning: "Sessions whose kite is to dial back and has not yet", atLimit: "further sessions are closed")
    static let messageBytes = Setting<Int>.single(
        "max-message", .bytes(1024...(1 << 28)), default: 16 << 20,
        meaning: "Size of a message between a visitor and a kite that dials back",
        atLimit: "the session is closed (1009)")
    static let admissionTime = Setting<TimeAmount>.single(
        "admission-time", .time(.seconds(1) ... .hours(24)), default: .seconds(120),
        meaning: "Until a visitor of a kite that dials back has shown a token or kite key",
        atLimit: "the session is closed")
    static let dialBackTime = Setting<TimeAmount>.single(
        "dial-back-time", .time(.milliseconds(100) ... .minutes(10)), default: .seconds(15),
        meaning: "Until a kite has dialled back", atLimit: "the session is closed")
}

extension ValueType where Value == String {
    /// Which kites: a query of Kontrol such as `/user/environment/name`.
    static var kiteQuery: Self {
        ValueType(placeholder: "QUERY", range: "a query such as `/user/environment/name`") {
            (text) throws(InvalidValue) in
            guard (try? KontrolQuery(parsing: text)) != nil else {
                throw InvalidValue("a query that begins with a user, such as `/user/environment/name`")
            }
            return text
        } describe: {
            "`\($0)`"
        }
    }
}
